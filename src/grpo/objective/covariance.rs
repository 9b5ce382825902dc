//! Tokens by which entropy falls, treated apart.
//!
//! The entropy of a policy falls by the covariance of log-probability and advantage, and few tokens carry most of it
//! (arXiv:2505.22617). With `N` tokens of an update, `cov_t = (ln pi_t - mean(ln pi)) (A_t - mean(A))`.

use reckon_datasets::Counted;
use reckon_datasets::Range::{Above, AtLeast, PositiveShare};

use super::{Clip, Knob, Numbers, Rule, Surrogate, Token, clip, knob};
use crate::batch::MicroBatch;

/// The clipped ratio, and no gradient for `max(floor(share N), 1)` tokens, chosen at random among those with
/// `from < cov_t < to` that the clip does not hold  (Clip-Cov, arXiv:2505.22617).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipCov {
    clip: clip::Clip,
    share: f64,
    from: f64,
    to: f64,
}

/// `rho A`, less `coef |ln rho|` for the `max(floor(share N), 1)` tokens of the largest `cov_t`  (KL-Cov,
/// arXiv:2505.22617).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlCov {
    share: f64,
    coef: f64,
}

/// Which tokens of an update are treated apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// Some at random of those whose covariance lies between two bounds, but none that this clip holds.
    Between {
        /// Bounds of the covariance, neither included.
        bounds: [f64; 2],
        /// At most this share of all tokens.
        share: f64,
        /// A token that it holds is not selected.
        clip: clip::Clip,
    },
    /// Those of the largest covariance.
    Largest {
        /// This share of all tokens.
        share: f64,
    },
}

const SHARE: Knob = knob("covariance_share", 2e-4, PositiveShare);

impl Rule for ClipCov {
    const KNOBS: &'static [Knob] = &[
        knob("clip_low", 0.2, AtLeast(0.0)),
        knob("clip_high", 0.2, AtLeast(0.0)),
        SHARE,
        knob("covariance_low", 1.0, AtLeast(0.0)),
        knob("covariance_high", 5.0, Above(0.0)),
    ];

    fn of(numbers: &Numbers) -> Self {
        let number = |name| numbers.number(Self::KNOBS, name);
        let clip = clip::Clip { low: number("clip_low"), high: number("clip_high"), bound: f64::INFINITY };
        let (from, to) = (number("covariance_low"), number("covariance_high"));
        Self { clip, share: number("covariance_share"), from, to }
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        match token.selected {
            true => Surrogate { value: 0.0, slope: 0.0, clip: Clip::None },
            false => self.clip.surrogate(token),
        }
    }

    fn selection(&self) -> Option<Selection> {
        Some(Selection::Between { bounds: [self.from, self.to], share: self.share, clip: self.clip })
    }
}

impl Rule for KlCov {
    const KNOBS: &'static [Knob] = &[SHARE, knob("covariance_kl", 1.0, AtLeast(0.0))];

    fn of(numbers: &Numbers) -> Self {
        let number = |name| numbers.number(Self::KNOBS, name);
        Self { share: number("covariance_share"), coef: number("covariance_kl") }
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let plain = token.ratio() * token.advantage;
        let coef = if token.selected { self.coef } else { 0.0 };
        let sign = if token.log_ratio == 0.0 { 0.0 } else { token.log_ratio.signum() };
        let value = plain - coef * token.log_ratio.abs();
        Surrogate { value, slope: plain - coef * sign, clip: Clip::None }
    }

    fn selection(&self) -> Option<Selection> {
        Some(Selection::Largest { share: self.share })
    }
}

/// Marks the tokens of an update that are treated apart, given the policy's log-probabilities now, (R) for each
/// micro-batch. `key` names the random numbers. How the update is cut into micro-batches changes nothing.
pub fn select(micros: &mut [MicroBatch], now: &[Vec<f32>], selection: Selection, key: &[u64]) {
    let mut tokens = Vec::new();
    for (place, (micro, now)) in micros.iter().zip(now).enumerate() {
        for row in (0..micro.loss_weights.len()).filter(|&row| micro.loss_weights[row] != 0.0) {
            let (logprob, old_logprob) = (f64::from(now[row]), f64::from(micro.old_logprobs[row]));
            let advantage = f64::from(micro.advantages[row]);
            let log_ratio = logprob - old_logprob;
            tokens.push((place, row, Token { logprob, old_logprob, log_ratio, advantage, selected: false }));
        }
    }
    micros.iter_mut().for_each(|micro| micro.selected = vec![false; micro.loss_weights.len()]);
    for index in chosen(&tokens.iter().map(|(.., token)| *token).collect::<Vec<_>>(), selection, key) {
        let (place, row, _) = tokens[index];
        micros[place].selected[row] = true;
    }
}

/// The places of the tokens that are chosen.
fn chosen(tokens: &[Token], selection: Selection, key: &[u64]) -> Vec<usize> {
    let mean = |value: fn(&Token) -> f64| tokens.iter().map(value).sum::<f64>() / tokens.len().max(1) as f64;
    let (logprob, advantage) = (mean(|token| token.logprob), mean(|token| token.advantage));
    let covariance = |index: usize| (tokens[index].logprob - logprob) * (tokens[index].advantage - advantage);
    let most = |share: f64| ((share * tokens.len() as f64) as usize).max(1);
    match selection {
        Selection::Largest { share } => {
            let mut places: Vec<usize> = (0..tokens.len()).collect();
            places.sort_by(|&a, &b| covariance(b).total_cmp(&covariance(a)).then(a.cmp(&b)));
            places.truncate(most(share));
            places
        }
        Selection::Between { bounds: [from, to], share, clip } => {
            let within = |&index: &usize| {
                let found = covariance(index);
                from < found && found < to && clip.surrogate(&tokens[index]).clip == Clip::None
            };
            let mut places: Vec<usize> = (0..tokens.len()).filter(within).collect();
            let mut random = Counted::new(key);
            for taken in 0..most(share).min(places.len()) {
                let other = taken + random.below(places.len() - taken);
                places.swap(taken, other);
            }
            places.truncate(most(share));
            places
        }
    }
}
