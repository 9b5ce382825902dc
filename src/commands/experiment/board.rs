//! Who works on what: jobs are taken in order, each after the one that it needs, until all are done or one is asked to
//! stop. A job that failed takes those with it that need it, and no others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use anyhow::{Error, Result};

use super::work::Job;
use crate::parallel::lock;

/// The jobs of an experiment.
pub(super) struct Board {
    places: Mutex<Vec<Place>>,
    changed: Condvar,
}

struct Place {
    needs: Option<usize>,
    state: State,
}

enum State {
    Waiting,
    Running,
    /// Done, or stopped before its end.
    Over {
        done: bool,
    },
    Failed(Option<Error>),
}

impl Board {
    /// All of them waiting.
    pub(super) fn new(jobs: &[Job]) -> Self {
        let places = jobs.iter().map(|job| Place { needs: job.needs, state: State::Waiting });
        Self { places: Mutex::new(places.collect()), changed: Condvar::new() }
    }

    /// The next job that can be begun, once there is one; `None` where none is left, or all are to stop.
    pub(super) fn next(&self, stop: &AtomicBool) -> Option<usize> {
        let mut places = lock(&self.places);
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let is_done = |place: usize| matches!(places[place].state, State::Over { done: true });
            let lost = |place: usize| matches!(places[place].state, State::Failed(_) | State::Over { done: false });
            let waiting = || (0..places.len()).filter(|&job| matches!(places[job].state, State::Waiting));
            if let Some(job) = waiting().find(|&job| places[job].needs.is_none_or(is_done)) {
                places[job].state = State::Running;
                return Some(job);
            }
            if let Some(job) = waiting().find(|&job| places[job].needs.is_some_and(lost)) {
                places[job].state = State::Failed(None);
                continue;
            }
            waiting().next()?;
            places = self.changed.wait(places).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// What came of a job: whether it was done to its end.
    pub(super) fn finished(&self, job: usize, done: Result<bool>) {
        lock(&self.places)[job].state = match done {
            Ok(done) => State::Over { done },
            Err(error) => State::Failed(Some(error)),
        };
        self.changed.notify_all();
    }

    /// The first error of any job.
    pub(super) fn error(&self) -> Option<Error> {
        lock(&self.places).iter_mut().find_map(|place| match &mut place.state {
            State::Failed(error) => error.take(),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::work::Kind;
    use super::*;

    fn board(needs: &[Option<usize>]) -> Board {
        let job = |needs: &Option<usize>| Job { label: String::new(), steps: 1, needs: *needs, kind: Kind::Base(0) };
        Board::new(&needs.iter().map(job).collect::<Vec<_>>())
    }

    #[test]
    fn jobs_come_in_order_after_what_they_need_and_each_once() {
        let (board, go) = (board(&[None, Some(0), None]), AtomicBool::new(false));
        assert_eq!(board.next(&go), Some(0));
        assert_eq!(board.next(&go), Some(2), "1 waits for 0");
        board.finished(0, Ok(true));
        assert_eq!(board.next(&go), Some(1));
        assert_eq!(board.next(&go), None);
        assert!(board.error().is_none());
    }

    #[test]
    fn a_failed_job_takes_those_with_it_that_need_it() {
        let (board, go) = (board(&[None, Some(0), Some(1), None]), AtomicBool::new(false));
        assert_eq!(board.next(&go), Some(0));
        board.finished(0, Err(anyhow!("broken")));
        assert_eq!(board.next(&go), Some(3));
        assert_eq!(board.next(&go), None);
        assert_eq!(board.error().unwrap().to_string(), "broken");
    }

    #[test]
    fn nothing_begins_after_a_stop_or_behind_a_stopped_job() {
        let (board, stop) = (board(&[None, Some(0)]), AtomicBool::new(false));
        assert_eq!(board.next(&stop), Some(0));
        board.finished(0, Ok(false));
        assert_eq!(board.next(&stop), None);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(self::board(&[None]).next(&stop), None);
    }

    #[test]
    fn a_worker_waits_for_what_another_is_working_on() {
        let (board, go) = (board(&[None, Some(0)]), AtomicBool::new(false));
        assert_eq!(board.next(&go), Some(0));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| board.next(&go));
            board.finished(0, Ok(true));
            assert_eq!(waiting.join().unwrap(), Some(1));
        });
    }
}
