//! Models with gated delta nets in GGUF files: `qwen35`.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use reckon::model::files::Source;
use reckon::model::files::gguf::Mix;
use reckon::model::{ModelFolder, Parameters};
use serde_json::{Value, json};
use std::io::Cursor;

use super::exported::{expectations, values};
use super::{ROWS, Size, put, shaped, written};
use crate::models::DELTA;
use crate::program::{fails, text};

fn config(key_heads: usize) -> Value {
    json!({
        "num_hidden_layers": 3, "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": key_heads, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
        "linear_value_head_dim": 16, "rms_norm_eps": 1e-6,
    })
}

fn delta_net(more: &Value, width: usize) -> ModelFolder<Parameters> {
    shaped(DELTA, Size { width, inner: 96, head: 16, tied: true }, more)
}

#[test]
fn an_exact_file_gives_back_the_same_shape_and_values_but_for_a_logarithm() {
    let (folder, model) = (tempfile::tempdir().unwrap(), delta_net(&config(4), 64));
    let bytes = written(&model, Mix::F32);
    let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
    assert_eq!(read.config.delta().unwrap(), model.config.delta().unwrap());
    assert_eq!(read.config.rope_frequencies().unwrap(), model.config.rope_frequencies().unwrap());
    let mut at = 0;
    let (ours, theirs) = (values(&model), values(&read));
    for entry in model.weights.entries() {
        let range = at..at + entry.range.len();
        at = range.end;
        let far = ours[range.clone()].iter().zip(&theirs[range]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let is_other = entry.name.ends_with("A_log")
            || (entry.name.ends_with("norm.weight") && !entry.name.ends_with("linear_attn.norm.weight"));
        assert!(far < if is_other { 1e-6 } else { f32::MIN_POSITIVE }, "{}: {far}", entry.name);
    }
    let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
    let tensor = |name: &str| &content.tensor_infos[name];
    assert_eq!(tensor("blk.0.ssm_conv1d.weight").shape.dims(), [3 * 64, 4]);
    assert_eq!(tensor("blk.0.ssm_a").shape.dims(), [4]);
    assert!(content.tensor_infos.contains_key("blk.2.post_attention_norm.weight"));
    let decays: Vec<f32> = {
        let tensor = content.tensor(&mut Cursor::new(&bytes), "blk.1.ssm_a", &candle_core::Device::Cpu).unwrap();
        tensor.dequantize(&candle_core::Device::Cpu).unwrap().to_vec1().unwrap()
    };
    assert!(decays.iter().all(|decay| *decay < 0.0), "{decays:?}");
    let tokens: Vec<u32> = (0..21).map(|i| (i * 37 + 3) % ROWS as u32).collect();
    let (ours, theirs) = (expectations(&model, &tokens), expectations(&read, &tokens));
    for (a, b) in ours.behind(20).iter().zip(theirs.behind(20)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn fewer_bits_stay_near_and_taps_stay_exact() {
    let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + 3) % ROWS as u32).collect();
    let (folder, model) = (tempfile::tempdir().unwrap(), delta_net(&config(4), 256));
    let bytes = written(&model, Mix::Q8_0);
    let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(content.tensor_infos["blk.0.attn_qkv.weight"].ggml_dtype, GgmlDType::Q8_0);
    assert_eq!(content.tensor_infos["blk.0.ssm_conv1d.weight"].ggml_dtype, GgmlDType::F32);
    let read = ModelFolder::read_frozen(&put(folder.path(), &bytes)).unwrap().into_parameters();
    let (ours, theirs) = (expectations(&model, &tokens), expectations(&read, &tokens));
    let difference = ours.compare(&theirs);
    assert!(difference.kl < 0.05, "{difference:?}");
}

#[test]
fn heads_that_share_a_key_and_other_epsilons_are_refused_in_a_line() {
    for (more, expected) in [
        (config(2), "4 value heads of 2 keys"),
        (json!({"linear_value_head_dim": 32}), "keys of 16 and values of 32"),
        (json!({"rms_norm_eps": 1e-5}), "rms_norm_eps = 0.00001"),
    ] {
        let mut all = config(4);
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let folder = tempfile::tempdir().unwrap();
        delta_net(&all, 64).save_merged(folder.path(), reckon::model::SaveDtype::F32).unwrap();
        let out = folder.path().join("out.gguf");
        let complaint = fails(&["export", text(folder.path()), "--gguf", "f32", "--out", text(&out)]);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{complaint}");
        assert!(!out.exists());
    }
}
