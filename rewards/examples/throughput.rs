//! Countdown verdicts per second on one core, and the slowest of a million verdicts over generated completions.
//! Run with `cargo run --release -p reckon-rewards --example throughput`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use reckon_rewards::{Countdown, CountdownOptions, Verifier};

const VERDICTS: usize = 1_000_000;
const ALPHABET: [&str; 24] = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "(",
    "((((((((",
    ")",
    "+",
    "-",
    "*",
    "/",
    "**",
    "×",
    "÷",
    "−",
    "3",
    "4",
    "7",
    "2",
    "0",
    "99999999999999999",
    " ",
    ".",
    "é",
];

fn main() -> Result<(), Box<dyn Error>> {
    let verifier = Countdown::new("countdown", &CountdownOptions::default())?;
    let example: Example = serde_json::from_str(
        r#"{"id": "1", "question": "?", "answer": "", "info": {"numbers": [3, 4, 7, 2], "target": 47}}"#,
    )?;
    let thoughts = "First 3 + 4 = 7, and 7 * 7 = 49, then take 2 away. ".repeat(20);
    let completion = format!("<think>{thoughts}</think>\n<answer>(3 + 4) * 7 - 2</answer>");
    assert!(verifier.verify(&example, &completion)?.passed());
    let start = Instant::now();
    for _ in 0..VERDICTS {
        black_box(verifier.verify(&example, black_box(&completion))?);
    }
    let rate = VERDICTS as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} verdicts/s on one core, extraction from {} bytes included", completion.len());

    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut slowest, mut total, mut text) = (Duration::ZERO, Duration::ZERO, String::new());
    for _ in 0..VERDICTS {
        generate(&mut text, &mut state);
        let start = Instant::now();
        black_box(verifier.verify(&example, &text)?);
        let taken = start.elapsed();
        (slowest, total) = (slowest.max(taken), total + taken);
    }
    println!("slowest of {VERDICTS} generated completions: {slowest:?}; mean {:?}", total / VERDICTS as u32);
    Ok(())
}

/// Up to 63 pieces of the alphabet; half of the texts are one answer block, so that the parser is reached.
fn generate(text: &mut String, state: &mut u64) {
    let mut below = |bound: usize| {
        // xorshift64 (Marsaglia 2003): repeatable, and enough to mix pieces.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 33) as usize % bound
    };
    let whole = below(2) == 0;
    text.clear();
    text.push_str(if whole { "<answer>" } else { "" });
    for _ in 0..below(64) {
        text.push_str(ALPHABET[if whole { 4 + below(20) } else { below(24) }]);
    }
    text.push_str(if whole { "</answer>" } else { "" });
}
