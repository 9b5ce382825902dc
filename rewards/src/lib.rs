//! Rule-based verifiers and the rubric that combines them: text in, verdicts out. No tensors, no tokenizer, and no
//! evaluation of model text by anything but the small parsers in this crate; programs run in a [`sandbox`].
//! Rule-based verifiers, plug-ins, and the rubric that combines them: text in, verdicts out. No tensors, no tokenizer, and no
//! evaluation of model text by anything but the small parsers in this crate.
//!
//! Read it in this order: [`Verifier`] and [`Verdict`] are the contract; [`Rubric`] turns several verdicts into one
//! reward; [`VerifierConfig`] is how a config file names them, and [`Registry`] how a program brings its own;
//! [`Extractor`] finds the answer in a completion; and each verifier has a file of its own: [`Format`], [`Exact`],
//! [`Numeric`], [`Choice`], [`Pattern`], [`Countdown`], [`Code`], [`Logic`], [`JsonSchema`], [`Instructions`], and the shaping
//! [`Numeric`], [`Math`], [`Choice`], [`Pattern`], [`Countdown`], [`Logic`], [`JsonSchema`], [`Instructions`], and the shaping
//! terms [`Language`], [`Repetition`] and [`Length`].
//! [`Numeric`], [`Choice`], [`Pattern`], [`Countdown`], [`Logic`], [`JsonSchema`], [`Instructions`], and the shaping
//! terms [`Language`], [`Repetition`] and [`Length`]. [`Plugin`] is a verifier of one's own outside this program.
//! `rewards/README.md` states every rule and config key in tables.
//!
//! A wrong or malformed completion is a [`Verdict`] with reward 0. An `Err` means that the verifier or the example is
//! broken, so that no reward can be trusted; a run stops on it.
//!
//! ```
//! use reckon_datasets::Example;
//! use reckon_rewards::{Rubric, RubricConfig};
//!
//! let config: RubricConfig = toml::from_str(r#"
//!     [[verifiers]]
//!     kind = "numeric"
//!     [[verifiers]]
//!     kind = "format"
//!     weight = 0.0        # logged, not trained on
//! "#)?;
//! let rubric = Rubric::from_config(&config)?;
//! let example = Example { id: "row-1".into(), question: "6 * 7?".into(), answer: "42".into(), info: Default::default() };
//! let score = rubric.score(&example, "six sevens <answer>42.0</answer>")?;
//! assert_eq!(score.total, 1.0);            // the number is right,
//! assert_eq!(score.parts[1].reward, 0.0);  // though there is no think block.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit;
mod choice;
mod code;
mod config;
mod countdown;
mod exact;
mod extract;
mod format;
mod instructions;
mod json;
mod json_schema;
mod language;
mod length;
mod logic;
mod math;
mod numeric;
mod pattern;
mod plugin;
mod process;
mod rational;
mod registry;
mod repetition;
mod rubric;
pub mod sandbox;
mod verdict;
mod words;

pub use audit::{Audit, Check, Failure, Finding, Slowest};
pub use choice::{Choice, ChoiceOptions};
pub use code::{Code, CodeOptions, Compare, Tolerance};
pub use config::{KINDS, RubricConfig, VerifierConfig, VerifierOptions};
pub use countdown::{Countdown, CountdownOptions};
pub use exact::{Exact, ExactOptions};
pub use extract::{AnswerFrom, ExtractOptions, Extractor};
pub use format::{Format, FormatOptions};
pub use instructions::{Instructions, InstructionsOptions, Strictness};
pub use json_schema::{JsonSchema, JsonSchemaOptions};
pub use language::{Language, LanguageOptions};
pub use length::{Length, LengthOptions, LengthUnit};
pub use logic::{Logic, LogicOptions};
pub use math::{Math, MathExtract, MathFrom, MathOptions};
pub use numeric::{Numeric, NumericOptions, Percent};
pub use pattern::{MatchMode, Pattern, PatternOptions};
pub use plugin::{
    CommandOptions, HttpOptions, Plugin, PluginOptions, PoolOptions, ProcessOptions, PythonOptions, Setup, TrlOptions,
    VerlOptions,
};
pub use rational::Rational;
pub use registry::{Registry, RustOptions};
pub use repetition::{Repetition, RepetitionOptions};
pub use rubric::{MAX_COMPLETION_BYTES, Mode, Part, Rubric, Score};
pub use verdict::{Credit, Outcome, Reference, ReferenceKind, Scope, Submission, Verdict, Verifier, VerifierError};
