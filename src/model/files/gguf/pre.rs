//! How byte-level tokenizers cut a text into words before they merge bytes. A GGUF file has a name for it, by which
//! llama.cpp knows the rule; `tokenizer.json` has the rule itself. The table has the rules of models that are read here.

use serde_json::{Value, json};

/// One pass over the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Around what a regular expression finds.
    Around(&'static str),
    /// Around every digit.
    Digits,
    /// As GPT-2 does, by the rule that is built into the byte-level pass.
    Gpt2,
}

/// A rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    /// The names that files have for it. The first is the one that is written.
    pub(super) names: &'static [&'static str],
    cuts: &'static [Cut],
    /// Whether a word that is in the vocabulary is taken whole, though no merges lead to it.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with the token for it, where a file does not say.
    pub(super) begins: bool,
    /// Whether letters and their accents are composed before (Unicode's NFC).
    pub(super) composes: bool,
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PLAIN: PreTokenizer =
    PreTokenizer { names: &["gpt-2"], cuts: &[Cut::Gpt2], ignore_merges: false, begins: false, composes: false };

/// The rules, by what their models publish.
const TABLE: [PreTokenizer; 9] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        cuts: &[Cut::Around(LLAMA_3)],
        ignore_merges: true,
        begins: true,
        ..PLAIN
    },
    PreTokenizer { names: &["smaug-bpe", "dbrx"], cuts: &[Cut::Around(LLAMA_3)], ..PLAIN },
    PreTokenizer { names: &["qwen2"], cuts: &[Cut::Around(QWEN_2)], composes: true, ..PLAIN },
    PreTokenizer { names: &["qwen35"], cuts: &[Cut::Around(QWEN_35)], composes: true, ..PLAIN },
    PreTokenizer { names: &["deepseek-r1-qwen", "stablelm2", "megrez"], cuts: &[Cut::Around(QWEN_2)], ..PLAIN },
    PreTokenizer { names: &["tekken"], cuts: &[Cut::Around(TEKKEN)], ignore_merges: true, begins: true, ..PLAIN },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        cuts: &[Cut::Digits, Cut::Gpt2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        cuts: &[
            Cut::Around("[\r\n]"),
            Cut::Around(r"\s?\p{L}+"),
            Cut::Around(r"\s?\p{P}+"),
            Cut::Around("[一-龥ࠀ-一가-퟿]+"),
            Cut::Digits,
        ],
        ..PLAIN
    },
    PLAIN,
];

impl PreTokenizer {
    /// The rule of a name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|rule| rule.names.contains(&name))
    }

    /// The name that is written for each rule of the table.
    pub(super) fn names() -> Vec<&'static str> {
        TABLE.iter().map(|rule| rule.names[0]).collect()
    }

    /// The rule of a `tokenizer.json`.
    pub(super) fn of(tokenizer: &Value) -> Option<&'static Self> {
        let stages = &tokenizer["pre_tokenizer"];
        let stages = match stages["pretokenizers"].as_array() {
            Some(list) => list.clone(),
            None => vec![stages.clone()],
        };
        let (bytes, before) = stages.split_last()?;
        let is_byte_level = bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] != true;
        let by_rule = bytes["use_regex"] != false;
        let composes = tokenizer["normalizer"]["type"] == "NFC";
        let ignores = tokenizer["model"]["ignore_merges"] == true;
        let known = |rule: &&Self| {
            let (last, cuts) = match rule.cuts.split_last() {
                Some((Cut::Gpt2, cuts)) => (true, cuts),
                _ => (false, rule.cuts),
            };
            last == by_rule
                && (rule.composes, rule.ignore_merges) == (composes, ignores)
                && cuts.len() == before.len()
                && cuts.iter().zip(before).all(|(cut, stage)| cut.is(stage))
        };
        TABLE.iter().find(known).filter(|_| is_byte_level)
    }

    /// The rule as `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn json(&self) -> Value {
        let by_rule = self.cuts.contains(&Cut::Gpt2);
        let bytes =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": by_rule });
        let mut stages: Vec<Value> = self.cuts.iter().filter_map(|cut| cut.json()).collect();
        if stages.is_empty() {
            return bytes;
        }
        stages.push(bytes);
        json!({ "type": "Sequence", "pretokenizers": stages })
    }
}

impl Cut {
    /// As a stage of a `tokenizer.json`, where it is not part of the byte-level stage.
    fn json(self) -> Option<Value> {
        match self {
            Self::Around(regex) => Some(json!({
                "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false
            })),
            Self::Digits => Some(json!({ "type": "Digits", "individual_digits": true })),
            Self::Gpt2 => None,
        }
    }

    fn is(self, stage: &Value) -> bool {
        match self {
            Self::Around(regex) => {
                stage["type"] == "Split"
                    && stage["pattern"]["Regex"] == regex
                    && stage["behavior"] == "Isolated"
                    && stage["invert"] == false
            }
            Self::Digits => stage["type"] == "Digits" && stage["individual_digits"] == true,
            Self::Gpt2 => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_again_in_what_is_written_of_it() {
        for rule in &TABLE {
            let normalizer = if rule.composes { json!({ "type": "NFC" }) } else { Value::Null };
            let written = json!({ "normalizer": normalizer, "pre_tokenizer": rule.json(),
                "model": { "ignore_merges": rule.ignore_merges } });
            assert_eq!(PreTokenizer::of(&written).map(|found| found.names), Some(rule.names));
            for name in rule.names {
                assert_eq!(PreTokenizer::named(name).map(|found| found.names), Some(rule.names), "{name}");
            }
        }
    }

    #[test]
    fn rules_of_other_tokenizers_are_none_of_the_table() {
        for stage in [
            json!({ "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false }),
            json!({ "type": "Whitespace" }),
            json!({ "type": "ByteLevel", "add_prefix_space": true, "use_regex": true }),
            Value::Null,
        ] {
            let written = json!({ "normalizer": null, "pre_tokenizer": stage, "model": {} });
            assert!(PreTokenizer::of(&written).is_none(), "{written}");
        }
    }
}
