//! The score function, without a ratio.

use super::{Clip, Knob, Numbers, Rule, Surrogate, Token};

/// `A ln pi`  (REINFORCE, Williams 1992; RLOO, arXiv:2402.14740; ReMax, arXiv:2310.10505; OPO, arXiv:2505.23585; GPG,
/// arXiv:2504.02546).
///
/// Right for the policy that sampled the completions: for the only update of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reinforce;

impl Rule for Reinforce {
    const KNOBS: &'static [Knob] = &[];
    const DETACHED: bool = true;

    fn of(_: &Numbers) -> Self {
        Self
    }

    fn surrogate(&self, token: &Token) -> Surrogate {
        Surrogate { value: token.advantage * token.logprob, slope: token.advantage, clip: Clip::None }
    }
}
