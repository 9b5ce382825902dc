//! Work on several threads with a result that does not depend on how many there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what is whole at every moment, so that a panic of another thread while it held the lock does no harm.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Things that are costly to make and are used again, such as buffers. Which one is taken must not matter.
#[derive(Debug, Default)]
pub struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    /// One that was given back, or a new one.
    pub fn take(&self) -> T {
        lock(&self.0).pop().unwrap_or_default()
    }

    /// For the next one to take.
    pub fn give_back(&self, thing: T) {
        lock(&self.0).push(thing);
    }

    /// All that was given back, for the caller to be done with.
    pub fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// A copy of what uses a pool starts with an empty one.
impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

/// Runs `work(i)` for `i < n` on up to `threads` threads and hands the results to `fold` in the order of `i`.
///
/// Each thread has its own state from `pool`.
pub fn map_in_order<S: Default + Send, R: Send>(
    n: usize,
    threads: usize,
    pool: &Pool<S>,
    work: impl Fn(&mut S, usize) -> R + Sync,
    mut fold: impl FnMut(R) + Send,
) {
    let next = AtomicUsize::new(0);
    let waiting = Mutex::new((0usize, BTreeMap::new(), &mut fold));
    let run = || {
        let mut state = pool.take();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                break pool.give_back(state);
            }
            let result = work(&mut state, index);
            let mut guard = lock(&waiting);
            let (due, done, fold) = &mut *guard;
            done.insert(index, result);
            while let Some(result) = done.remove(due) {
                fold(result);
                *due += 1;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(n) {
            scope.spawn(run);
        }
        run();
    });
}

/// How many threads to use when the config does not say: one for each core.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_arrive_in_order_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            let mut seen = Vec::new();
            map_in_order(50, threads, &Pool::<()>::default(), |(), i| i * i, |r| seen.push(r));
            assert_eq!(seen, (0..50).map(|i| i * i).collect::<Vec<_>>());
        }
    }
}
