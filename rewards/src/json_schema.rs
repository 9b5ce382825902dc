//! The answer is JSON that a schema accepts. Leaves the reading of JSON to `json`, and the meaning of a schema to the
//! crate `jsonschema`, built without its network and file resolvers.

use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Validator};
use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{parse_strict, unfenced};
use crate::{ExtractOptions, Extractor, Outcome, Reference, ReferenceKind, Verdict, Verifier, VerifierError};

/// Deepest nesting that a config may ask for; the reader recurses once a level.
const DEEPEST: usize = 120;

/// Options of kind `json_schema`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonSchemaOptions {
    /// The schema of every row; without it each row brings its own in `info.schema`, as an object or as its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Longest answer that is read, in bytes.
    pub max_bytes: usize,
    /// Deepest nesting of lists and objects.
    pub max_depth: usize,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

impl Default for JsonSchemaOptions {
    fn default() -> Self {
        Self { schema: None, max_bytes: 64 * 1024, max_depth: 64, extract: ExtractOptions::default() }
    }
}

/// Passes an answer that is one JSON value, bare or in the only code block, and satisfies the schema.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{JsonSchema, JsonSchemaOptions, Verifier};
/// let verifier = JsonSchema::new("person", &JsonSchemaOptions::default())?;
/// let example: Example = serde_json::from_str(r#"{"id": "1", "question": "?", "answer": "", "info": {"schema":
///     {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer", "minimum": 0}}}}}"#)?;
/// assert!(verifier.verify(&example, r#"<answer>{"age": 7}</answer>"#)?.passed());
/// let verdict = verifier.verify(&example, r#"<answer>{"age": -7}</answer>"#)?;
/// assert_eq!(verdict.reason, "at /age: -7 is less than the minimum of 0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonSchema {
    name: String,
    options: JsonSchemaOptions,
    extractor: Extractor,
    schema: Option<Arc<Validator>>,
    /// The last row's schema: the completions of a group are judged one after the other.
    latest: Mutex<Option<(Value, Arc<Validator>)>>,
}

impl JsonSchema {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &JsonSchemaOptions) -> Result<Self, VerifierError> {
        let config = |problem: String| VerifierError::config(name, problem);
        if options.max_bytes == 0 || options.max_depth > DEEPEST {
            let (bytes, depth) = (options.max_bytes, options.max_depth);
            let problem = format!("`max_bytes = {bytes}` must be above 0, and `max_depth = {depth}` at most {DEEPEST}");
            return Err(config(problem));
        }
        let compiled = options.schema.as_ref().map(compile).transpose();
        let schema = compiled.map_err(|problem| config(format!("`schema` {problem}")))?;
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor, schema, latest: Mutex::new(None) })
    }

    /// The value that an answer is, or why it is none.
    fn read(&self, answer: &str) -> Result<Value, String> {
        if answer.len() > self.options.max_bytes {
            return Err("the answer is longer than `max_bytes`".into());
        }
        let text = unfenced(answer)?;
        parse_strict(text, self.options.max_depth).map_err(|error| format!("the answer is not JSON: {error}"))
    }

    fn validator(&self, example: &Example) -> Result<Arc<Validator>, VerifierError> {
        if let Some(schema) = &self.schema {
            return Ok(schema.clone());
        }
        let broken = |problem: String| VerifierError::example(&self.name, example, problem);
        let missing = || broken("it has no `info.schema`; add the column, or set `schema` in the config".into());
        let schema = example.info.get("schema").ok_or_else(missing)?;
        // A panic elsewhere cannot leave a half-written pair: it is replaced whole.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, validator)) = &*latest
            && known == schema
        {
            return Ok(validator.clone());
        }
        let validator = compile(schema).map_err(|problem| broken(format!("`info.schema` {problem}")))?;
        *latest = Some((schema.clone(), validator.clone()));
        Ok(validator)
    }
}

/// A validator whose regular expressions run in linear time and whose references stay within the schema.
fn compile(schema: &Value) -> Result<Arc<Validator>, String> {
    let text = schema.as_str().map(serde_json::from_str::<Value>);
    let schema = match &text {
        Some(Err(error)) => return Err(format!("is a text that is not JSON: {error}")),
        Some(Ok(parsed)) => parsed,
        None => schema,
    };
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    let built = options.build(schema).map_err(|error| {
        format!("cannot be compiled: {error}; a reference may only lead to the schema itself, such as `#/$defs/name`")
    });
    built.map(Arc::new)
}

impl Verifier for JsonSchema {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let validator = self.validator(example)?;
        Ok(self.extractor.judge(completion, |answer| match self.read(answer) {
            Err(reason) => Verdict::zero(Outcome::Unparsed, reason),
            Ok(value) => match validator.validate(&value) {
                Ok(()) => Verdict::pass(answer, "satisfies the schema"),
                Err(error) => Verdict::fail(answer, format!("at {}: {}", place(&error), brief(&error.to_string()))),
            },
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        Reference::new(&example.answer, ReferenceKind::Form)
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

fn place(error: &jsonschema::ValidationError<'_>) -> String {
    let path = error.instance_path().to_string();
    if path.is_empty() { "the top".into() } else { path }
}

/// The start of a message that may quote the whole answer.
fn brief(message: &str) -> String {
    let mut chars = message.chars();
    let start: String = chars.by_ref().take(200).collect();
    if chars.next().is_some() { start + "..." } else { start }
}
