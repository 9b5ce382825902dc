//! How a config file names verifiers. Each kind's options live beside the kind, and the table of kinds stands in
//! `lib.rs`; here they are joined under `kind`, and unknown kinds and keys are refused by name.

use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::rubric::MAX_ERROR_SHARE;
use crate::{LengthOptions, Mode, Registry, Verifier, VerifierError, VerifierOptions};

/// The `[rubric]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RubricConfig {
    /// How verdicts become a total.
    #[serde(default)]
    pub mode: Mode,
    /// The share of the completions of a step, or of an evaluation, over which a verifier with `on_error = "skip"` may
    /// fail; the run stops beyond it.
    #[serde(default = "max_error_share")]
    pub max_error_share: f64,
    /// The parts, in order.
    pub verifiers: Vec<VerifierConfig>,
    /// Parts of a sum that are switched on in the course of a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<Ramp>,
}

/// When a part of a sum counts: nothing before a step of training, and then more with each step up to its weight.
/// Evaluations are by all parts at their weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// The name of the part.
    pub verifier: String,
    /// The first step of training in which it counts.
    pub from_step: u64,
    /// Steps from there to its whole weight; 0 for all of it at once.
    #[serde(default)]
    pub ramp_steps: u64,
}

impl Ramp {
    /// Share of its weight that the part has in a step, counted from 1.
    pub fn share(&self, step: u64) -> f32 {
        let since = (step + 1).saturating_sub(self.from_step);
        let whole = self.ramp_steps + 1;
        since.min(whole) as f32 / whole as f32
    }
}

impl RubricConfig {
    /// The first verifier that passes nothing where no tool gives rewards.
    pub fn wanting_rewards(&self) -> Option<&VerifierConfig> {
        self.verifiers.iter().find(|part| part.options.wants_rewards())
    }
}

fn max_error_share() -> f64 {
    MAX_ERROR_SHARE
}

/// One `[[rubric.verifiers]]` table: `kind`, the keys below, and the options of that kind beside them.
///
/// serde's `flatten` cannot refuse unknown keys beside it, but whatever is not a shared key goes to the options of the
/// kind, and these refuse what they do not know. From JSON it is read by way of a `serde_json::Value`: beside `flatten`,
/// serde takes a decimal in JSON text for an object, as serde_json keeps its digits. It is written through a map: the options of all kinds are then compiled
/// once, and not for each format that a program writes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct VerifierConfig {
    /// What metrics call it; the kind when absent.
    pub name: Option<String>,
    /// Its share of a sum (default 1, and 0 for shaping terms); 0 = logged only.
    pub weight: f64,
    /// Whether a binary total needs it to pass (default true).
    pub required: bool,
    /// The kind and its options.
    pub options: VerifierOptions,
}

/// Writes the table of verifiers: exports the verifiers with their options, and makes [`VerifierOptions`], [`KINDS`]
/// and all else that must name every kind. Kind `rust` is apart: what builds it is not in this crate.
macro_rules! kinds {
    ($($kind:literal: $variant:ident($options:ident) is $module:ident::$verifier:ident, weight $weight:literal;)*) => {
        $(
            #[allow(unused_imports, unreachable_pub)] // several kinds may share a module
            pub use $module::*;
        )*

        /// A kind of verifier with its options.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum VerifierOptions {
            $(
                #[doc = concat!("[`", stringify!($verifier), "`].")]
                #[serde(rename = $kind)]
                $variant($options),
            )*
            /// A verifier of a [`Registry`].
            #[serde(rename = "rust")]
            Rust(RustOptions),
        }

        /// Every `kind` of verifier.
        pub const KINDS: &[&str] = &[$($kind,)* "rust"];

        impl VerifierOptions {
            /// The `kind` in a config.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                    Self::Rust(_) => "rust",
                }
            }

            fn default_weight(&self) -> f64 {
                match self {
                    $(Self::$variant(_) => $weight,)*
                    Self::Rust(_) => 1.0,
                }
            }

            fn build(&self, name: &str, registry: &Registry) -> Result<Box<dyn Verifier>, VerifierError> {
                Ok(match self {
                    $(Self::$variant(options) => Box::new($verifier::new(name, options)?),)*
                    Self::Rust(options) => registry.build(name, options)?,
                })
            }
        }
    };
}
pub(crate) use kinds;

impl VerifierOptions {
    /// Whether it is kind `environment`, or judges by one, so that it passes nothing where no tool gives rewards.
    pub fn wants_rewards(&self) -> bool {
        match self {
            Self::Environment(_) => true,
            Self::Length(LengthOptions::Cosine { of, .. }) => of.wants_rewards(),
            _ => false,
        }
    }
}

impl VerifierConfig {
    /// What metrics call it.
    pub fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.options.kind())
    }

    /// Default weight, required, named after its kind.
    pub fn new(options: VerifierOptions) -> Self {
        Self { name: None, weight: options.default_weight(), required: true, options }
    }

    /// The verifier that this describes, of those in this crate.
    pub fn build(&self) -> Result<Box<dyn Verifier>, VerifierError> {
        self.build_with(&Registry::default())
    }

    /// The verifier that this describes, of those in this crate and in `registry`.
    pub fn build_with(&self, registry: &Registry) -> Result<Box<dyn Verifier>, VerifierError> {
        self.options.build(self.shown_name(), registry)
    }
}

/// A verifier as a config has it, where the weight may be left to the kind.
#[derive(Deserialize)]
struct Written {
    name: Option<String>,
    weight: Option<f64>,
    required: Option<bool>,
    #[serde(flatten)]
    options: VerifierOptions,
}

impl From<Written> for VerifierConfig {
    fn from(Written { name, weight, required, options }: Written) -> Self {
        let weight = weight.unwrap_or_else(|| options.default_weight());
        Self { name, weight, required: required.unwrap_or(true), options }
    }
}

impl Serialize for VerifierConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        if let Some(name) = &self.name {
            map.insert("name".into(), name.as_str().into());
        }
        map.insert("weight".into(), self.weight.into());
        map.insert("required".into(), self.required.into());
        if let Value::Object(options) = serde_json::to_value(&self.options).map_err(S::Error::custom)? {
            map.extend(options);
        }
        reckon_datasets::plain_map(&map, serializer)
    }
}
