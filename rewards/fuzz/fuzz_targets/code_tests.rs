//! No text makes the reader of a program's tests panic, and what it refuses it refuses in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon_datasets::Example;
use reckon_rewards::Code;

fuzz_target!(|texts: (&str, &str)| {
    let (tests, metadata) = texts;
    let info = serde_json::json!({"tests": tests, "metadata": metadata}).as_object().cloned().unwrap_or_default();
    let example = Example { id: "fuzz".into(), info, ..Example::default() };
    if let Err(problem) = Code::count_tests(&example, "tests") {
        assert!(!problem.contains('\n'), "{problem}");
    }
});
