//! Tokenizers of GGUF files: pieces of SentencePiece with scores; those with merges are compared in `exported` and
//! `smollm2`.

use std::io::Cursor;

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{self, Content, Value};
use reckon::model::ModelFolder;
use reckon::model::files::gguf::{Mix, Model};

use super::{SMALL, model, put, written};

/// A file of a tiny model with other metadata: `edit` may change what it likes.
pub(crate) fn edited(
    architecture: &str,
    edit: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(String, QTensor)>),
) -> Vec<u8> {
    let exact = written(&model(architecture, SMALL), Mix::F32);
    let mut reader = Cursor::new(&exact);
    let content = Content::read(&mut reader).unwrap();
    let mut tensors: Vec<(String, QTensor)> = content
        .tensor_infos
        .keys()
        .map(|name| (name.clone(), content.tensor(&mut reader, name, &Device::Cpu).unwrap()))
        .collect();
    let mut metadata: Vec<(String, Value)> = content.metadata.into_iter().collect();
    edit(&mut metadata, &mut tensors);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut bytes = Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    bytes.into_inner()
}

/// Sets a key.
pub(crate) fn set(metadata: &mut Vec<(String, Value)>, key: &str, value: Value) {
    metadata.retain(|(known, _)| known != key);
    metadata.push((key.to_owned(), value));
}

/// Pieces, their scores and kinds.
fn pieces() -> (Vec<String>, Vec<f32>, Vec<i32>) {
    let mut pieces: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    pieces.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    // The best score is merged first: `ll` before `he`, so `hello` never becomes `hel`, `lo`.
    let normal = ["ll", "he", "ello", "hello", "\u{2581}hello", "\u{2581}", "h", "e", "l", "o", "hell", "\u{2581}h"];
    pieces.extend(normal.iter().enumerate().map(|(i, piece)| ((*piece).to_owned(), -(i as f32), 1)));
    let texts = pieces.iter().map(|(text, ..)| text.clone()).collect();
    (texts, pieces.iter().map(|p| p.1).collect(), pieces.iter().map(|p| p.2).collect())
}

fn with_pieces(metadata: &mut Vec<(String, Value)>) {
    let (texts, scores, kinds) = pieces();
    metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
    set(metadata, "tokenizer.ggml.model", Value::String("llama".into()));
    set(metadata, "tokenizer.ggml.tokens", Value::Array(texts.into_iter().map(Value::String).collect()));
    set(metadata, "tokenizer.ggml.scores", Value::Array(scores.into_iter().map(Value::F32).collect()));
    set(metadata, "tokenizer.ggml.token_type", Value::Array(kinds.into_iter().map(Value::I32).collect()));
    for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
        set(metadata, &format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
    }
}

#[test]
fn pieces_are_merged_by_their_scores_and_what_has_none_is_written_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = edited("LlamaForCausalLM", |metadata, _| with_pieces(metadata));
    let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap();
    let (texts, ..) = pieces();
    let id = |piece: &str| texts.iter().position(|text| text == piece).unwrap() as u32;
    for (text, expected) in [
        ("hello", vec![id("<s>"), id("\u{2581}hello")]),
        ("hello hello", vec![id("<s>"), id("\u{2581}hello"), id("\u{2581}hello")]),
        ("hell", vec![id("<s>"), id("\u{2581}"), id("hell")]),
        ("h\n", vec![id("<s>"), id("\u{2581}h"), id("<0x0A>")]),
        ("</s>", vec![id("<s>"), id("</s>")]),
    ] {
        let ids = read.tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids, expected, "{text:?}");
    }
    assert_eq!(
        read.tokenizer.decode(&[id("\u{2581}hello"), id("\u{2581}h"), id("<0x0A>")], false).unwrap(),
        "hello h\n"
    );
    assert_eq!(read.config.eos_token_id, [2]);
}

#[test]
fn pieces_that_are_written_again_cut_texts_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = edited("LlamaForCausalLM", |metadata, _| with_pieces(metadata));
    let first = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
    let second = written(&first, Mix::F32);
    let second = ModelFolder::read_frozen(&put(folder.path(), &second)).unwrap();
    for text in ["hello", "hello  hello", "hell \u{e9}", "ello", "", "lllllehhh"] {
        let ids = |tokenizer: &tokenizers::Tokenizer| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids(&second.tokenizer), ids(&first.tokenizer), "{text:?}");
    }
}

#[test]
fn a_beginning_is_put_before_texts_where_the_kind_of_tokenizer_has_one() {
    for (rule, flag, begins) in [
        ("llama-bpe", None, true),
        ("llama-bpe", Some(false), false),
        ("qwen2", None, false),
        ("qwen2", Some(true), true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = edited("LlamaForCausalLM", |metadata, _| {
            metadata.retain(|(key, _)| key != "tokenizer.ggml.add_bos_token");
            set(metadata, "tokenizer.ggml.pre", Value::String(rule.into()));
            if let Some(flag) = flag {
                set(metadata, "tokenizer.ggml.add_bos_token", Value::Bool(flag));
            }
        });
        let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap();
        let ids = read.tokenizer.encode("h", true).unwrap().get_ids().to_vec();
        assert_eq!(ids.len() == 2, begins, "{rule} {flag:?}");
    }
}

#[test]
fn tokenizers_that_cannot_be_read_are_refused_by_name() {
    type Edit = fn(&mut Vec<(String, Value)>);
    let cases: [(Edit, &str); 8] = [
        (
            |m| set(m, "tokenizer.ggml.model", Value::String("bert".into())),
            "\"bert\" cannot be read: gpt2 and llama can",
        ),
        (
            |m| set(m, "tokenizer.ggml.pre", Value::String("gpt-9".into())),
            "tokenizer.ggml.pre = \"gpt-9\" cannot be read",
        ),
        (|m| m.retain(|(key, _)| key != "tokenizer.ggml.tokens"), "tokenizer.ggml.tokens is missing"),
        (|m| set(m, "tokenizer.ggml.tokens", Value::U32(3)), "tokenizer.ggml.tokens is not a list of texts"),
        (
            |m| set(m, "tokenizer.ggml.tokens", Value::Array(vec![Value::String("a".into()); 300])),
            "it has 300 tokens, but the embedding has 288 rows",
        ),
        (
            |m| {
                set(m, "tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); 2]));
                set(m, "tokenizer.ggml.tokens", Value::Array(vec![Value::String("a".into()); 2]));
                set(m, "tokenizer.ggml.bos_token_id", Value::U32(0));
            },
            "token \"a\" stands twice",
        ),
        (|m| set(m, "tokenizer.ggml.merges", Value::Array(vec![Value::String("zz qq".into())])), "tokenizer.json"),
        (|m| set(m, "tokenizer.ggml.bos_token_id", Value::U32(9999)), "bos_token_id is 9999, but there are 288 tokens"),
    ];
    for (edit, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let bytes = edited("Qwen2ForCausalLM", |metadata, _| edit(metadata));
        let message = format!("{:#}", ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap_err());
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        assert!(Model::from_bytes(&bytes).is_err() || expected == "tokenizer.json");
    }
}
