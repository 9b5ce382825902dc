//! Environments of others, behind OpenEnv's protocol: a WebSocket for each session, on which `reset` and `step` are
//! answered by an observation (`openenv-core` 0.3, `/ws`). What a call is as an action, which part of an answer the
//! model reads, and that a step's reward is the call's, is here; the connection is in `session`, and what keeps it open
//! while nobody calls in `keeper`.
//!
//! A session belongs to a completion: opened and reset by its first call, closed when the completion is done.

mod keeper;
mod session;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reckon_datasets::{Counted, Example};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tungstenite::http::Uri;

use super::{Said, State, Tool, reward_in};
use crate::plugin::command::seconds;
use keeper::Keeper;
pub use session::Session;
use session::{Fault, Line};

/// Seconds before a server that gave no session is asked again: the first time, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// Options of kind `openenv`.
///
/// In `action` and `reset` a text that is `{name}` and nothing else stands for a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEnvOptions {
    /// What calls name it by; the kind when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Servers of one environment, `ws://host:port` each, to which `/ws` is added; sessions are dealt to them in turn.
    pub urls: Vec<String>,
    /// The action that a call is: `{input}` stands for its text, `{json}` for the value that it is the JSON of.
    #[serde(default = "json_call")]
    pub action: Value,
    /// What a reset is told: `{seed}` stands for a whole number that follows from the row's id, `{id}`, `{question}`,
    /// `{answer}` and the name of any column for the row's.
    #[serde(default = "seeded")]
    pub reset: Map<String, Value>,
    /// What the model reads of an answer, which has `observation`, `reward` and `done`: JSON pointers, one a line. A text
    /// is shown as it is, other values as JSON, null not at all.
    #[serde(default = "observation")]
    pub show: Vec<String>,
    /// Seconds for an answer to a step.
    #[serde(default = "minute")]
    pub timeout_s: f64,
    /// Seconds for a session: until a server has taken the connection and reset its environment.
    #[serde(default = "minute")]
    pub open_s: f64,
}

fn json_call() -> Value {
    "{json}".into()
}

fn seeded() -> Map<String, Value> {
    Map::from_iter([("seed".to_owned(), "{seed}".into())])
}

fn observation() -> Vec<String> {
    vec!["/observation".into()]
}

fn minute() -> f64 {
    60.0
}

/// An environment on servers.
#[derive(Debug)]
pub struct OpenEnv {
    servers: Vec<Uri>,
    action: Value,
    reset: Map<String, Value>,
    show: Vec<String>,
    timeout: Duration,
    open: Duration,
    /// Connections so far, which says whose turn it is.
    opened: AtomicUsize,
    keeper: Keeper,
}

impl OpenEnv {
    /// An environment. Every server is asked for its state, so that one that is not there is found before the first call.
    ///
    /// # Errors
    /// Options that make no sense, and a server that does not speak the protocol.
    pub fn new(options: &OpenEnvOptions) -> Result<Self, String> {
        let [timeout, open] = [("timeout_s", options.timeout_s), ("open_s", options.open_s)].map(|(key, value)| {
            let found = seconds(key, value)?;
            if found.is_zero() {
                Err(format!("`{key} = {value}` must be a number of seconds above 0"))
            } else {
                Ok(found)
            }
        });
        if options.urls.is_empty() {
            return Err("`urls` is empty: give the address of a server, `ws://host:port`".into());
        }
        if options.show.is_empty() {
            return Err("`show` is empty: name what the model reads, such as \"/observation\"".into());
        }
        if let Some(pointer) = options.show.iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            return Err(format!("`show`: {pointer:?} is no JSON pointer, as \"/observation/text\" is"));
        }
        filled(&options.action, &|name| call_value(name, "{}")).map_err(|problem| format!("`action`: {problem}"))?;
        let servers = options.urls.iter().map(|url| endpoint(url)).collect::<Result<Vec<_>, _>>()?;
        let made = Self {
            servers,
            action: options.action.clone(),
            reset: options.reset.clone(),
            show: options.show.clone(),
            timeout: timeout?,
            open: open?,
            opened: AtomicUsize::new(0),
            keeper: Keeper::start()?,
        };
        for (url, server) in options.urls.iter().zip(&made.servers) {
            let probed =
                made.connect(server, made.open).and_then(|mut line| line.ask(&json!({"type": "state"}), made.open));
            match probed {
                // A server that is full, or whose environment has no state before it is reset, is there all the same.
                Ok(_) | Err(Fault::Refused { .. }) => {}
                Err(Fault::Over(reason)) => return Err(format!("`{url}`: {reason}")),
            }
        }
        Ok(made)
    }

    fn connect(&self, server: &Uri, within: Duration) -> Result<Line, Fault> {
        Line::connect(server, within).map_err(Fault::Over)
    }

    /// A session that was reset for `example`: of the server whose turn it is, or of the next one, again and again until
    /// there is one.
    fn session(&self, example: &Example) -> Result<Result<Session, String>, String> {
        let reset = filled(&self.reset.clone().into(), &|name| row_value(name, example))
            .map_err(|problem| format!("`reset`: {problem}"))?;
        let message = json!({"type": "reset", "data": reset});
        let until = Instant::now() + self.open;
        // A server that takes the connection and says nothing leaves time for the others.
        let share = self.open / self.servers.len() as u32;
        let [mut pause, longest] = PAUSES;
        loop {
            let server = &self.servers[self.opened.fetch_add(1, Ordering::Relaxed) % self.servers.len()];
            let within = share.min(until.saturating_duration_since(Instant::now()));
            let begun = self.connect(server, within).and_then(|mut line| Ok((line.ask(&message, within)?, line)));
            match begun {
                Ok((answer, line)) => return Ok(Ok(self.keeper.keep(Session::new(line, answer)))),
                Err(fault) if !fault.passes() => return Ok(Err(fault.to_string())),
                Err(fault) if Instant::now() + pause >= until => {
                    return Ok(Err(format!("no session within {} s: {fault}", self.open.as_secs_f64())));
                }
                Err(_) => std::thread::sleep(pause),
            }
            pause = (2 * pause).min(longest);
        }
    }

    /// What the model reads of an answer.
    fn shown(&self, answer: &Value) -> Result<String, String> {
        let found: Vec<&Value> = self.show.iter().filter_map(|pointer| answer.pointer(pointer)).collect();
        if found.is_empty() {
            return Err(format!("the answer has no {}", self.show.join(", ")));
        }
        let texts = found.into_iter().filter(|value| !value.is_null());
        let texts: Vec<String> =
            texts.map(|value| value.as_str().map_or_else(|| value.to_string(), String::from)).collect();
        Ok(texts.join("\n"))
    }

    /// What is said of a step: what is shown of its answer, and the reward in it, which counts whatever is shown.
    fn said(&self, answer: &Value) -> Said {
        match reward_in(&answer["reward"]) {
            Ok(reward) => Said { text: self.shown(answer), reward },
            Err(problem) => Said::failed(problem),
        }
    }
}

impl Tool for OpenEnv {
    /// A step with the action that the call is. An empty call is no step: it is answered by what was observed last, which
    /// in a first call is the observation of the reset.
    fn call(&self, example: &Example, state: &mut State, input: &str) -> Result<Said, String> {
        let looks = input.trim().is_empty();
        let action = match filled(&self.action, &|name| call_value(name, input)) {
            _ if looks => Value::Null,
            Ok(action @ Value::Object(_)) => action,
            Ok(_) => return Ok(Said::failed("the action is no JSON object")),
            Err(problem) => return Ok(Said::failed(problem)),
        };
        let mut session = match std::mem::take(state) {
            State::Session(session) => session,
            State::Nothing | State::Told(_) => match self.session(example)? {
                Ok(session) => Box::new(session),
                Err(reason) => return Ok(Said::failed(reason)),
            },
        };
        let said = if looks {
            Said { text: self.shown(session.last()), reward: None }
        } else {
            match session.step(&action, self.timeout) {
                Ok(()) => self.said(session.last()),
                Err(reason) => Said::failed(reason),
            }
        };
        *state = State::Session(session);
        Ok(said)
    }
}

/// Where a server takes connections.
fn endpoint(url: &str) -> Result<Uri, String> {
    let refused = |why: &str| format!("`{url}` {why}: give a server as `ws://host:port`");
    if url.starts_with("wss://") || url.starts_with("https://") {
        return Err(format!(
            "`{url}` speaks TLS, which is not spoken here: put a proxy of your own before it, `ws://`"
        ));
    }
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| refused("does not begin with `ws://`"))?;
    let found: Uri = format!("ws://{}/ws", rest.trim_end_matches('/')).parse().map_err(|_| refused("is no address"))?;
    if found.host().is_none_or(str::is_empty) { Err(refused("names no host")) } else { Ok(found) }
}

/// `template` with a value in place of every text that is `{name}` and nothing else.
fn filled(template: &Value, of: &dyn Fn(&str) -> Result<Value, String>) -> Result<Value, String> {
    Ok(match template {
        Value::String(text) => match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => of(name)?,
            None => template.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, of)).collect::<Result<_, _>>()?,
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.clone(), filled(value, of)?)));
            Value::Object(fields.collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    })
}

/// What `name` stands for in an action.
fn call_value(name: &str, input: &str) -> Result<Value, String> {
    match name {
        "input" => Ok(input.into()),
        "json" => serde_json::from_str(input).map_err(|error| format!("the call is no JSON: {error}")),
        _ => Err(format!("nothing is called `{{{name}}}`; a call has `{{input}}` and `{{json}}`")),
    }
}

/// What `name` stands for in a reset.
fn row_value(name: &str, example: &Example) -> Result<Value, String> {
    Ok(match name {
        "seed" => seed(&example.id).into(),
        "id" => example.id.clone().into(),
        "question" => example.question.clone().into(),
        "answer" => json!(example.answer),
        column => match example.info.get(column) {
            Some(value) => value.clone(),
            None => return Err(format!("nothing is called `{{{column}}}` in row `{}`", example.id)),
        },
    })
}

/// A number of 31 bits, which any generator takes, by which all completions of a row begin alike.
fn seed(id: &str) -> u64 {
    let names: Vec<u64> = id.bytes().map(u64::from).collect();
    Counted::new(&names).next_u64() >> 33
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_actions_and_resets() {
        let info = Map::from_iter([("level".to_owned(), json!(3))]);
        let example =
            Example { id: "row".into(), question: "q".into(), answer: "a".into(), info, ..Example::default() };
        for (template, input, expected) in [
            (json!("{json}"), r#"{"x": [1]}"#, Ok(json!({"x": [1]}))),
            (json!({"message": "{input}"}), "{json}", Ok(json!({"message": "{json}"}))),
            (json!({"a": [{"b": "{json}"}, 1, null]}), "2.5", Ok(json!({"a": [{"b": 2.5}, 1, null]}))),
            (json!({"text": "an {input}"}), "x", Ok(json!({"text": "an {input}"}))),
            (json!("{json}"), "x", Err("the call is no JSON: expected value at line 1 column 1")),
            (json!("{call}"), "x", Err("nothing is called `{call}`; a call has `{input}` and `{json}`")),
        ] {
            let found = filled(&template, &|name| call_value(name, input));
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{template}");
        }
        let reset = json!({"seed": "{seed}", "level": "{level}", "as": ["{id}", "{question}", "{answer}"]});
        let found = filled(&reset, &|name| row_value(name, &example)).unwrap();
        assert_eq!(found, json!({"seed": seed("row"), "level": 3, "as": ["row", "q", "a"]}));
        assert!(seed("row") < 1 << 31 && seed("row") != seed("wor"));
        let missing = filled(&json!("{size}"), &|name| row_value(name, &example)).unwrap_err();
        assert_eq!(missing, "nothing is called `{size}` in row `row`");
    }

    #[test]
    fn addresses_are_those_that_the_protocols_own_client_takes() {
        for (url, expected) in [
            ("ws://localhost:8000", Ok("ws://localhost:8000/ws")),
            ("http://10.0.0.1:8000/", Ok("ws://10.0.0.1:8000/ws")),
            ("ws://[::1]:80/envs/echo", Ok("ws://[::1]:80/envs/echo/ws")),
            ("wss://host", Err("speaks TLS")),
            ("localhost:8000", Err("does not begin with `ws://`")),
            ("ws://", Err("is no address")),
        ] {
            match (endpoint(url), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }
}
