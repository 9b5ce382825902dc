//! The words of OpenAI's protocol: what a request asks for, and how completions are answered, whole or piece by piece.
//!
//! Token ids go in and out too, in the words of vLLM: a prompt may be a list of ids, and `return_token_ids` asks for
//! those of prompt and completion, `return_routed_experts` for the experts that they went to.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::rollout::{Completion, FinishReason, Sampling};

/// Completions of one request, at most.
const MAX_CHOICES: usize = 1024;

/// Keys whose meaning this server has no way to keep, with the values that ask for nothing.
const NOT_HERE: [(&str, &[&str]); 10] = [
    ("tools", &["null", "[]"]),
    ("functions", &["null", "[]"]),
    ("response_format", &["null", r#"{"type":"text"}"#]),
    ("logit_bias", &["null", "{}"]),
    ("presence_penalty", &["null", "0", "0.0"]),
    ("frequency_penalty", &["null", "0", "0.0"]),
    ("repetition_penalty", &["null", "1", "1.0"]),
    ("best_of", &["null", "1"]),
    ("echo", &["null", "false"]),
    ("suffix", &["null", r#""""#]),
];

/// Which of the two kinds of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Chat,
}

/// What is to be completed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Words {
    Text(String),
    Tokens(Vec<u32>),
    Messages(Vec<Value>),
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) prompts: Vec<Words>,
    pub(super) samples: usize,
    /// Without the tokens that end a completion, which are the model's.
    pub(super) sampling: Sampling,
    pub(super) seed: Option<u64>,
    pub(super) stream: bool,
    pub(super) logprobs: bool,
    pub(super) token_ids: bool,
    /// Whether the experts of tokens are told.
    pub(super) routed: bool,
}

/// Reads a request whose completions have at most `max_new_tokens` tokens where it does not say.
pub(super) fn read(body: &[u8], kind: Kind, max_new_tokens: usize) -> Result<Asked> {
    let body: Map<String, Value> = serde_json::from_slice(body).context("the request is no JSON object")?;
    for (key, nothing) in NOT_HERE {
        let value = body.get(key).map_or("null".to_owned(), ToString::to_string);
        ensure!(nothing.contains(&value.as_str()), "{key} = {value:.60}: this server does not do that; leave it out");
    }
    let prompts = match kind {
        Kind::Text => prompts(body.get("prompt").context("there is no prompt")?)?,
        Kind::Chat => {
            let messages = body.get("messages").and_then(Value::as_array).context("there are no messages")?;
            ensure!(!messages.is_empty(), "messages is empty");
            vec![Words::Messages(messages.clone())]
        }
    };
    let samples = count(&body, "n")?.unwrap_or(1);
    ensure!(
        samples >= 1 && !prompts.is_empty() && samples.saturating_mul(prompts.len()) <= MAX_CHOICES,
        "n = {samples} of {} prompts: from 1 to {MAX_CHOICES} completions are made at a time",
        prompts.len()
    );
    let longest = count(&body, "max_completion_tokens")?.or(count(&body, "max_tokens")?).unwrap_or(max_new_tokens);
    ensure!(longest >= 1, "max_tokens = {longest}: it must be at least 1");
    let sampling = Sampling {
        temperature: number(&body, "temperature", 1.0, 0.0..=100.0)? as f32,
        top_p: number(&body, "top_p", 1.0, 1e-6..=1.0)? as f32,
        top_k: body
            .get("top_k")
            .filter(|k| k.as_i64() != Some(-1))
            .map_or(Ok(None), |_| count(&body, "top_k"))?
            .unwrap_or(0),
        min_p: number(&body, "min_p", 0.0, 0.0..=1.0)? as f32,
        max_new_tokens: longest,
        stop_tokens: Vec::new(),
        stop_strings: stops(body.get("stop"))?,
    };
    // Asked for as a count of alternatives in texts, of which there are none, and as a switch in chats.
    let asks = |key: &str| body.get(key).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    let seed = count(&body, "seed")?.map(|seed| seed as u64);
    let (stream, logprobs, token_ids) = (asks("stream"), asks("logprobs"), asks("return_token_ids"));
    let routed = asks("return_routed_experts");
    Ok(Asked { prompts, samples, sampling, seed, stream, logprobs, token_ids, routed })
}

fn prompts(value: &Value) -> Result<Vec<Words>> {
    let tokens = |ids: &[Value]| -> Option<Vec<u32>> {
        ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
    };
    let one = |value: &Value| match value {
        Value::String(text) => Some(Words::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => tokens(ids).map(Words::Tokens),
        _ => None,
    };
    let all = match value {
        Value::Array(items) if items.iter().all(Value::is_number) => one(value).map(|words| vec![words]),
        Value::Array(items) => items.iter().map(one).collect(),
        _ => one(value).map(|words| vec![words]),
    };
    all.context("prompt is a text, a list of texts, token ids, or a list of lists of these")
}

fn stops(value: Option<&Value>) -> Result<Vec<String>> {
    let texts = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            let texts: Option<Vec<String>> = items.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            texts.context("stop is a text or a list of texts")?
        }
        Some(other) => bail!("stop = {other}: it is a text or a list of texts"),
    };
    ensure!(texts.iter().all(|text| !text.is_empty()), "stop has an empty text");
    Ok(texts)
}

fn count(body: &Map<String, Value>, key: &str) -> Result<Option<usize>> {
    let value = body.get(key).filter(|value| !value.is_null());
    let read = |value: &Value| value.as_u64().with_context(|| format!("{key} = {value}: it is a whole number"));
    Ok(value.map(read).transpose()?.map(|count| count as usize))
}

fn number(body: &Map<String, Value>, key: &str, default: f64, range: std::ops::RangeInclusive<f64>) -> Result<f64> {
    let Some(value) = body.get(key).filter(|value| !value.is_null()) else { return Ok(default) };
    let number = value.as_f64().filter(|number| range.contains(number));
    number.with_context(|| format!("{key} = {value}: it is a number from {} to {}", range.start(), range.end()))
}

/// A completion without the text that ended it, as the protocol has it.
pub(super) fn trimmed<'t>(text: &'t str, stops: &[String]) -> &'t str {
    let end = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
    &text[..end.unwrap_or(text.len())]
}

/// The word for why it ended.
pub(super) fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// What all answers to a request begin with.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    fn body(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices })
    }

    /// A piece of a streamed completion; the last one says why it ended.
    pub(super) fn piece(&self, choice: usize, text: &str, finish: Option<FinishReason>) -> Value {
        let finish = finish.map(finish_reason);
        match self.kind {
            Kind::Text => self.body(
                "text_completion",
                vec![json!({ "index": choice, "text": text, "logprobs": null, "finish_reason": finish })],
            ),
            Kind::Chat => {
                let delta = json!({ "role": "assistant", "content": text });
                let choice = json!({ "index": choice, "delta": delta, "finish_reason": finish });
                self.body("chat.completion.chunk", vec![choice])
            }
        }
    }

    /// All completions of a request, with the tokens of their prompts; `name` is the text of a token.
    pub(super) fn whole(
        &self,
        asked: &Asked,
        prompts: &[Vec<u32>],
        completions: &[Completion],
        name: impl Fn(u32) -> String,
    ) -> Value {
        let choices = completions.iter().enumerate().map(|(index, completion)| {
            let text = trimmed(&completion.text, &asked.sampling.stop_strings);
            let mut choice = json!({ "index": index, "finish_reason": finish_reason(completion.finish) });
            let names: Vec<String> = completion.tokens.iter().map(|&token| name(token)).collect();
            match self.kind {
                Kind::Text => choice["text"] = json!(text),
                Kind::Chat => choice["message"] = json!({ "role": "assistant", "content": text }),
            }
            choice["logprobs"] = match (asked.logprobs, self.kind) {
                (false, _) => Value::Null,
                (true, Kind::Text) => json!({ "tokens": names, "token_logprobs": completion.logprobs }),
                (true, Kind::Chat) => {
                    let pairs = names.iter().zip(&completion.logprobs);
                    let tokens = pairs.map(|(name, logprob)| json!({ "token": name, "logprob": logprob }));
                    json!({ "content": tokens.collect::<Vec<_>>() })
                }
            };
            if asked.token_ids {
                choice["token_ids"] = json!(completion.tokens);
                choice["prompt_token_ids"] = json!(prompts[index / asked.samples]);
            }
            if let Some(routed) = &completion.routed {
                choice["routed_experts"] = json!(routed.to_text());
            }
            choice
        });
        let object = if self.kind == Kind::Text { "text_completion" } else { "chat.completion" };
        let mut body = self.body(object, choices.collect());
        let asked: usize = prompts.iter().map(Vec::len).sum();
        let made: usize = completions.iter().map(|completion| completion.tokens.len()).sum();
        body["usage"] = json!({ "prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made });
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_clients_write_them() {
        let text = |body: &str| read(body.as_bytes(), Kind::Text, 256).unwrap();
        let simple = text(r#"{"model": "x", "prompt": "1 + 1 ="}"#);
        assert_eq!((simple.prompts, simple.samples), (vec![Words::Text("1 + 1 =".into())], 1));
        assert_eq!((simple.sampling.max_new_tokens, simple.sampling.temperature), (256, 1.0));
        let ids =
            text(r#"{"prompt": [5, 6], "n": 3, "seed": 7, "max_tokens": 9, "return_token_ids": true, "logprobs": 0}"#);
        assert_eq!(ids.prompts, [Words::Tokens(vec![5, 6])]);
        assert!(ids.token_ids && ids.logprobs && ids.seed == Some(7) && ids.sampling.max_new_tokens == 9);
        let many = text(r#"{"prompt": [[1], "two"], "stop": "\n", "top_k": -1, "temperature": 0, "stream": true}"#);
        assert_eq!(many.prompts, [Words::Tokens(vec![1]), Words::Text("two".into())]);
        assert!(many.stream && many.sampling.stop_strings == ["\n"] && many.sampling.temperature == 0.0);
        let chat = read(br#"{"messages": [{"role": "user", "content": "hi"}]}"#, Kind::Chat, 8).unwrap();
        assert!(matches!(&chat.prompts[..], [Words::Messages(messages)] if messages.len() == 1));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (kind, body, expected) in [
            (Kind::Text, "[]", "no JSON object"),
            (Kind::Text, "{}", "there is no prompt"),
            (Kind::Chat, r#"{"messages": []}"#, "messages is empty"),
            (Kind::Text, r#"{"prompt": [-1]}"#, "prompt is a text"),
            (Kind::Text, r#"{"prompt": []}"#, "prompt is a text"),
            (Kind::Text, r#"{"prompt": "a", "n": 0}"#, "n = 0"),
            (Kind::Text, r#"{"prompt": "a", "n": 5000}"#, "n = 5000"),
            (Kind::Text, r#"{"prompt": "a", "temperature": -1}"#, "temperature = -1"),
            (Kind::Text, r#"{"prompt": "a", "stop": 3}"#, "stop = 3"),
            (Kind::Text, r#"{"prompt": "a", "seed": "x"}"#, "seed = \"x\""),
            (Kind::Text, r#"{"prompt": "a", "echo": true}"#, "echo = true"),
            (Kind::Chat, r#"{"messages": [1], "tools": [{"type": "function"}]}"#, "tools = "),
        ] {
            let error = read(body.as_bytes(), kind, 256).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{body}: {error:#}");
        }
    }

    #[test]
    fn a_text_ends_before_what_stopped_it() {
        let stops = ["</answer>".to_owned(), "\n".to_owned()];
        for (text, expected) in [("a\nb</answer>", "a"), ("a", "a"), ("4</answer>", "4"), ("", "")] {
            assert_eq!(trimmed(text, &stops), expected);
        }
    }
}
