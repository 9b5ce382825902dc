//! Files that candle writes: every type is widened to the very values that candle widens it to.

use std::collections::BTreeSet;
use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use reckon::model::files::gguf::{Mix, Model};
use reckon::model::files::{Source, TensorFile};

use super::{Size, model, written};

const TYPES: [GgmlDType; 13] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// A size whose rows are whole blocks of every type.
pub(super) const LARGE: Size = Size { width: 256, inner: 256, head: 32, tied: true };

/// A file of a tiny model, as candle writes it: its matrices of the type that `dtype` gives for the number of a tensor.
pub(super) fn by_candle(architecture: &str, size: Size, dtype: impl Fn(usize) -> GgmlDType) -> Vec<u8> {
    let exact = written(&model(architecture, size), Mix::F32);
    let mut reader = Cursor::new(&exact);
    let content = Content::read(&mut reader).unwrap();
    let names: BTreeSet<&String> = content.tensor_infos.keys().collect();
    let tensors: Vec<(String, QTensor)> = names
        .into_iter()
        .enumerate()
        .map(|(number, name)| {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
            let values: Tensor = tensor.dequantize(&Device::Cpu).unwrap();
            let dtype = if values.dims().len() == 2 { dtype(number) } else { GgmlDType::F32 };
            (name.clone(), QTensor::quantize(&values, dtype).unwrap())
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let metadata: Vec<(&str, &Value)> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let mut bytes = Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    bytes.into_inner()
}

#[test]
fn every_type_is_widened_as_candle_widens_it() {
    for dtype in TYPES {
        let bytes = by_candle("Qwen2ForCausalLM", LARGE, |_| dtype);
        let mut model = Model::from_bytes(&bytes).unwrap();
        let mut reader = Cursor::new(&bytes);
        let content = Content::read(&mut reader).unwrap();
        for (theirs, ours) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
            ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"),
        ] {
            let tensor = content.tensor(&mut reader, theirs, &Device::Cpu).unwrap();
            let expected: Vec<f32> = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let mut values = vec![0.0; expected.len()];
            model.weights.read_to(ours, &mut values).unwrap();
            assert!(values.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype:?} {ours}");
        }
    }
}

#[test]
fn rows_of_llama_are_put_back_whatever_the_type() {
    let model = model("LlamaForCausalLM", LARGE);
    let name = "model.layers.1.self_attn.q_proj.weight";
    let entry = model.weights.entries().iter().find(|entry| entry.name == name).unwrap();
    let mut expected = vec![0.0; entry.range.len()];
    model.weights.values(entry, 0..expected.len(), &mut expected).unwrap();
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (mix, error) in [(Mix::F32, 0.0), (Mix::Q8_0, 0.01), (Mix::Q4_0, 0.15)] {
        let bytes = written(&model, mix);
        let mut values = vec![0.0; expected.len()];
        Model::from_bytes(&bytes).unwrap().weights.read_to(name, &mut values).unwrap();
        let far = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= error * largest, "{mix:?}: {far} of {largest}");
    }
}
