//! Prompts to tokens: with the token that every text begins with, once, whether the template has written it or not.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::model::Companions;

/// What a model wants before every text, where its tokenizer does not say so itself: older folders say it beside it.
#[derive(Debug, Clone, Default)]
pub(super) struct Beginning(Option<String>);

impl Beginning {
    /// That of the model with these files.
    pub(super) fn of(companions: &Companions) -> Result<Self> {
        #[derive(Deserialize, Default)]
        struct Beside {
            #[serde(default)]
            add_bos_token: Option<bool>,
            #[serde(default)]
            bos_token: Option<serde_json::Value>,
        }
        let Some(bytes) = companions.file("tokenizer_config.json") else { return Ok(Self::default()) };
        let beside: Beside = serde_json::from_slice(bytes).context("tokenizer_config.json")?;
        let token = beside.bos_token.filter(|_| beside.add_bos_token == Some(true));
        Ok(Self(token.and_then(|token| token.as_str().or(token["content"].as_str()).map(str::to_owned))))
    }

    /// A rendered prompt to tokens.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        let plain = encode_completion(tokenizer, text)?;
        let added = prefix(&ids(tokenizer, text, true)?, &plain);
        let beside = || Some(vec![tokenizer.token_to_id(self.0.as_deref()?)?]);
        let begin = if added.is_empty() { beside().unwrap_or_default() } else { added };
        Ok(if plain.starts_with(&begin) { plain } else { [begin, plain].concat() })
    }
}

/// How a template ends the assistant's turn: with a token that the model has learned, or has to learn, to stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfTurn {
    /// What stands behind the assistant's words, up to the token.
    pub text: String,
    /// The token.
    pub token: u32,
}

impl EndOfTurn {
    /// Up to the first special token of `behind`, which is what a template writes behind the assistant's words.
    pub(super) fn of(tokenizer: &Tokenizer, behind: &str) -> Option<Self> {
        let places =
            special_tokens(tokenizer).filter_map(|(token, text)| Some((behind.find(&text)?, text.len(), token)));
        let (at, length, token) = places.min_by_key(|&(at, length, _)| (at, usize::MAX - length))?;
        Some(Self { text: behind[..at + length].to_owned(), token })
    }
}

/// The special tokens of a tokenizer with their texts.
fn special_tokens(tokenizer: &Tokenizer) -> impl Iterator<Item = (u32, String)> {
    let added = tokenizer.get_added_tokens_decoder();
    added
        .into_iter()
        .filter(|(_, token)| token.special && !token.content.is_empty())
        .map(|(id, token)| (id, token.content))
}

/// What the tokenizer has put before `plain`; what it puts behind a text, such as an end, belongs to no prompt.
fn prefix(whole: &[u32], plain: &[u32]) -> Vec<u32> {
    let at = (0..=whole.len().saturating_sub(plain.len())).find(|&at| whole[at..].starts_with(plain));
    whole[..at.unwrap_or(0)].to_vec()
}

/// A completion to tokens, nothing added.
pub fn encode_completion(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    ids(tokenizer, text, false)
}

fn ids(tokenizer: &Tokenizer, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode(text, add_special_tokens);
    Ok(encoding.map_err(|e| anyhow!("cannot tokenize \"{text}\": {e}"))?.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Letters, `<s>` and `</s>`; the tokenizer puts the special tokens of `template` around a text.
    fn tokenizer(template: &[&str]) -> Tokenizer {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        let single: Vec<_> = template
            .iter()
            .map(|part| match *part {
                "$A" => json!({"Sequence": {"id": "A", "type_id": 0}}),
                token => json!({"SpecialToken": {"id": token, "type_id": 0}}),
            })
            .collect();
        let tokens = json!({"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}});
        let added = json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens});
        let split = json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false});
        let all = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
            "added_tokens": [special(0, "<s>"), special(1, "</s>")], "pre_tokenizer": split, "post_processor": added,
            "model": {"type": "WordLevel", "unk_token": "a", "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3}},
        });
        all.to_string().parse().unwrap()
    }

    #[test]
    fn a_prompt_begins_with_the_beginning_once() {
        let beside = |text: &str| {
            let files = vec![("tokenizer_config.json".to_owned(), text.as_bytes().to_vec())];
            Beginning::of(&Companions { files, ..Companions::default() }).unwrap()
        };
        let (silent, wanted) =
            (Beginning::default(), beside(r#"{"add_bos_token": true, "bos_token": {"content": "<s>"}}"#));
        let unwanted = beside(r#"{"add_bos_token": false, "bos_token": "<s>"}"#);
        for (beginning, template, text, expected) in [
            (&silent, &["<s>", "$A"][..], "ab", vec![0, 2, 3]),
            (&silent, &["<s>", "$A"], "<s>ab", vec![0, 2, 3]),
            (&silent, &["<s>", "$A", "</s>"], "ab", vec![0, 2, 3]),
            (&silent, &["$A"], "ab", vec![2, 3]),
            (&silent, &["$A"], "<s>ab", vec![0, 2, 3]),
            (&wanted, &["$A"], "ab", vec![0, 2, 3]),
            (&wanted, &["<s>", "$A"], "<s>ab", vec![0, 2, 3]),
            (&unwanted, &["$A"], "ab", vec![2, 3]),
        ] {
            assert_eq!(
                beginning.encode(&tokenizer(template), text).unwrap(),
                expected,
                "{beginning:?} {template:?} {text}"
            );
        }
    }

    #[test]
    fn a_turn_ends_with_the_nearest_special_token() {
        for (behind, expected) in
            [("</s>", Some("</s>")), ("\n</s>\n<s>", Some("\n</s>")), ("\nuser:", None), ("", None)]
        {
            let end = EndOfTurn::of(&tokenizer(&["$A"]), behind);
            assert_eq!(end.map(|end| (end.text, end.token)), expected.map(|text| (text.to_owned(), 1)), "{behind}");
        }
    }
}
