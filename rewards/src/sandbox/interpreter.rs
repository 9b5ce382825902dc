//! Python inside the sandbox: scripts of our own, which in turn run a program. At S2 they run in interpreters that are
//! prepared once, where these can be had; elsewhere each script starts one.

use std::sync::{Arc, Mutex, PoisonError};

use super::server::{Order, Served, Server};
use super::{Level, Run, Sandbox, SandboxError, Task};

/// What a script works on.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// What it finds in `sys.argv`.
    pub arguments: &'a [&'a str],
    /// Names and contents of files in the folder that it starts in.
    pub files: &'a [(&'a str, &'a str)],
    /// What it reads from standard input.
    pub input: &'a [u8],
}

/// A Python 3 with its flags, the sandbox that it runs in, and the scripts that it knows.
#[derive(Debug, Clone)]
pub struct Interpreter {
    sandbox: Sandbox,
    argv: Vec<String>,
    scripts: &'static [&'static str],
    /// Those that wait for a script, as many as scripts ran at a time; or why none can be prepared.
    idle: Result<Arc<Mutex<Vec<Server>>>, String>,
}

impl Interpreter {
    /// `argv` is the absolute path of the interpreter and its flags.
    pub fn new(sandbox: Sandbox, argv: Vec<String>, scripts: &'static [&'static str]) -> Self {
        let server = match sandbox.level {
            // An interpreter without `ctypes`, or before Python 3.9, cannot be prepared.
            Level::S2 => Server::start(&sandbox, &argv, scripts).map_err(|error| error.to_string()),
            level => Err(format!("{level} has no namespaces to keep programs apart")),
        };
        let idle = server.map(|server| Arc::new(Mutex::new(vec![server])));
        Self { sandbox, argv, scripts, idle }
    }

    /// Why each script has to start an interpreter; `None` where they are prepared.
    pub fn unprepared(&self) -> Option<&str> {
        self.idle.as_ref().err().map(String::as_str)
    }

    /// The sandbox that scripts run in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The path of the interpreter.
    pub fn program(&self) -> &str {
        &self.argv[0]
    }

    /// Runs a script, by its number, to its end, and kills all that it started.
    pub fn run(&self, script: usize, work: &Work) -> Result<Run, SandboxError> {
        let Work { arguments, files, input } = *work;
        let Ok(idle) = &self.idle else {
            let rest = ["-c", self.scripts[script]].into_iter().chain(arguments.iter().copied()).map(ToOwned::to_owned);
            let argv: Vec<String> = self.argv.iter().cloned().chain(rest).collect();
            return self.sandbox.run(&Task { argv: &argv, files, input });
        };
        let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut server = match waiting {
            Some(server) => server,
            None => Server::start(&self.sandbox, &self.argv, self.scripts)?,
        };
        match server.run(&self.sandbox, &Order { script, arguments, files }, input)? {
            Served::Killed(run) => Ok(run),
            Served::Ended(run) => {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(server);
                Ok(run)
            }
        }
    }
}
