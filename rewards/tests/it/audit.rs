//! An audit passes sound rubrics over sound rows, and finds what is lax or broken.

use reckon_datasets::{Countdown, CountdownConfig, Dataset, Example, Split};
use reckon_rewards::{
    Audit, Check, Mode, Part, Reference, Registry, Rubric, RubricConfig, Verdict, Verifier, VerifierError,
};
use serde_json::json;

use crate::common::example;

fn rows(answers: &[&str]) -> Vec<(Example, String)> {
    let row = |(index, answer): (usize, &&str)| {
        let question = format!("what is question {index}?");
        (Example { id: format!("row-{index}"), question: question.clone(), ..example(answer, json!({})) }, question)
    };
    answers.iter().enumerate().map(row).collect()
}

fn audit(config: &str, rows: &[(Example, String)]) -> Audit {
    let config: RubricConfig = toml::from_str(config).unwrap();
    Audit::of(&Rubric::from_config(&config).unwrap(), rows).unwrap()
}

const FORMAT: &str = "[[verifiers]]\nkind = 'format'\n[[verifiers]]\n";

#[test]
fn sound_rubrics_pass_whatever_their_order_and_layout() {
    for (kind, answers) in [
        ("kind = 'exact'", vec!["Paris", "Rome", "Oslo"]),
        ("kind = 'numeric'", vec!["so #### 1,250", "7", "-1/2", "50%"]),
        ("kind = 'choice'", vec!["A", "C", "B", "(D)"]),
        (
            "kind = 'logic'",
            vec!["Ann is a knight, Bob is a knave", "Ann: knave, Bob: knave", "Ann: knight, Bob: knight"],
        ),
        ("kind = 'json_schema'\nschema = {type = 'object'}", vec!["{}", "{\"a\": 1}"]),
    ] {
        for config in [
            format!("[[verifiers]]\n{kind}"),
            format!("{FORMAT}{kind}"),
            format!("[[verifiers]]\n{kind}\n[[verifiers]]\nkind = 'format'"),
            format!("[[verifiers]]\n{kind}\nextract = {{from = 'last_line'}}"),
            format!(
                "[[verifiers]]\n{kind}\nextract = {{tag = 'final'}}\n\
                 [[verifiers]]\nkind = 'format'\ntags = ['plan', 'final']"
            ),
            format!("mode = 'sum'\n{FORMAT}{kind}\nweight = 0.9\n[[verifiers]]\nkind = 'language'\nweight = 0.1"),
        ] {
            let audit = audit(&config, &rows(&answers));
            assert!(audit.is_clean() && audit.without_reference == 0, "{config}\n{audit}");
            assert_eq!(audit.finding(Check::Huge).rows, answers.len());
        }
    }
}

#[test]
fn mathematics_is_audited_in_boxes_and_answer_blocks() {
    let answers = [
        "$\\frac12$",
        "so it is \\boxed{x^2+1}.",
        "3 and 4 make 7, #### 42",
        "(1, 2)",
        "\\text{Tuesday}",
        "x>5",
        "1,234 cm",
        "[0, \\infty)",
    ];
    for config in [
        "[[verifiers]]\nkind = 'math'".to_owned(),
        "[[verifiers]]\nkind = 'math'\nextract = {from = 'boxed'}".to_owned(),
        format!("{FORMAT}kind = 'math'"),
        format!("{FORMAT}kind = 'math'\nextract = {{from = 'marked'}}"),
    ] {
        let audit = audit(&config, &rows(&answers));
        assert!(audit.is_clean() && audit.without_reference == 0, "{config}\n{audit}");
        assert_eq!(audit.finding(Check::Huge).rows, answers.len());
    }
}

#[test]
fn a_program_of_the_dataset_is_the_reference_of_code() {
    let Some(verifier) = super::code::verifier(json!({})) else { return };
    let program = |factor: i64| format!("print({factor} * int(input()))");
    let row = |factor: i64| {
        let tests = json!([{"input": "2", "output": (2 * factor).to_string()}]);
        let column = if factor == 3 { json!(program(3)) } else { json!([program(factor), "print('slower')"]) };
        (example("", json!({"tests": tests, "solution": column})), format!("Multiply by {factor}."))
    };
    let in_answer = (example(&program(5), json!({"tests": [{"input": "1", "output": "5"}]})), "By five.".to_owned());
    let parts = [Box::new(verifier) as Box<dyn Verifier>, crate::common::verifier("kind = 'format'")];
    let parts = parts.map(|verifier| Part { verifier, weight: 1.0, required: true });
    let audit = Audit::of(&Rubric::new(Mode::Binary, parts.into()).unwrap(), &[row(3), row(4), in_answer]).unwrap();
    assert!(audit.is_clean() && audit.without_reference == 0, "{audit}");
    assert_eq!((audit.finding(Check::OtherAnswer).rows, audit.finding(Check::Huge).rows), (3, 0));
}

#[test]
fn a_plug_in_is_audited_by_its_layout() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins/mine.py");
    let plain = format!("[[verifiers]]\nkind = 'python'\nentry = '{file}:after_the_mark'\n");
    let unknown = audit(&plain, &rows(&["a", "b", "c"]));
    assert_eq!((unknown.without_reference, unknown.is_clean()), (3, true));
    let known = audit(&format!("{plain}layout = 'Answer: {{answer}}.'"), &rows(&["a", "b", "c"]));
    assert!(known.is_clean() && known.without_reference == 0, "{known}");
    let some = plain.replace("after_the_mark", "not_of_b") + "layout = 'Answer: {answer}.'\non_error = 'skip'";
    let found = audit(&some, &rows(&["a", "b", "c"]));
    let reference = found.finding(Check::Reference);
    assert_eq!(
        (reference.rows, reference.failed),
        (2, 1),
        "what is not judged is not compared, an error fails: {found}"
    );
    let lax = plain.replace("after_the_mark", "anywhere");
    let found = audit(&format!("{lax}layout = '{{answer}}'"), &rows(&["red", "green", "blue"]));
    assert_eq!(found.finding(Check::Reference).failed, 0, "{found}");
    assert_eq!(found.finding(Check::TwoAnswers).failed, 3, "{found}");
    let config: RubricConfig = toml::from_str(&format!("{plain}layout = 'Answer:'")).unwrap();
    let error = Rubric::from_config(&config).err().unwrap().to_string();
    assert!(error.contains("`layout = \"Answer:\"` has no `{answer}`"), "{error}");
}

#[test]
fn generated_countdown_passes_with_its_own_solutions() {
    let problems = Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap();
    let rows: Vec<_> = (0..200).map(|row| problems.get(row)).map(|row| (row.clone(), row.question)).collect();
    let audit = audit(&format!("{FORMAT}kind = 'countdown'"), &rows);
    assert!(audit.is_clean() && audit.finding(Check::OtherAnswer).rows == 200, "{audit}");
}

#[test]
fn references_that_fail_are_counted_with_an_example() {
    let broken = audit("[[verifiers]]\nkind = 'numeric'", &rows(&["1", "two", "3"]));
    let judged = broken.finding(Check::Judged);
    assert_eq!((judged.rows, judged.failed), (3, 1));
    assert!(judged.first.as_ref().unwrap().reason.contains("not a number"), "{broken}");
    let apart = audit(
        "[[verifiers]]\nkind = 'exact'\nextract = {from = 'whole'}\n[[verifiers]]\nkind = 'format'",
        &rows(&["a", "b"]),
    );
    let finding = apart.finding(Check::Reference);
    assert_eq!((finding.failed, finding.rate()), (2, 1.0));
    assert!(apart.to_string().contains("100.0% wrong, as row-0"), "{apart}");
}

/// What a grader takes, given the reference and a completion.
type Takes = fn(&str, &str) -> bool;

/// A grader with one of the faults that graders have had.
struct Lax(Takes);

impl Verifier for Lax {
    fn name(&self) -> &str {
        "lax"
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        Ok(match self.0(&example.answer, completion) {
            true => Verdict::pass(completion, "taken"),
            false => Verdict::fail(completion, "not taken"),
        })
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        Reference::value(&example.answer)
    }
}

#[test]
fn each_fault_of_a_grader_is_found() {
    let faults: [(Takes, &[Check]); 7] = [
        (|answer, text| text == answer, &[]),
        (|_, _| true, &[Check::Empty, Check::Garbage, Check::Echo, Check::OtherAnswer, Check::TwoAnswers, Check::Huge]),
        (
            |answer, text| text.is_empty() == answer.is_empty(),
            &[Check::Garbage, Check::Echo, Check::OtherAnswer, Check::TwoAnswers, Check::Huge],
        ),
        (|answer, text| text.contains(answer), &[Check::Echo, Check::TwoAnswers]),
        (|answer, text| text.len() == answer.len() && text.starts_with("is "), &[Check::OtherAnswer]),
        (|answer, text| text == answer || text.starts_with("9**"), &[Check::Huge]),
        (|_, _| false, &[Check::Reference]),
    ];
    for (index, (fault, expected)) in faults.into_iter().enumerate() {
        let part = Part { verifier: Box::new(Lax(fault)), weight: 1.0, required: true };
        let rubric = Rubric::new(Mode::Binary, vec![part]).unwrap();
        let audit =
            Audit::of(&rubric, &rows(&["is question 0", "is question 1", "is question 2", "is question 3"])).unwrap();
        let found: Vec<Check> = audit.findings.iter().filter(|f| f.failed > 0).map(|f| f.check).collect();
        assert_eq!(found, expected, "fault {index}\n{audit}");
    }
}

#[test]
fn an_answer_equal_in_value_is_no_fault() {
    let audit = audit("[[verifiers]]\nkind = 'numeric'", &rows(&["1/2", "0.5", "3", "4", "5", "6"]));
    assert!(audit.is_clean(), "{audit}");
}

#[test]
fn without_a_reference_only_nothing_must_fail() {
    let audit = audit("[[verifiers]]\nkind = 'regex'\npattern = 'x*'", &rows(&["a", "b"]));
    assert_eq!((audit.without_reference, audit.finding(Check::Garbage).rows), (2, 0));
    assert!(audit.is_clean(), "{audit}");
    let bare = "[[verifiers]]\nkind = 'regex'\npattern = 'x*'\nextract = {from = 'whole'}";
    let registry = Registry::default();
    let rubric = Rubric::from_config_with(&toml::from_str(bare).unwrap(), &registry).unwrap();
    assert_eq!(Audit::of(&rubric, &rows(&["a"])).unwrap().finding(Check::Empty).failed, 1);
}

#[test]
fn the_table_names_every_claim_and_the_slowest_verdict() {
    let audit = audit("[[verifiers]]\nkind = 'exact'", &rows(&["a", "b"]));
    let table = audit.to_string();
    assert!(
        Check::ALL.iter().all(|check| table.contains(check.claim())) && table.contains("slowest verdict"),
        "{table}"
    );
    let json = serde_json::to_value(&audit).unwrap();
    assert_eq!(json["findings"][1], json!({"check": "reference", "rows": 2, "failed": 0, "first": null}));
}

#[test]
fn an_echoed_prompt_that_ends_in_its_answer_is_explained() {
    let row = |question: &str, answer: &str| {
        (Example { question: question.into(), ..example(answer, json!({})) }, question.to_owned())
    };
    let rows = [row("Tom has 3 apples. The number of his friends is 12.", "12"), row("What is 2 + 2?", "4")];
    let lax = audit("[[verifiers]]\nkind = 'math'", &rows);
    let first = lax.finding(Check::Echo).first.as_ref().unwrap();
    assert!(first.reason.contains("its last number happens to be the answer: with extract.from = \"marked\""), "{lax}");
    let strict = audit("[[verifiers]]\nkind = 'math'\nextract = {from = 'marked'}", &rows);
    assert_eq!(strict.finding(Check::Echo).failed, 0, "{strict}");
}

#[test]
fn an_audit_is_the_same_however_its_rows_are_shared_out() {
    let answers: Vec<String> =
        (0..200).map(|i| if i % 50 == 49 { "no number".into() } else { i.to_string() }).collect();
    let rows = rows(&answers.iter().map(String::as_str).collect::<Vec<_>>());
    let told = || {
        let audit = audit("[[verifiers]]\nkind = 'numeric'", &rows);
        assert_eq!((audit.finding(Check::Judged).rows, audit.finding(Check::Judged).failed), (200, 4));
        assert_eq!(audit.finding(Check::Judged).first.as_ref().unwrap().id, "row-49");
        serde_json::to_value(&audit.findings).unwrap()
    };
    assert_eq!(told(), told());
}
