//! Shares with their intervals.

use serde::Serialize;

/// From where to where.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// The 95% interval of a share (Wilson 1927).
pub fn wilson(right: usize, all: usize) -> Interval {
    let (z, n, p) = (1.96f64, all as f64, right as f64 / all as f64);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / (1.0 + z * z / n);
    Interval { low: centre - half, high: centre + half }
}
