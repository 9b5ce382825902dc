//! The answer assigns a value to each name, as a puzzle of knights and knaves asks, or one of who lives where. The
//! reference says which names and values there are; reading either is left to [`assignment`].

mod assignment;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{parse_strict, unfenced};
use crate::{ExtractOptions, Extractor, Outcome, Reference, Verdict, Verifier, VerifierError};
use assignment::{Fault, Vocabulary, read_reference};

/// Names of one puzzle; each step of the reader tries them all.
const MAX_NAMES: usize = 256;

/// Options of kind `logic`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogicOptions {
    /// Values that an answer may give beside those of the reference, so that a wrong one is understood.
    pub values: Vec<String>,
    /// Longest answer that is read, in bytes.
    pub max_bytes: usize,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

impl Default for LogicOptions {
    fn default() -> Self {
        let values = vec!["knight".into(), "knave".into()];
        Self { values, max_bytes: 16 * 1024, extract: ExtractOptions::default() }
    }
}

/// Passes an answer that gives every name of the reference its value, once, and says nothing else.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Logic, LogicOptions, Verifier};
/// let verifier = Logic::new("knights", &LogicOptions::default())?;
/// let answer = "(1) Zoey is a knave\n(2) Owen is a knight".into();
/// let example = Example { id: "1".into(), question: "?".into(), answer, ..Example::default() };
/// let list = "- **Zoey** = Knave\n- Owen = Knight";
/// for right in ["(1) Zoey is a knave\n(2) Owen is a knight", "Owen: knight, Zoey: knave", list] {
///     assert!(verifier.verify(&example, &format!("<answer>{right}</answer>"))?.passed(), "{right}");
/// }
/// for wrong in ["Zoey is a knave", "Zoey is a knave. Owen is a knight or a knave.", "Zoey and Owen are knaves"] {
///     assert!(!verifier.verify(&example, &format!("<answer>{wrong}</answer>"))?.passed(), "{wrong}");
/// }
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Logic {
    name: String,
    options: LogicOptions,
    extractor: Extractor,
}

impl Logic {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &LogicOptions) -> Result<Self, VerifierError> {
        if options.max_bytes == 0 || options.values.iter().any(|value| value.trim().is_empty()) {
            let problem = "`max_bytes` must be above 0, and no value of `values` empty";
            return Err(VerifierError::config(name, problem));
        }
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    /// The reference: `info.solution` where it is an object, else the answer. Names in lower case, with their values.
    fn reference_pairs(&self, example: &Example) -> Result<Vec<(String, String)>, VerifierError> {
        let broken = |problem: String| VerifierError::example(&self.name, example, problem);
        let pairs = match example.info.get("solution") {
            Some(Value::Object(solution)) => object_pairs(&Value::Object(solution.clone())),
            _ => json_pairs(&example.answer).or_else(|| read_reference(&example.answer)),
        };
        let problem = || {
            let answer = &example.answer;
            format!("its `answer` {answer:?} assigns no values to names; write it as `Ann: knight, Bob: knave`")
        };
        let pairs = pairs.filter(|pairs| !pairs.is_empty()).ok_or_else(|| broken(problem()))?;
        if pairs.len() > MAX_NAMES {
            return Err(broken(format!("its reference has {} names, more than {MAX_NAMES}", pairs.len())));
        }
        if let Some((name, _)) = pairs.iter().enumerate().find_map(|(i, p)| pairs[..i].iter().find(|q| q.0 == p.0)) {
            return Err(broken(format!("its reference gives {name:?} two values")));
        }
        Ok(pairs)
    }

    /// The value that `answer` gives each name of the vocabulary.
    fn read(&self, vocabulary: &Vocabulary, answer: &str) -> Result<Vec<usize>, Fault> {
        if answer.len() > self.options.max_bytes {
            return Err(Fault::Unparsed("the answer is longer than `max_bytes`"));
        }
        if let Some(pairs) = unfenced(answer).ok().and_then(json_pairs) {
            return vocabulary.read_pairs(&pairs);
        }
        vocabulary.read_text(answer)
    }
}

impl Verifier for Logic {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let reference = self.reference_pairs(example)?;
        let vocabulary = Vocabulary::new(&reference, &self.options.values);
        Ok(self.extractor.judge(completion, |answer| match self.read(&vocabulary, answer) {
            Err(Fault::Unparsed(reason)) => Verdict::zero(Outcome::Unparsed, reason),
            Err(Fault::Wrong(reason)) => Verdict::fail(answer, reason),
            Ok(values) if values == vocabulary.solution() => Verdict::pass(vocabulary.show(&values), "equal"),
            Ok(values) => Verdict::fail(vocabulary.show(&values), "another assignment"),
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        let pairs = self.reference_pairs(example).ok()?;
        let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Reference::value(&lines.join(", "))
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

/// Name and value pairs of a text that is a JSON object of texts, numbers or truth values.
fn json_pairs(text: &str) -> Option<Vec<(String, String)>> {
    object_pairs(&parse_strict(text, 1).ok()?)
}

fn object_pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let pairs = value.as_object()?.iter().map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.trim().to_lowercase(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return None,
        };
        Some((name.trim().to_lowercase(), value))
    });
    pairs.collect()
}
