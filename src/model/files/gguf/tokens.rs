//! A tokenizer as the metadata of a GGUF file: the other way of [`super::vocabulary`].

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::pre::PreTokenizer;
use super::value::Entry;
use super::vocabulary::kind;
use crate::model::config::ModelConfig;

/// What a model's tokenizer is known by.
pub(super) struct Tokens<'a> {
    /// The content of `tokenizer.json`.
    json: Value,
    /// That of `tokenizer_config.json`; null where there is none.
    beside: Value,
    /// The same, to be asked.
    tokenizer: &'a Tokenizer,
    config: &'a ModelConfig,
    /// Text and kind of each row of the embedding.
    rows: Vec<(String, i64)>,
}

impl<'a> Tokens<'a> {
    /// Those of a model whose small files `file` gives.
    pub(super) fn of(
        config: &'a ModelConfig,
        tokenizer: &'a Tokenizer,
        file: &dyn Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self> {
        let json = file("tokenizer.json").context("this model was put together without the file of its tokenizer")?;
        let json: Value = serde_json::from_slice(json).context("tokenizer.json")?;
        let beside = file("tokenizer_config.json").map(serde_json::from_slice).transpose();
        let beside = beside.context("tokenizer_config.json")?.unwrap_or(Value::Null);
        let rows = rows(&json, tokenizer, config.vocab_size)?;
        Ok(Self { json, beside, tokenizer, config, rows })
    }

    /// The metadata, `template` among it where the model has its own file for it.
    pub(super) fn entries(&self, template: Option<&[u8]>) -> Result<Vec<(String, Entry)>> {
        let mut entries = self.model()?;
        let mut add = |key: &str, entry: Entry| entries.push((format!("tokenizer.ggml.{key}"), entry));
        add("tokens", Entry::Texts(self.rows.iter().map(|(text, _)| text.clone()).collect()));
        add("token_type", Entry::Whole(self.rows.iter().map(|(_, kind)| *kind as i32).collect()));
        let (ends, (begins, closes)) = (&self.config.eos_token_id, self.around()?);
        for (key, id) in [
            ("bos_token_id", self.named("bos_token").or_else(|| self.beginning())),
            ("eos_token_id", ends.first().copied().or_else(|| self.named("eos_token"))),
            ("eot_token_id", ends.get(1).copied()),
            ("unknown_token_id", self.named("unk_token")),
            ("padding_token_id", self.named("pad_token")),
        ] {
            if let Some(id) = id {
                add(key, Entry::Count(id));
            }
        }
        add("add_bos_token", Entry::Flag(begins));
        add("add_eos_token", Entry::Flag(closes));
        let template = template.map(|bytes| String::from_utf8(bytes.to_vec())).transpose()?;
        if let Some(template) = template.or_else(|| self.template()) {
            entries.push(("tokenizer.chat_template".to_owned(), Entry::Text(template)));
        }
        Ok(entries)
    }

    /// What kind of tokenizer it is, and what its merges are.
    fn model(&self) -> Result<Vec<(String, Entry)>> {
        let entry = |key: &str, entry: Entry| (format!("tokenizer.ggml.{key}"), entry);
        let model = &self.json["model"];
        let name = model["type"].as_str().unwrap_or("unknown");
        ensure!(
            name == "BPE",
            "a tokenizer of type {name} cannot be written to a GGUF file, which knows merges of pairs (BPE) alone: write a \
             model folder, without --gguf"
        );
        let merges = merges(model)?;
        if model["byte_fallback"] == true {
            let scores = self.scores(&merges);
            return Ok(vec![
                entry("model", Entry::Text("llama".to_owned())),
                entry("pre", Entry::Text("default".to_owned())),
                entry("scores", Entry::Numbers(scores)),
                entry("add_space_prefix", Entry::Flag(self.puts_a_space_before())),
            ]);
        }
        let rule = PreTokenizer::of(&self.json).with_context(|| {
            format!(
                "the words of this tokenizer are cut by a rule that GGUF files have no name for (known are {}): write a \
                 model folder, without --gguf",
                PreTokenizer::names().join(", ")
            )
        })?;
        Ok(vec![
            entry("model", Entry::Text("gpt2".to_owned())),
            entry("pre", Entry::Text(rule.names[0].to_owned())),
            entry("merges", Entry::Texts(merges.iter().map(|[left, right]| format!("{left} {right}")).collect())),
        ])
    }

    /// A score for each token, by which pieces are merged in the order of the merges.
    fn scores(&self, merges: &[[&str; 2]]) -> Vec<f32> {
        let mut ranks = std::collections::HashMap::new();
        for (rank, [left, right]) in merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let rank = |text: &String| ranks.get(text).copied().unwrap_or(merges.len());
        self.rows.iter().map(|(text, _)| -(rank(text) as f32)).collect()
    }

    fn puts_a_space_before(&self) -> bool {
        let written = [&self.json["normalizer"], &self.json["pre_tokenizer"]].map(Value::to_string).concat();
        written.contains("\"Prepend\"")
            || (written.contains("\"Metaspace\"") && !written.contains("\"prepend_scheme\":\"never\""))
    }

    /// The id of a token by its name in `tokenizer_config.json`.
    fn named(&self, key: &str) -> Option<u32> {
        let token = &self.beside[key];
        self.tokenizer.token_to_id(token.as_str().or_else(|| token["content"].as_str())?)
    }

    fn beginning(&self) -> Option<u32> {
        self.config.other.get("bos_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
    }

    /// Whether a token is put before every text, and one behind it.
    fn around(&self) -> Result<(bool, bool)> {
        let ids = |special: bool| {
            let encoding = self.tokenizer.encode("a", special).map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok::<_, anyhow::Error>(encoding.get_ids().to_vec())
        };
        let (plain, whole) = (ids(false)?, ids(true)?);
        let at = (0..=whole.len().saturating_sub(plain.len())).find(|&at| whole[at..].starts_with(&plain)).unwrap_or(0);
        Ok((at > 0 || self.beside["add_bos_token"] == true, whole.len() > at + plain.len()))
    }

    /// The chat template that `tokenizer_config.json` holds.
    fn template(&self) -> Option<String> {
        let held = &self.beside["chat_template"];
        let named = || held.as_array()?.iter().find(|one| one["name"] == "default")?["template"].as_str();
        held.as_str().or_else(named).map(str::to_owned)
    }
}

/// Text and kind of each row of the embedding; rows without a token get the name that converters give them.
fn rows(json: &Value, tokenizer: &Tokenizer, count: usize) -> Result<Vec<(String, i64)>> {
    let mut rows: Vec<(String, i64)> = (0..count).map(|id| (format!("[PAD{id}]"), kind::UNUSED)).collect();
    let unknown = json["model"]["unk_token"].as_str();
    let by_bytes = json["model"]["byte_fallback"] == true;
    let is_byte = |text: &str| by_bytes && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
    for (text, id) in tokenizer.get_vocab(false) {
        let row = rows.get_mut(id as usize).with_context(|| format!("token {id} has no row in the embedding"))?;
        let kind = match text.as_str() {
            text if is_byte(text) => kind::BYTE,
            text if unknown == Some(text) => kind::UNKNOWN,
            _ => kind::NORMAL,
        };
        *row = (text, kind);
    }
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        let row = rows.get_mut(id as usize).with_context(|| format!("token {id} has no row in the embedding"))?;
        if row.1 != kind::UNKNOWN {
            *row = (token.content, if token.special { kind::CONTROL } else { kind::USER_DEFINED });
        }
    }
    Ok(rows)
}

/// The pairs that are merged, first ones first; files have them as pairs or as texts with a space between.
fn merges(model: &Value) -> Result<Vec<[&str; 2]>> {
    let list = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
    let mut pairs = Vec::with_capacity(list.len());
    for merge in list {
        match (merge.as_str().and_then(|text| text.split_once(' ')), merge[0].as_str(), merge[1].as_str()) {
            (Some((left, right)), ..) | (None, Some(left), Some(right)) => pairs.push([left, right]),
            _ => bail!("tokenizer.json has a merge that is not two pieces: {merge}"),
        }
    }
    Ok(pairs)
}
