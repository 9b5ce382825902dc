//! Verifiers of one's own outside this program: a Python function, any program, a URL. [`Plugin`] is the verifier;
//! each kind has a file that says how its workers are reached: [`PythonOptions`], [`TrlOptions`], [`VerlOptions`],
//! [`CommandOptions`], [`HttpOptions`]. `rewards/README.md` has the protocol, and a table of what follows from every
//! fault.
//!
//! Read it in this order: `wire` is what is said, `channel` and `worker` how it is said to a process, `http` to a URL;
//! `pool` decides whose fault it is when no verdict comes.

pub(crate) mod channel;
pub(crate) mod command;
mod http;
mod pool;
mod python;
mod wire;
pub(crate) mod worker;

use std::sync::atomic::{AtomicU64, Ordering};

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{Reference, Scope, Submission, Verdict, Verifier, VerifierError};

pub use command::{CommandOptions, ProcessOptions};
pub use http::HttpOptions;
pub use pool::PoolOptions;
pub use python::{PythonOptions, TrlOptions, VerlOptions};

use pool::{Pool, Worker};
use wire::Call;

/// Options that say how the workers of a kind of plug-in are started, and what they are given.
pub trait PluginOptions {
    /// The rest of what [`Plugin::new`] needs.
    fn setup(&self) -> Setup;
}

/// What becomes of a completion over which a plug-in fails: an exception, an `error`, a value that is no reward, an HTTP
/// status of 400 or above. Time-outs and crashes are not meant: they are the completion's doing, and get reward 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is judged again, and then the run stops.
    #[default]
    Stop,
    /// It is not judged, and counted as [`crate::Outcome::Error`]. The run stops beyond a share of such completions
    /// ([`crate::RubricConfig::max_error_share`]).
    Skip,
}

/// How workers are started, and what they are given. Made by the options of this crate.
pub struct Setup {
    scope: Scope,
    token_ids: bool,
    layout: Option<String>,
    on_error: OnError,
    pool: PoolOptions,
    start: Box<dyn Fn() -> Result<Box<dyn Worker>, String> + Send + Sync>,
}

impl Setup {
    fn new(
        scope: Scope,
        pool: &PoolOptions,
        start: impl Fn() -> Result<Box<dyn Worker>, String> + Send + Sync + 'static,
    ) -> Self {
        let start = Box::new(start);
        Self { scope, token_ids: false, layout: None, on_error: OnError::Stop, pool: pool.clone(), start }
    }

    fn with_token_ids(self) -> Self {
        Self { token_ids: true, ..self }
    }

    fn laid_out(self, layout: &Option<String>) -> Self {
        Self { layout: layout.clone(), ..self }
    }

    fn on_error(self, on_error: OnError) -> Self {
        Self { on_error, ..self }
    }
}

/// What stands for the answer in a layout.
const ANSWER: &str = "{answer}";

/// A verifier that runs outside this program.
pub struct Plugin {
    name: String,
    scope: Scope,
    token_ids: bool,
    /// What stands before and behind an answer in a completion.
    layout: Option<(String, String)>,
    on_error: OnError,
    pool: Pool,
    /// The id of the next call.
    next: AtomicU64,
}

impl Plugin {
    /// A verifier called `name`. One worker is started at once, so that a plug-in that cannot work is found before the
    /// first completion.
    pub fn new(name: &str, options: &impl PluginOptions) -> Result<Self, VerifierError> {
        let Setup { scope, token_ids, layout, on_error, pool, start } = options.setup();
        let split = |layout: String| match layout.split_once(ANSWER) {
            Some((before, behind)) => Ok((before.to_owned(), behind.to_owned())),
            None => Err(VerifierError::config(name, format!("`layout = {layout:?}` has no `{ANSWER}`"))),
        };
        let layout = layout.map(split).transpose()?;
        let pool = Pool::new(pool, start).map_err(|problem| VerifierError::config(name, problem))?;
        Ok(Self { name: name.into(), scope, token_ids, layout, on_error, pool, next: AtomicU64::new(0) })
    }
}

impl Verifier for Plugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        self.layout.as_ref().and_then(|_| Reference::value(&example.answer))
    }

    fn lay_out(&self, draft: &str) -> String {
        match &self.layout {
            Some((before, behind)) if !(draft.contains(before) && draft.contains(behind)) => {
                format!("{before}{draft}{behind}")
            }
            _ => draft.to_owned(),
        }
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(self.verify_batch(&[Submission::new(example, completion)])?.remove(0))
    }

    fn spreads(&self) -> bool {
        true
    }

    fn verify_batch(&self, batch: &[Submission]) -> Result<Vec<Verdict>, VerifierError> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let asked: Vec<&[Submission]> = match self.scope {
            Scope::Completion => batch.chunks(1).collect(),
            Scope::Group => vec![batch],
        };
        let call = |asked: &[Submission]| {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            Call::new(id, self.scope, asked, self.token_ids, self.on_error)
        };
        let verdicts = self.pool.judge(&asked, &call);
        verdicts.map_err(|(place, problem)| {
            let example = asked.get(place).map_or(first.example, |asked| asked[0].example);
            VerifierError::infra(&self.name, example, problem)
        })
    }
}
