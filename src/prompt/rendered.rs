//! A prompt as text, and which of its last words are the completion's first: those of the assistant that a row or a
//! template begins with. Who reads them so is left to the caller.

use anyhow::{Result, ensure};

/// Opening tags of thoughts. A template that ends with one has begun the completion.
const THOUGHTS: [&str; 4] = ["<think>", "<thinking>", "<thought>", "<reasoning>"];

/// A prompt as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// All of it.
    pub text: String,
    /// Where the completion begins in `text`: at its end, or before the assistant's words that it ends with.
    begins: usize,
}

impl Rendered {
    /// A prompt that ends with the assistant's words `opening`, which a template may have trimmed, or without them with a
    /// thought that it opens.
    pub(super) fn new(text: String, opening: &str) -> Result<Self> {
        let spellings = [opening, opening.trim_end(), opening.trim_start(), opening.trim()];
        let written = spellings.into_iter().find(|spelling| text.ends_with(spelling));
        ensure!(written.is_some(), "the template does not write the assistant's words {opening:?} as they are");
        let thought = || THOUGHTS.into_iter().find(|tag| text.trim_end().ends_with(tag));
        let begins = match written.filter(|opening| !opening.is_empty()) {
            Some(opening) => text.len() - opening.len(),
            None => thought().map_or(text.len(), |tag| text.trim_end().len() - tag.len()),
        };
        Ok(Self { text, begins })
    }

    /// The start of the completion that stands in the prompt.
    pub fn opening(&self) -> &str {
        &self.text[self.begins..]
    }

    /// The prompt before its opening.
    pub(super) fn without_opening(&self) -> &str {
        &self.text[..self.begins]
    }

    /// The prompt before a whole completion, which may repeat the opening.
    pub fn before(&self, completion: &str) -> &str {
        let repeated = completion.starts_with(self.opening().trim_end());
        if repeated { &self.text[..self.begins] } else { &self.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_knows_where_the_completion_begins() {
        for (text, opening, expected) in [
            ("q", "", ""),
            ("q It is", "It is", "It is"),
            ("q<think>\n", "", "<think>\n"),
            ("q<|assistant|><reasoning>", "", "<reasoning>"),
            ("q<think>\n\n</think>\n\n", "", ""),
            ("q<think>", "ink>", "ink>"),
            ("q It is", " It is\n", " It is"),
            ("<think> tags are asked for. A:", "", ""),
        ] {
            assert_eq!(Rendered::new(text.to_owned(), opening).unwrap().opening(), expected, "{text}");
        }
    }

    #[test]
    fn a_completion_that_repeats_the_opening_stands_behind_what_precedes_it() {
        let rendered = Rendered::new("q<think>\n".to_owned(), "").unwrap();
        assert_eq!(rendered.before("<think>so</think>2"), "q");
        assert_eq!(rendered.before("so</think>2"), "q<think>\n");
        assert_eq!(Rendered::new("q".to_owned(), "").unwrap().before("2"), "q");
        assert!(Rendered::new("q".to_owned(), "It is").is_err());
    }
}
