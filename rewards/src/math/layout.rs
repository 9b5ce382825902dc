//! LaTeX that prints nothing of an answer: invisible copies, struts, spaces with a length, colours, labels. Commands
//! that only space or size what is printed are left to [`super::token`].

/// Commands that print nothing, with how many arguments go with them, sorted.
const UNPRINTED: [(&str, usize); 27] = [
    ("blacksquare", 0),
    ("checkmark", 0),
    ("color", 1),
    ("colorbox", 1),
    ("hphantom", 1),
    ("hspace", 1),
    ("hspace*", 1),
    ("label", 1),
    ("mathclose", 0),
    ("mathopen", 0),
    ("mathstrut", 0),
    ("nonumber", 0),
    ("notag", 0),
    ("phantom", 1),
    ("protect", 0),
    ("qed", 0),
    ("qedsymbol", 0),
    ("raisebox", 1),
    ("relax", 0),
    ("rule", 2),
    ("smash", 0),
    ("strut", 0),
    ("tag", 1),
    ("textcolor", 1),
    ("vphantom", 1),
    ("vspace", 1),
    ("vspace*", 1),
];

/// Commands that a length without braces follows: `\hskip 2pt`.
const SKIPS: [&str; 5] = ["hskip", "kern", "mkern", "mskip", "vskip"];

/// Units of a length.
const LENGTHS: [&str; 8] = ["cm", "em", "ex", "in", "mm", "mu", "pc", "pt"];

/// The bytes at the start of `text`, a backslash, that print nothing; 0 where the command prints or spaces.
pub(crate) fn unprinted(text: &str) -> usize {
    let letters = text[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
    let star = usize::from(letters > 0 && text[1 + letters..].starts_with('*'));
    let name = |star: usize| &text[1..1 + letters + star];
    let known = |star: usize| UNPRINTED.binary_search_by_key(&name(star), |(name, _)| name).ok();
    if let Some((at, star)) = known(star).map(|at| (at, star)).or_else(|| known(0).map(|at| (at, 0))) {
        let mut end = 1 + letters + star;
        for _ in 0..UNPRINTED[at].1 {
            end += argument(&text[end..]);
        }
        return end;
    }
    match name(0) {
        // The other side of a bracket that has none.
        "left" | "right" if text[1 + letters..].starts_with('.') => letters + 2,
        skip if SKIPS.contains(&skip) => 1 + letters + length(&text[1 + letters..]).unwrap_or(0),
        _ => 0,
    }
}

/// The length of `[4pt]` behind the end of a row.
pub(crate) fn row_space(text: &str) -> usize {
    let inside = text.strip_prefix('[').and_then(|inside| inside.split_once(']'));
    inside.filter(|(inside, _)| length(inside) == Some(inside.len())).map_or(0, |(inside, _)| inside.len() + 2)
}

/// The bytes of an argument: a group with its braces, or one character.
fn argument(text: &str) -> usize {
    let bare = text.trim_start_matches(' ');
    let spaces = text.len() - bare.len();
    let mut depth = 0usize;
    for (at, c) in bare.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return 0,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return spaces + at + c.len_utf8();
        }
    }
    text.len()
}

/// The bytes of `2pt` at the start of `text`.
fn length(text: &str) -> Option<usize> {
    let number = text.trim_start_matches(|c: char| c == ' ' || c == '-' || c == '.' || c.is_ascii_digit());
    let unit = LENGTHS.iter().find(|unit| number.starts_with(**unit))?;
    Some(text.len() - number.len() + unit.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(UNPRINTED.is_sorted());
    }

    #[test]
    fn what_prints_nothing_goes_with_its_arguments() {
        for (text, rest) in [
            ("\\phantom{0}12", "12"),
            ("\\phantom 012", "12"),
            ("\\hspace*{1cm}12", "12"),
            ("\\hspace{\\fill{1}}12", "12"),
            ("\\kern-2pt12", "12"),
            ("\\textcolor{red}{12}", "{12}"),
            ("\\left.12", "12"),
            ("\\left(12", "\\left(12"),
            ("\\phantoms{0}", "\\phantoms{0}"),
            ("\\phantom{0", ""),
            ("\\phantom", ""),
            ("\\é", "\\é"),
            ("\\", "\\"),
        ] {
            assert_eq!(&text[unprinted(text)..], rest, "{text}");
        }
    }
}
