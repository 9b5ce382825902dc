//! What a machine can do at most: the rate of products whose operands stay in the caches, and that of reading memory.

use std::hint::black_box;
use std::time::Instant;

use crate::ops::linear::{Epilogue, PackedMatrix, Precision};
use crate::ops::team::Team;
use crate::ops::vectorised;

/// The shortest of several tries, in seconds.
fn shortest(tries: usize, mut work: impl FnMut()) -> f64 {
    let seconds = (0..tries).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// FLOP/s of all threads on a product of the model's widths.
pub(super) fn best_product(threads: usize, d: usize, f: usize, precision: Precision) -> f64 {
    let rows = 512;
    let (x, mut y) = (vec![0.5f32; rows * d], vec![0f32; rows * 2 * f]);
    let seconds = Team::with(threads, |team| {
        let w = PackedMatrix::new(team, &vec![0.25f32; 2 * f * d], d, precision);
        shortest(20, || w.forward(team, &x, &mut y, Epilogue::None))
    });
    2.0 * (rows * d * 2 * f) as f64 / seconds
}

/// Bytes a second that all threads read from memory together.
pub(super) fn memory_read(threads: usize) -> f64 {
    const PIECE: usize = 1 << 18;
    let values = vec![1f32; 1 << 26];
    let seconds = Team::with(threads, |team| {
        shortest(5, || {
            team.each(values.chunks(PIECE), |piece| {
                black_box(sum(piece));
            })
        })
    });
    size_of_val(&values[..]) as f64 / seconds
}

/// Read in four streams of whole registers, as a product reads panels.
fn sum(values: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let mut sums = [0f32; 64];
            values.as_chunks::<64>().0.iter().for_each(|chunk| {
                sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
            });
            sums.iter().sum()
        },
    )
}
