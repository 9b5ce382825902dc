//! The surrogate objectives: what of a completion token is raised, and its slope.
//!
//! A new one is a file beside this one, with a type that implements [`Rule`] under its formula and paper, and a line of
//! the list below. Denominators, mask, the ratio's kind, the KL term and the entropy bonus are left to [`super::loss`].

mod cispo;
mod clip;
mod covariance;
mod dppo;
mod reinforce;
mod sapo;
#[cfg(test)]
mod tests;

use reckon_datasets::Range;
use serde::{Deserialize, Serialize};

pub use clip::Clip as ClipRange;
pub use covariance::{Selection, select};

/// Makes of a list of types the words of a config and the objective that each stands for.
macro_rules! objectives {
    ($($(#[doc = $doc:literal])* $name:ident from $file:ident,)*) => {
        /// The words of the key `objective`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectiveKind {$(
            $(#[doc = $doc])*
            $name,
        )*}

        /// An objective with its numbers.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Objective {$(
            $(#[doc = $doc])*
            $name($file::$name),
        )*}

        impl ObjectiveKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The numbers that it is made of.
            pub fn knobs(self) -> &'static [Knob] {
                match self {
                    $(Self::$name => $file::$name::KNOBS,)*
                }
            }

            /// Whether the ratio is held fixed, so that a token's slope goes through its own log-probability.
            pub fn is_detached(self) -> bool {
                match self {
                    $(Self::$name => $file::$name::DETACHED,)*
                }
            }

            /// The objective, given its numbers.
            pub fn with(self, numbers: &Numbers) -> Objective {
                match self {
                    $(Self::$name => Objective::$name($file::$name::of(numbers)),)*
                }
            }
        }

        impl Objective {
            /// Value and slope for a token.
            pub(super) fn surrogate(&self, token: &Token) -> Surrogate {
                match self {
                    $(Self::$name(rule) => rule.surrogate(token),)*
                }
            }

            /// Which tokens of an update are treated apart, where some are.
            pub fn selection(&self) -> Option<Selection> {
                match self {
                    $(Self::$name(rule) => rule.selection(),)*
                }
            }

            /// Whether the ratio is held fixed.
            pub(super) fn is_detached(&self) -> bool {
                match self {
                    $(Self::$name(_) => $file::$name::DETACHED,)*
                }
            }
        }
    };
}

objectives! {
    /// The ratio is clipped: PPO, GRPO, DAPO, and GSPO with the ratio of a completion.
    Clip from clip,
    /// The ratio is a clipped weight, and every token keeps its gradient: CISPO.
    Cispo from cispo,
    /// A smooth gate in place of a clip: SAPO.
    Sapo from sapo,
    /// The log-probability itself, without a ratio: REINFORCE, RLOO, ReMax, OPO, GPG.
    Reinforce from reinforce,
    /// A trust region of total variation: DPPO.
    DppoTv from dppo,
    /// A trust region of the KL divergence: DPPO.
    DppoKl from dppo,
    /// As `clip`, and some tokens of a large covariance have no gradient: Clip-Cov.
    ClipCov from covariance,
    /// No clip, and the tokens of the largest covariance are held to the policy before the step: KL-Cov.
    KlCov from covariance,
}

/// What the objective of one token depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// Log-probability now.
    pub(super) logprob: f64,
    /// By the policy before the first update of the step.
    pub(super) old_logprob: f64,
    /// Logarithm of the ratio, the token's own or its completion's.
    pub(super) log_ratio: f64,
    /// What the token is raised by.
    pub(super) advantage: f64,
    /// Whether the objective treats it apart ([`Selection`]).
    pub(super) selected: bool,
}

/// The objective of one token (to be raised), before its weight and the KL term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surrogate {
    /// What is raised.
    pub(super) value: f64,
    /// Derivative of `value` with respect to `log_ratio`, or to `logprob` where the ratio is held fixed.
    pub(super) slope: f64,
    /// Which bound holds the token.
    pub(super) clip: Clip,
}

/// Which bound holds the objective of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Clip {
    /// None.
    None,
    /// The lower one.
    Low,
    /// The upper one.
    High,
    /// That of the dual clip, or of a truncated weight.
    Dual,
}

/// An objective of single tokens.
pub(super) trait Rule: Sized {
    /// The numbers that it is made of.
    const KNOBS: &'static [Knob];

    /// Whether the ratio is held fixed, so that a token's slope goes through its own log-probability.
    const DETACHED: bool = false;

    /// The rule, given its numbers.
    fn of(numbers: &Numbers) -> Self;

    /// Value and slope for a token. On a border of a clip the slope is the unclipped one.
    fn surrogate(&self, token: &Token) -> Surrogate;

    /// Which tokens of an update are treated apart.
    fn selection(&self) -> Option<Selection> {
        None
    }
}

/// A number that an objective is made of: a key of a config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knob {
    /// The key.
    pub name: &'static str,
    /// Its value where a config gives none; `None` is for what is then left out.
    pub default: Option<f64>,
    /// Where it lies.
    pub range: Range,
}

/// Values of knobs by their names.
pub struct Numbers<'a>(pub &'a dyn Fn(&str) -> Option<f64>);

impl Numbers<'_> {
    /// The value of `knob` in the list of a rule.
    fn get(&self, knobs: &[Knob], name: &str) -> Option<f64> {
        (self.0)(name).or_else(|| knobs.iter().find(|knob| knob.name == name)?.default)
    }

    /// The value of a knob that has a default.
    fn number(&self, knobs: &[Knob], name: &str) -> f64 {
        self.get(knobs, name).unwrap_or_default()
    }
}

impl Token {
    /// The ratio.
    fn ratio(&self) -> f64 {
        self.log_ratio.exp()
    }
}

/// A knob with a default.
const fn knob(name: &'static str, default: f64, range: Range) -> Knob {
    Knob { name, default: Some(default), range }
}
