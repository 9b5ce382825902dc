//! Clocks and numbers for the measurements.

use std::time::Instant;

use anyhow::Result;
use half::bf16;
use reckon_datasets::Counted;

use reckon::model::Entry;
use reckon::model::files::Source;
use std::ops::Range;

/// Length of the table that random values repeat: a prime, so that rows of a matrix differ.
const TABLE: usize = 65_521;

/// Seconds of `work`, the median of several runs after one that is not timed; `wait` ends with a download.
pub(crate) fn seconds(runs: usize, work: impl Fn() -> Result<()>, wait: impl Fn() -> Result<()>) -> Result<f64> {
    work()?;
    wait()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        wait()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// The value in the middle of at least one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `n` values of bf16, uniform in `±0.5`.
pub(crate) fn random(name: u64, n: usize) -> Vec<bf16> {
    let mut stream = Counted::new(&[0xbe4c, name]);
    let table: Vec<bf16> = (0..n.min(TABLE)).map(|_| bf16::from_f32(stream.unit() as f32 - 0.5)).collect();
    table.iter().copied().cycle().take(n).collect()
}

/// Weights of a model as a new one has them, made when they are asked for: however large the model, the host holds a
/// piece. Values repeat, which no measurement sees.
#[derive(Debug)]
pub(crate) struct RandomWeights {
    entries: Vec<Entry>,
    table: Vec<f32>,
}

impl RandomWeights {
    pub(crate) fn new(entries: &[Entry]) -> Self {
        let mut stream = Counted::new(&[0xbe4c, 6]);
        let table = (0..TABLE).map(|_| bf16::from_f64(0.02 * stream.normal()).to_f32()).collect();
        Self { entries: entries.to_vec(), table }
    }
}

impl Source for RandomWeights {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        if !entry.is_matrix() {
            out.fill(if entry.name.ends_with("bias") { 0.0 } else { 1.0 });
            return Ok(());
        }
        let mut at = (entry.range.start + range.start) % TABLE;
        let mut rest = out;
        while !rest.is_empty() {
            let count = rest.len().min(TABLE - at);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&self.table[at..at + count]);
            (rest, at) = (later, 0);
        }
        Ok(())
    }
}
