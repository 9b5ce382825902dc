//! Supervised steps: the next-token loss over packed prompts and completions. Makes base models and cold starts.

mod encode;
pub mod run;
mod source;

use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::batch::{LossStats, MicroBatch, TokenLosses, TokenStats};
use crate::config::SftConfig;
use crate::model::Layout;
use crate::optim::{Schedule, Update};
use crate::policy::{Largest, Policy, REHEARSAL, Training, Who};
pub use source::SftSource;

/// A supervised run in memory.
pub struct SftTrainer {
    /// The model being trained.
    pub policy: Policy,
    /// Steps done.
    pub step: u64,
    /// Updates left out in a row because a gradient was not finite.
    pub skipped: u64,
    schedule: Schedule,
    micro_batch_tokens: usize,
    max_skipped: u64,
    balance: f64,
}

/// Tokens to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftSample {
    /// All of them; the others are only read.
    pub tokens: Vec<u32>,
    /// Which of them are trained on: ascending, and apart from one another.
    pub trained: Vec<Range<usize>>,
}

impl SftSample {
    /// A prompt and its completion, which begins with token `trained_from`.
    pub fn completion(tokens: Vec<u32>, trained_from: usize) -> Self {
        let trained = std::iter::once(trained_from..tokens.len()).collect();
        Self { tokens, trained }
    }

    /// The tokens that are trained on: the first of all has nothing before it to follow from.
    fn targets(&self) -> impl Iterator<Item = usize> {
        self.trained.iter().cloned().flatten().filter(|&token| token > 0)
    }

    /// Leaves the first `length` tokens; returns how many are lost.
    fn truncate(&mut self, length: usize) -> usize {
        let lost = self.tokens.len().saturating_sub(length);
        self.tokens.truncate(length);
        self.trained.iter_mut().for_each(|range| *range = range.start.min(length)..range.end.min(length));
        lost
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
    /// Tokens that were trained on.
    pub targets: usize,
    /// Tokens of all samples.
    pub tokens: usize,
}

impl SftTrainer {
    /// A run of `steps` steps of `config` on `policy`.
    pub fn new(config: &SftConfig, steps: u64, mut policy: Policy) -> Result<Self> {
        let (adamw, moments) = (config.optim.adamw(), config.optim.moments);
        let aux_loss_coef = policy.aux_loss_coef(config.optim.router_aux_loss_coef)?;
        policy.learner.begin(&Training { adamw, moments, reference: false, aux_loss_coef })?;
        let schedule = config.optim.schedule(steps);
        let mut compute = config.compute.clone();
        compute.suit(Layout::of(&policy.config)?.len(), config.lora.is_some());
        let (max_skipped, balance) = (config.optim.max_skipped, config.optim.balance);
        policy.can_be_balanced(balance)?;
        let micro_batch_tokens = compute.micro_batch_tokens;
        Ok(Self { policy, schedule, micro_batch_tokens, max_skipped, balance, skipped: 0, step: 0 })
    }

    /// Runs the largest micro-batch where a lack of memory would end the run hours later. Changes nothing.
    pub fn rehearse(&mut self) -> Result<()> {
        let longest = self.policy.config.max_position_embeddings.min(self.micro_batch_tokens);
        let largest = Largest { rows: 0, prompt: 0, sequence: longest, micro_batch: self.micro_batch_tokens };
        self.policy.learner.rehearse(&largest).context(REHEARSAL)
    }

    /// One update toward `samples`; every trained token counts alike.
    pub fn step(&mut self, samples: &[SftSample]) -> Result<SftReport> {
        let (targets, micros) = self.packed(samples);
        let losses = self.policy.learner.gradients(&micros, 1.0, &negative_log_likelihood)?;
        let (loss, lr) = (losses.iter().map(|stats| stats.loss).sum::<f64>(), self.schedule.at(self.step));
        self.step += 1;
        let tokens = samples.iter().map(|sample| sample.tokens.len()).sum();
        let report = SftReport { loss, grad_norm: f64::NAN, lr, targets, tokens };
        match self.policy.update_balanced(lr, self.balance)? {
            Update::Applied { grad_norm } => {
                self.skipped = 0;
                Ok(SftReport { grad_norm, ..report })
            }
            Update::Skipped | Update::Nothing => {
                self.skipped += 1;
                if self.skipped >= self.max_skipped {
                    bail!(
                        "the gradient was not finite in {} updates in a row (loss {loss}): lower optim.lr",
                        self.skipped
                    );
                }
                Ok(report)
            }
        }
    }

    /// Mean negative log-likelihood of the trained tokens of `samples`, in nats. Nothing is learned.
    pub fn loss(&self, samples: &[SftSample]) -> Result<f64> {
        let (_, micros) = self.packed(samples);
        let stats = self.policy.learner.logprobs(Who::Policy, &micros, 1.0)?;
        Ok(micros.iter().zip(&stats).map(|(micro, now)| negative_log_likelihood(micro, now).stats.loss).sum())
    }

    /// How many tokens of the samples are trained on, and the samples packed.
    fn packed(&self, samples: &[SftSample]) -> (usize, Vec<MicroBatch>) {
        let targets = samples.iter().map(|sample| sample.targets().count()).sum();
        (targets, pack(samples, self.micro_batch_tokens, targets))
    }
}

/// `- sum_t w_t log p_t` of a micro-batch.
fn negative_log_likelihood(micro: &MicroBatch, now: &TokenStats) -> TokenLosses {
    let loss = now.logprobs.iter().zip(&micro.loss_weights).map(|(&l, &w)| -f64::from(l * w)).sum();
    let gradient = micro.loss_weights.iter().map(|w| -w).collect();
    TokenLosses { gradient, stats: LossStats { loss, ..LossStats::default() }, ..TokenLosses::default() }
}

/// Packs samples, in order, into micro-batches of up to `max_tokens`, each a segment of its own: no token attends to
/// another sample's. Every trained token weighs `1 / total`; what comes behind the last of a sample is left out.
fn pack(samples: &[SftSample], max_tokens: usize, total: usize) -> Vec<MicroBatch> {
    let mut micros: Vec<MicroBatch> = Vec::new();
    let weight = 1.0 / total.max(1) as f32;
    for sample in samples {
        let Some(n) = sample.targets().last() else { continue };
        if micros.last().is_none_or(|m| m.tokens.len() + n > max_tokens) {
            micros.push(MicroBatch::default());
        }
        let Some(micro) = micros.last_mut() else { continue };
        let start = micro.push_sequence(&sample.tokens[..n]).start;
        let targets = sample.targets().collect::<Vec<_>>();
        // The head reads the rows before trained tokens alone: over a large vocabulary it is most of the work.
        micro.rows.extend(targets.iter().map(|target| (start + target - 1) as u32));
        micro.targets.extend(targets.iter().map(|&target| sample.tokens[target]));
        micro.loss_weights.extend(targets.iter().map(|_| weight));
    }
    micros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(length: u32, trained: &[Range<usize>]) -> SftSample {
        SftSample { tokens: (0..length).collect(), trained: trained.to_vec() }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range")]
    fn only_trained_tokens_are_rows_and_they_weigh_one_in_all() {
        for (samples, rows, targets) in [
            (vec![sample(5, &[3..5])], vec![2, 3], vec![3, 4]),
            (vec![sample(3, &[0..3]), sample(3, &[2..3])], vec![0, 1, 3], vec![1, 2, 2]),
            (vec![sample(4, &[4..4]), sample(2, &[1..2])], vec![0], vec![1]),
            (vec![sample(7, &[1..2, 4..5])], vec![0, 3], vec![1, 4]),
        ] {
            let total = samples.iter().map(|sample| sample.targets().count()).sum();
            let [micro]: [MicroBatch; 1] = pack(&samples, 100, total).try_into().unwrap();
            assert_eq!((&micro.rows, &micro.targets), (&rows, &targets));
            assert!((micro.loss_weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert_eq!(micro.segments.len(), samples.iter().filter(|s| s.targets().count() > 0).count());
        }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of one range")]
    fn what_is_cut_is_counted_and_no_longer_trained_on() {
        let mut cut = sample(9, &[1..3, 5..9]);
        assert_eq!((cut.truncate(6), cut.tokens.len(), cut.trained.clone()), (3, 6, vec![1..3, 5..6]));
        assert_eq!((cut.truncate(2), cut.targets().collect::<Vec<_>>()), (4, vec![1]));
        assert_eq!(sample(2, &[0..2]).truncate(2), 0);
    }
}
