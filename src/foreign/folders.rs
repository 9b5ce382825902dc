//! Models of other families from folders of Hugging Face. Each family here is compared with transformers in
//! `tests/it/foreign.rs`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3, glm4_new, mistral, olmo2, phi3};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::TextModel;
use crate::model::ModelConfig;
use crate::model::files::safetensors::Reader;

/// The families: what `model_type` calls them. Granite is not among them: candle's leaves out its multipliers, and what it
/// says is not what transformers says.
const FAMILIES: [&str; 7] = ["gemma2", "gemma3", "gemma3_text", "glm4", "mistral", "olmo2", "phi3"];

/// The family of a config, if it is one of these.
pub(super) fn family(config: &ModelConfig) -> Option<&'static str> {
    let name = config.other.get("model_type")?.as_str()?;
    FAMILIES.into_iter().find(|family| *family == name)
}

/// Reads the weights of a folder into the model of a family, as fp32.
pub(super) fn read(family: &str, config: &ModelConfig, folder: &Path, device: &Device) -> Result<Box<dyn TextModel>> {
    let config = as_before(config)?;
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (file, _) in Reader::open(folder)?.shards() {
        let path = folder.join(file);
        tensors.extend(candle_core::safetensors::load(&path, device).with_context(|| path.display().to_string())?);
    }
    let builder = VarBuilder::from_tensors(tensors, DType::F32, device);
    build(family, config, builder).with_context(|| format!("a model of family {family} in {}", folder.display()))
}

fn build(family: &str, config: Value, builder: VarBuilder) -> Result<Box<dyn TextModel>> {
    Ok(match family {
        "gemma2" => Box::new(gemma2::Model::new(false, &parse(&config)?, builder)?),
        "gemma3" | "gemma3_text" => Box::new(gemma3::Model::new(false, &parse(&config)?, builder)?),
        "glm4" => Box::new(glm4_new::ModelForCausalLM::new(&parse(&config)?, builder)?),
        "mistral" => Box::new(mistral::Model::new(&parse(&config)?, builder)?),
        "olmo2" => Box::new(olmo2::Model::new(&parse(&config)?, builder)?),
        "phi3" => Box::new(phi3::Model::new(&parse(&config)?, builder)?),
        other => bail!("family {other} is not known"),
    })
}

fn parse<T: DeserializeOwned>(config: &Value) -> Result<T> {
    // By way of a text: candle's configs have enums that cannot be read from numbers that keep their digits.
    Ok(serde_json::from_str(&config.to_string())?)
}

/// A config in the words of older files, which candle reads: newer ones have all that is about rotary angles in
/// `rope_parameters`, by kind of layer where there are several.
fn as_before(config: &ModelConfig) -> Result<Value> {
    let mut config = serde_json::to_value(config)?;
    let parameters = config["rope_parameters"].take();
    let (global, local) = (&parameters["full_attention"], &parameters["sliding_attention"]);
    let global = if global.is_null() { &parameters } else { global };
    for (key, value) in [
        ("rope_theta", &global["rope_theta"]),
        ("partial_rotary_factor", &global["partial_rotary_factor"]),
        ("rope_local_base_freq", &local["rope_theta"]),
    ] {
        if !value.is_null() {
            config[key] = value.clone();
        }
    }
    let kind = global["rope_type"].as_str().unwrap_or("default");
    if kind != "default" {
        bail!("rope_parameters of type \"{kind}\" are not read for this family");
    }
    for (key, value) in [("sliding_window_pattern", json!(6)), ("attention_bias", json!(false))] {
        if config[key].is_null() {
            config[key] = value;
        }
    }
    if config["hidden_act"].is_null() {
        config["hidden_act"] = config["hidden_activation"].clone();
    }
    Ok(config)
}

/// A model whose cache is inside it.
macro_rules! text_model {
    ($($model:path),*) => {$(
        impl TextModel for $model {
            fn forward(&mut self, tokens: &Tensor, position: usize) -> candle_core::Result<Tensor> {
                <$model>::forward(self, tokens, position)
            }

            fn forget(&mut self) {
                self.clear_kv_cache();
            }
        }
    )*};
}

text_model!(gemma2::Model, gemma3::Model, glm4_new::ModelForCausalLM, mistral::Model, olmo2::Model, phi3::Model);
