//! Models of texts and images of which the text part is read: its shape and the names of its weights, as a model of texts
//! alone has them. What is saved is such a model.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// What a whole and its text part are called: `model_type`, then the architecture and `model_type` of the part.
const WHOLES: [(&str, &str, &str); 1] = [("qwen3_5", "Qwen3_5ForCausalLM", "qwen3_5_text")];

/// Where the weights of the text part are, among those of the whole.
const WITHIN: &str = "model.language_model.";

/// Tensors of a whole that are not of its text part.
const BESIDE: [&str; 1] = ["model.visual."];

/// The keys of the text part, if `config` is that of a known whole; else all of them.
pub(super) fn of_config(mut config: Map<String, Value>) -> Map<String, Value> {
    let kind = config.get("model_type").and_then(Value::as_str);
    let whole = WHOLES.iter().find(|(whole, ..)| kind == Some(whole));
    let (Some((_, architecture, model_type)), Some(Value::Object(part))) = (whole, config.get_mut("text_config"))
    else {
        return config;
    };
    let mut part = std::mem::take(part);
    part.insert("architectures".to_owned(), vec![*architecture].into());
    part.insert("model_type".to_owned(), (*model_type).into());
    // Says whether the output matrix of the whole is its embedding.
    for key in ["tie_word_embeddings", "torch_dtype", "dtype"] {
        if let Some(value) = config.shift_remove(key) {
            part.insert(key.to_owned(), value);
        }
    }
    part
}

/// What a tensor of a file is called in a model of texts alone.
pub(super) fn name_of(tensor: &str) -> Cow<'_, str> {
    match tensor.strip_prefix(WITHIN) {
        Some(name) => Cow::Owned(format!("model.{name}")),
        None => Cow::Borrowed(tensor),
    }
}

/// Whether a tensor is of a part that is not read.
pub(super) fn is_beside(tensor: &str) -> bool {
    BESIDE.iter().any(|part| tensor.starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_part_of_a_known_whole_is_a_model_of_texts() {
        let whole = json!({
            "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "tie_word_embeddings": true,
            "text_config": { "model_type": "qwen3_5_text", "hidden_size": 8, "tie_word_embeddings": false },
            "vision_config": { "depth": 2 },
        });
        let read = |config: &Value| Value::Object(of_config(config.as_object().unwrap().clone()));
        let expected = json!({
            "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "hidden_size": 8,
            "tie_word_embeddings": true,
        });
        assert_eq!(read(&whole), expected);
        assert_eq!(read(&expected), expected);
        let other = json!({ "model_type": "gemma3", "text_config": { "hidden_size": 8 } });
        assert_eq!(read(&other), other);
        assert_eq!(name_of("model.language_model.norm.weight"), "model.norm.weight");
        assert_eq!(name_of("lm_head.weight"), "lm_head.weight");
    }
}
