//! Time of one verdict of each kind on a right completion of about 1 kB.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use reckon_datasets::Example;
use reckon_rewards::VerifierConfig;

const CASES: &[(&str, &str, &str)] = &[
    (r#"{"kind": "countdown"}"#, "(3 + 4) * 7 - 2", "47"),
    (r#"{"kind": "numeric"}"#, "$1,234.50", "1234.5"),
    (r#"{"kind": "exact"}"#, "Paris", "Paris"),
    (r#"{"kind": "choice"}"#, "(B)", "B"),
    (r#"{"kind": "regex", "pattern": "[a-z]+"}"#, "paris", ""),
    (r#"{"kind": "format"}"#, "Paris", ""),
];

fn verdicts(criterion: &mut Criterion) {
    let thoughts = "First 3 + 4 = 7, and 7 * 7 = 49, then take 2 away. ".repeat(20);
    for (config, answer, reference) in CASES {
        let config: VerifierConfig = serde_json::from_str(config).expect("the config is well formed");
        let verifier = config.build().expect("the config makes sense");
        let mut example =
            Example { id: "1".into(), question: "?".into(), answer: (*reference).into(), info: Default::default() };
        example.info.insert("numbers".into(), serde_json::json!([3, 4, 7, 2]));
        example.info.insert("target".into(), 47.into());
        let completion = format!("<think>{thoughts}</think>\n<answer>{answer}</answer>");
        criterion.bench_function(verifier.name(), |bencher| {
            bencher.iter(|| verifier.verify(&example, black_box(&completion)));
        });
    }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
