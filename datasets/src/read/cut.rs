//! Where in the answer column the reference answer stands: some datasets give a whole solution that ends with it.

use serde::{Deserialize, Serialize};

/// What of the answer column is the reference answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// All of it.
    Whole,
    /// What follows the last `####`, as in GSM8K; commas between digits are dropped.
    Hashes,
    /// What the last `\boxed{}` holds, as in MATH.
    Boxed,
}

impl Cut {
    /// The cut that fits `text`, the first answer of a file.
    pub(super) fn of(text: &str) -> Self {
        [Self::Hashes, Self::Boxed].into_iter().find(|cut| cut.apply(text).is_some()).unwrap_or(Self::Whole)
    }

    /// The reference answer in `text`, trimmed; none where the mark is missing.
    pub(super) fn apply(self, text: &str) -> Option<String> {
        match self {
            Self::Whole => Some(text.trim().to_owned()),
            Self::Hashes => text.rsplit_once("####").map(|(_, answer)| without_commas(answer.trim())),
            Self::Boxed => last_box(text).map(|answer| answer.trim().to_owned()),
        }
    }

    /// The mark that [`Cut::apply`] looks for.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Hashes => "####",
            Self::Boxed => "\\boxed{}",
        }
    }
}

/// `1,234` as `1234`; other commas stay.
fn without_commas(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let digit = |at: usize| letters.get(at).is_some_and(char::is_ascii_digit);
    let between = |at: usize| at > 0 && digit(at - 1) && digit(at + 1);
    letters.iter().enumerate().filter(|&(at, &c)| c != ',' || !between(at)).map(|(_, c)| c).collect()
}

/// What the last box holds: `\boxed{4}` with matching braces, spaces before them or none, or `\boxed 4`, which ends
/// with its formula.
fn last_box(text: &str) -> Option<&str> {
    let starts = ["\\boxed", "\\fbox"].into_iter().flat_map(|word| text.match_indices(word));
    let behind = starts.map(|(at, word)| at + word.len()).filter(|&at| text[at..].starts_with(['{', ' ', '\t', '\n']));
    let behind = behind.max()?;
    let inner = text[behind..].trim_start();
    let Some(braced) = inner.strip_prefix('{') else {
        return inner.split(['$', '\n']).next().filter(|answer| !answer.trim().is_empty());
    };
    let start = text.len() - braced.len();
    let mut depth = 1usize;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            // `\{` and `\}` are printed braces.
            _ if escaped => {}
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
        if depth == 0 {
            return Some(&text[start..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_cut_where_its_mark_stands() {
        for (cut, text, expected) in [
            (Cut::Hashes, "So 7 + 65 = 72.\n#### 72", Some("72")),
            (Cut::Hashes, "#### 1\n#### 1,234,567 ", Some("1234567")),
            (Cut::Hashes, "#### 3, 4", Some("3, 4")),
            (Cut::Hashes, "72", None),
            (Cut::Boxed, "Thus $\\boxed{\\frac{1}{2}}$.", Some("\\frac{1}{2}")),
            (Cut::Boxed, "\\boxed{1} or \\fbox{ 2 }", Some("2")),
            (Cut::Boxed, "\\boxed{\\{1, 2\\}}", Some("\\{1, 2\\}")),
            (Cut::Boxed, "\\boxed{1", None),
            (Cut::Boxed, "so $\\boxed 3$.", Some("3")),
            (Cut::Boxed, "\\boxed $", None),
            (Cut::Boxed, "Thus \\boxed {42}.", Some("42")),
            (Cut::Boxed, "Thus $\\boxed  { \\frac {1}{2} }$, as said.", Some("\\frac {1}{2}")),
            (Cut::Boxed, "\\boxed\n{42}", Some("42")),
            (Cut::Boxed, "\\fbox {42}.", Some("42")),
            (Cut::Boxed, "\\boxed {1} and \\boxed{2}.", Some("2")),
            (Cut::Boxed, "\\boxed {4", None),
            (Cut::Boxed, "\\boxed", None),
            (Cut::Boxed, "\\boxedsection", None),
            (Cut::Boxed, "\\boxed{3} and \\boxedx", Some("3")),
            (Cut::Whole, " a\nb ", Some("a\nb")),
        ] {
            assert_eq!(cut.apply(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_first_answer_tells_the_cut() {
        for (text, expected) in
            [("x\n#### 4", Cut::Hashes), ("is $\\boxed{4}$", Cut::Boxed), ("4", Cut::Whole), ("", Cut::Whole)]
        {
            assert_eq!(Cut::of(text), expected, "{text}");
        }
    }
}
