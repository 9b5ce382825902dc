//! A bounded number of workers, and the judgement on who is to blame when one of them does not answer: a completion
//! that breaks a fresh worker all by itself gets reward 0; a worker that breaks the rules is replaced and the work is
//! done again, a few times; then no reward is given at all.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wire::Call;
use crate::{Outcome, Submission, Verdict};

/// Most calls that a worker is given at a time.
const CHUNK: usize = 64;

/// Options of all plug-ins, under the key `pool`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolOptions {
    /// Most workers (or HTTP requests) at a time; 0 is one a core.
    pub workers: usize,
    /// Seconds for one completion, from the start of the work on it; a group has that much for each of its completions.
    pub timeout_s: f64,
    /// How often work is done again after a fault of the machinery, before the run stops.
    pub retries: usize,
    /// The run stops when so many completions in a row, without a verdict in between, time out or crash.
    pub max_faults: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { workers: 0, timeout_s: 10.0, retries: 2, max_faults: 16 }
    }
}

/// Why calls got no answer.
pub(super) enum Fault {
    /// The worker ran out of time or died over the first call that it has not answered.
    Died(Outcome),
    /// The worker broke the rules, or cannot be reached, at the call of this place: what it wrote is not to blame.
    Broken(usize, String),
}

/// Verdicts of calls, each with the place of its call.
pub(super) type Answers = Vec<(usize, Vec<Verdict>)>;

/// Something that judges calls in order.
pub(super) trait Worker: Send {
    /// Adds the answers to `calls`. After a fault the worker is dropped.
    fn judge(&mut self, calls: &[&Call], answers: &mut Answers) -> Result<(), Fault>;
}

type Start = dyn Fn() -> Result<Box<dyn Worker>, String> + Send + Sync;

pub(super) struct Pool {
    options: PoolOptions,
    start: Box<Start>,
    seats: Mutex<Seats>,
    freed: Condvar,
    /// Completions that timed out or crashed since the last answer.
    faults: AtomicUsize,
}

struct Seats {
    idle: Vec<Box<dyn Worker>>,
    free: usize,
}

/// The place of a call, and why it got no verdict.
pub(super) type Failed = (usize, String);

impl Pool {
    /// A pool with its first worker started, or the key that makes no sense, or why no worker starts.
    pub(super) fn new(mut options: PoolOptions, start: Box<Start>) -> Result<Self, String> {
        if options.workers == 0 {
            options.workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        }
        if Duration::try_from_secs_f64(options.timeout_s).map_or(true, |timeout| timeout.is_zero()) {
            return Err(format!("`timeout_s = {}` must be a number of seconds above 0", options.timeout_s));
        }
        let seats = Mutex::new(Seats { idle: vec![start()?], free: options.workers });
        Ok(Self { options, start, seats, freed: Condvar::new(), faults: AtomicUsize::new(0) })
    }

    /// The verdicts on all submissions, in order: one call for each slice of `asked`, by as many workers as there are.
    pub(super) fn judge<'a>(
        &self,
        asked: &[&[Submission<'a>]],
        call: &(dyn Fn(&[Submission<'a>]) -> Call + Sync),
    ) -> Result<Vec<Verdict>, Failed> {
        let size = asked.len().div_ceil(self.options.workers).clamp(1, CHUNK);
        let chunks: Vec<_> = asked.chunks(size).collect();
        let (next, judged) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(chunks.len())));
        let lane = || loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { break };
            let calls: Vec<Call> = chunk.iter().map(|asked| call(asked)).collect();
            let verdicts = self.chunk(&calls).map_err(|(place, problem)| (index * size + place, problem));
            if verdicts.is_err() {
                next.store(chunks.len(), Ordering::Relaxed);
            }
            lock(&judged).push((index, verdicts));
        };
        std::thread::scope(|scope| {
            for _ in 1..self.options.workers.min(chunks.len()) {
                scope.spawn(lane);
            }
            lane();
        });
        let mut judged = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
        judged.sort_by_key(|(index, _)| *index);
        let mut all = Vec::with_capacity(asked.len());
        for (_, verdicts) in judged {
            all.extend(verdicts?.into_iter().flatten());
        }
        Ok(all)
    }

    /// The verdicts on a chunk of calls by one worker at a time.
    fn chunk(&self, calls: &[Call]) -> Result<Vec<Vec<Verdict>>, Failed> {
        let mut verdicts: Vec<Option<Vec<Verdict>>> = calls.iter().map(|_| None).collect();
        let (mut broken, mut suspect) = (0, None);
        loop {
            // A suspect is judged alone, by a fresh worker: if that dies too, nothing else can be to blame.
            let left = match suspect {
                Some(call) => vec![call],
                None => (0..calls.len()).filter(|&call| verdicts[call].is_none()).collect::<Vec<_>>(),
            };
            if left.is_empty() {
                break;
            }
            let given: Vec<&Call> = left.iter().map(|&call| &calls[call]).collect();
            let mut answers = Vec::with_capacity(given.len());
            let done = self.with_worker(suspect.is_some(), |worker| worker.judge(&given, &mut answers));
            if let Err(Fault::Broken(place, problem)) = done {
                if broken == self.options.retries {
                    return Err((left[place], format!("{problem} ({} attempts)", broken + 1)));
                }
                // What a worker that breaks the rules has said is not kept.
                std::thread::sleep(Duration::from_millis(50 << broken.min(6)));
                broken += 1;
                continue;
            }
            if !answers.is_empty() {
                self.faults.store(0, Ordering::Relaxed);
            }
            answers.into_iter().for_each(|(place, answer)| verdicts[left[place]] = Some(answer));
            suspect = match (done, suspect) {
                (Err(Fault::Died(outcome)), Some(call)) => {
                    verdicts[call] = Some(vec![self.blame(outcome).map_err(|e| (call, e))?; calls[call].count]);
                    None
                }
                (Err(Fault::Died(_)), None) => left.into_iter().find(|&call| verdicts[call].is_none()),
                _ => None,
            };
        }
        Ok(verdicts.into_iter().flatten().collect())
    }

    /// The verdict on a completion that broke two workers, unless the workers break over everything.
    fn blame(&self, outcome: Outcome) -> Result<Verdict, String> {
        let faults = self.faults.fetch_add(1, Ordering::Relaxed) + 1;
        let reason = match outcome {
            Outcome::Timeout => format!("no verdict within {} s, twice", self.options.timeout_s),
            _ => "the worker died over it, twice".into(),
        };
        match faults >= self.options.max_faults.max(1) {
            true => Err(format!("{faults} completions in a row without a verdict, the last one: {reason}")),
            false => Ok(Verdict::zero(outcome, reason)),
        }
    }

    /// Does `work` with a worker, waiting for a free seat. A worker that fails is not used again.
    fn with_worker(&self, fresh: bool, work: impl FnOnce(&mut dyn Worker) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut seats = lock(&self.seats);
        while seats.free == 0 {
            seats = self.freed.wait(seats).unwrap_or_else(PoisonError::into_inner);
        }
        seats.free -= 1;
        let idle = seats.idle.pop();
        drop(seats);
        let seat = Seat(self);
        let mut worker = match idle {
            Some(idle) if !fresh => idle,
            _ => (self.start)().map_err(|problem| Fault::Broken(0, problem))?,
        };
        work(&mut *worker)?;
        lock(&self.seats).idle.push(worker);
        drop(seat);
        Ok(())
    }
}

/// A taken seat; free again when dropped, whatever happened.
struct Seat<'a>(&'a Pool);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        lock(&self.0.seats).free += 1;
        self.0.freed.notify_one();
    }
}

/// Locks what is whole at every moment: a panic elsewhere does it no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
