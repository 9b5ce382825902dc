//! What each kind of server is told and how it answers: token ids in and out, never text, and weights from a folder.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::batch::RoutedExperts;
use crate::config::ServerEngine;
use crate::http::beginning;
use crate::rollout::{FinishReason, Sampling};

/// Requests that make new weights known, in order.
pub(super) type Posts = Vec<(&'static str, Value)>;

/// A completion as a server gives it.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<f32>,
    pub(super) finish: FinishReason,
    /// Of the weights that it was sampled with, where the server tells.
    pub(super) version: Option<String>,
    /// The experts of the tokens but the last, where they were asked for.
    pub(super) routed: Option<RoutedExperts>,
}

/// Path and body of a request for one completion of `tokens`; `routed` asks for the experts of tokens too.
pub(super) fn ask(
    engine: ServerEngine,
    model: &str,
    tokens: &[u32],
    sampling: &Sampling,
    (seed, routed): (u64, bool),
) -> (&'static str, Value) {
    let mut draw = json!({ "temperature": sampling.temperature, "top_p": sampling.top_p });
    if sampling.top_k > 0 {
        draw["top_k"] = json!(sampling.top_k);
    }
    if sampling.min_p > 0.0 {
        draw["min_p"] = json!(sampling.min_p);
    }
    if !sampling.stop_strings.is_empty() {
        draw["stop"] = json!(sampling.stop_strings);
    }
    draw["skip_special_tokens"] = json!(false);
    if engine != ServerEngine::Reckon {
        // Reckon's are the model's own.
        draw["stop_token_ids"] = json!(sampling.stop_tokens);
    }
    if engine == ServerEngine::Sglang {
        draw["max_new_tokens"] = json!(sampling.max_new_tokens);
        draw["no_stop_trim"] = json!(true);
        let mut body = json!({ "input_ids": tokens, "sampling_params": draw, "return_logprob": true });
        if routed {
            body["return_routed_experts"] = json!(true);
        }
        return ("generate", body);
    }
    let own = json!({
        "model": model, "prompt": tokens, "n": 1, "max_tokens": sampling.max_new_tokens, "seed": seed, "logprobs": 0,
        "return_token_ids": true, "include_stop_str_in_output": true,
    });
    if let (Value::Object(draw), Value::Object(own)) = (&mut draw, own) {
        draw.extend(own);
    }
    if routed && engine == ServerEngine::Reckon {
        // vLLM tells them where it was started so.
        draw["return_routed_experts"] = json!(true);
    }
    ("v1/completions", draw)
}

/// What is posted for weights that lie in `folder`; `adapter` says that it holds one beside the base that a server has.
pub(super) fn update(engine: ServerEngine, model: &str, folder: &Path, version: u64, adapter: bool) -> Result<Posts> {
    let path = folder.to_string_lossy();
    Ok(match (engine, adapter) {
        (ServerEngine::Vllm, false) => vec![
            (
                "collective_rpc",
                json!({ "method": "reload_weights", "kwargs": { "weights_path": path, "is_checkpoint_format": true } }),
            ),
            ("reset_prefix_cache", json!({})),
        ],
        (ServerEngine::Vllm, true) => {
            vec![("v1/load_lora_adapter", json!({ "lora_name": model, "lora_path": path, "load_inplace": true }))]
        }
        (ServerEngine::Sglang | ServerEngine::Reckon, false) => vec![(
            "update_weights_from_disk",
            json!({ "model_path": path, "weight_version": version.to_string(), "flush_cache": true }),
        )],
        (ServerEngine::Sglang | ServerEngine::Reckon, true) => {
            bail!("an adapter is handed to servers of engine = \"vllm\" alone: take that, or train all weights")
        }
    })
}

/// Refuses an update that a server did not make. vLLM answers some with nothing, and some with words.
pub(super) fn updated(engine: ServerEngine, text: &str) -> Result<()> {
    let body = match engine {
        ServerEngine::Vllm => serde_json::from_str(text).unwrap_or_default(),
        ServerEngine::Sglang | ServerEngine::Reckon => parsed(text)?,
    };
    let said = body.get("message").and_then(Value::as_str).unwrap_or_default();
    ensure!(body.get("success").and_then(Value::as_bool) != Some(false), "the server did not take the weights: {said}");
    Ok(())
}

/// An answer's text as JSON, the beginning of it in the message where it is none.
pub(super) fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("the answer is no JSON: {}", beginning(text)))
}

/// Reads an answer to [`ask`].
pub(super) fn answer(engine: ServerEngine, body: &Value) -> Result<Answer> {
    let answer = if engine == ServerEngine::Sglang { sglang(body)? } else { openai(body)? };
    ensure!(
        answer.tokens.len() == answer.logprobs.len() && !answer.tokens.is_empty(),
        "{} token ids came with {} log-probabilities",
        answer.tokens.len(),
        answer.logprobs.len()
    );
    Ok(answer)
}

fn openai(body: &Value) -> Result<Answer> {
    let choice = body["choices"].get(0).context("the answer has no choice")?;
    let ids = choice["token_ids"].as_array().context("the answer has no token_ids: is the server too old for them?")?;
    let logprobs = choice["logprobs"]["token_logprobs"].as_array().context("the answer has no logprobs")?;
    Ok(Answer {
        tokens: ids.iter().map(token).collect::<Result<_>>()?,
        logprobs: logprobs.iter().map(logprob).collect::<Result<_>>()?,
        finish: finish(choice["finish_reason"].as_str())?,
        version: body["weight_version"].as_str().map(str::to_owned),
        routed: None,
    })
}

fn sglang(body: &Value) -> Result<Answer> {
    let about = &body["meta_info"];
    let pairs = about["output_token_logprobs"].as_array().context("the answer has no output_token_logprobs")?;
    Ok(Answer {
        tokens: pairs.iter().map(|pair| token(&pair[1])).collect::<Result<_>>()?,
        logprobs: pairs.iter().map(|pair| logprob(&pair[0])).collect::<Result<_>>()?,
        finish: finish(about["finish_reason"]["type"].as_str())?,
        version: about["weight_version"].as_str().map(str::to_owned),
        routed: None,
    })
}

fn token(value: &Value) -> Result<u32> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.with_context(|| format!("{value} is no token id"))
}

fn logprob(value: &Value) -> Result<f32> {
    let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite() && *number <= 1e-3);
    number.with_context(|| format!("{value} is no log-probability"))
}

fn finish(reason: Option<&str>) -> Result<FinishReason> {
    match reason {
        Some("stop") => Ok(FinishReason::Stop),
        Some("length") => Ok(FinishReason::Length),
        other => bail!("the completion ended for {}, neither \"stop\" nor \"length\"", other.unwrap_or("no reason")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling {
            temperature: 0.5,
            top_p: 1.0,
            top_k: 4,
            min_p: 0.0,
            max_new_tokens: 9,
            stop_tokens: vec![2],
            stop_strings: vec!["\n".into()],
        }
    }

    #[test]
    fn each_server_is_asked_in_its_own_words() {
        let (path, body) = ask(ServerEngine::Vllm, "m", &[5, 6], &sampling(), (7, true));
        let expected = json!({
            "temperature": 0.5, "top_p": 1.0, "top_k": 4, "stop": ["\n"], "skip_special_tokens": false,
            "stop_token_ids": [2], "model": "m", "prompt": [5, 6], "n": 1, "max_tokens": 9, "seed": 7, "logprobs": 0,
            "return_token_ids": true, "include_stop_str_in_output": true,
        });
        assert_eq!((path, &body), ("v1/completions", &expected));
        let (path, body) = ask(ServerEngine::Sglang, "m", &[5, 6], &sampling(), (7, true));
        assert_eq!(body["return_routed_experts"], json!(true));
        let draw = json!({
            "temperature": 0.5, "top_p": 1.0, "top_k": 4, "stop": ["\n"], "skip_special_tokens": false,
            "stop_token_ids": [2], "max_new_tokens": 9, "no_stop_trim": true,
        });
        assert_eq!((path, &body["sampling_params"], &body["input_ids"]), ("generate", &draw, &json!([5, 6])));
    }

    #[test]
    fn token_ids_and_log_probabilities_are_read_and_nothing_else_will_do() {
        let vllm = json!({ "choices": [{ "token_ids": [3, 2], "finish_reason": "stop",
            "logprobs": { "token_logprobs": [-0.25, -1.5] } }] });
        let expected = |version: Option<&str>| Answer {
            tokens: vec![3, 2],
            logprobs: vec![-0.25, -1.5],
            finish: FinishReason::Stop,
            version: version.map(str::to_owned),
            routed: None,
        };
        assert_eq!(answer(ServerEngine::Vllm, &vllm).unwrap(), expected(None));
        let sglang = json!({ "text": "x", "meta_info": { "output_token_logprobs": [[-0.25, 3, null], [-1.5, 2, null]],
            "finish_reason": { "type": "stop", "matched": 2 }, "weight_version": "4" } });
        assert_eq!(answer(ServerEngine::Sglang, &sglang).unwrap(), expected(Some("4")));
        for (at, value, complaint) in [
            ("/choices/0/token_ids", json!(null), "no token_ids"),
            ("/choices/0/token_ids", json!([3]), "1 token ids came with 2"),
            ("/choices/0/token_ids/0", json!(-3), "-3 is no token id"),
            ("/choices/0/logprobs", json!(null), "no logprobs"),
            ("/choices/0/logprobs/token_logprobs/1", json!(2.0), "2.0 is no log-probability"),
            ("/choices/0/finish_reason", json!("abort"), "ended for abort"),
        ] {
            let mut body = vllm.clone();
            *body.pointer_mut(at).unwrap() = value;
            let error = format!("{:#}", answer(ServerEngine::Vllm, &body).unwrap_err());
            assert!(error.contains(complaint), "{at}: {error}");
        }
        for engine in [ServerEngine::Vllm, ServerEngine::Sglang, ServerEngine::Reckon] {
            let refused = updated(engine, r#"{ "success": false, "message": "no room" }"#).unwrap_err();
            assert!(refused.to_string().contains("no room"));
            for words in ["", "Success: LoRA adapter 'policy' added successfully."] {
                // Another server that has no JSON for an update is not the one that was asked for.
                assert_eq!(updated(engine, words).is_ok(), engine == ServerEngine::Vllm, "{engine:?}: {words}");
            }
            assert!(updated(engine, r#"{ "results": [null] }"#).is_ok());
        }
    }
}
