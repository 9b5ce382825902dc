//! Held-out evaluations of a run: the same problems again and again, each with what was said to it. `before.json` is of
//! step 0, `evals/step-000050.json` of later ones.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::run::step_files;
use crate::stats::pass_at_k;

/// A held-out completion.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    /// What was asked.
    pub question: String,
    /// What came of it.
    #[serde(default)]
    pub completion: String,
    /// Whether it passes; `None` where it was not judged.
    pub passed: Option<bool>,
}

/// One evaluation.
#[derive(Clone, Debug)]
pub struct Eval {
    /// The step after which it was made.
    pub step: u64,
    /// All completions; those of a problem stand side by side.
    pub judged: Vec<Judged>,
}

impl Eval {
    /// Completions of each problem: as many as a question stands in a row, where all have as many.
    pub fn samples(&self) -> usize {
        let lengths: Vec<usize> = self.judged.chunk_by(|a, b| a.question == b.question).map(<[Judged]>::len).collect();
        // Two problems of one question would look like one of twice as many completions.
        lengths.iter().copied().min().filter(|least| lengths.iter().all(|n| n % least == 0)).unwrap_or(1)
    }

    /// The share of each problem's completions that pass; NaN where none was judged.
    pub fn rates(&self) -> Vec<f64> {
        let rate = |tries: &[Judged]| {
            let judged = tries.iter().filter_map(|judged| judged.passed);
            let (right, all) = judged.fold((0.0, 0.0), |(right, all), passed| (right + f64::from(passed), all + 1.0));
            right / all
        };
        self.judged.chunks(self.samples()).map(rate).collect()
    }

    /// pass@k over all problems: the mean of each problem's unbiased estimate, those not judged in full left out.
    pub fn pass_at(&self, k: usize) -> Option<f64> {
        let samples = self.samples();
        let counts = self.judged.chunks(samples).filter(|tries| tries.iter().all(|judged| judged.passed.is_some()));
        let right = |tries: &[Judged]| tries.iter().filter(|judged| judged.passed == Some(true)).count();
        let estimates: Vec<f64> = counts.map(|tries| pass_at_k(samples, right(tries), k.min(samples))).collect();
        (k <= samples && !estimates.is_empty()).then(|| crate::stats::mean(&estimates))
    }
}

/// The evaluations of the run in `path`, in the order of their steps. One that cannot be read is left out.
pub fn read(path: &Path) -> Vec<Eval> {
    #[derive(Deserialize)]
    struct File {
        judged: Vec<Judged>,
    }
    let files = std::iter::once((0, path.join("before.json"))).chain(step_files(&path.join("evals"), ".json"));
    let read = |(step, path): (u64, std::path::PathBuf)| {
        let file: File = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (!file.judged.is_empty()).then_some(Eval { step, judged: file.judged })
    };
    files.filter_map(read).collect()
}

/// Whether two evaluations are of the same problems, so that they can be compared one by one.
pub fn same_problems(first: &Eval, second: &Eval) -> bool {
    first.judged.len() == second.judged.len()
        && first.judged.iter().zip(&second.judged).all(|(a, b)| a.question == b.question)
}
