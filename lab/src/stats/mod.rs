//! Numbers with error bars: intervals of proportions and means, tests on the same problems, pass@k. Pure functions over
//! slices; what is compared with what is decided by [`crate::summary`].
//!
//! Every function is held against scipy or statsmodels in `tests/statistics.rs`, whose numbers
//! `scripts/lab_statistics.py` printed.

use serde::Serialize;

mod band;
mod bootstrap;
mod paired;
mod proportion;

pub use band::{Band, band, moving_mean, t_975};
pub use bootstrap::{Draws, bootstrap_difference, bootstrap_mean};
pub use paired::{Paired, mcnemar, mcnemar_exact};
pub use proportion::{pass_at_k, wilson};

/// A 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
