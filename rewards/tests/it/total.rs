//! Every verifier gives a verdict on any text, and full reward to the reference.

use proptest::prelude::*;
use reckon_datasets::Example;
use reckon_rewards::{Verifier, VerifierConfig};
use serde_json::json;

const CONFIGS: &[(&str, &str)] = &[
    (r#"{"kind": "format", "text_between": true}"#, ""),
    (r#"{"kind": "exact", "ignore_case": true, "collapse_whitespace": true}"#, "a b"),
    (r#"{"kind": "numeric", "units": ["km"], "tolerance": 0.1}"#, "1,234"),
    (r#"{"kind": "numeric", "extract": {"from": "whole"}}"#, "-7/2"),
    (r#"{"kind": "choice", "extract": {"from": "last_line"}}"#, "B"),
    (r#"{"kind": "regex", "pattern": "\\d+"}"#, ""),
    (r#"{"kind": "countdown"}"#, ""),
    (r#"{"kind": "countdown", "unary_minus": true, "equals_target": true, "extract": {"from": "whole"}}"#, ""),
    (r#"{"kind": "logic", "extract": {"from": "whole"}}"#, "B: 3, km: 7"),
    (r#"{"kind": "json_schema", "schema": {"minimum": 4}, "extract": {"from": "after_thoughts"}}"#, ""),
    (r#"{"kind": "instructions", "strictness": "loose"}"#, ""),
];

fn build(config: &str) -> Box<dyn Verifier> {
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    serde_json::from_value::<VerifierConfig>(config).unwrap().build().unwrap()
}

fn example(answer: &str, numbers: &[i64], target: i64) -> Example {
    let followed = json!([{"num_sentences": 2, "relation": "at least"}, {"capital_frequency": 1,
        "capital_relation": "at least"}, {"num_highlights": 1}, {"language": "en"}, {}]);
    let ids = json!([
        "length_constraints:number_sentences",
        "change_case:capital_word_frequency",
        "detectable_format:number_highlighted_sections",
        "language:response_language",
        "combination:two_responses"
    ]);
    let info = json!({"numbers": numbers, "target": target, "instruction_id_list": ids, "kwargs": followed});
    let info = info.as_object().unwrap().clone();
    Example { id: "1".into(), question: "?".into(), answer: answer.into(), messages: Vec::new(), info }
}

fn judge_all(text: &str) {
    for (config, reference) in CONFIGS {
        let verdict = build(config).verify(&example(reference, &[3, 4, 7], 49), text).unwrap();
        assert_eq!(verdict.reward, f32::from(verdict.passed()), "{config} on {text:?}");
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let alphabet = vec![
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<",
        ">",
        "(",
        ")",
        "+",
        "-",
        "−",
        "*",
        "/",
        "÷",
        "×",
        "=",
        "0",
        "3",
        "4",
        "7",
        "99999999999999999999",
        ",",
        ".",
        "%",
        "$",
        "€",
        "e",
        "B",
        "####",
        " ",
        "\n",
        "é",
        "km",
    ];
    prop::collection::vec(prop::sample::select(alphabet), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_string_gets_a_verdict(text in any::<String>()) {
        judge_all(&text);
        judge_all(&format!("<answer>{text}</answer>"));
    }

    #[test]
    fn any_mixture_of_tags_digits_and_operators_gets_a_verdict(text in pieces()) {
        judge_all(&text);
        judge_all(&format!("<answer>{text}</answer>"));
    }

    #[test]
    fn a_reference_number_scores_1(number in any::<i64>(), places in 0u32..9) {
        let text = format!("{number}e-{places}");
        let verdict = build(r#"{"kind": "numeric"}"#)
            .verify(&example(&text, &[1], 1), &format!("<answer>{text}</answer>")).unwrap();
        prop_assert!(verdict.passed(), "{verdict:?}");
    }

    #[test]
    fn a_reference_text_scores_1(text in "[^<\\s][^<]*") {
        let verdict = build(r#"{"kind": "exact"}"#)
            .verify(&example(&text, &[1], 1), &format!("<answer>{text}</answer>")).unwrap();
        prop_assert!(verdict.passed(), "{verdict:?}");
    }

    #[test]
    fn a_countdown_solution_scores_1(
        numbers in prop::collection::vec(0i64..1000, 1..9), ops in prop::collection::vec(0usize..3, 8),
    ) {
        let (mut text, mut value) = (numbers[0].to_string(), i128::from(numbers[0]));
        for (number, op) in numbers[1..].iter().zip(&ops) {
            text = format!("({text}) {} {number}", ["+", "-", "*"][*op]);
            let right = i128::from(*number);
            value = [value + right, value - right, value * right][*op];
        }
        prop_assume!(i64::try_from(value).is_ok());
        let example = example("", &numbers, value as i64);
        let verdict = build(r#"{"kind": "countdown"}"#).verify(&example, &format!("<answer>{text}</answer>")).unwrap();
        prop_assert!(verdict.passed(), "{text}: {verdict:?}");
    }
}
