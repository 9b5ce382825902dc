//! The surrogate objectives: what of a completion token is raised, and its slope.
//!
//! A new one is an arm of [`Objective`] with its formula and paper, an arm of [`Objective::surrogate`], and a line of the
//! tests, which compare each with its formula written by the book. Denominators, mask and the KL term are left to
//! [`super::loss`].

/// The objective of a token of advantage `A` whose probability is `rho` times that before the first update of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// `min(rho A, clip(rho, 1 - low, 1 + high) A)`  (PPO, arXiv:1707.06347; GRPO, arXiv:2402.03300; with `high > low`
    /// DAPO's clip-higher, arXiv:2503.14476).
    Clip {
        /// The ratio is clipped from below at `1 - low`; 1 or more never clips from below.
        low: f64,
        /// The ratio is clipped from above at `1 + high`.
        high: f64,
    },
    /// The same, and for a negative advantage at least `bound * A`  (dual-clip PPO, arXiv:1912.09729).
    DualClip {
        /// As in [`Objective::Clip`].
        low: f64,
        /// As in [`Objective::Clip`].
        high: f64,
        /// Above `1 + high`.
        bound: f64,
    },
}

/// The objective of one token (to be raised), before its weight and the KL term.
pub(super) struct Surrogate {
    pub(super) value: f64,
    /// Derivative of `value` with respect to the log-probability.
    pub(super) slope: f64,
    pub(super) clip: Clip,
}

/// Which clip holds the objective of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Clip {
    None,
    Low,
    High,
    Dual,
}

impl Objective {
    /// Value and slope for a token. On a border of a clip the slope is the unclipped one.
    pub(super) fn surrogate(self, ratio: f64, advantage: f64) -> Surrogate {
        let (low, high, bound) = match self {
            Self::Clip { low, high } => (low, high, f64::INFINITY),
            Self::DualClip { low, high, bound } => (low, high, bound),
        };
        // The minimum takes the clipped side only where moving on would still pay; the dual clip ends what is left.
        let (clip, held) = match advantage {
            a if a > 0.0 && ratio > 1.0 + high => (Clip::High, 1.0 + high),
            a if a < 0.0 && ratio < 1.0 - low => (Clip::Low, 1.0 - low),
            a if a < 0.0 && ratio > bound => (Clip::Dual, bound),
            _ => (Clip::None, ratio),
        };
        let slope = if clip == Clip::None { ratio * advantage } else { 0.0 };
        Surrogate { value: held * advantage, slope, clip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_clip_holds_on_its_side_only() {
        let (low, high) = (0.2, 0.28);
        let objective = Objective::DualClip { low, high, bound: 3.0 };
        for (ratio, advantage, expected) in [
            (1.3, 1.0, Clip::High),
            (1.3, -1.0, Clip::None),
            (0.7, -1.0, Clip::Low),
            (0.7, 1.0, Clip::None),
            (3.1, -1.0, Clip::Dual),
            (3.1, 1.0, Clip::High),
            (3.1, 0.0, Clip::None),
            // On the border itself the gradient still flows.
            (1.0 + high, 1.0, Clip::None),
            (1.0 - low, -1.0, Clip::None),
        ] {
            assert_eq!(objective.surrogate(ratio, advantage).clip, expected, "ratio {ratio}, advantage {advantage}");
        }
        assert_eq!(Objective::Clip { low, high }.surrogate(3.1, -1.0).clip, Clip::None);
    }
}
