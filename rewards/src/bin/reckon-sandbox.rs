//! Says which sandbox levels this machine has. Also the helper of programs that cannot be their own.
#![allow(clippy::print_stdout)] // printing is what it is for

use std::process::ExitCode;

use reckon_rewards::sandbox::{Level, Limits, Sandbox, helper};

fn main() -> ExitCode {
    if let Some(code) = helper() {
        return code;
    }
    for level in Level::ALL {
        match Sandbox::new(Some(level), Vec::new(), Limits::default()) {
            Ok(_) => println!("{level}: works here"),
            Err(problem) => println!("{level}: {problem}"),
        }
    }
    ExitCode::SUCCESS
}
