//! Makes one spelling of many before lexing: Unicode signs become LaTeX or ASCII, doubled backslashes single ones, and
//! wrapping that means nothing goes.

use std::borrow::Cow;

use super::layout;

/// Signs and what they are read as.
const SIGNS: &[(char, &str)] = &[
    ('−', "-"),
    ('–', "-"),
    ('—', "-"),
    ('‐', "-"),
    ('×', "\\times "),
    ('·', "\\cdot "),
    ('⋅', "\\cdot "),
    ('∙', "\\cdot "),
    ('÷', "\\div "),
    ('∕', "/"),
    ('≤', "\\le "),
    ('≥', "\\ge "),
    ('≠', "\\ne "),
    ('≈', "\\approx "),
    ('≡', "\\equiv "),
    ('±', "\\pm "),
    ('∓', "\\mp "),
    ('∞', "\\infty "),
    ('√', "\\sqrt "),
    ('π', "\\pi "),
    ('∪', "\\cup "),
    ('∩', "\\cap "),
    ('∖', "\\setminus "),
    ('∅', "\\emptyset "),
    ('∈', "\\in "),
    ('°', "^{\\circ}"),
    ('º', "^{\\circ}"),
    ('˚', "^{\\circ}"),
    ('″', "''"),
    ('⁄', "/"),
    ('ℝ', "\\mathbb{R}"),
    ('⟨', "\\langle "),
    ('⟩', "\\rangle "),
    ('⌊', "\\lfloor "),
    ('⌋', "\\rfloor "),
    ('⌈', "\\lceil "),
    ('⌉', "\\rceil "),
    ('∑', "\\sum "),
    ('∫', "\\int "),
    ('∏', "\\prod "),
    ('½', "\\frac{1}{2}"),
    ('⅓', "\\frac{1}{3}"),
    ('⅔', "\\frac{2}{3}"),
    ('¼', "\\frac{1}{4}"),
    ('¾', "\\frac{3}{4}"),
    ('⅕', "\\frac{1}{5}"),
    ('⅙', "\\frac{1}{6}"),
    ('⅛', "\\frac{1}{8}"),
    ('α', "\\alpha "),
    ('β', "\\beta "),
    ('γ', "\\gamma "),
    ('θ', "\\theta "),
    ('λ', "\\lambda "),
    ('μ', "\\mu "),
    ('φ', "\\phi "),
    ('′', "'"),
    ('’', "'"),
    ('‘', "'"),
    ('“', ""),
    ('”', ""),
    ('"', ""),
    ('…', "\\ldots "),
    ('（', "("),
    ('）', ")"),
    ('，', ","),
    ('：', ":"),
    ('％', "%"),
];

/// Superscript digits stand at their own value here.
const SUPERSCRIPTS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/// `text` in the spelling that the lexer reads.
pub(crate) fn clean(text: &str) -> String {
    let text = strip(text);
    let text = unbrace(halve(text));
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        let unprinted = if c == '\\' { layout::unprinted(rest) } else { 0 };
        if unprinted > 0 {
            out.push(' ');
            rest = &rest[unprinted..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            // A dollar sign with a backslash is money; one without delimits mathematics.
            '\\' if rest.starts_with('$') => {
                rest = &rest[1..];
                out.push('$');
            }
            '\\' => {
                // What stands behind a backslash belongs to it, another backslash too.
                let next = rest.chars().next().filter(char::is_ascii);
                out.push('\\');
                out.extend(next);
                rest = &rest[next.map_or(0, char::len_utf8)..];
            }
            '$' => out.push(' '),
            _ if is_invisible(c) => out.push(' '),
            _ if c.is_ascii() => out.push(c),
            _ => push_sign(c, &mut rest, &mut out),
        }
    }
    out
}

/// Without braces around one sign, which only space it: `0{.}5`, `\mathopen{]}`.
fn unbrace(text: Cow<str>) -> Cow<str> {
    [("{.}", "."), ("{]}", "]"), ("{[}", "[")].into_iter().fold(text, |text, (braced, sign)| {
        match text.contains(braced) {
            true => Cow::Owned(text.replace(braced, sign)),
            false => text,
        }
    })
}

/// Characters of no width, which only direct how others are set.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

fn push_sign(c: char, rest: &mut &str, out: &mut String) {
    if matches!(c, '²' | '³') && is_metre(out) {
        out.truncate(out.len() - 1);
        out.push_str("\\text{m}");
    }
    if superscript(c).is_some() || (c == '⁻' && rest.chars().next().and_then(superscript).is_some()) {
        out.push_str("^{");
        out.push(superscript(c).unwrap_or('-'));
        let digits = rest.len() - rest.trim_start_matches(|c| superscript(c).is_some()).len();
        let (digits, behind) = rest.split_at(digits);
        out.extend(digits.chars().filter_map(superscript));
        *rest = behind;
        out.push('}');
    } else if let Some((_, spelled)) = SIGNS.iter().find(|(sign, _)| *sign == c) {
        out.push_str(spelled);
    } else if c.is_whitespace() {
        out.push(' ');
    } else if let Some(digit) = c.to_digit(10).or_else(|| fullwidth(c)).and_then(|digit| char::from_digit(digit, 10)) {
        out.push(digit);
    } else {
        out.push(c);
    }
}

/// Whether a text ends with a number of metres, as `1,000.99m²` without its last sign does.
fn is_metre(text: &str) -> bool {
    text.strip_suffix('m').is_some_and(|number| number.trim_end().ends_with(|c: char| c.is_ascii_digit()))
}

fn superscript(c: char) -> Option<char> {
    let position = SUPERSCRIPTS.chars().position(|digit| digit == c)?;
    char::from_digit(u32::try_from(position).ok()?, 10)
}

fn fullwidth(c: char) -> Option<u32> {
    u32::from(c).checked_sub(0xff10).filter(|digit| *digit < 10)
}

/// Without white space, Markdown's emphasis and quotes around it, and punctuation behind it.
fn strip(text: &str) -> &str {
    let mut text = text;
    loop {
        let before = text.len();
        text = text.trim().trim_matches(['`', '"', '“', '”']);
        // A thin space, `\,`, goes as a whole.
        text = text.trim_end_matches([',', ';', '。']).trim_end_matches('\\');
        text = text.strip_prefix("**").and_then(|text| text.strip_suffix("**")).unwrap_or(text);
        text = text.strip_suffix('.').filter(|text| !text.ends_with('.')).unwrap_or(text);
        if text.len() == before {
            return text;
        }
    }
}

/// A text that went through one escaping too many has every backslash twice: `\\frac{1}{2}`.
fn halve(text: &str) -> Cow<'_, str> {
    let (mut even, mut command, mut rest) = (true, false, text);
    while let Some(at) = rest.find('\\') {
        let tail = &rest[at..];
        let run = tail.len() - tail.trim_start_matches('\\').len();
        rest = &tail[run..];
        even &= run % 2 == 0;
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        command |= run == 2 && letters >= 2;
    }
    if even && command { Cow::Owned(text.replace("\\\\", "\\")) } else { Cow::Borrowed(text) }
}
