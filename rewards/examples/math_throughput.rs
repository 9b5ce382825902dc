//! Verdicts of kind `math` per second on one core over the pairs of Math-Verify's suite, and the slowest of a million
//! verdicts over mutations of them. Run with `cargo run --release -p reckon-rewards --example math_throughput`;
//! `scripts/math_verify_speed.py` runs it beside the Python package.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use reckon_rewards::{Math, MathOptions, Verifier};

const PAIRS: &str = include_str!("../tests/it/math/math_verify_pairs.jsonl");
const ROUNDS: usize = 100;
const MUTATIONS: usize = 1_000_000;
/// What a mutation inserts: signs of the language, numbers that grow, brackets that nest.
const PIECES: &str = include_str!("../tests/it/math/pieces.txt");

fn main() -> Result<(), Box<dyn Error>> {
    let pairs = PAIRS.lines().map(pair).collect::<Result<Vec<_>, _>>()?;
    let verifier = Math::new("math", &MathOptions::default())?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for (example, completion) in &pairs {
            times.push(time(&verifier, example, completion));
        }
    }
    report(&format!("{} pairs, {ROUNDS} times", pairs.len()), times);

    let (mut state, mut text, mut slowest) =
        (0x9e37_79b9_7f4a_7c15_u64, String::new(), (Duration::ZERO, String::new()));
    let (mut times, pieces) = (Vec::new(), PIECES.lines().collect::<Vec<_>>());
    for _ in 0..MUTATIONS {
        let (example, completion) = &pairs[below(&mut state, pairs.len())];
        mutate(&mut text, completion, &pieces, &mut state);
        let taken = time(&verifier, example, &text);
        if taken > slowest.0 {
            slowest = (taken, text.clone());
        }
        times.push(taken);
    }
    report(&format!("{MUTATIONS} mutations"), times);
    println!("the slowest: {:?}", slowest.1.chars().take(300).collect::<String>());
    Ok(())
}

fn pair(line: &str) -> Result<(Example, String), serde_json::Error> {
    let row: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(line)?;
    let text = |key: &str| row.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_string();
    let answer = text("reference");
    Ok((Example { id: "1".into(), question: "?".into(), answer, info: Default::default() }, text("completion")))
}

/// The time of one verdict. Above a millisecond it is the best of six: what the system took in between is not the
/// verdict's.
fn time(verifier: &Math, example: &Example, completion: &str) -> Duration {
    let once = || {
        let start = Instant::now();
        let _ = black_box(verifier.verify(example, black_box(completion)));
        start.elapsed()
    };
    let first = once();
    if first < Duration::from_millis(1) { first } else { (0..5).map(|_| once()).fold(first, Duration::min) }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let total: Duration = times.iter().sum();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = times.len() as f64 / total.as_secs_f64();
    println!("{what}: {rate:.0} verdicts/s, p50 {:?}, p99 {:?}, slowest {:?}", at(0.5), at(0.99), at(1.0));
}

/// The tail of `completion` with up to 8 pieces put in and up to 8 characters taken out; in half of the texts within a box.
fn mutate(text: &mut String, completion: &str, pieces: &[&str], state: &mut u64) {
    let mut chars: Vec<char> = completion.chars().collect();
    let keep = 1 + below(state, 120);
    chars.drain(..chars.len().saturating_sub(keep));
    for _ in 0..below(state, 9) {
        if !chars.is_empty() {
            chars.remove(below(state, chars.len()));
        }
        let at = below(state, chars.len() + 1);
        let piece = pieces[below(state, pieces.len())].repeat(1 + below(state, 4));
        chars.splice(at..at, piece.chars());
    }
    let boxed = below(state, 2) == 0;
    text.clear();
    text.push_str(if boxed { "\\boxed{" } else { "" });
    text.extend(chars);
    text.push_str(if boxed { "}" } else { "" });
}

/// xorshift64 (Marsaglia 2003): repeatable, and enough to mix pieces.
fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize % bound
}
