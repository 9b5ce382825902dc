//! The tokenizer and the small files beside it, made of the metadata of a GGUF file: what a model folder would hold, so
//! that nothing above asks where a model came from.
//!
//! Two kinds are read: `gpt2`, byte-level pairs with their merges, and `llama`, pieces of SentencePiece with scores.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::pre::PreTokenizer;

/// Kinds of token, as `tokenizer.ggml.token_type` numbers them.
pub(super) mod kind {
    /// Written by merges.
    pub(in crate::model::files::gguf) const NORMAL: i64 = 1;
    /// What stands for all that cannot be written.
    pub(in crate::model::files::gguf) const UNKNOWN: i64 = 2;
    /// Steers a model, and is no part of what is said.
    pub(in crate::model::files::gguf) const CONTROL: i64 = 3;
    /// Taken whole wherever it stands.
    pub(in crate::model::files::gguf) const USER_DEFINED: i64 = 4;
    /// A row of the embedding without a token.
    pub(in crate::model::files::gguf) const UNUSED: i64 = 5;
    /// One byte of what has no piece of its own.
    pub(in crate::model::files::gguf) const BYTE: i64 = 6;
}

/// Longest token, in bytes: a longer one is damage, and would take long to cut into pieces.
const LONGEST: usize = 1024;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// The tokens of a file.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
    /// What every text begins with.
    begin: Option<u32>,
}

/// Name and content of `tokenizer.json`, `tokenizer_config.json` and, where the file has one, the chat template. The
/// embedding has `rows` rows.
pub(super) fn files(metadata: &Metadata, rows: usize) -> Result<Vec<(String, Vec<u8>)>> {
    let (vocabulary, json) = Vocabulary::read(metadata, rows)?;
    let mut files = vec![
        ("tokenizer.json".to_owned(), serde_json::to_vec(&json)?),
        ("tokenizer_config.json".to_owned(), serde_json::to_vec_pretty(&vocabulary.beside()?)?),
    ];
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        files.push(("chat_template.jinja".to_owned(), template.as_bytes().to_vec()));
    }
    Ok(files)
}

impl<'a> Vocabulary<'a> {
    /// The tokens, and the content of `tokenizer.json`.
    fn read(metadata: &'a Metadata, rows: usize) -> Result<(Self, Value)> {
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.context("metadata tokenizer.ggml.tokens is missing")?;
        let count = tokens.len();
        ensure!(count <= rows, "it has {count} tokens, but the embedding has {rows} rows");
        let kinds = metadata.counts("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![kind::NORMAL; count]);
        ensure!(kinds.len() == count, "tokenizer.ggml.token_type has {} entries for {count} tokens", kinds.len());
        let long = tokens.iter().find(|token| token.len() > LONGEST);
        ensure!(long.is_none(), "a token of {} bytes is longer than {LONGEST}", long.map_or(0, |token| token.len()));
        let mut vocabulary = Self { metadata, tokens, kinds, begin: None };
        let model = metadata.text("tokenizer.ggml.model")?.context("metadata tokenizer.ggml.model is missing")?;
        let (begins, json) = match model {
            "gpt2" => vocabulary.byte_level()?,
            "llama" => (true, vocabulary.pieces()?),
            other => bail!("tokenizer.ggml.model = \"{other}\" cannot be read: gpt2 and llama can"),
        };
        if metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins) {
            vocabulary.begin = vocabulary.special("bos")?;
        }
        let json = vocabulary.with_beginning(json);
        Ok((vocabulary, json))
    }

    /// The id of the token with a meaning, such as `eos`.
    fn special(&self, which: &str) -> Result<Option<u32>> {
        self.metadata.token(&format!("tokenizer.ggml.{which}_token_id"), self.tokens.len())
    }

    /// Byte-level pairs; says too whether texts begin with a token where the file does not say.
    fn byte_level(&self) -> Result<(bool, Value)> {
        let name = self.metadata.text("tokenizer.ggml.pre")?.unwrap_or("gpt-2");
        let rule = PreTokenizer::named(name).with_context(|| {
            format!("tokenizer.ggml.pre = \"{name}\" cannot be read: {} can", PreTokenizer::names().join(", "))
        })?;
        let merges = self.metadata.texts("tokenizer.ggml.merges")?;
        let merges = merges.context("metadata tokenizer.ggml.merges is missing")?;
        let pairs: Option<Vec<[&str; 2]>> =
            merges.iter().map(|merge| merge.split_once(' ').map(|(left, right)| [left, right])).collect();
        let pairs = pairs.context("an entry of tokenizer.ggml.merges is not two pieces")?;
        let normalizer = if rule.composes { json!({ "type": "NFC" }) } else { Value::Null };
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added(),
            "normalizer": normalizer,
            "pre_tokenizer": rule.json(),
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": rule.ignore_merges, "vocab": self.vocab()?, "merges": pairs,
            },
        });
        Ok((rule.begins, json))
    }

    /// Pieces of SentencePiece: what has the best score is merged first, so a score is the rank of a merge.
    fn pieces(&self) -> Result<Value> {
        let scores = self.metadata.numbers("tokenizer.ggml.scores")?;
        let scores = scores.context("metadata tokenizer.ggml.scores is missing")?;
        let count = self.tokens.len();
        ensure!(scores.len() == count, "tokenizer.ggml.scores has {} entries for {count} tokens", scores.len());
        let unknown = self.metadata.token("tokenizer.ggml.unknown_token_id", count)?.unwrap_or(0);
        let prefix = self.metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        let mut normalizers = vec![replace(" ", SPACE)];
        let mut decoders = vec![replace(SPACE, " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
        if prefix {
            normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added(),
            "normalizer": { "type": "Sequence", "normalizers": normalizers },
            "pre_tokenizer": null,
            "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": self.tokens.get(unknown as usize),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": self.kinds.contains(&kind::BYTE), "ignore_merges": false,
                "vocab": self.vocab()?, "merges": self.merges(&scores),
            },
        }))
    }

    /// Every way to make a piece of two others, those of the best piece first.
    fn merges(&self, scores: &[f32]) -> Vec<[&'a str; 2]> {
        let normal = |id: usize| self.kinds[id] == kind::NORMAL;
        let ids: HashMap<&str, usize> =
            self.tokens.iter().enumerate().filter(|(id, _)| normal(*id)).map(|(id, token)| (*token, id)).collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| normal(*id)) {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                    merges.push((id, *l, *r, [left, right]));
                }
            }
        }
        merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then((a.1, a.2).cmp(&(b.1, b.2))));
        merges.into_iter().map(|(.., pair)| pair).collect()
    }

    /// Every token with its id. Rows of the embedding that have none are left out.
    fn vocab(&self) -> Result<Map<String, Value>> {
        let mut vocab = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| !self.is_padding(*id)) {
            let double = vocab.insert((*token).to_owned(), id.into());
            ensure!(double.is_none(), "token {token:?} stands twice among the tokens");
        }
        Ok(vocab)
    }

    /// Whether a token is what converters write for a row of the embedding that no token has.
    fn is_padding(&self, id: usize) -> bool {
        self.kinds[id] == kind::UNUSED && self.tokens[id].starts_with("[PAD")
    }

    /// The tokens that are looked for in a text before it is cut.
    fn added(&self) -> Vec<Value> {
        let added = self.kinds.iter().enumerate().filter_map(|(id, kind)| match *kind {
            kind::CONTROL | kind::UNKNOWN => Some((id, true)),
            kind::USER_DEFINED => Some((id, false)),
            _ => None,
        });
        let describe = |(id, special): (usize, bool)| {
            json!({ "id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special })
        };
        added.map(describe).collect()
    }

    /// The same `tokenizer.json`, which puts what texts begin with before them.
    fn with_beginning(&self, mut json: Value) -> Value {
        if let Some(id) = self.begin {
            let begin = self.tokens[id as usize];
            let token = json!({ "SpecialToken": { "id": begin, "type_id": 0 } });
            let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
            json["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [token, text("A")],
                "pair": [token, text("A"), token, text("B")],
                "special_tokens": { begin: { "id": begin, "ids": [id], "tokens": [begin] } },
            });
        }
        json
    }

    /// The content of `tokenizer_config.json`: the tokens with a meaning, which chat templates write.
    fn beside(&self) -> Result<Value> {
        let mut beside = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "add_bos_token": self.begin.is_some(),
        });
        for (which, key) in
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
        {
            if let Some(id) = self.special(which)? {
                beside[key] = self.tokens[id as usize].into();
            }
        }
        Ok(beside)
    }
}
