//! Any two texts get a verdict of kind `math`, and a text is equal to itself. Run it with `-timeout=1` on an idle
//! machine to find slow ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon_datasets::Example;
use reckon_rewards::{Math, MathOptions, Verifier};

fuzz_target!(|texts: (&str, &str)| {
    let (reference, answer) = texts;
    let verifier = Math::new("fuzz", &MathOptions::default()).expect("the options make sense");
    let example =
        Example { id: "fuzz".into(), question: String::new(), answer: reference.into(), ..Example::default() };
    // A reference that cannot be read is an error, and not of interest here.
    let _ = verifier.verify(&example, answer);
    if let Ok(verdict) = verifier.verify(&example, &example.answer) {
        assert!(verdict.passed() || verdict.parsed.is_none(), "{verdict:?}");
    }
});
