//! Files that are damaged, or hold what is not computed here: one line each, and nothing taken at a file's word.

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use reckon::model::ModelFolder;
use reckon::model::files::gguf::{Mix, Model};

use super::tokenizers::{edited, set};
use super::{SMALL, model, put, written};
use crate::program::{fails, text};

/// The complaint about a file.
fn complaint(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = ModelFolder::read_frozen(&put(folder.path(), bytes)).expect_err("the file is refused");
    let message = format!("{error:#}");
    assert!(!message.contains('\n'), "{message}");
    message
}

fn tiny() -> Vec<u8> {
    written(&model("Qwen2ForCausalLM", SMALL), Mix::F32)
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let bytes = tiny();
    for len in (0..bytes.len()).step_by(97).chain(bytes.len() - 40..bytes.len() - 32) {
        assert!(Model::from_bytes(&bytes[..len]).is_err(), "{len} of {} bytes were read", bytes.len());
    }
    assert!(complaint(&bytes[..bytes.len() / 2]).contains("cut short"));
}

#[test]
fn no_byte_of_a_header_can_be_changed_into_a_panic() {
    let bytes = tiny();
    let header = 14_000.min(bytes.len());
    for at in (0..header).step_by(13) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = Model::from_bytes(&changed);
        }
    }
}

/// A header with these words behind the magic and the version.
fn header(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    words.iter().for_each(|word| bytes.extend_from_slice(word));
    bytes
}

/// A name in a file.
fn name(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn counts_lengths_and_offsets_beyond_the_file_are_refused() {
    let long = |number: u64| number.to_le_bytes();
    let word = |number: u32| number.to_le_bytes();
    let (none, one) = (long(0), long(1));
    let array = |kind: u32, count: u64| [&word(9)[..], &word(kind), &long(count)].concat();
    let tensor = |sizes: &[u64], kind: u32, offset: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        [&word(sizes.len() as u32 / 8)[..], &sizes, &word(kind), &long(offset)].concat()
    };
    let rest = vec![0u8; 4096];
    for (bytes, expected) in [
        (b"PK\x03\x04 this is a zip file".to_vec(), "does not begin with the letters GGUF"),
        (Vec::new(), "does not begin with the letters GGUF"),
        (b"GGUF\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "version 1: versions 2 and 3 are read"),
        (header(&[&long(u64::MAX), &none]), "it announces 18446744073709551615 tensors"),
        (header(&[&none, &long(1 << 40)]), "1099511627776 entries of metadata"),
        (header(&[&none, &one, &long(u64::MAX), &rest]), "a name in it would be 18446744073709551615 bytes long"),
        (header(&[&none, &one, &name("x"), &word(8), &long(1 << 50), &rest]), "would take 1125899906842"),
        (header(&[&none, &one, &name("x"), &array(0, 1 << 30), &rest]), "1073741824 bytes would follow"),
        (header(&[&none, &one, &name("x"), &array(8, 1 << 30), &rest]), "8589934592 bytes would follow"),
        (header(&[&none, &one, &name("x"), &array(12, u64::MAX), &rest]), "would follow"),
        (header(&[&none, &one, &name("x"), &array(9, 1), &rest]), "a list of lists"),
        (header(&[&none, &one, &name("x"), &word(77), &rest]), "type 77, which GGUF does not know"),
        (header(&[&none, &one, &name("general.alignment"), &word(4), &word(0), &rest]), "0 is no power of two"),
        (header(&[&one, &none, &name("t"), &tensor(&[1 << 32, 1 << 32], 0, 0), &rest]), "overflows"),
        (header(&[&one, &none, &name("t"), &tensor(&[1 << 40], 0, 0), &rest]), "beyond the end of the file"),
        (header(&[&one, &none, &name("t"), &tensor(&[32], 0, u64::MAX - 31), &rest]), "beyond the end of the file"),
        (header(&[&one, &none, &name("t"), &tensor(&[32], 0, 3), &rest]), "begins at 3, no multiple of 32"),
        (header(&[&one, &none, &name("t"), &tensor(&[33], 2, 0), &rest]), "rows of 33 values are no whole blocks"),
        (header(&[&one, &none, &name("t"), &tensor(&[1; 5], 0, 0), &rest]), "5 dimensions"),
        (header(&[&one, &none, &name("t"), &tensor(&[256], 20, 0), &rest]), "type IQ4_NL, which cannot be read: F32,"),
        (header(&[&one, &none, &name("t"), &tensor(&[256], 39, 0), &rest]), "type MXFP4, which cannot be read"),
        (header(&[&one, &none, &name("t"), &tensor(&[256], 999, 0), &rest]), "type number 999"),
    ] {
        let message = complaint(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_list_that_fits_into_the_file_but_not_into_its_memory_is_refused() {
    // 8 million truth values are 8 MB in the file, and would be 192 MB in memory.
    let count: u64 = 8 << 20;
    let array = [&9u32.to_le_bytes()[..], &7u32.to_le_bytes(), &count.to_le_bytes()].concat();
    let bytes = header(&[&0u64.to_le_bytes(), &1u64.to_le_bytes(), &name("x"), &array, &vec![0; count as usize]]);
    assert!(complaint(&bytes).contains("would take 201326593 bytes of memory, more than the whole file"));
}

type Metadata = Vec<(String, Value)>;
type Tensors = Vec<(String, QTensor)>;

#[test]
fn what_is_not_computed_here_is_refused_by_name() {
    type Edit = fn(&mut Metadata, &mut Tensors);
    let cases: [(&str, Edit, &str); 12] = [
        (
            "Qwen2ForCausalLM",
            |m, _| set(m, "general.architecture", Value::String("gemma3".into())),
            "architecture \"gemma3\" cannot be read: llama, qwen2, qwen3, qwen2moe, qwen3moe, olmoe, deepseek2, qwen35 can",
        ),
        (
            "Qwen2ForCausalLM",
            |m, _| m.retain(|(key, _)| key != "general.architecture"),
            "general.architecture is missing",
        ),
        ("LlamaForCausalLM", |m, _| set(m, "llama.expert_count", Value::U32(8)), "llama.expert_count = 8"),
        (
            "LlamaForCausalLM",
            |m, _| set(m, "llama.rope.scaling.type", Value::String("yarn".into())),
            "llama.rope.scaling.type = \"yarn\" is not supported",
        ),
        (
            "LlamaForCausalLM",
            |m, _| set(m, "llama.rope.dimension_count", Value::U32(4)),
            "differs from the head size 8",
        ),
        ("LlamaForCausalLM", |m, _| set(m, "llama.block_count", Value::U32(u32::MAX)), "block_count = 4294967295"),
        ("LlamaForCausalLM", |m, _| set(m, "llama.context_length", Value::U32(u32::MAX)), "context_length"),
        ("LlamaForCausalLM", |m, _| set(m, "llama.embedding_length", Value::U32(64)), "the config asks for"),
        ("LlamaForCausalLM", |m, _| set(m, "split.count", Value::U16(3)), "llama-gguf-split --merge"),
        (
            "LlamaForCausalLM",
            |_, t| t.retain(|(name, _)| name != "blk.1.ffn_up.weight"),
            "no tensor blk.1.ffn_up.weight",
        ),
        ("LlamaForCausalLM", |_, t| t.retain(|(name, _)| name != "token_embd.weight"), "no tensor token_embd.weight"),
        (
            "LlamaForCausalLM",
            |_, t| {
                let zeros = Tensor::zeros((8, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
                t.push(("blk.0.ssm_in.weight".into(), QTensor::quantize(&zeros, GgmlDType::F32).unwrap()));
            },
            "a tensor blk.0.ssm_in.weight that the config has no place for",
        ),
    ];
    for (architecture, edit, expected) in cases {
        let message = complaint(&edited(architecture, edit));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_command_says_what_is_wrong_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), &tiny()[..2000]);
    let line = fails(&["sample", "x", "--model", text(&path)]);
    assert!(line.contains(text(&path)) && line.trim().lines().count() == 1, "{line}");
    let absent = folder.path().join("absent.gguf");
    let line = fails(&["sample", "x", "--model", text(&absent)]);
    assert!(line.contains("absent.gguf: No such file"), "{line}");
}
