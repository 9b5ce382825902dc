//! The learning rate of each step: a linear warm-up, then constant or decaying.
//!
//! A function of the step alone, so a resumed run continues where it stopped.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after its warm-up. With `p` from 0 to 1 over the steps that follow:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// `lr`.
    Constant,
    /// `lr (1 - (1 - final_ratio) p)`.
    Linear,
    /// `lr (final_ratio + (1 - final_ratio) (1 + cos(pi p)) / 2)`  (arXiv:1608.03983).
    Cosine,
}

/// A learning rate over the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The shape after the warm-up.
    pub kind: ScheduleKind,
    /// The highest learning rate.
    pub lr: f64,
    /// Steps, from the first on, over which the rate rises to `lr`.
    pub warmup_steps: u64,
    /// Steps of the run. The decay ends there: the last step, `total_steps - 1`, is still above the end.
    pub total_steps: u64,
    /// The rate at the end of a decay, as a share of `lr`.
    pub final_ratio: f64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    ///
    /// Warm-up step `s` has `lr (s + 1) / warmup_steps`: the first step moves already and the last has the full rate.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        // What is left of the way from final_ratio to 1.
        let left = match self.kind {
            ScheduleKind::Constant => return self.lr,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.lr * (self.final_ratio + (1.0 - self.final_ratio) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps of warm-up, then four from 1 to 0.2.
    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, lr: 1.0, warmup_steps: 2, total_steps: 6, final_ratio: 0.2 }
    }

    fn check(schedule: Schedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let found = schedule.at(step as u64);
            assert!((found - expected).abs() < 1e-12, "{schedule:?} at {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn each_kind_warms_up_and_ends_at_the_rates_worked_by_hand() {
        check(schedule(ScheduleKind::Constant), &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        check(schedule(ScheduleKind::Linear), &[0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]);
        // cos(pi / 4) = sqrt(1/2): 0.2 + 0.4 (1 + sqrt(1/2)), and its mirror.
        let root = 0.5f64.sqrt();
        check(schedule(ScheduleKind::Cosine), &[0.5, 1.0, 1.0, 0.6 + 0.4 * root, 0.6, 0.6 - 0.4 * root, 0.2, 0.2]);
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_full_rate() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine] {
            assert_eq!(Schedule { warmup_steps: 0, ..schedule(kind) }.at(0), 1.0, "{kind:?}");
        }
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_never_leaves_it() {
        let schedule = Schedule { warmup_steps: 10, total_steps: 5, ..schedule(ScheduleKind::Cosine) };
        assert_eq!(schedule.at(4), 0.5);
        assert_eq!(schedule.at(10), 1.0);
        assert_eq!(schedule.at(11), 0.2);
    }
}
