//! Settings under which a run fits into a device's memory.

use super::{Job, Plan, Sizes};
use crate::config::Target;

/// Which settings may be chosen; the others stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// `compute.micro_batch_tokens`.
    pub micro_batch_tokens: bool,
    /// `compute.recompute`.
    pub recompute: bool,
    /// `rollout.capacity`.
    pub rows: bool,
}

/// Most tokens of a micro-batch that is chosen: larger ones make no card faster.
const LARGEST: usize = 1 << 16;

/// The first choice under which the run fits into `memory` bytes. Rows sampled at a time, `job.rows` at most, are the
/// last to be given up, because sampling is where the time goes; before them the micro-batch, down to one sequence,
/// and then activations, which are computed again. `None` if nothing fits.
pub fn fit(sizes: &Sizes, job: &Job, free: Free, memory: usize) -> Option<Job> {
    let recompute: &[bool] = if free.recompute { &[false, true] } else { &[job.recompute] };
    let micro_batches = if free.micro_batch_tokens { micro_batches(job) } else { vec![job.micro_batch_tokens] };
    let rows = if free.rows { halves(job.rows, 1) } else { vec![job.rows] };
    let mut choices = rows.iter().flat_map(|&rows| {
        recompute.iter().flat_map({
            let micro_batches = &micro_batches;
            move |&recompute| {
                micro_batches.iter().map(move |&micro_batch_tokens| Job { rows, recompute, micro_batch_tokens, ..*job })
            }
        })
    });
    choices.find(|job| Plan::new(sizes, job).peak() <= memory)
}

/// On a card large micro-batches are fast; on a CPU small ones, which stay in the caches.
fn micro_batches(job: &Job) -> Vec<usize> {
    match job.device {
        Target::Cpu => vec![job.micro_batch_tokens],
        Target::Cuda => halves(job.update_tokens.next_power_of_two().min(LARGEST).max(job.sequence), job.sequence),
    }
}

/// `from`, its half, and so on down to `to`.
fn halves(from: usize, to: usize) -> Vec<usize> {
    std::iter::successors(Some(from), |n| Some(n / 2)).take_while(|n| *n >= to.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{JOB, sizes};
    use super::*;

    const ALL: Free = Free { micro_batch_tokens: true, recompute: true, rows: true };

    #[test]
    fn what_is_picked_fits_and_gives_up_rows_last() {
        let pick = |gib: usize| fit(&sizes(), &JOB, ALL, gib << 30);
        let wide = pick(80).unwrap();
        assert!(!wide.recompute && wide.rows == JOB.rows && wide.micro_batch_tokens > JOB.micro_batch_tokens);
        let narrow = pick(13).unwrap();
        assert!(narrow.micro_batch_tokens < wide.micro_batch_tokens && narrow.rows == JOB.rows, "{narrow:?}");
        let narrowest = pick(10).unwrap();
        assert!(narrowest.recompute && narrowest.rows < JOB.rows, "{narrowest:?}");
        for (gib, job) in [(80, wide), (13, narrow), (10, narrowest)] {
            assert!(Plan::new(&sizes(), &job).peak() <= gib << 30);
        }
        assert_eq!(pick(4), None, "weights and optimizer alone take more");
    }

    #[test]
    fn what_the_config_gives_is_kept() {
        let free = Free { micro_batch_tokens: false, recompute: true, rows: false };
        let job = fit(&sizes(), &JOB, free, 13 << 30).unwrap();
        assert_eq!((job.micro_batch_tokens, job.rows, job.recompute), (8192, 256, true));
    }

    #[test]
    fn micro_batches_stay_small_on_a_cpu() {
        let job = Job { device: Target::Cpu, micro_batch_tokens: 512, ..JOB };
        assert_eq!(fit(&sizes(), &job, ALL, 1 << 40).unwrap().micro_batch_tokens, 512);
    }
}
