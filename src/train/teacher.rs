//! On-policy distillation: the policy samples, and a frozen teacher says of its very tokens what it would have thought of
//! them (Agarwal et al. 2023, arXiv:2306.13649; as advantages, Thinking Machines Lab, "On-Policy Distillation", 2025).

use std::collections::HashMap;

use anyhow::{Result, ensure};
use tokenizers::Tokenizer;

use crate::batch::{Loss, LossStats, MicroBatch, Teaching};
use crate::config::{DistilConfig, DistilObjective};
use crate::ops::linear_logprob::distill::Divergence;
use crate::policy::{Policy, Who};

/// A teacher and what is learned of it.
pub struct Teacher {
    /// The frozen model.
    pub policy: Policy,
    config: DistilConfig,
    /// Tokens that both models know.
    vocab: usize,
}

impl Teacher {
    /// A teacher for `student`, which has to know the same tokens.
    pub fn new(config: &DistilConfig, policy: Policy, student: &Policy) -> Result<Self> {
        let vocab = shared(&student.tokenizer, &policy.tokenizer)?;
        let rows = student.config.vocab_size.min(policy.config.vocab_size);
        ensure!(vocab <= rows, "the tokenizer has {vocab} tokens, and one of the models {rows} rows for them");
        Ok(Self { policy, config: config.clone(), vocab })
    }

    /// What is learned of it.
    pub fn config(&self) -> &DistilConfig {
        &self.config
    }

    /// What of the divergence is measured.
    pub(super) fn measure(&self) -> &'static str {
        match self.config.objective {
            DistilObjective::Sampled => "kl_sampled",
            DistilObjective::Full => "divergence",
        }
    }

    /// Gradients of the loss and of what the teacher teaches. Its advantages are added to those of the micro-batches, each
    /// of which is to come here once.
    pub(super) fn gradients(
        &self,
        student: &mut Policy,
        micros: &mut [MicroBatch],
        temperature: f32,
        loss: &Loss,
    ) -> Result<Vec<LossStats>> {
        if self.config.objective == DistilObjective::Full {
            let divergence = Divergence { beta: self.config.beta as f32, vocab: self.vocab };
            let teaching = Teaching { teacher: &*self.policy.learner, divergence, coef: self.config.coef as f32 };
            return student.learner.distil(micros, temperature, loss, teaching);
        }
        // Its routers are its own.
        let asked: Vec<MicroBatch> = micros.iter().map(|micro| MicroBatch { routed: None, ..micro.clone() }).collect();
        let stats = self.policy.learner.logprobs(Who::Policy, &asked, temperature)?;
        let (coef, discount) = (self.config.coef as f32, self.config.discount as f32);
        let gaps: Vec<f64> =
            micros.iter_mut().zip(&stats).map(|(micro, now)| advise(micro, &now.logprobs, coef, discount)).collect();
        let mut losses = student.learner.gradients(micros, temperature, loss)?;
        losses.iter_mut().zip(gaps).for_each(|(stats, gap)| stats.divergence = gap);
        Ok(losses)
    }
}

/// Adds `-coef sum_k discount^k gap_(t+k)` to the advantage of token `t`, `gap = log p_student - log p_teacher`, and returns
/// the sum of the gaps of the tokens that count: of the tokens of a policy, their mean is the estimate k1 of the reverse KL
/// divergence.
fn advise(micro: &mut MicroBatch, teacher: &[f32], coef: f32, discount: f32) -> f64 {
    let gap = |row: usize| micro.rollout_logprobs[row] - teacher[row];
    let counting = (0..teacher.len()).filter(|&row| micro.loss_weights[row] != 0.0);
    let sum = counting.map(|row| f64::from(gap(row))).sum();
    let mut advice = vec![0f32; teacher.len()];
    for sample in &micro.samples {
        let mut later = 0.0;
        for row in sample.clone().rev() {
            later = gap(row) + discount * later;
            advice[row] = -coef * later;
        }
    }
    micro.advantages.iter_mut().zip(advice).for_each(|(advantage, advice)| *advantage += advice);
    sum
}

/// How many tokens two tokenizers have, which are to be the same. Rows of a model behind them are padding.
fn shared(student: &Tokenizer, teacher: &Tokenizer) -> Result<usize> {
    let (ours, theirs): (HashMap<String, u32>, _) = (student.get_vocab(true), teacher.get_vocab(true));
    let differs = |(token, id): (&String, &u32)| (theirs.get(token) != Some(id)).then(|| (*id, token.clone()));
    let first = ours.iter().filter_map(differs).min();
    ensure!(
        first.is_none() && ours.len() == theirs.len(),
        "the teacher's tokenizer is another one ({}): take a teacher that shares the policy's",
        match first {
            Some((id, token)) => format!("token {id}, {token:?}, is not its own"),
            None => format!("{} tokens, not {}", theirs.len(), ours.len()),
        }
    );
    Ok(ours.values().max().map_or(0, |&id| id as usize + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_the_gap_of_each_token_and_of_those_behind_it() {
        let micro = MicroBatch {
            rollout_logprobs: vec![-1.0, -2.0, -0.5],
            advantages: vec![0.5, 0.5, -1.0],
            loss_weights: vec![0.5, 0.5, 0.0],
            samples: vec![0..2, 2..3],
            ..MicroBatch::default()
        };
        let teacher = [-3.0, -1.0, -0.5];
        for (coef, discount, expected) in
            [(1.0, 0.0, [-1.5, 1.5, -1.0]), (0.5, 0.0, [-0.5, 1.0, -1.0]), (1.0, 0.5, [-1.0, 1.5, -1.0])]
        {
            let mut micro = micro.clone();
            assert_eq!(advise(&mut micro, &teacher, coef, discount), 1.0, "of the tokens that count");
            assert_eq!(micro.advantages, expected);
        }
    }
}
