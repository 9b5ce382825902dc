//! `reckon verify new`: a verifier of one's own to start from, with cases that it passes.

use crate::output::say;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const VERIFIER: &str = include_str!("template/verifier.py");
const CASES: &str = include_str!("template/cases.jsonl");

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to call it: `NAME.py` and `NAME.cases.jsonl` are written here.
    name: String,
}

pub(super) fn run(Args { name }: Args) -> Result<()> {
    let identifier = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    ensure!(identifier && !name.is_empty(), "a verifier cannot be called {name:?}: use letters, digits and `_`");
    let (verifier, cases) = (format!("{name}.py"), format!("{name}.cases.jsonl"));
    for path in [&verifier, &cases] {
        ensure!(!Path::new(path).exists(), "{path} exists; choose another name or move it away");
    }
    for (path, text) in [(&verifier, VERIFIER.replace("NAME", &name)), (&cases, CASES.to_owned())] {
        let mut file = File::create_new(path).with_context(|| format!("cannot create {path}"))?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {path}"))?;
    }
    say!("wrote {verifier} and {cases}; try them:")?;
    say!("  reckon verify test {cases} --kind python --set entry={verifier}:verify")?;
    Ok(())
}
