//! How near one model's next-token distributions are to another's on the same text: what rounding weights has cost.

use crate::ops::attention::Segment;
use crate::ops::linear::Epilogue;
use crate::ops::linear_logprob::{argmax, normalise};
use crate::ops::team::Team;

use super::cpu::CpuModel;
use super::cpu::decoder::{Context, Input};
use super::cpu::workspace::{Keep, Workspace};

/// What a model expects behind each token of a text.
#[derive(Debug)]
pub struct Expectations {
    /// Log-probabilities `(T, V)`.
    logprobs: Vec<f32>,
    vocab: usize,
}

/// How near two models are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fidelity {
    /// Tokens behind which they were compared.
    pub tokens: usize,
    /// Mean Kullback-Leibler divergence of the second from the first, in nats a token.
    pub kl: f64,
    /// The share of tokens behind which both find the same token most likely.
    pub same: f64,
}

impl Expectations {
    /// What a model expects behind each of `tokens (T)`.
    pub fn of(model: &CpuModel, tokens: &[u32]) -> Self {
        Team::with(model.threads, |team| Self::by(team, model, tokens))
    }

    fn by(team: &Team, model: &CpuModel, tokens: &[u32]) -> Self {
        let weights = model.weights(team);
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let (input, segments) = (Input::new(tokens, &positions), [Segment::alone(0..tokens.len())]);
        let mut workspace = Workspace::default();
        model.decoder.forward(team, &weights, input, Context::Segments(&segments), Keep::Nothing, &mut workspace);
        let vocab = weights.lm_head.outputs();
        let mut logprobs = vec![0f32; tokens.len() * vocab];
        weights.lm_head.forward(team, &workspace.hidden, &mut logprobs, Epilogue::None);
        for row in logprobs.chunks_exact_mut(vocab) {
            let lse = normalise(row, 1.0).lse;
            row.iter_mut().for_each(|logit| *logit -= lse);
        }
        Self { logprobs, vocab }
    }

    /// Log-probabilities `(V)` of what may come behind the token at a place.
    pub fn behind(&self, place: usize) -> &[f32] {
        &self.logprobs[place * self.vocab..(place + 1) * self.vocab]
    }

    /// How near another model is, asked of the same tokens.
    pub fn compare(&self, other: &Self) -> Fidelity {
        let (mut kl, mut same, mut tokens) = (0.0, 0, 0);
        for (p, q) in self.logprobs.chunks_exact(self.vocab).zip(other.logprobs.chunks_exact(self.vocab)) {
            let term = |(p, q): (&f32, &f32)| f64::from(p.exp()) * (f64::from(*p) - f64::from(*q));
            kl += p.iter().zip(q).map(term).sum::<f64>();
            same += usize::from(argmax(p) == argmax(q));
            tokens += 1;
        }
        let count = tokens.max(1) as f64;
        Fidelity { tokens, kl: kl / count, same: same as f64 / count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_compared_token_by_token() {
        let of =
            |probabilities: &[f32]| Expectations { logprobs: probabilities.iter().map(|p| p.ln()).collect(), vocab: 2 };
        let (one, other) = (of(&[0.5, 0.5, 0.9, 0.1]), of(&[0.5, 0.5, 0.25, 0.75]));
        let (same, apart) = (one.compare(&one), one.compare(&other));
        assert_eq!((same.tokens, same.kl, same.same), (2, 0.0, 1.0));
        let expected = (0.9 * (0.9f64 / 0.25).ln() + 0.1 * (0.1f64 / 0.75).ln()) / 2.0;
        assert!((apart.kl - expected).abs() < 1e-6 && apart.same == 0.5, "{apart:?}");
    }
}
