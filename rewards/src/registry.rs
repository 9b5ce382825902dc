//! Verifiers of one's own in Rust: a program registers how they are built, and its configs name them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Verifier, VerifierError};

/// Options of kind `rust`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RustOptions {
    /// The name under which the program registered it.
    pub verifier: String,
    /// Handed to the verifier as they stand.
    #[serde(default)]
    pub options: Map<String, Value>,
}

type Build = dyn Fn(&str, &Map<String, Value>) -> Result<Box<dyn Verifier>, VerifierError> + Send + Sync;

/// The verifiers that a program brings along, beyond those of this crate.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Outcome, Registry, Rubric, RubricConfig, Verdict, Verifier, VerifierError};
///
/// struct Palindrome(String);
///
/// impl Verifier for Palindrome {
///     fn name(&self) -> &str {
///         &self.0
///     }
///     fn verify(&self, _: &Example, completion: &str) -> Result<Verdict, VerifierError> {
///         Ok(match completion.chars().rev().eq(completion.chars()) {
///             true => Verdict::pass(completion, "reads the same from both ends"),
///             false => Verdict::fail(completion, "does not read the same from both ends"),
///         })
///     }
/// }
///
/// let registry = Registry::default().with("palindrome", |name, _options| Ok(Box::new(Palindrome(name.into()))));
/// let config: RubricConfig = toml::from_str("[[verifiers]]\nkind = 'rust'\nverifier = 'palindrome'")?;
/// let rubric = Rubric::from_config_with(&config, &registry)?;
/// let (question, answer) = ("A palindrome?".into(), "".into());
/// let example = Example { id: "1".into(), question, answer, ..Example::default() };
/// assert_eq!(rubric.score(&example, "level")?.total, Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Registry {
    builders: BTreeMap<String, Box<Build>>,
}

impl Registry {
    /// Also `verifier`: `build` makes one from the name that metrics call it and its `options`.
    pub fn with(
        mut self,
        verifier: &str,
        build: impl Fn(&str, &Map<String, Value>) -> Result<Box<dyn Verifier>, VerifierError> + Send + Sync + 'static,
    ) -> Self {
        self.builders.insert(verifier.into(), Box::new(build));
        self
    }

    pub(crate) fn build(&self, name: &str, options: &RustOptions) -> Result<Box<dyn Verifier>, VerifierError> {
        let build = self.builders.get(&options.verifier).ok_or_else(|| {
            let known: Vec<_> = self.builders.keys().map(|known| format!("`{known}`")).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let problem = format!(
                "no verifier `{}` is linked into this program (linked: {known}); a small `main` can register it",
                options.verifier
            );
            VerifierError::config(name, problem)
        })?;
        build(name, &options.options)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.builders.keys()).finish()
    }
}
