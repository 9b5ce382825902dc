//! Text to words, where no tokenizer is known. Leaves what is counted to the verifiers.

/// Runs of letters, digits and `_`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

/// Whether `c` is part of a word.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, where each character of a script without spaces counts as one.
pub(crate) fn units(text: &str) -> impl Iterator<Item = &str> {
    words(text).flat_map(|word| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            let length = if spaceless(first) { first.len_utf8() } else { rest.find(spaceless).unwrap_or(rest.len()) };
            let (unit, after) = rest.split_at(length);
            rest = after;
            Some(unit)
        })
    })
}

/// Thai, Lao, Burmese, Khmer, kana and Han.
fn spaceless(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_and_characters_of_spaceless_scripts() {
        for (text, expected) in [
            ("It's 3.5 x_1!", vec!["It", "s", "3", "5", "x_1"]),
            ("我爱Rust语言", vec!["我", "爱", "Rust", "语", "言"]),
            ("यह भाषा", vec!["यह", "भाषा"]),
            (" .. ", vec![]),
        ] {
            assert_eq!(units(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
