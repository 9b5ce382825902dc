//! A teacher behind a URL that speaks OpenAI's protocol: requests at a time, retries, and what an answer has to be. Every
//! completion that is asked for is handed on; one that is given up comes as a text of nothing, cut short.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reckon_datasets::Plain;
use serde_json::{Value, json};

use super::teacher::Usage;
use crate::config::{RolloutConfig, TeacherConfig, TeacherPlace};
use crate::http::{Client, Limits, beginning};
use crate::output::note;
use crate::parallel::lock;
use crate::prompt::Prompt;
use crate::rollout::{Completion, FinishReason, Finished, ToolUse};

/// A service and how it is asked.
pub struct Service {
    client: Client,
    url: String,
    /// What every request says beside messages and seed.
    body: Value,
    config: TeacherConfig,
    seed: u64,
}

/// What came of one request.
enum Outcome {
    Answer(Answer),
    /// The service may do better the next time; after so many seconds, if it says.
    Again(String, Option<f64>),
    /// It will not: asking again is of no use.
    Refused(String),
}

struct Answer {
    text: String,
    finish: FinishReason,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Service {
    /// The service of a config, asked for completions as `rollout` says. `key` is what its key's variable holds.
    pub fn new(config: &TeacherConfig, rollout: &RolloutConfig, key: Option<String>, seed: u64) -> Result<Self> {
        let TeacherPlace::Url(url, model) = config.place()? else { bail!("the teacher is no service") };
        ensure!(
            rollout.top_k == 0 && rollout.min_p == 0.0,
            "rollout.top_k and rollout.min_p are not in OpenAI's protocol: a teacher behind a URL cannot be asked for them"
        );
        let mut body = json!({
            "model": model, "n": 1, "max_tokens": rollout.max_new_tokens,
            "temperature": rollout.temperature, "top_p": rollout.top_p,
        });
        if !rollout.stop.is_empty() {
            body["stop"] = json!(rollout.stop);
        }
        let limits = Limits { seconds: config.timeout_s, slow: "raise teacher.timeout_s", bytes: 1 << 24 };
        let url = format!("{}/chat/completions", url.trim_end_matches('/'));
        Ok(Self { client: Client::new(limits, key)?, url, body, config: config.clone(), seed })
    }

    /// `samples` completions of every prompt, `concurrency` at a time.
    pub(super) fn answer(&self, prompts: &[Prompt], samples: usize, finished: &Finished) -> Result<Usage> {
        let (next, usage, faults) = (AtomicUsize::new(0), Mutex::new(Usage::default()), mpsc::channel());
        let all = prompts.len() * samples;
        std::thread::scope(|scope| {
            for _ in 0..self.config.concurrency.min(all) {
                let faults = faults.0.clone();
                scope.spawn(|| {
                    let faults = faults;
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= all {
                            break;
                        }
                        let (prompt, sample) = (index / samples, index % samples);
                        let (completion, cost, fault) = self.complete(&prompts[prompt], sample);
                        lock(&usage).add(cost);
                        finished(prompt, sample, completion);
                        // The receiver outlives the threads.
                        fault.into_iter().for_each(|fault| drop(faults.send(fault)));
                    }
                });
            }
        });
        drop(faults.0);
        let usage = usage.into_inner().unwrap_or_default();
        let first = faults.1.into_iter().next();
        let most = (self.config.max_failed * all as f64).floor() as usize;
        if let Some(first) = first {
            ensure!(
                usage.failed <= most,
                "{} of {all} requests to the teacher failed, more than teacher.max_failed allows; the first: {first}",
                usage.failed
            );
            note!("{} of {all} requests failed and are left out; the first: {first}", usage.failed);
        }
        Ok(usage)
    }

    /// One completion: as often as it takes, or `retries` times more than once.
    fn complete(&self, prompt: &Prompt, sample: usize) -> (Completion, Usage, Option<String>) {
        let mut usage = Usage::default();
        let mut wait = self.config.backoff_s;
        let request = self.request(prompt, sample);
        let fault = loop {
            match self.ask(&request) {
                Outcome::Answer(Answer { text, finish, prompt_tokens, completion_tokens }) => {
                    usage.add(Usage { prompt_tokens, completion_tokens, ..Usage::default() });
                    return (completion(text, finish), usage, None);
                }
                Outcome::Refused(fault) => break fault,
                Outcome::Again(fault, _) if usage.retries >= self.config.retries => break fault,
                Outcome::Again(_, told) => {
                    // A service that says when it will be ready is believed, within reason.
                    let seconds = told.unwrap_or(wait).clamp(0.0, 60.0);
                    std::thread::sleep(Duration::from_secs_f64(seconds));
                    wait *= 2.0;
                    usage.retries += 1;
                }
            }
        };
        usage.failed = 1;
        (completion(String::new(), FinishReason::Length), usage, Some(fault))
    }

    fn request(&self, prompt: &Prompt, sample: usize) -> String {
        let mut body = self.body.clone();
        let messages = match &prompt.example.messages[..] {
            [] => vec![json!({ "role": "user", "content": prompt.example.question })],
            messages => messages.to_vec(),
        };
        body["messages"] = Value::Array(messages);
        // Of a service that knows seeds, the same completions come again.
        body["seed"] = json!(self.seed.wrapping_add(prompt.index << 16).wrapping_add(sample as u64) & 0x7fff_ffff);
        serde_json::to_string(&Plain(&body)).unwrap_or_default()
    }

    fn ask(&self, request: &str) -> Outcome {
        let reply = match self.client.post(&self.url, request) {
            Ok(reply) => reply,
            Err(fault) => return Outcome::Again(format!("{fault:#}"), None),
        };
        match reply.status {
            200 => match answer(&reply.text) {
                Ok(answer) => Outcome::Answer(answer),
                Err(fault) => Outcome::Again(format!("{}: {fault:#}: {}", self.url, beginning(&reply.text)), None),
            },
            408 | 409 | 429 | 500.. => Outcome::Again(reply.refusal(), reply.retry_after),
            _ => Outcome::Refused(reply.refusal()),
        }
    }
}

/// A completion without tokens: only the service knows them.
fn completion(text: String, finish: FinishReason) -> Completion {
    Completion { tokens: Vec::new(), logprobs: Vec::new(), text, finish, tools: ToolUse::default(), routed: None }
}

/// What of an answer is the completion. Thoughts that a service gives apart are put back in front.
fn answer(text: &str) -> Result<Answer> {
    let body: Value = serde_json::from_str(text).context("the answer is no JSON")?;
    let choice = body["choices"].get(0).context("the answer has no choice")?;
    let message = &choice["message"];
    ensure!(message["role"] == "assistant", "the answer is of role {}, not of the assistant", message["role"]);
    let content = message["content"].as_str().context("the answer says nothing")?;
    let thought = ["reasoning_content", "reasoning"].iter().find_map(|name| message[*name].as_str());
    let text = match thought.filter(|thought| !thought.is_empty()) {
        Some(thought) => format!("<think>\n{}\n</think>\n\n{content}", thought.trim()),
        None => content.to_owned(),
    };
    ensure!(!text.trim().is_empty(), "the answer says nothing");
    let finish = match choice["finish_reason"].as_str() {
        Some("stop") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        other => bail!("the answer ends for {}, neither \"stop\" nor \"length\"", other.unwrap_or("no reason")),
    };
    let count = |name: &str| body["usage"][name].as_u64().unwrap_or(0) as usize;
    Ok(Answer { text, finish, prompt_tokens: count("prompt_tokens"), completion_tokens: count("completion_tokens") })
}
