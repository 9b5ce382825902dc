//! Answers in words: one spelling of each, and the few phrases that mean the same.

use std::borrow::Cow;

use super::token;

/// Phrases of one meaning, in the form of [`plain`].
const SYNONYMS: &[&[&str]] = &[
    &["undefined", "dne", "doesnotexist", "notdefined", "limitdoesnotexist", "thelimitdoesnotexist"],
    &["infinitelymany", "infinitelymanysolutions"],
];

/// What words may stand for beside themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phrase {
    Infinity,
    /// The set of real numbers.
    Reals,
    /// The set of nothing, as the solutions of what has none.
    Nothing,
}

/// What a text in the form of [`plain`] stands for.
pub(crate) fn phrase(text: &str) -> Option<Phrase> {
    Some(match text {
        "infinity" => Phrase::Infinity,
        "allreals" | "allrealnumbers" | "realnumbers" => Phrase::Reals,
        "nosolution"
        | "nosolutions"
        | "norealsolution"
        | "norealsolutions"
        | "none"
        | "thereisnosolution"
        | "therearenosolutions"
        | "nosolutionexists"
        | "nosolutionsexist" => Phrase::Nothing,
        _ => return None,
    })
}

/// Numbers in words.
const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// The number that a text in the form of [`plain`] says in a word.
pub(crate) fn number_word(text: &str) -> Option<i64> {
    (0..).zip(NUMBERS).find(|(_, word)| *word == text).map(|(number, _)| number)
}

/// `text` without commands for type, white space, brackets around one letter, and case.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let name = &rest[..letters];
            rest = &rest[letters..];
            if !(name.is_empty() || token::is_text(name) || token::is_layout(name)) {
                out.push('\\');
                out.push_str(name);
            }
        } else if c == '.' && !rest.starts_with(|next: char| next.is_ascii_digit()) {
            // `a.m.` is `am`; only a decimal point means something.
        } else if !(c.is_whitespace() || matches!(c, '{' | '}' | '$' | '"' | '*' | '`' | '~')) {
            out.extend(c.to_lowercase());
        }
    }
    let out = out.trim_matches(['.', ',', ';', ':', '!']).to_string();
    match out.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) if inner.chars().count() == 1 => inner.to_string(),
        _ => out,
    }
}

/// Whether two texts, both [`plain`], say the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    let meaning = |text: &str| -> Cow<'static, str> {
        let known = SYNONYMS.iter().find(|phrases| phrases.contains(&text));
        known.map_or_else(|| Cow::Owned(text.to_string()), |phrases| Cow::Borrowed(phrases[0]))
    };
    !a.is_empty() && meaning(a) == meaning(b)
}
