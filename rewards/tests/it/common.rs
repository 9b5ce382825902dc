//! What the tables of verdicts share: a config to a verifier, a row to an example, completions to their outcomes.

use reckon_datasets::Example;
use reckon_rewards::{Outcome, Verifier, VerifierConfig};
use serde_json::Value;

/// The verifier that a TOML table describes.
pub(crate) fn verifier(config: &str) -> Box<dyn Verifier> {
    toml::from_str::<VerifierConfig>(config).unwrap().build().unwrap()
}

/// An example of this reference and these other columns.
pub(crate) fn example(answer: &str, info: Value) -> Example {
    let info = info.as_object().unwrap().clone();
    Example { id: "row-9".into(), question: "?".into(), answer: answer.into(), messages: Vec::new(), info }
}

/// Rows are answers, wrapped in an answer block unless they bring a tag of their own.
pub(crate) fn check(config: &str, example: &Example, rows: &[(&str, Outcome)]) {
    let verifier = verifier(config);
    for (answer, outcome) in rows {
        let wrapped = if answer.contains('<') { (*answer).into() } else { format!("<answer>{answer}</answer>") };
        let verdict = verifier.verify(example, &wrapped).unwrap();
        assert_eq!(verdict.outcome, *outcome, "{config}: {answer:?}: {verdict:?}");
        assert_eq!(verdict.reward, f32::from(verdict.passed()), "{answer:?}");
    }
}
