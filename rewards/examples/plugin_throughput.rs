//! Verdicts a second through Python workers, with completions of 1 kB. Run with
//! `cargo run --release -p reckon-rewards --example plugin_throughput`; an argument is the number of workers.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use reckon_datasets::Example;
use reckon_rewards::{Plugin, PythonOptions, Submission, Verifier};

const VERDICTS: usize = 100_000;
const FUNCTION: &str = "def verify(row):\n    return row['completion'].endswith(row['answer'])\n";

fn main() -> Result<(), Box<dyn Error>> {
    // Workers read the file when they start, so it stays until the end.
    let mut file = tempfile::Builder::new().suffix(".py").tempfile()?;
    file.write_all(FUNCTION.as_bytes())?;
    let mut options = PythonOptions::new(&format!("{}:verify", file.path().display()));
    options.pool.workers = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let verifier = Plugin::new("ends", &options)?;
    let example = Example { id: "1".into(), question: "?".into(), answer: "42".into(), info: Default::default() };
    let texts: Vec<String> = (0..100).map(|i| format!("{}{i}", "a thought, ".repeat(93))).collect();
    let batch: Vec<_> = texts.iter().cycle().take(VERDICTS).map(|text| Submission::new(&example, text)).collect();
    // The first batch starts the workers that are still missing.
    verifier.verify_batch(&batch[..1000])?;
    let start = Instant::now();
    let verdicts = verifier.verify_batch(&batch)?;
    let rate = VERDICTS as f64 / start.elapsed().as_secs_f64();
    assert_eq!(verdicts.iter().filter(|verdict| verdict.passed()).count(), VERDICTS / 100);
    println!("{rate:.0} verdicts/s, {} bytes a completion, workers: {}", texts[0].len(), options.pool.workers);
    Ok(())
}
