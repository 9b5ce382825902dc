//! The `[teacher]` table of `reckon train`: on-policy distillation. What it does to a step is [`crate::train::teacher`]'s.

use anyhow::{Result, ensure};
use reckon_datasets::Range::{AtLeast, Share};
use reckon_datasets::{Table, table};
use serde::{Deserialize, Serialize};

table! {
    /// A model that teaches the policy on the policy's own completions. The defaults are those of Thinking Machines'
    /// on-policy distillation.
    pub struct DistilConfig {
        /// The teacher, named as `model.path` is; it is frozen, and shares the policy's tokenizer.
        pub path: String,
        /// A branch, tag or commit of the hub's repository; `main` when absent.
        pub revision: Option<String>,
        /// What is learned of it.
        #[serde(default)]
        pub objective: DistilObjective,
        /// Weight of it: in units of advantage with `sampled`, of loss with `full`.
        #[serde(default = "one")]
        pub coef: f64 => AtLeast(0.0),
        /// With `full`: 1 is the reverse KL divergence, 0 the forward one, between them lies the generalized
        /// Jensen-Shannon divergence.
        #[serde(default = "one")]
        pub beta: f64 => Share,
        /// With `sampled`: how much of what comes later in a completion a token answers for; 0 for its own part alone.
        #[serde(default)]
        pub discount: f64 => Share,
        /// Whether the rubric's rewards are learned from too; when false they are measured and teach nothing.
        #[serde(default)]
        pub rewards: bool,
    }
}

fn one() -> f64 {
    1.0
}

/// What the policy learns of a teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistilObjective {
    /// Each sampled token has the advantage `-(log p_student - log p_teacher)`, its share of the reverse KL divergence.
    #[default]
    Sampled,
    /// The divergence over the whole vocabulary at each sampled position, exactly.
    Full,
}

impl DistilConfig {
    /// What the teacher is loaded by.
    pub fn name(&self) -> String {
        self.revision.as_ref().map_or_else(|| self.path.clone(), |revision| format!("{}@{revision}", self.path))
    }

    /// Refuses a value out of its range, and a key that has no effect beside the others.
    pub fn validate(&self) -> Result<()> {
        self.check("teacher.").map_err(anyhow::Error::msg)?;
        let full = self.objective == DistilObjective::Full;
        ensure!(full || self.beta == 1.0, "teacher.beta = {}: it needs objective = \"full\"", self.beta);
        ensure!(
            !full || self.discount == 0.0,
            "teacher.discount = {}: it needs objective = \"sampled\"",
            self.discount
        );
        Ok(())
    }
}
