//! A soft gate on the ratio.

use reckon_datasets::Range::Above;

use super::{Clip, Knob, Numbers, Rule, Surrogate, Token, knob};

/// `4 / tau sigmoid(tau (rho - 1)) A`, `tau` by the sign of `A`  (SAPO, arXiv:2511.20347).
///
/// At ratio 1 the slope is that of `rho A`; away from it the gate closes, the sooner the larger `tau`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sapo {
    positive: f64,
    negative: f64,
}

impl Rule for Sapo {
    const KNOBS: &'static [Knob] = &[knob("tau_positive", 1.0, Above(0.0)), knob("tau_negative", 1.05, Above(0.0))];

    fn of(numbers: &Numbers) -> Self {
        let number = |name| numbers.number(Self::KNOBS, name);
        Self { positive: number("tau_positive"), negative: number("tau_negative") }
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        let (ratio, advantage) = (token.ratio(), token.advantage);
        let tau = if advantage > 0.0 { self.positive } else { self.negative };
        let gate = 1.0 / (1.0 + (-tau * (ratio - 1.0)).exp());
        // d/d ln rho = rho d/d rho; of the sigmoid gate (1 - gate). Where the ratio overflows, the gate is shut.
        let slope = if ratio.is_finite() { 4.0 * gate * (1.0 - gate) * ratio * advantage } else { 0.0 };
        Surrogate { value: 4.0 / tau * gate * advantage, slope, clip: Clip::None }
    }
}
