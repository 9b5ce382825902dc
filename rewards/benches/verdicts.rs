//! Time of a verdict: of the plain kinds on a right completion of about 1 kB, of `math` on the pairs of Math-Verify's
//! suite, of a program at each level of the sandbox, and of a batch that goes through Python workers.
#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write;

use criterion::{Criterion, Throughput, criterion_group};
use reckon_datasets::Example;
use reckon_rewards::sandbox::{Level, helper};
use reckon_rewards::{
    Code, CodeOptions, Math, MathOptions, Plugin, PythonOptions, Submission, Verifier, VerifierConfig,
};
use serde_json::{Map, Value, json};

const PLAIN: &[(&str, &str, &str)] = &[
    (r#"{"kind": "countdown"}"#, "(3 + 4) * 7 - 2", "47"),
    (r#"{"kind": "numeric"}"#, "$1,234.50", "1234.5"),
    (r#"{"kind": "exact"}"#, "Paris", "Paris"),
    (r#"{"kind": "choice"}"#, "(B)", "B"),
    (r#"{"kind": "regex", "pattern": "[a-z]+"}"#, "paris", ""),
    (r#"{"kind": "format"}"#, "Paris", ""),
    (r#"{"kind": "json_schema"}"#, r#"{"age": 7}"#, ""),
];

/// Programs that each thread judges in a row.
const EACH: u64 = 8;

fn example(answer: &str, info: Value) -> Example {
    let info = info.as_object().cloned().unwrap_or_else(Map::new);
    Example { id: "1".into(), question: "?".into(), answer: answer.into(), messages: Vec::new(), info }
}

fn plain(criterion: &mut Criterion) {
    let thoughts = "First 3 + 4 = 7, and 7 * 7 = 49, then take 2 away. ".repeat(20);
    let schema = json!({"required": ["age"], "properties": {"age": {"type": "integer", "minimum": 0}}});
    for (config, answer, reference) in PLAIN {
        let config: Value = serde_json::from_str(config).expect("the config is JSON");
        let config: VerifierConfig = serde_json::from_value(config).expect("the config is well formed");
        let verifier = config.build().expect("the config makes sense");
        let example = example(reference, json!({"numbers": [3, 4, 7, 2], "target": 47, "schema": schema}));
        let completion = format!("<think>{thoughts}</think>\n<answer>{answer}</answer>");
        criterion.bench_function(verifier.name(), |bencher| {
            bencher.iter(|| verifier.verify(&example, black_box(&completion)));
        });
    }
}

fn math(criterion: &mut Criterion) {
    let pairs = include_str!("../tests/it/math/math_verify_pairs.jsonl").lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        (example(&text("reference"), json!({})), text("completion"))
    });
    let pairs: Vec<_> = pairs.collect();
    let verifier = Math::new("math", &MathOptions::default()).expect("the defaults make sense");
    let mut group = criterion.benchmark_group("math");
    group.throughput(Throughput::Elements(pairs.len() as u64));
    group.bench_function("math_verify_pairs", |bencher| {
        bencher.iter(|| {
            for (example, completion) in &pairs {
                let _ = black_box(verifier.verify(example, black_box(completion)));
            }
        });
    });
}

/// Each way of running programs on two threads. Levels that this machine does not have are left out.
fn programs(criterion: &mut Criterion) {
    let example = example("", json!({"tests": [{"input": "6 7", "output": "42"}]}));
    let completion = "```python\na, b = map(int, input().split())\nprint(a * b)\n```";
    let mut group = criterion.benchmark_group("code");
    group.sample_size(20).throughput(Throughput::Elements(2 * EACH));
    for level in Level::ALL {
        let options = CodeOptions { level: Some(level), ..CodeOptions::default() };
        let Ok(verifier) = Code::new("code", &options) else { continue };
        group.bench_function(level.to_string(), |bencher| {
            let judge = || {
                for _ in 0..EACH {
                    assert!(verifier.verify(&example, completion).is_ok_and(|verdict| verdict.passed()));
                }
            };
            bencher.iter(|| std::thread::scope(|scope| [scope.spawn(judge), scope.spawn(judge)].map(|it| it.join())));
        });
    }
}

fn plugins(criterion: &mut Criterion) {
    // Workers read the file when they start, so it stays until the end.
    let mut file = tempfile::Builder::new().suffix(".py").tempfile().expect("a temporary file can be made");
    writeln!(file, "def verify(row):\n    return row['completion'].endswith(row['answer'])").expect("and written to");
    let options = PythonOptions::new(&format!("{}:verify", file.path().display()));
    let Ok(verifier) = Plugin::new("ends", &options) else { return };
    let example = example("42", json!({}));
    let texts: Vec<String> = (0..1000).map(|i| format!("{}{i}", "a thought, ".repeat(93))).collect();
    let batch: Vec<_> = texts.iter().map(|text| Submission::new(&example, text)).collect();
    let mut group = criterion.benchmark_group("plugin");
    group.throughput(Throughput::Elements(batch.len() as u64)).sample_size(20);
    group.bench_function("python", |bencher| bencher.iter(|| verifier.verify_batch(&batch)));
}

criterion_group!(benches, plain, math, programs, plugins);

fn main() {
    // Programs run in a helper, which is this program again.
    if helper().is_none() {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
