//! A list of right answers: any of them will do, and what cannot be read among them is no answer.

use reckon_datasets::{Answer, Example};
use reckon_rewards::{Audit, Check, Outcome, Rubric, VerifierError};
use serde_json::json;

use crate::common::{example, verifier};
use Outcome::{Fail, Pass, Unparsed};

fn any_of(right: &[&str]) -> Example {
    let answer = Answer::any_of(right.iter().map(ToString::to_string).collect());
    Example { answer, ..example("", json!({})) }
}

#[test]
fn any_of_several_right_answers_passes() {
    for (config, right, rows) in [
        (
            "kind = 'exact'",
            &["Paris", "Paris, France"][..],
            vec![("Paris", Pass), ("Paris, France", Pass), ("France", Fail)],
        ),
        (
            "kind = 'exact'\nignore_case = true",
            &["NYC", "New York"],
            vec![("nyc", Pass), ("new york", Pass), ("york", Fail)],
        ),
        (
            "kind = 'numeric'",
            &["#### 1,000", "7/2"],
            vec![("1e3", Pass), ("3.5", Pass), ("7", Fail), ("7/2 or 1000", Unparsed)],
        ),
        ("kind = 'numeric'", &["five", "5"], vec![("5", Pass), ("five", Unparsed)]),
        ("kind = 'choice'", &["A", "(C)"], vec![("c", Pass), ("A", Pass), ("B", Fail)]),
        (
            "kind = 'math'",
            &["\\frac12", "x=3", "no solution"],
            vec![
                ("0.5", Pass),
                ("3", Pass),
                ("\\text{no solution}", Pass),
                ("2", Fail),
                ("\\boxed{0.5}, \\boxed{3}", Fail),
            ],
        ),
    ] {
        crate::common::check(config, &any_of(right), &rows);
    }
}

#[test]
fn a_list_of_which_none_can_be_read_is_an_error_of_the_example() {
    for (kind, right) in [("numeric", ["five", "six"]), ("choice", ["x1", "x2"]), ("exact", ["a", " "])] {
        let error = verifier(&format!("kind = '{kind}'")).verify(&any_of(&right), "<answer>1</answer>").unwrap_err();
        assert!(matches!(error, VerifierError::Example { .. }), "{error}");
        let checked = verifier(&format!("kind = '{kind}'")).check(&any_of(&right)).unwrap_err();
        assert_eq!(checked, error);
    }
}

#[test]
fn an_audit_holds_lists_to_their_first_readable_answer() {
    let rows = [["one", "1"], ["2", "two"], ["3", "III"]];
    let rows: Vec<_> = rows.iter().map(|right| (any_of(right), "which number?".to_owned())).collect();
    let rubric = Rubric::from_config(&toml::from_str("[[verifiers]]\nkind = 'numeric'").unwrap()).unwrap();
    let audit = Audit::of(&rubric, &rows).unwrap();
    assert!(audit.is_clean() && audit.finding(Check::Reference).rows == 3, "{audit}");
}
