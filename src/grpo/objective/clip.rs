//! The clipped ratio.

use reckon_datasets::Range::{Above, AtLeast};

use super::{Clip as Held, Knob, Numbers, Rule, Surrogate, Token, knob};

/// `min(rho A, clip(rho, 1 - low, 1 + high) A)`  (PPO, arXiv:1707.06347, equation 7; GRPO, arXiv:2402.03300, equation 3;
/// with `high > low` DAPO's clip-higher, arXiv:2503.14476, equation 8; of a completion's ratio GSPO, arXiv:2507.18071,
/// equation 5).
///
/// With `bound`, and for a negative advantage, at least `bound A`  (dual-clip PPO, arXiv:1912.09729).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// The ratio is clipped from below at `1 - low`; 1 or more never clips from below.
    pub low: f64,
    /// The ratio is clipped from above at `1 + high`.
    pub high: f64,
    /// Above `1 + high`; infinite without a dual clip.
    pub bound: f64,
}

impl Rule for Clip {
    const KNOBS: &'static [Knob] = &[
        knob("clip_low", 0.2, AtLeast(0.0)),
        knob("clip_high", 0.2, AtLeast(0.0)),
        Knob { name: "dual_clip", default: None, range: Above(1.0) },
    ];

    fn of(numbers: &Numbers) -> Self {
        let number = |name| numbers.number(Self::KNOBS, name);
        let bound = numbers.get(Self::KNOBS, "dual_clip").unwrap_or(f64::INFINITY);
        Self { low: number("clip_low"), high: number("clip_high"), bound }
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let (ratio, advantage) = (token.ratio(), token.advantage);
        // The minimum takes the clipped side only where moving on would still pay; the dual clip ends what is left.
        let (clip, held) = match advantage {
            a if a > 0.0 && ratio > 1.0 + self.high => (Held::High, 1.0 + self.high),
            a if a < 0.0 && ratio < 1.0 - self.low => (Held::Low, 1.0 - self.low),
            a if a < 0.0 && ratio > self.bound => (Held::Dual, self.bound),
            _ => (Held::None, ratio),
        };
        let slope = if clip == Held::None { ratio * advantage } else { 0.0 };
        Surrogate { value: held * advantage, slope, clip }
    }
}
