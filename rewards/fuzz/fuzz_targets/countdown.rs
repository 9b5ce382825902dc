//! No answer makes the countdown parser panic, whatever its options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon_datasets::Example;
use reckon_rewards::{AnswerFrom, Countdown, CountdownOptions, ExtractOptions, Verifier};

fuzz_target!(|input: (Vec<u16>, i64, bool, bool, &str)| {
    let (numbers, target, unary_minus, equals_target, answer) = input;
    let extract = ExtractOptions { from: AnswerFrom::Whole, ..ExtractOptions::default() };
    let options = CountdownOptions { unary_minus, equals_target, extract, ..CountdownOptions::default() };
    let verifier = Countdown::new("fuzz", &options).expect("the options make sense");
    let info = serde_json::json!({"numbers": numbers, "target": target}).as_object().cloned().unwrap_or_default();
    let example = Example { id: "fuzz".into(), info, ..Example::default() };
    // A problem without numbers, or with too many, is an error, and not of interest here.
    let _ = verifier.verify(&example, answer);
});
