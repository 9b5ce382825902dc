//! Reckon with a verifier of one's own in Rust: a type that implements `Verifier`, and a `main` that registers it. The
//! program is `reckon` in all else: `cargo run --example custom_verifier -- train examples/custom_verifier/config.toml`.

use std::process::ExitCode;

use reckon_datasets::Example;
use reckon_rewards::{Registry, Verdict, Verifier, VerifierError};

/// Passes completions that read the same from both ends and have enough letters.
struct Palindrome {
    name: String,
    min_letters: usize,
}

impl Verifier for Palindrome {
    fn name(&self) -> &str {
        &self.name
    }

    fn verify(&self, _example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let letters: Vec<char> =
            completion.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
        let text: String = letters.iter().collect();
        Ok(match letters.iter().eq(letters.iter().rev()) {
            _ if letters.len() < self.min_letters => Verdict::fail(text, "too few letters"),
            true => Verdict::pass(text, "reads the same from both ends"),
            false => Verdict::fail(text, "does not read the same from both ends"),
        })
    }
}

fn main() -> ExitCode {
    let registry = Registry::default().with("palindrome", |name, options| {
        let min_letters = match options.get("min_letters").map(|value| value.as_u64().ok_or(value)) {
            None => 1,
            Some(Ok(number)) => number as usize,
            Some(Err(value)) => {
                return Err(VerifierError::config(name, format!("`min_letters = {value}` is no whole number")));
            }
        };
        Ok(Box::new(Palindrome { name: name.into(), min_letters }))
    });
    reckon::commands::main(&registry)
}
