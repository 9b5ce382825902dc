//! Threads that compute one operation together. An operation cuts its output into pieces whose values do not depend on
//! the cut; a thread takes the next piece that nobody has taken. What is cut how is each operation's to say.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::parallel::lock;

/// The threads that an operation may use: that of the caller, who leads, and its helpers.
///
/// ```
/// use reckon_ops::team::Team;
/// let mut squares = [1, 2, 3];
/// Team::with(2, |team| team.each(squares.iter_mut(), |x| *x *= *x));
/// assert_eq!(squares, [1, 4, 9]);
/// ```
#[derive(Debug)]
pub struct Team<'t> {
    board: Option<&'t Board>,
    helpers: Vec<Thread>,
    /// One leader: a piece of work must not begin work of its own with its team.
    not_shared: PhantomData<Cell<()>>,
}

/// How long a helper without work looks for it before it sleeps: longer than the pauses between operations, for to be
/// woken takes longer than most of them.
const AWAKE: Duration = Duration::from_micros(200);
/// Pieces for each thread: with more than one, a thread that began late leaves some to the others.
const PIECES: usize = 4;

impl<'t> Team<'t> {
    /// The caller's thread by itself.
    pub fn alone() -> Team<'static> {
        Team { board: None, helpers: Vec::new(), not_shared: PhantomData }
    }

    /// Calls `body` with a team of so many threads, which end with it.
    pub fn with<R>(threads: usize, body: impl FnOnce(&Team) -> R) -> R {
        if threads <= 1 {
            return body(&Team::alone());
        }
        let board = Board::default();
        thread::scope(|scope| {
            let helpers = (1..threads).map(|_| scope.spawn(|| board.serve()).thread().clone()).collect();
            let team = Team { board: Some(&board), helpers, not_shared: PhantomData };
            let _ended = Ended(&team);
            body(&team)
        })
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// How many of `units` equal units of work make a piece: all of them for one thread.
    pub fn piece(&self, units: usize) -> usize {
        match self.threads() {
            1 => units.max(1),
            threads => units.div_ceil(threads * PIECES).max(1),
        }
    }

    /// Calls `work` with each piece, on whatever thread, and returns when all are done.
    pub fn each<T: Send>(&self, pieces: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
        let Some(board) = self.board else { return pieces.for_each(work) };
        let pieces: Vec<Mutex<Option<T>>> = pieces.map(|piece| Mutex::new(Some(piece))).collect();
        let take = |index: usize| {
            let piece = lock(&pieces[index]).take();
            piece.into_iter().for_each(&work);
        };
        match pieces.len() {
            0 => {}
            1 => take(0),
            count => board.lead(&self.helpers, count, &take),
        }
    }
}

/// Sends the helpers home, also when the leader panics.
struct Ended<'a>(&'a Team<'a>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Some(board) = self.0.board {
            board.ended.store(true, Ordering::SeqCst);
            self.0.helpers.iter().for_each(Thread::unpark);
        }
    }
}

/// Work as helpers find it: what to call, and for how many pieces.
#[derive(Clone, Copy)]
struct Job {
    work: &'static (dyn Fn(usize) + Sync),
    count: usize,
}

/// Where the leader puts work and helpers find it. A helper that comes late finds the gate closed, so that nobody waits
/// for a thread that the system has not let run.
#[derive(Default)]
struct Board {
    /// Number of the job in the upper half; [`CLOSED`], and how many helpers went in, in the lower.
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// The next piece to take.
    next: AtomicUsize,
    /// Helpers that came out.
    done: AtomicUsize,
    /// Helpers that sleep or are about to.
    asleep: AtomicUsize,
    ended: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

const CLOSED: u64 = 1 << 31;
const ONE_JOB: u64 = 1 << 32;

#[allow(unsafe_code)]
// SAFETY: `job` is written by the leader while the gate is closed and no helper is within, and read by helpers that went
// in through the open gate, whose compare-and-exchange sees what the leader wrote before it opened.
unsafe impl Sync for Board {}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Board").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Board {
    /// Does `count` pieces together with whoever comes.
    fn lead(&self, helpers: &[Thread], count: usize, work: &(dyn Fn(usize) + Sync)) {
        #[allow(unsafe_code)]
        // SAFETY: the reference is used by helpers within the gate alone, and `Closing` waits until all of them are out
        // before this call ends, also when it unwinds.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work, count };
        #[allow(unsafe_code)]
        // SAFETY: the gate is closed and nobody is within: this is either the first job, or `Closing` ended the last.
        unsafe {
            *self.job.get() = Some(job);
        }
        self.next.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        let number = self.gate.load(Ordering::Relaxed) / ONE_JOB + 1;
        self.gate.store(number * ONE_JOB, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            helpers.iter().for_each(Thread::unpark);
        }
        let closing = Closing(self);
        self.take_pieces(job);
        drop(closing);
        if let Some(panic) = lock(&self.panic).take() {
            resume_unwind(panic);
        }
    }

    fn take_pieces(&self, job: Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.count {
                return;
            }
            (job.work)(index);
        }
    }

    /// A helper's life.
    fn serve(&self) {
        let mut last = 0;
        while let Some(number) = self.wait_for_job_after(last) {
            last = number;
            let Some(job) = self.enter(number) else { continue };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_pieces(job))) {
                *lock(&self.panic) = Some(panic);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// The number of a job after `last`; none when the team has ended.
    fn wait_for_job_after(&self, last: u64) -> Option<u64> {
        let news = || {
            let number = self.gate.load(Ordering::SeqCst) / ONE_JOB;
            let ended = self.ended.load(Ordering::SeqCst);
            (ended || number != last).then_some(if ended { None } else { Some(number) })
        };
        let since = Instant::now();
        loop {
            for _ in 0..200 {
                if let Some(news) = news() {
                    return news;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > AWAKE {
                self.asleep.fetch_add(1, Ordering::SeqCst);
                if news().is_none() {
                    thread::park();
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Goes in for job `number`, unless it is over.
    fn enter(&self, number: u64) -> Option<Job> {
        let open = |gate: u64| (gate / ONE_JOB == number && gate & CLOSED == 0).then_some(gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, open).ok()?;
        #[allow(unsafe_code)]
        // SAFETY: this helper is within the gate, so the leader does not write.
        unsafe {
            *self.job.get()
        }
    }
}

/// Closes the gate and waits for those within.
struct Closing<'a>(&'a Board);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let board = self.0;
        let entered = (board.gate.fetch_or(CLOSED, Ordering::AcqRel) & (CLOSED - 1)) as usize;
        let mut turns = 0u32;
        while board.done.load(Ordering::Acquire) < entered {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(1 << 12) { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_however_many_threads_and_jobs_there_are() {
        for threads in [1, 2, 5] {
            Team::with(threads, |team| {
                for round in 0..2000u64 {
                    let mut values = vec![0u64; round as usize % 40];
                    team.each(values.iter_mut().enumerate(), |(i, value)| *value += i as u64 + round);
                    assert!(values.iter().enumerate().all(|(i, &value)| value == i as u64 + round));
                }
            });
        }
    }

    #[test]
    fn helpers_that_sleep_are_woken() {
        let mut values = [0; 64];
        Team::with(3, |team| {
            for _ in 0..3 {
                thread::sleep(10 * AWAKE);
                team.each(values.iter_mut(), |value| *value += 1);
            }
        });
        assert_eq!(values, [3; 64]);
    }

    #[test]
    fn a_panic_in_a_piece_is_the_leaders() {
        for guilty in [0, 7, 63] {
            let outcome = catch_unwind(|| {
                Team::with(3, |team| team.each(0..64, |i| assert_ne!(i, guilty, "piece {guilty}")));
            });
            let message = *outcome.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains(&format!("piece {guilty}")), "{message}");
        }
    }
}
