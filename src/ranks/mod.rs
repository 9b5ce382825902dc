//! Ranks: processes that do the work of one run together, each with the whole model. What one of them says is gathered
//! by all, and gradients are added in one order whatever rank had them (`sums`), so that a run has the bits of a single
//! process.
//!
//! All stand in a ring: a rank sends to the next and receives from the one before, and the last one, where sums end, sends
//! to all. What carries the bytes is a [`Transport`]; who is which rank is the launcher's to say ([`launch`]). What is
//! shared out is left to the caller.

mod device;
pub mod launch;
#[cfg(feature = "mpi")]
mod mpi;
mod session;
mod sums;
pub mod tcp;
mod watch;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use device::DeviceRanks;
use launch::Place;
pub use session::{Session, has_mpi, mpi_version};
pub(crate) use sums::BLOCK;
pub use sums::overlap;

/// What carries bytes around the ring, and from its last rank to all others.
pub trait Transport: Debug + Send + Sync {
    /// Sends bytes to ranks and fills buffers from ranks, all at once; what is empty is neither sent nor received. A
    /// rank sends to the next one, the last one to all.
    fn exchange(&self, sends: &[(usize, &[u8])], receives: &mut [(usize, &mut [u8])]) -> Result<()>;

    /// Ends all ranks because of this; one of them prints it. May return, if nobody heard.
    fn fail(&self, message: &str);

    /// Waits for the end that another rank has told of.
    fn await_end(&self);

    /// Says that this rank is done.
    fn end(&self) -> Result<()>;
}

/// Another rank prints why the run ends: this one has nothing to add.
#[derive(Debug, thiserror::Error)]
#[error("the run ends on all ranks")]
pub struct Told;

/// A rank was waited for too long, which the others need not know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Late(String);

/// What failed on one rank and has ended the work of all at the same place, as the first one says it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shared(String);

/// The ranks of a run as one of them sees them. A process alone is one of one.
#[derive(Debug, Clone, Default)]
pub struct Ranks(Option<Arc<Ring>>);

#[derive(Debug)]
struct Ring {
    place: Place,
    transport: Box<dyn Transport>,
    /// Nanoseconds spent in waiting for other ranks.
    waited: AtomicU64,
    sent: AtomicU64,
}

/// What a rank did since a step began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Seconds in which it waited for others.
    pub waited_s: f64,
    /// Bytes that it sent.
    pub sent: u64,
}

impl Ranks {
    /// A process of its own.
    pub fn alone() -> Self {
        Self(None)
    }

    /// Rank `place.rank` of a ring.
    pub fn new(place: Place, transport: Box<dyn Transport>) -> Self {
        Self(Some(Arc::new(Ring { place, transport, waited: AtomicU64::new(0), sent: AtomicU64::new(0) })))
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |ring| ring.place.size)
    }

    /// Which this one is, counted from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.place.rank)
    }

    /// Whether this is the one that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// How many of them share this machine.
    pub fn local_size(&self) -> usize {
        self.0.as_ref().map_or(1, |ring| ring.place.local_size.max(1))
    }

    /// Which of those this one is, counted from 0.
    pub fn local_rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.place.local_rank)
    }

    /// What every rank brings, in their order.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        let Some(ring) = &self.0 else { return Ok(vec![own]) };
        let bytes = postcard::to_stdvec(&own).context("cannot encode what other ranks are told")?;
        let read = |bytes: Vec<u8>| postcard::from_bytes(&bytes).context("cannot read what another rank said");
        ring.gather(bytes)?.into_iter().map(read).collect()
    }

    /// What the first rank brings.
    pub fn from_first<T: Serialize + DeserializeOwned>(&self, own: Option<T>) -> Result<T> {
        let first = self.gather(own)?.into_iter().next().flatten();
        first.context("the first rank has nothing to say")
    }

    /// What the last rank makes.
    pub fn from_last<T: Serialize + DeserializeOwned>(&self, make: impl FnOnce() -> T) -> Result<T> {
        let own = (self.rank() + 1 == self.size()).then(make);
        let last = self.gather(own)?.pop().flatten();
        last.context("the last rank has nothing to say")
    }

    /// Whether any rank says so.
    pub fn any(&self, own: bool) -> Result<bool> {
        Ok(self.gather(own)?.contains(&true))
    }

    /// What every rank made; what failed on one of them has failed on all.
    pub fn agree<T: Serialize + DeserializeOwned>(&self, own: Result<T>) -> Result<Vec<T>> {
        if self.size() == 1 {
            return own.map(|own| vec![own]);
        }
        let told = own.map_err(|error| format!("{error:#}"));
        let all: Vec<std::result::Result<T, String>> = self.gather(told)?;
        let failed = all.iter().position(std::result::Result::is_err);
        let all = all.into_iter().collect::<std::result::Result<Vec<T>, String>>();
        all.map_err(|message| match (failed, self.is_first()) {
            (Some(0) | None, true) => Error::new(Shared(message)),
            (Some(rank), true) => Error::new(Shared(format!("rank {rank}: {message}"))),
            (_, false) => Error::new(Told),
        })
    }

    /// Whether this error has ended the work of all ranks at the same place, so that they can go on together from there.
    pub fn have_shared(&self, error: &Error) -> bool {
        self.size() == 1 || error.is::<Told>() || error.is::<Shared>()
    }

    /// Refuses ranks that are not alike: `own` has what must be equal, by its name.
    pub fn check_alike(&self, own: Vec<(String, String)>) -> Result<()> {
        let all = self.gather(own)?;
        let outcome = all.iter().enumerate().try_for_each(|(rank, said)| {
            let differs = |(name, value): &(&(String, String), &(String, String))| name != value;
            let Some((first, other)) = all[0].iter().zip(said).find(differs) else {
                ensure!(
                    all[0].len() == said.len(),
                    "rank {rank} has another config than rank 0: start all with the same"
                );
                return Ok(());
            };
            let ((name, was), (other_name, value)) = (first, other);
            ensure!(name == other_name, "rank {rank} has no {name}: start all ranks with the same config");
            Err(anyhow!("{name} is {value} on rank {rank} and {was} on rank 0: start all ranks with the same"))
        });
        self.same(outcome)
    }

    /// Which of `weights.len()` things in a row are this rank's, so that their weights are about equal on all. The
    /// first thing is the first rank's.
    pub fn share(&self, weights: &[usize]) -> Range<usize> {
        share(weights, self.rank(), self.size())
    }

    /// The rank before this one.
    fn before(&self) -> usize {
        (self.rank() + self.size() - 1) % self.size()
    }

    fn shift(&self, bytes: &[u8], into: &mut [u8]) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |ring| ring.shift(bytes, into))
    }

    fn exchange(&self, sends: &[(usize, &[u8])], receives: &mut [(usize, &mut [u8])]) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |ring| ring.exchange(sends, receives))
    }

    /// Begins to count what [`Ranks::spent`] tells, and returns since when.
    pub fn begin_step(&self) -> Instant {
        if let Some(ring) = &self.0 {
            ring.waited.store(0, Ordering::Relaxed);
            ring.sent.store(0, Ordering::Relaxed);
        }
        Instant::now()
    }

    /// What this rank did since the step began; `None` for a process alone.
    pub fn spent(&self) -> Option<Spent> {
        let ring = self.0.as_ref()?;
        let waited_s = Duration::from_nanos(ring.waited.load(Ordering::Relaxed)).as_secs_f64();
        Some(Spent { waited_s, sent: ring.sent.load(Ordering::Relaxed) })
    }

    /// What has come out alike on all ranks: an error is the first one's to tell, unless this one waited in vain.
    pub fn same<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| if self.is_first() || error.is::<Late>() { error } else { Error::new(Told) })
    }

    /// Ends this rank's part: waits for the others, or ends them where this one failed. The error is one that nobody
    /// has printed yet.
    pub fn finish(&self, outcome: Result<()>) -> Result<()> {
        let Some(ring) = &self.0 else { return outcome };
        match outcome {
            Ok(()) => ring.transport.end(),
            Err(error) if error.is::<Told>() => {
                ring.transport.await_end();
                Err(error)
            }
            Err(error) => {
                ring.transport.fail(&format!("{error:#}"));
                Err(error)
            }
        }
    }
}

impl Ring {
    /// Sends `bytes` to the next rank and fills `into` from the one before.
    fn shift(&self, bytes: &[u8], into: &mut [u8]) -> Result<()> {
        let Place { rank, size, .. } = self.place;
        self.exchange(&[((rank + 1) % size, bytes)], &mut [((rank + size - 1) % size, into)])
    }

    fn exchange(&self, sends: &[(usize, &[u8])], receives: &mut [(usize, &mut [u8])]) -> Result<()> {
        let start = Instant::now();
        let outcome = self.transport.exchange(sends, receives);
        self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let sent: usize = sends.iter().map(|(_, bytes)| bytes.len()).sum();
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        outcome
    }

    /// What every rank brings: what a rank has last got goes on to the next.
    fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let Place { rank, size, .. } = self.place;
        let mut all = vec![Vec::new(); size];
        all[rank] = own;
        for hop in 0..size - 1 {
            let (out, into) = ((rank + size - hop) % size, (rank + 2 * size - hop - 1) % size);
            let (length, mut coming) = ((all[out].len() as u64).to_le_bytes(), [0; 8]);
            self.shift(&length, &mut coming)?;
            let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(coming))?];
            self.shift(&all[out], &mut bytes)?;
            all[into] = bytes;
        }
        Ok(all)
    }
}

/// Which of things in a row are the `rank`'s of `size`: those that begin in its part of all their weight.
pub fn share(weights: &[usize], rank: usize, size: usize) -> Range<usize> {
    let all: usize = weights.iter().sum();
    let (mut before, mut count) = (0, 0..0);
    for (place, &weight) in weights.iter().enumerate() {
        let owner = (size * before).checked_div(all).map_or(0, |owner| owner.min(size - 1));
        count.start += usize::from(owner < rank);
        count.end = if owner <= rank { place + 1 } else { count.end };
        before += weight;
    }
    count.start..count.end.max(count.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_each_other_and_are_of_about_equal_weight() {
        for (weights, size, expected) in [
            (vec![1; 6], 2, vec![0..3, 3..6]),
            (vec![1; 6], 4, vec![0..2, 2..3, 3..5, 5..6]),
            (vec![1; 2], 4, vec![0..1, 1..1, 1..2, 2..2]),
            (vec![9, 1, 1, 1], 2, vec![0..1, 1..4]),
            (vec![5], 3, vec![0..1, 1..1, 1..1]),
            (vec![0, 0], 2, vec![0..2, 2..2]),
            (vec![], 2, vec![0..0, 0..0]),
        ] {
            let shares: Vec<_> = (0..size).map(|rank| share(&weights, rank, size)).collect();
            assert_eq!(shares, expected, "{weights:?} on {size}");
        }
    }

    /// Runs `work` as each of `size` ranks, threads that speak over this machine's network.
    pub(super) fn on_ranks<R: Send>(size: usize, work: impl Fn(&Ranks) -> R + Sync) -> Vec<R> {
        let ranks = tcp::ring_of_threads(size).unwrap();
        std::thread::scope(|scope| {
            let work = &work;
            let run = |ranks: Ranks| {
                scope.spawn(move || {
                    let made = work(&ranks);
                    ranks.finish(Ok(())).unwrap();
                    made
                })
            };
            let threads: Vec<_> = ranks.into_iter().map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn what_is_gathered_comes_in_the_order_of_the_ranks() {
        let said = |rank: usize| vec![rank as u32; rank * 40_000];
        let expected: Vec<Vec<u32>> = (0..3).map(said).collect();
        for gathered in on_ranks(3, |ranks| ranks.gather(said(ranks.rank())).unwrap()) {
            assert_eq!(gathered, expected);
        }
        let firsts = on_ranks(3, |ranks| ranks.from_first(ranks.is_first().then_some(7)).unwrap());
        assert_eq!(firsts, [7; 3]);
        assert_eq!(on_ranks(3, |ranks| ranks.from_last(|| 10 + ranks.rank()).unwrap()), [12; 3]);
        assert_eq!(on_ranks(2, |ranks| ranks.any(ranks.rank() == 1).unwrap()), [true; 2]);
    }

    #[test]
    fn what_fails_on_one_rank_has_failed_on_all_and_the_first_says_why() {
        let outcomes = on_ranks(3, |ranks| {
            let own = if ranks.rank() == 1 { Err(anyhow!("the verifier broke")) } else { Ok(ranks.rank()) };
            let error = ranks.agree(own).unwrap_err().context("step 3");
            assert!(ranks.have_shared(&error) && !ranks.have_shared(&anyhow!("of its own")));
            let late = ranks.same(Err::<(), _>(Error::new(Late("rank 0 hangs".into())))).unwrap_err();
            assert_eq!(late.to_string(), "rank 0 hangs");
            error
        });
        assert_eq!(format!("{:#}", outcomes[0]), "step 3: rank 1: the verifier broke");
        assert!(outcomes[1..].iter().all(|error| error.is::<Told>()), "{outcomes:?}");
    }

    #[test]
    fn ranks_that_differ_are_told_in_what() {
        let facts = |lr: &str| vec![("the binary".to_owned(), "1".to_owned()), ("optim.lr".into(), lr.to_owned())];
        let outcomes = on_ranks(3, |ranks| ranks.check_alike(facts(if ranks.rank() == 2 { "0.2" } else { "0.1" })));
        let message = outcomes[0].as_ref().unwrap_err().to_string();
        assert_eq!(message, "optim.lr is 0.2 on rank 2 and 0.1 on rank 0: start all ranks with the same");
        assert!(on_ranks(2, |ranks| ranks.check_alike(facts("0.1"))).iter().all(Result::is_ok));
    }
}
