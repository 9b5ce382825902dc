//! How often a model solves each row of its data: pass rates by row, to choose rows by. A row's rate depends on the
//! row, the model and the seed alone, so a measurement that was interrupted goes on where it stopped.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::disk::read_text;
use crate::eval::{passes, readable};
use crate::groups::Rollouts;
use crate::judge::{Group, Judge};
use crate::prompt::Prompt;
use crate::rollout::SampleKey;

/// The step number that stands for a measurement in the names of random numbers.
const MEASURE_STEP: u64 = u64::MAX - 1;

/// What a model made of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The row.
    pub id: String,
    /// Share of the judged completions that pass; none where none was judged.
    pub pass_rate: Option<f64>,
    /// Completions that were sampled.
    pub samples: usize,
    /// Completions that a verifier judged.
    pub judged: usize,
    /// Whose completions they are.
    pub model: String,
}

/// A file of rates, a row in each line.
pub struct Rates {
    file: File,
    known: HashMap<String, Rate>,
}

impl Rates {
    /// Opens a file to go on with, or begins one. A line that was cut by a kill is written anew.
    ///
    /// # Errors
    /// A file of another model's rates, or of another number of samples.
    pub fn open(path: &Path, model: &str, samples: usize) -> Result<Self> {
        let named = || path.display().to_string();
        let mut known = HashMap::new();
        let text = if path.exists() { read_text(path)? } else { String::new() };
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for (index, line) in text[..whole].lines().enumerate() {
            let place = || format!("{}, line {}: no pass rate; give --out another name", named(), index + 1);
            let rate: Rate = serde_json::from_str(line).with_context(place)?;
            ensure!(
                rate.model == model && rate.samples == samples,
                "{} holds rates of {} by {} samples, not of {model} by {samples}: give --out another name",
                named(),
                rate.model,
                rate.samples
            );
            known.insert(rate.id.clone(), rate);
        }
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        Ok(Self { file: open().with_context(|| format!("cannot write {}", named()))?, known })
    }

    /// The rate of a row, if it is known.
    pub fn get(&self, id: &str) -> Option<&Rate> {
        self.known.get(id)
    }

    /// All that are known.
    pub fn all(&self) -> impl Iterator<Item = &Rate> {
        self.known.values()
    }

    fn add(&mut self, rates: Vec<Rate>) -> Result<()> {
        let lines = rates.iter().map(|rate| Ok(serde_json::to_string(rate)? + "\n")).collect::<Result<String>>()?;
        self.file.write_all(lines.as_bytes()).context("cannot write the rates")?;
        self.known.extend(rates.into_iter().map(|rate| (rate.id.clone(), rate)));
        Ok(())
    }
}

/// Measures `prompts`, one for each row, by `samples` completions each, and adds their rates to `rates`. Returns what
/// is wrong with rows that cannot be judged.
pub fn measure(
    rollouts: Rollouts,
    prompts: Vec<Prompt>,
    (samples, model, seed): (usize, &str, u64),
    rates: &mut Rates,
) -> Result<Vec<String>> {
    let all: Vec<String> = prompts.iter().map(|prompt| prompt.example.id.clone()).collect();
    let (prompts, faults) = readable(rollouts.judge, prompts);
    let (groups, _) = rollouts.groups(prompts, samples, SampleKey { seed, step: MEASURE_STEP })?;
    let by_id: HashMap<&str, &Group> = groups.iter().map(|group| (group.prompt.example.id.as_str(), group)).collect();
    let rate = |id: String| {
        let verdicts = by_id.get(id.as_str()).map_or_else(Vec::new, |group| verdicts(rollouts.judge, group));
        let (judged, passed) = (verdicts.len(), verdicts.iter().filter(|&&passed| passed).count());
        let pass_rate = (judged > 0).then(|| passed as f64 / judged as f64);
        Rate { id, pass_rate, samples, judged, model: model.to_owned() }
    };
    rates.add(all.into_iter().map(rate).collect())?;
    Ok(faults)
}

/// Whether each completion of a group that was judged is right.
fn verdicts(judge: &Judge, group: &Group) -> Vec<bool> {
    group.rollouts.iter().filter_map(|rollout| passes(judge, group, rollout)).collect()
}
