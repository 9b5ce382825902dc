//! Sampling by servers: vLLM, SGLang, or this program elsewhere, over HTTP.
//!
//! After every step the weights are written into a folder that the servers see, and each is told to read it. A
//! completion is a request; a server that fails is left out until the next weights, and another one is asked. What is
//! sampled comes as token ids with their log-probabilities, and the trainer computes its own beside them. Of several
//! ranks the first hands over the weights, and each asks for its own completions.

mod agreement;
mod dialect;
mod routed;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use reckon_datasets::Counted;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::config::ServersConfig;
use crate::disk::{remove_folder, write_folder};
use crate::http::{Client, Limits};
use crate::model::SaveDtype;
use crate::output::note;
use crate::parallel::lock;
use crate::policy::{Policy, Trained};
use crate::ranks::Ranks;
use crate::rollout::{Completion, Due, FinishReason, Finished, Order, Request, Sampler, ToolUse};
use agreement::Agreement;
use dialect::Answer;
use routed::Reader;

/// Servers that sample.
pub struct ServerSampler {
    client: Client,
    config: ServersConfig,
    /// Whether each server has the newest weights and answers.
    live: Vec<AtomicBool>,
    next: AtomicUsize,
    /// Of the weights that they have.
    version: u64,
    /// Where these lie.
    folder: Option<PathBuf>,
    agreement: Agreement,
    /// Who else asks them.
    ranks: Ranks,
}

impl ServerSampler {
    /// Servers that have no weights yet: [`Sampler::publish`] gives them, for all of the ranks that ask them.
    pub fn new(config: &ServersConfig, ranks: &Ranks) -> Result<Self> {
        let limits = Limits { seconds: config.timeout_s, slow: "raise servers.timeout_s", bytes: 1 << 26 };
        let client = Client::new(limits, None)?;
        let live = config.urls.iter().map(|_| AtomicBool::new(true)).collect();
        // Ranks do not all begin with the same one.
        let (next, agreement) = (AtomicUsize::new(ranks.rank()), Agreement::default());
        let (config, ranks) = (config.clone(), ranks.clone());
        Ok(Self { client, config, live, next, version: 0, folder: None, agreement, ranks })
    }

    /// The text that a server answers a request with.
    fn post(&self, server: usize, path: &str, body: &Value) -> Result<String> {
        let url = format!("{}/{path}", self.config.urls[server].trim_end_matches('/'));
        self.client.post(&url, &body.to_string())?.accepted()
    }

    /// Makes one server read the weights in `folder`.
    fn update(&self, server: usize, folder: &Path, adapter: bool) -> Result<()> {
        let ServersConfig { engine, model, .. } = &self.config;
        for (path, body) in dialect::update(*engine, model, folder, self.version, adapter)? {
            dialect::updated(*engine, &self.post(server, path, &body)?)?;
        }
        Ok(())
    }

    /// Writes the weights and makes all servers read them; says of each whether it has.
    fn hand_over(&mut self, policy: &Policy) -> Result<Vec<bool>> {
        let folder = self.config.weights.join(format!("version-{:06}", policy.version));
        let save = if self.config.untied { Policy::save_untied } else { Policy::save };
        write_folder(&folder, |path| save(policy, path, SaveDtype::F32)).context("cannot hand over the weights")?;
        let adapter = matches!(policy.learner.trained()?, Trained::Adapter(_));
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let (this, folder) = (&*self, &folder);
            let update = |server| scope.spawn(move || this.update(server, folder, adapter));
            let threads: Vec<_> = (0..self.live.len()).map(update).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("it panicked"))).collect()
        });
        for (url, outcome) in self.config.urls.iter().zip(&outcomes) {
            if let Err(error) = outcome {
                note!("{url} is left out until the next weights: {error:#}");
            }
        }
        ensure!(
            outcomes.iter().any(Result::is_ok),
            "no server takes the weights of version {}: are they started as docs/cluster.md says?",
            self.version
        );
        // Those before: whoever has them no longer reads them.
        if let Some(before) = self.folder.replace(folder.clone()).filter(|before| *before != folder) {
            remove_folder(&before)?;
        }
        Ok(outcomes.iter().map(Result::is_ok).collect())
    }

    /// The next server that answers, in turn.
    fn server(&self) -> Option<usize> {
        let (count, first) = (self.live.len(), self.next.fetch_add(1, Ordering::Relaxed));
        (0..count).map(|turn| (first + turn) % count).find(|&server| self.live[server].load(Ordering::Relaxed))
    }

    /// One completion, of the first server that gives it.
    fn complete(&self, request: &Request, prompt: usize, sample: usize, routed: Option<&Reader>) -> Result<Answer> {
        let (tokens, sampling, key) = (request.prompts[prompt].tokens, request.sampling, request.key);
        let random = Counted::new(&[key.seed, key.step, request.prompts[prompt].index, sample as u64]).next_u64();
        let ServersConfig { engine, model, attempts, .. } = &self.config;
        let (path, body) = dialect::ask(*engine, model, tokens, sampling, (random & 0x7fff_ffff, routed.is_some()));
        let mut last = None;
        for _ in 0..*attempts {
            let Some(server) = self.server() else { break };
            let routed = routed.map(|reader| (reader, tokens.len()));
            let made =
                self.post(server, path, &body).and_then(|text| self.read(&text, sampling.max_new_tokens, routed));
            match made {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let lost = self.live[server].swap(false, Ordering::Relaxed);
                    if lost {
                        note!("{} is left out until the next weights: {error:#}", self.config.urls[server]);
                    }
                    last = Some(error);
                }
            }
        }
        let why = last.map_or("none of them answers".to_owned(), |error| format!("{error:#}"));
        bail!("no server completes a prompt: {why}; start them again, and go on with --resume")
    }

    /// Reads a completion, with the experts of its tokens and of those of its prompt where there is somebody to read them.
    fn read(&self, text: &str, most: usize, routed: Option<(&Reader, usize)>) -> Result<Answer> {
        let body = dialect::parsed(text)?;
        let answer = dialect::answer(self.config.engine, &body)?;
        ensure!(answer.tokens.len() <= most, "{} tokens came, and {most} were asked for", answer.tokens.len());
        let version = self.version.to_string();
        let other = answer.version.as_ref().filter(|other| **other != version);
        ensure!(other.is_none(), "it has weights {other:?}, and not those of version {version}");
        // The last token was sampled and not taken in.
        let inputs = |prompt: usize| prompt + answer.tokens.len() - 1;
        let routed = routed.map(|(reader, prompt)| reader.read(self.config.engine, &body, inputs(prompt)));
        Ok(Answer { routed: routed.transpose()?, ..answer })
    }
}

impl Sampler for ServerSampler {
    fn publish(&mut self, policy: &Policy) -> Result<()> {
        self.version = policy.version;
        let own = if self.ranks.is_first() { self.hand_over(policy) } else { Ok(Vec::new()) };
        let taken = self.ranks.agree(own)?.swap_remove(0);
        self.live.iter().zip(taken).for_each(|(live, taken)| live.store(taken, Ordering::Relaxed));
        Ok(())
    }

    fn sample(&self, policy: &Policy, request: &Request, finished: &Finished) -> Result<()> {
        ensure!(request.calling.is_none(), "[servers] sample completions of one turn: remove [environment]");
        let routed = Reader::of(&policy.config).filter(|_| request.routed);
        let fixed = InTurn::new(request.prompts.len(), request.group_size);
        let order: &dyn Order = request.order.unwrap_or(&fixed);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.config.concurrency.min(request.prompts.len() * request.group_size) {
                scope.spawn(|| {
                    while lock(&failed).is_none() {
                        let (prompt, sample) = match order.next(None) {
                            Due::Now(prompt, sample) => (prompt, sample),
                            Due::Later(known) => {
                                order.wait(known);
                                continue;
                            }
                            Due::Never => break,
                        };
                        match self.complete(request, prompt, sample, routed.as_ref()) {
                            Ok(answer) => finished(prompt, sample, completion(answer, &policy.tokenizer, request)),
                            Err(error) => {
                                lock(&failed).get_or_insert(error);
                                // Who waits for its verdict need not.
                                finished(prompt, sample, nothing());
                            }
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_default().map_or(Ok(()), Err)
    }

    fn compared(&mut self, mismatch_kl: f64) {
        if let Some(first) = self.agreement.left(mismatch_kl).filter(|_| self.ranks.is_first()) {
            note!(
                "servers leave the trainer: policy/mismatch_kl is {mismatch_kl:.1e}, and was {first:.1e} with the first \
                 weights; do they read all of the new ones? docs/cluster.md knows a server that does not"
            );
        }
    }
}

/// A completion that nobody made.
fn nothing() -> Completion {
    let (tokens, logprobs, text) = Default::default();
    Completion { tokens, logprobs, text, finish: FinishReason::Length, tools: ToolUse::default(), routed: None }
}

/// An answer with its text, as the engine of this program makes it: without the token that ended it.
fn completion(answer: Answer, tokenizer: &Tokenizer, request: &Request) -> Completion {
    let Answer { tokens, logprobs, finish, routed, .. } = answer;
    let ends = tokens.last().is_some_and(|token| request.sampling.stop_tokens.contains(token));
    let text = tokenizer.decode(&tokens[..tokens.len() - usize::from(ends)], false).unwrap_or_default();
    Completion { tokens, logprobs, text, finish, tools: ToolUse::default(), routed }
}

/// All completions of one prompt after the other.
struct InTurn {
    next: AtomicUsize,
    group_size: usize,
    all: usize,
}

impl InTurn {
    fn new(prompts: usize, group_size: usize) -> Self {
        Self { next: AtomicUsize::new(0), group_size, all: prompts * group_size }
    }
}

impl Order for InTurn {
    fn next(&self, _: Option<usize>) -> Due {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index < self.all { Due::Now(index / self.group_size, index % self.group_size) } else { Due::Never }
    }

    fn wait(&self, _: u64) {}
}
