//! Work on several threads with a result that does not depend on how many there are.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work(i)` for `i < n` on up to `threads` threads and hands the results to `fold` in the order of `i`.
///
/// Each thread has its own `state`, made by `make_state`: buffers that are used again.
pub fn map_in_order<S, R: Send>(
    n: usize,
    threads: usize,
    make_state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> R + Sync,
    mut fold: impl FnMut(R) + Send,
) {
    let next = AtomicUsize::new(0);
    let waiting = Mutex::new((0usize, BTreeMap::new(), &mut fold));
    let run = || {
        let mut state = make_state();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return;
            }
            let result = work(&mut state, index);
            let mut guard = waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
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

/// How many threads to use when the config does not say: one a core.
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
            map_in_order(50, threads, || (), |(), i| i * i, |r| seen.push(r));
            assert_eq!(seen, (0..50).map(|i| i * i).collect::<Vec<_>>());
        }
    }
}
