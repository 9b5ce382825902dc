//! How a config file names verifiers. Each kind's options live beside the kind; here they are joined under `kind`,
//! and unknown kinds and keys are refused by name.

use serde::{Deserialize, Serialize};

use crate::{
    Choice, ChoiceOptions, Code, CodeOptions, CommandOptions, Countdown, CountdownOptions, Exact, ExactOptions, Format,
    FormatOptions, HttpOptions, Instructions, InstructionsOptions, JsonSchema, JsonSchemaOptions, Language,
    LanguageOptions, Length, LengthOptions, Logic, LogicOptions, Math, MathOptions, Mode, Numeric, NumericOptions,
    Pattern, PatternOptions, Plugin, PythonOptions, Registry, Repetition, RepetitionOptions, RustOptions, TrlOptions,
    Verifier, VerifierError, VerlOptions,
};

/// The `[rubric]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RubricConfig {
    /// How verdicts become a total.
    #[serde(default)]
    pub mode: Mode,
    /// The parts, in order.
    pub verifiers: Vec<VerifierConfig>,
}

/// One `[[rubric.verifiers]]` table: `kind`, the keys below, and the options of that kind beside them.
///
/// serde's `flatten` cannot refuse unknown keys beside it, but whatever is not a shared key goes to the options of the
/// kind, and these refuse what they do not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct VerifierConfig {
    /// What metrics call it; the kind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its share of a sum (default 1, and 0 for shaping terms); 0 = logged only.
    pub weight: f32,
    /// Whether a binary total needs it to pass (default true).
    pub required: bool,
    /// The kind and its options.
    #[serde(flatten)]
    pub options: VerifierOptions,
}

/// Writes [`VerifierOptions`], [`KINDS`] and all that must name every kind, from one line a kind. Kind `rust` is apart:
/// what builds it is not in this crate.
macro_rules! kinds {
    ($($kind:literal => $variant:ident($options:ty) builds $verifier:ident,)*) => {
        /// A kind of verifier with its options.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

            fn build(&self, name: &str, registry: &Registry) -> Result<Box<dyn Verifier>, VerifierError> {
                Ok(match self {
                    $(Self::$variant(options) => Box::new($verifier::new(name, options)?),)*
                    Self::Rust(options) => registry.build(name, options)?,
                })
            }
        }
    };
}

kinds! {
    "format" => Format(FormatOptions) builds Format,
    "exact" => Exact(ExactOptions) builds Exact,
    "math" => Math(MathOptions) builds Math,
    "numeric" => Numeric(NumericOptions) builds Numeric,
    "choice" => Choice(ChoiceOptions) builds Choice,
    "regex" => Regex(PatternOptions) builds Pattern,
    "countdown" => Countdown(CountdownOptions) builds Countdown,
    "code" => Code(CodeOptions) builds Code,
    "logic" => Logic(LogicOptions) builds Logic,
    "json_schema" => JsonSchema(JsonSchemaOptions) builds JsonSchema,
    "instructions" => Instructions(InstructionsOptions) builds Instructions,
    "language" => Language(LanguageOptions) builds Language,
    "repetition" => Repetition(RepetitionOptions) builds Repetition,
    "length" => Length(LengthOptions) builds Length,
    "python" => Python(PythonOptions) builds Plugin,
    "python_trl" => PythonTrl(TrlOptions) builds Plugin,
    "python_verl" => PythonVerl(VerlOptions) builds Plugin,
    "command" => Command(CommandOptions) builds Plugin,
    "http" => Http(HttpOptions) builds Plugin,
}

impl VerifierOptions {
    /// Shaping terms say how a completion is written, not whether it is right: they are logged unless asked for.
    fn default_weight(&self) -> f32 {
        match self {
            Self::Language(_) | Self::Repetition(_) | Self::Length(_) => 0.0,
            _ => 1.0,
        }
    }
}

impl VerifierConfig {
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
        self.options.build(self.name.as_deref().unwrap_or(self.options.kind()), registry)
    }
}

/// A verifier as a config has it, where the weight may be left to the kind.
#[derive(Deserialize)]
struct Written {
    name: Option<String>,
    weight: Option<f32>,
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
