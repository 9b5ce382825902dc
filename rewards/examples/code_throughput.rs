//! Programs a second at each level of the sandbox: `cargo run --release -p reckon-rewards --example code_throughput`,
//! with the number of threads as an argument (all cores when absent).
#![allow(clippy::print_stdout)] // printing is what it is for

use std::time::{Duration, Instant};

use reckon_datasets::Example;
use reckon_rewards::sandbox::{Level, helper};
use reckon_rewards::{Code, CodeOptions, Verifier, VerifierError};

const TIME: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if helper().is_some() {
        return Ok(());
    }
    let cores = std::thread::available_parallelism()?.get();
    let threads = std::env::args().nth(1).map_or(Ok(cores), |text| text.parse())?;
    for level in Level::ALL {
        let options = CodeOptions { level: Some(level), ..CodeOptions::default() };
        let code = Code::new("code", &options)
            .or_else(|_| Code::new("code", &CodeOptions { python: "/usr/bin/python3".into(), ..options.clone() }));
        match code {
            Ok(code) => println!("{level}, {threads} threads: {:.0} programs a second", speed(&code, threads)?),
            Err(problem) => println!("{level}: {problem}"),
        }
    }
    Ok(())
}

fn speed(code: &Code, threads: usize) -> Result<f64, VerifierError> {
    let info = serde_json::json!({"tests": [{"input": "6 7", "output": "42"}]});
    let info = info.as_object().cloned().unwrap_or_default();
    let example = Example { id: "1".into(), question: "?".into(), answer: "".into(), info };
    let completion = "```python\na, b = map(int, input().split())\nprint(a * b)\n```";
    let start = Instant::now();
    let counts = std::thread::scope(|scope| {
        let count = || {
            let mut programs = 0;
            while start.elapsed() < TIME {
                let verdict = code.verify(&example, completion)?;
                assert!(verdict.passed(), "{verdict:?}");
                programs += 1;
            }
            Ok(programs)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        running.into_iter().map(|thread| thread.join().expect("a verdict panicked")).collect::<Result<Vec<u32>, _>>()
    })?;
    Ok(f64::from(counts.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
}
