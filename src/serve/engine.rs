//! The thread that samples: requests that wait are sampled together where they ask for the same kind of sampling, and
//! each hears of its tokens as they come. A client that goes away is not sampled for.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::sync::mpsc::UnboundedSender;

use crate::parallel::lock;
use crate::policy::Policy;
use crate::rollout::{Completion, Due, Engine, Order, PromptTokens, Request, SampleKey, Sampling};

/// What a request is told.
pub(super) enum Heard {
    /// A completion has one more token.
    Token {
        /// Which of the request's completions.
        choice: usize,
        token: u32,
    },
    /// A completion is at its end.
    Done { choice: usize, completion: Completion },
    /// Nothing more will come.
    Failed(String),
}

/// A prompt whose completions somebody waits for.
pub(super) struct Job {
    pub(super) tokens: Vec<u32>,
    pub(super) samples: usize,
    pub(super) sampling: Sampling,
    /// Names the random numbers; those of the server's own without it.
    pub(super) seed: Option<u64>,
    /// Whether the experts of tokens are wanted.
    pub(super) routed: bool,
    /// The number of its first completion among those of the request.
    pub(super) first_choice: usize,
    pub(super) heard: UnboundedSender<Heard>,
}

impl Job {
    fn is_like(&self, other: &Self) -> bool {
        self.sampling == other.sampling && self.seed == other.seed && self.routed == other.routed
    }
}

/// What the thread is given to do, in its order.
pub(super) enum Work {
    Sample(Job),
    /// Takes the weights of a folder; who asked is told how it went.
    Update(PathBuf, UnboundedSender<Result<()>>),
}

/// Samples until nobody can ask any more. Weights that could not be read to their end are none to sample from, and end
/// it too.
pub(super) fn work(mut policy: Policy, capacity: usize, work: &Receiver<Work>) {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_nanos() as u64);
    let (mut waiting, mut asked) = (VecDeque::new(), 0);
    loop {
        waiting.extend(work.try_iter());
        let next = waiting.pop_front().map_or_else(|| work.recv(), Ok);
        let first = match next {
            Err(_) => return,
            Ok(Work::Sample(job)) => job,
            Ok(Work::Update(folder, told)) => {
                let outcome = policy.restore(&folder);
                let failed = outcome.is_err();
                // Who has gone away wants nothing.
                let _ = told.send(outcome);
                if failed {
                    return;
                }
                continue;
            }
        };
        waiting.extend(work.try_iter());
        let mut batch = vec![first];
        // Those behind new weights wait for them.
        let before = waiting.iter().position(|work| matches!(work, Work::Update(..))).unwrap_or(waiting.len());
        let behind = waiting.split_off(before);
        for work in std::mem::take(&mut waiting) {
            match work {
                Work::Sample(job) if job.is_like(&batch[0]) => batch.push(job),
                other => waiting.push_back(other),
            }
        }
        waiting.extend(behind);
        sample(&policy, capacity, batch, (started, &mut asked));
    }
}

/// Samples requests of one kind.
fn sample(policy: &Policy, capacity: usize, jobs: Vec<Job>, (started, asked): (u64, &mut u64)) {
    let (sampling, seed) = (jobs[0].sampling.clone(), jobs[0].seed);
    // The same request with a seed has the same completions, whatever else is asked.
    let index = |place: usize| if seed.is_some() { 0 } else { *asked + place as u64 };
    let prompts: Vec<PromptTokens> =
        jobs.iter().enumerate().map(|(place, job)| PromptTokens { index: index(place), tokens: &job.tokens }).collect();
    let due = jobs.iter().enumerate().flat_map(|(place, job)| (0..job.samples).map(move |sample| (place, sample)));
    let batch = Batch { jobs: &jobs, due: Mutex::new(due.collect()), begun: Mutex::default() };
    let group_size = jobs.iter().map(|job| job.samples).max().unwrap_or(0);
    let key = SampleKey { seed: seed.unwrap_or(started), step: 0 };
    let request = Request {
        prompts: &prompts,
        group_size,
        sampling: &sampling,
        key,
        calling: None,
        order: Some(&batch),
        routed: jobs[0].routed,
    };
    let outcome = Engine::of(policy, capacity).generate(&request, &|place, sample, completion| {
        // Who has gone away wants nothing.
        let _ = jobs[place].heard.send(Heard::Done { choice: jobs[place].first_choice + sample, completion });
    });
    if let Err(error) = outcome {
        jobs.iter().for_each(|job| drop(job.heard.send(Heard::Failed(format!("{error:#}")))));
    }
    *asked += jobs.len() as u64;
}

/// Requests that are sampled together.
struct Batch<'a> {
    jobs: &'a [Job],
    due: Mutex<VecDeque<(usize, usize)>>,
    begun: Mutex<BTreeSet<usize>>,
}

impl Order for Batch<'_> {
    /// Of the prompt at hand, else of one nobody has prefilled, else of any.
    fn next(&self, at_hand: Option<usize>) -> Due {
        let (mut due, mut begun) = (lock(&self.due), lock(&self.begun));
        let place = due.iter().position(|(prompt, _)| Some(*prompt) == at_hand);
        let place = place.or_else(|| due.iter().position(|(prompt, _)| !begun.contains(prompt))).unwrap_or(0);
        let Some((prompt, sample)) = due.remove(place) else { return Due::Never };
        begun.insert(prompt);
        Due::Now(prompt, sample)
    }

    fn wait(&self, _: u64) {}

    fn sampled(&self, prompt: usize, sample: usize, token: u32) -> bool {
        let job = &self.jobs[prompt];
        job.heard.send(Heard::Token { choice: job.first_choice + sample, token }).is_ok()
    }
}
