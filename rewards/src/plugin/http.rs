//! Kind `http`: a URL that answers a POST of a call with the JSON of an answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::{Answers, Fault, PoolOptions, Worker};
use super::wire::{Answer, Call};
use super::{OnError, PluginOptions, Setup};
use crate::{Outcome, Scope};

/// A reply of more bytes than this is refused.
const MAX_REPLY: u64 = 1 << 20;

/// Options of kind `http`.
///
/// ```no_run
/// use reckon_datasets::Example;
/// use reckon_rewards::{HttpOptions, Plugin, Verifier};
///
/// // POST {"id": 0, "question": "?", "answer": "4", "completion": "4", ...} is answered by {"reward": 1}
/// let options = HttpOptions { url: "http://localhost:8000/verify".into(), ..Default::default() };
/// let verifier = Plugin::new("remote", &options)?;
/// let example = Example { id: "1".into(), question: "?".into(), answer: "4".into(), ..Example::default() };
/// assert!(verifier.verify(&example, "4")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpOptions {
    /// Where calls are sent, `http` only: a service that speaks TLS stands behind a proxy of one's own.
    pub url: String,
    /// Whether a call holds one completion or a whole group.
    #[serde(default)]
    pub scope: Scope,
    /// How an answer stands in a completion, with `{answer}` in its place: `Answer: {answer}`. Audits try the answers
    /// of rows so; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// What becomes of a completion over which it fails.
    #[serde(default)]
    pub on_error: OnError,
    /// How many requests at a time, and how faults are met.
    #[serde(default)]
    pub pool: PoolOptions,
}

impl PluginOptions for HttpOptions {
    fn setup(&self) -> Setup {
        let (url, timeout_s) = (self.url.clone(), self.pool.timeout_s);
        let start = move || {
            if !url.starts_with("http://") {
                return Err(format!("`url = {url:?}` does not begin with `http://`"));
            }
            let agent = ureq::Agent::config_builder().http_status_as_error(true).build().new_agent();
            Ok(Box::new(Remote { agent, url: url.clone(), timeout_s }) as Box<dyn Worker>)
        };
        Setup::new(self.scope, &self.pool, start).laid_out(&self.layout).on_error(self.on_error)
    }
}

/// One connection, kept open between calls.
struct Remote {
    agent: ureq::Agent,
    url: String,
    timeout_s: f64,
}

impl Remote {
    fn post(&self, call: &Call) -> Result<Vec<u8>, ureq::Error> {
        let timeout = Duration::from_secs_f64(self.timeout_s * call.count as f64);
        let request = self.agent.post(&self.url).config().timeout_global(Some(timeout)).build();
        let mut reply = request.content_type("application/json").send(call.line.as_str())?;
        reply.body_mut().with_config().limit(MAX_REPLY).read_to_vec()
    }
}

impl Worker for Remote {
    fn judge(&mut self, calls: &[&Call], answers: &mut Answers) -> Result<(), Fault> {
        for (place, call) in calls.iter().enumerate() {
            let broken = |problem: String| Fault::Broken(place, format!("{}: {problem}", self.url));
            let answer = match self.post(call) {
                Ok(reply) => Answer::parse(&reply).map_err(broken)?,
                Err(error @ ureq::Error::StatusCode(_)) => Answer::error(error.to_string()),
                Err(error @ ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect)) => {
                    return Err(broken(error.to_string()));
                }
                Err(ureq::Error::Timeout(_)) => return Err(Fault::Died(Outcome::Timeout)),
                Err(error) => return Err(broken(error.to_string())),
            };
            if answer.id.is_some_and(|id| id != call.id) {
                return Err(broken(format!("call {} was answered with another id", call.id)));
            }
            answers.push((place, call.verdicts(answer).map_err(broken)?));
        }
        Ok(())
    }
}
