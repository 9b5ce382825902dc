//! Calls tools by hand, as a completion does: a file with `[[tools]]`, each with the keys of an `[[environment.tools]]`,
//! and a call in each line of the input. An answer is a line, a JSON object of `text` and `reward`.
//!
//! ```text
//! echo '2+2' | cargo run --release -p reckon-rewards --example call -- tools.toml
//! ```

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

use reckon_datasets::Example;
use reckon_rewards::sandbox::helper;
use reckon_rewards::{Memory, ToolOptions, Toolbox};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Tables {
    tools: Vec<ToolOptions>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The sandbox of tool `python` starts this binary anew.
    if let Some(code) = helper() {
        return Ok(code);
    }
    let path = std::env::args().nth(1).ok_or("give a file with [[tools]]")?;
    let tables: Tables = toml::from_str(&std::fs::read_to_string(path)?)?;
    let tools = Toolbox::new(&tables.tools)?;
    let (example, mut memory) = (Example { id: "by-hand".into(), ..Example::default() }, Memory::new());
    for call in stdin().lock().lines() {
        let answer = tools.answer(&example, &mut memory, &call?)?;
        writeln!(stdout(), "{}", json!({"text": answer.text, "reward": answer.reward}))?;
    }
    Ok(ExitCode::SUCCESS)
}
