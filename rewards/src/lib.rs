//! Verifiers, and the rubric that combines them: text in, verdicts out. No tensors, no tokenizer, and no evaluation of
//! model text by anything but the small parsers in this crate; programs run in a [`sandbox`].
//!
//! Read it in this order: [`Verifier`] and [`Verdict`] are the contract; [`Rubric`] turns several verdicts into one
//! reward; [`VerifierConfig`] is how a config file names them, [`Registry`] how a program brings its own, and
//! [`Plugin`] one outside the program; [`Extractor`] finds the answer in a completion. Then each verifier has a file of
//! its own: [`Format`], [`Exact`], [`Math`], [`Numeric`], [`Choice`], [`Pattern`], [`Countdown`], [`Code`], [`Logic`],
//! [`JsonSchema`], [`Instructions`], [`Environment`] for what tools gave, and the shaping terms [`Language`],
//! [`Repetition`] and [`Length`].
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
//! let (question, answer) = ("6 * 7?".into(), "42".into());
//! let example = Example { id: "row-1".into(), question, answer, ..Example::default() };
//! let score = rubric.score(&example, "six sevens <answer>42.0</answer>")?;
//! assert_eq!(score.total, Some(1.0));      // the number is right,
//! assert_eq!(score.parts[1].reward, 0.0);  // though there is no think block.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audit;
mod choice;
mod code;
mod config;
mod countdown;
mod environment;
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
mod parallel;
mod pattern;
mod plugin;
mod process;
mod rational;
mod registry;
mod repetition;
mod rubric;
pub mod sandbox;
mod scoring;
mod tools;
mod verdict;
mod words;

pub use audit::{Audit, Check, Failure, Finding, Slowest};
pub use config::{Ramp, RubricConfig, VerifierConfig};
pub use extract::{AnswerFrom, ExtractOptions, Extractor};
pub use rational::Rational;
pub use registry::{Registry, RustOptions};
pub use rubric::{MAX_COMPLETION_BYTES, Mode, Part, Rubric, Score};
pub use scoring::{Judged, RowError, submission};
pub use tools::{
    Calculator, CalculatorOptions, CommandToolOptions, FunctionOptions, Memory, OpenEnv, OpenEnvOptions, Program,
    ProgramOptions, Said, Session, State, TOOL_KINDS, Tool, ToolAnswer, ToolError, ToolOptions, Toolbox, WorkerTool,
};
pub use verdict::{Credit, Outcome, Reference, ReferenceKind, Scope, Submission, Verdict, Verifier, VerifierError};

// A verifier is its file, its `mod` above, and its row here. Shaping terms weigh 0: they say how a completion is
// written, not whether it is right, and are logged unless a config gives them a weight.
config::kinds! {
    "format": Format(FormatOptions) is format::Format, weight 1.0;
    "exact": Exact(ExactOptions) is exact::Exact, weight 1.0;
    "math": Math(MathOptions) is math::Math, weight 1.0;
    "numeric": Numeric(NumericOptions) is numeric::Numeric, weight 1.0;
    "choice": Choice(ChoiceOptions) is choice::Choice, weight 1.0;
    "regex": Regex(PatternOptions) is pattern::Pattern, weight 1.0;
    "countdown": Countdown(CountdownOptions) is countdown::Countdown, weight 1.0;
    "code": Code(CodeOptions) is code::Code, weight 1.0;
    "logic": Logic(LogicOptions) is logic::Logic, weight 1.0;
    "json_schema": JsonSchema(JsonSchemaOptions) is json_schema::JsonSchema, weight 1.0;
    "instructions": Instructions(InstructionsOptions) is instructions::Instructions, weight 1.0;
    "environment": Environment(EnvironmentOptions) is environment::Environment, weight 1.0;
    "language": Language(LanguageOptions) is language::Language, weight 0.0;
    "repetition": Repetition(RepetitionOptions) is repetition::Repetition, weight 0.0;
    "length": Length(LengthOptions) is length::Length, weight 0.0;
    "python": Python(PythonOptions) is plugin::Plugin, weight 1.0;
    "python_trl": PythonTrl(TrlOptions) is plugin::Plugin, weight 1.0;
    "python_verl": PythonVerl(VerlOptions) is plugin::Plugin, weight 1.0;
    "command": Command(CommandOptions) is plugin::Plugin, weight 1.0;
    "http": Http(HttpOptions) is plugin::Plugin, weight 1.0;
}
