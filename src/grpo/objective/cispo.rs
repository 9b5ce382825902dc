//! The clipped weight of importance sampling.

use reckon_datasets::Range::AtLeast;

use super::{Clip, Knob, Numbers, Rule, Surrogate, Token, knob};

/// `sg[clip(rho, 1 - low, 1 + high)] A ln pi`  (CISPO of MiniMax-M1, arXiv:2506.13585, equations 4 and 5).
///
/// The paper has no lower bound and tunes the upper one alone; a token beyond a bound keeps its gradient, of a weight
/// that grows no more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cispo {
    low: f64,
    high: f64,
}

impl Rule for Cispo {
    const KNOBS: &'static [Knob] = &[knob("clip_low", 1.0, AtLeast(0.0)), knob("clip_high", 4.0, AtLeast(0.0))];
    const DETACHED: bool = true;

    fn of(numbers: &Numbers) -> Self {
        let number = |name| numbers.number(Self::KNOBS, name);
        Self { low: number("clip_low"), high: number("clip_high") }
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let (weight, clip) = match token.ratio() {
            ratio if ratio > 1.0 + self.high => (1.0 + self.high, Clip::High),
            ratio if ratio < 1.0 - self.low => (1.0 - self.low, Clip::Low),
            ratio => (ratio, Clip::None),
        };
        let slope = weight * token.advantage;
        Surrogate { value: slope * token.logprob, slope, clip }
    }
}
