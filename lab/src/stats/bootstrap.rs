//! Intervals by drawing seeds and problems anew. Draws are counted from a seed: the same data give the same interval.

use super::{Interval, mean};

/// Draws of a bootstrap: enough that the ends of an interval move by less than a hundredth of its width.
const DRAWS: usize = 2000;

/// A stream of random numbers: splitmix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The stream that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0. The bias of the product is below `n` / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }
}

/// The 95% percentile interval of the mean over seeds and problems, `values[seed][problem]`. NaN where a problem was not
/// judged.
///
/// Seeds are drawn with replacement, and problems too, the same ones for every seed: seeds share their problems, so the
/// two are crossed (Efron and Tibshirani 1993, chapter 8). One seed leaves the problems alone to be drawn.
pub fn bootstrap_mean(values: &[Vec<f64>], seed: u64) -> Option<Interval> {
    resampled(values, &[], seed)
}

/// The interval of `first`'s mean less `second`'s, both over the same problems. Seeds are drawn in each by themselves,
/// problems once for both.
pub fn bootstrap_difference(first: &[Vec<f64>], second: &[Vec<f64>], seed: u64) -> Option<Interval> {
    if second.is_empty() { None } else { resampled(first, second, seed) }
}

fn resampled(first: &[Vec<f64>], second: &[Vec<f64>], seed: u64) -> Option<Interval> {
    let problems = first.iter().chain(second).map(Vec::len).min().filter(|&n| n > 0)?;
    let mut draws = Draws::new(seed);
    let mut found: Vec<f64> = Vec::with_capacity(DRAWS);
    let mut counts = vec![0f64; problems];
    for _ in 0..DRAWS {
        counts.fill(0.0);
        (0..problems).for_each(|_| counts[draws.below(problems)] += 1.0);
        let value = drawn_mean(first, &counts, &mut draws)
            - if second.is_empty() { 0.0 } else { drawn_mean(second, &counts, &mut draws) };
        found.extend(value.is_finite().then_some(value));
    }
    if found.is_empty() {
        return None;
    }
    found.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&found, 0.025), high: quantile(&found, 0.975) })
}

/// The mean of as many seeds as there are, drawn anew, each over problems that count as often as they were drawn.
fn drawn_mean(values: &[Vec<f64>], counts: &[f64], draws: &mut Draws) -> f64 {
    let over_problems = |row: &Vec<f64>| {
        let judged = row.iter().zip(counts).filter(|(value, _)| value.is_finite());
        let (sum, n) = judged.fold((0.0, 0.0), |(sum, n), (value, count)| (sum + value * count, n + count));
        sum / n
    };
    let drawn: Vec<f64> = (0..values.len()).map(|_| over_problems(&values[draws.below(values.len())])).collect();
    mean(&drawn)
}

/// The quantile of sorted values, between neighbours in proportion (type 7, as numpy has it).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, share) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] * (1.0 - share) + sorted[above] * share
}
