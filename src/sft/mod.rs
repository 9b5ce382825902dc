//! Supervised steps: the next-token loss over packed prompts and completions. Makes base models and cold starts.

mod source;

use anyhow::{Context, Result, bail};

use crate::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};
use crate::config::SftConfig;
use crate::model::Layout;
use crate::optim::{Schedule, Update};
use crate::policy::{Largest, Policy, REHEARSAL, Training};
pub use source::SftSource;

/// A supervised run in memory.
pub struct SftTrainer {
    /// The model being trained.
    pub policy: Policy,
    schedule: Schedule,
    micro_batch_tokens: usize,
    max_skipped: u64,
    skipped: u64,
    step: u64,
}

/// A prompt and its completion as tokens.
#[derive(Debug, Clone)]
pub struct SftSample {
    /// Both, one after the other.
    pub tokens: Vec<u32>,
    /// The first token that is trained on; those before it are only read.
    pub trained_from: usize,
}

impl SftSample {
    /// Trained tokens: the first of all has nothing before it to follow from.
    fn targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.trained_from.max(1))
    }
}

/// What a supervised step did.
#[derive(Debug, Clone, Copy)]
pub struct SftReport {
    /// Mean negative log-likelihood of a token, in nats.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

impl SftTrainer {
    /// A run of `config` on `policy`.
    pub fn new(config: &SftConfig, mut policy: Policy) -> Result<Self> {
        let (adamw, moments) = (config.optim.adamw(), config.optim.moments);
        policy.learner.begin(&Training { adamw, moments, reference: false })?;
        let schedule = config.optim.schedule(config.steps);
        let mut compute = config.compute.clone();
        compute.suit(Layout::of(&policy.config)?.len());
        let max_skipped = config.optim.max_skipped;
        let micro_batch_tokens = compute.micro_batch_tokens;
        Ok(Self { policy, schedule, micro_batch_tokens, max_skipped, skipped: 0, step: 0 })
    }

    /// Runs the largest micro-batch where a lack of memory would end the run hours later. Changes nothing.
    pub fn rehearse(&mut self) -> Result<()> {
        let longest = self.policy.config.max_position_embeddings.min(self.micro_batch_tokens);
        let largest = Largest { rows: 0, prompt: 0, sequence: longest, micro_batch: self.micro_batch_tokens };
        self.policy.learner.rehearse(&largest).context(REHEARSAL)
    }

    /// One update toward `samples`; every trained token counts alike.
    pub fn step(&mut self, samples: &[SftSample]) -> Result<SftReport> {
        let total: usize = samples.iter().map(SftSample::targets).sum();
        let micros = pack(samples, self.micro_batch_tokens, total);
        let losses = self.policy.learner.gradients(&micros, 1.0, &negative_log_likelihood)?;
        let (loss, lr) = (losses.iter().map(|stats| stats.loss).sum::<f64>(), self.schedule.at(self.step));
        self.step += 1;
        match self.policy.update(lr)? {
            Update::Applied { grad_norm } => {
                self.skipped = 0;
                Ok(SftReport { loss, grad_norm, lr })
            }
            Update::Skipped | Update::Nothing => {
                self.skipped += 1;
                if self.skipped >= self.max_skipped {
                    bail!(
                        "the gradient was not finite in {} updates in a row (loss {loss}): lower optim.lr",
                        self.skipped
                    );
                }
                Ok(SftReport { loss, grad_norm: f64::NAN, lr })
            }
        }
    }
}

/// `- sum_t w_t log p_t` of a micro-batch.
fn negative_log_likelihood(micro: &MicroBatch, now: &TokenStats) -> TokenLosses {
    let loss = now.logprobs.iter().zip(&micro.loss_weights).map(|(&l, &w)| -f64::from(l * w)).sum();
    let gradient = micro.loss_weights.iter().map(|w| -w).collect();
    TokenLosses { gradient, stats: LossStats { loss, ..LossStats::default() } }
}

/// Packs samples, in order, into micro-batches of up to `max_tokens`; every trained token weighs `1 / total`.
fn pack(samples: &[SftSample], max_tokens: usize, total: usize) -> Vec<MicroBatch> {
    let mut micros: Vec<MicroBatch> = Vec::new();
    let weight = 1.0 / total.max(1) as f32;
    for sample in samples.iter().filter(|sample| sample.targets() > 0) {
        let n = sample.tokens.len() - 1;
        if micros.last().is_none_or(|m| m.tokens.len() + n > max_tokens) {
            micros.push(MicroBatch::default());
        }
        let Some(micro) = micros.last_mut() else { continue };
        let rows = micro.push_sequence(&sample.tokens[..n]);
        micro.rows.extend(rows.map(|row| row as u32));
        micro.targets.extend(&sample.tokens[1..]);
        let read_only = n - sample.targets();
        micro.loss_weights.extend((0..n).map(|i| if i < read_only { 0.0 } else { weight }));
    }
    micros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trained_tokens_weigh_and_they_weigh_one_in_all() {
        let sample = |length: u32, trained_from| SftSample { tokens: (0..length).collect(), trained_from };
        for (samples, trained) in [
            (vec![sample(5, 3)], vec![0.0, 0.0, 0.5, 0.5]),
            (vec![sample(3, 0), sample(3, 2)], vec![1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]),
            (vec![sample(4, 4), sample(2, 1)], vec![1.0]),
        ] {
            let total = samples.iter().map(SftSample::targets).sum();
            let micros = pack(&samples, 100, total);
            assert_eq!(micros.iter().flat_map(|m| m.loss_weights.clone()).collect::<Vec<f32>>(), trained);
        }
    }
}
