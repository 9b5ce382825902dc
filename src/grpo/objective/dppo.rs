//! Trust regions of the divergence in place of the ratio.
//!
//! A ratio says little of how far a distribution has moved: that of a rare token is far from 1 after a move of no
//! weight. DPPO asks for the divergence of the distributions "this token, or another" instead.

use reckon_datasets::Range::{Above, AtLeast};

use super::{Clip, Knob, Numbers, Rule, Surrogate, Token, knob};

/// `sg[M min(rho, c)] A ln pi`, `M` 0 where the token has moved away from the policy before the step by more than `high`
/// (or `low`, down) in total variation `|pi - pi_old|` and its advantage would move it on, else 1  (DPPO-Binary-TV,
/// arXiv:2602.04879).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DppoTv(Region);

/// The same with the KL divergence of the binary distributions,
/// `pi_old ln(pi_old / pi) + (1 - pi_old) ln((1 - pi_old) / (1 - pi))`  (DPPO-Binary-KL, arXiv:2602.04879).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DppoKl(Region);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Region {
    low: f64,
    high: f64,
    /// `c`, which no weight exceeds.
    most: f64,
}

const MOST: Knob = knob("weight_max", 20.0, Above(1.0));

impl Rule for DppoTv {
    const KNOBS: &'static [Knob] =
        &[knob("divergence_low", 0.2, AtLeast(0.0)), knob("divergence_high", 0.2, AtLeast(0.0)), MOST];
    const DETACHED: bool = true;

    fn of(numbers: &Numbers) -> Self {
        Self(Region::of(numbers, Self::KNOBS))
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let moved = token.logprob.exp() - token.old_logprob.exp();
        self.0.surrogate(token, moved.abs(), moved)
    }
}

impl Rule for DppoKl {
    const KNOBS: &'static [Knob] =
        &[knob("divergence_low", 0.05, AtLeast(0.0)), knob("divergence_high", 0.05, AtLeast(0.0)), MOST];
    const DETACHED: bool = true;

    fn of(numbers: &Numbers) -> Self {
        Self(Region::of(numbers, Self::KNOBS))
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let (now, old) = (token.logprob.exp(), token.old_logprob.exp());
        // A probability of 1 leaves nothing to the other tokens: the logarithm stays finite.
        let rest = ((1.0 - old + TINY) / (1.0 - now + TINY)).ln();
        let divergence = old * (token.old_logprob - token.logprob) + (1.0 - old) * rest;
        self.0.surrogate(token, divergence, now - old)
    }
}

const TINY: f64 = 1e-8;

impl Region {
    fn of(numbers: &Numbers, knobs: &[Knob]) -> Self {
        let number = |name| numbers.number(knobs, name);
        Self { low: number("divergence_low"), high: number("divergence_high"), most: number("weight_max") }
    }

    fn surrogate(&self, token: &Token, divergence: f64, moved: f64) -> Surrogate {
        let clip = match token.advantage {
            a if a > 0.0 && moved > 0.0 && divergence > self.high => Clip::High,
            a if a <= 0.0 && moved < 0.0 && divergence > self.low => Clip::Low,
            _ if token.ratio() > self.most => Clip::Dual,
            _ => Clip::None,
        };
        let inside = !matches!(clip, Clip::High | Clip::Low);
        let slope = if inside { token.ratio().min(self.most) * token.advantage } else { 0.0 };
        Surrogate { value: slope * token.logprob, slope, clip }
    }
}
