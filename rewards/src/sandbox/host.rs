//! The host's side of a run: starts the helper, feeds and reads the program, keeps the time, kills what is left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::rand::{GetRandomFlags, getrandom};

use super::job::{FAILED, Job, READY};
use super::pipes::Pipes;
use super::{End, Run, Sandbox, SandboxError, Task, helper, identity, scratch};

/// How long the helper may take to set itself up; no fault of the program's, so never a timeout.
pub(super) const SETUP: Duration = Duration::from_secs(30);

pub(super) fn run(sandbox: &Sandbox, task: &Task) -> Result<Run, SandboxError> {
    let folder = tempfile::Builder::new().prefix("reckon-").tempdir().map_err(wrap("cannot make a folder"))?;
    let job = Job {
        level: sandbox.level,
        limits: sandbox.limits,
        readable: sandbox.readable.clone(),
        folder: folder.path().into(),
        files: task.files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect(),
        argv: task.argv.to_vec(),
        serves: false,
    };
    let nonce = nonce()?;
    let mut command = helper::command(sandbox.level, &nonce, identity::fresh_uid())?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = [job.frame().map_err(wrap("cannot write the job"))?, task.input.to_vec()].concat();
    let child = command.spawn().map_err(wrap("cannot start the helper"))?;
    let limit = nonce.len() + 1 + sandbox.limits.output_bytes();
    let mut running = Running::new(child, input, limit, nonce).map_err(wrap("cannot reach the helper"))?;
    let end = running.supervise(sandbox.limits.wall());
    let run = running.finish(end);
    // A folder that cannot be removed would fill the disk, so it is an error too.
    scratch::remove(folder).map_err(wrap("cannot remove the program's folder"))?;
    run
}

fn wrap(what: &'static str) -> impl Fn(io::Error) -> SandboxError {
    move |error| SandboxError::new(what, error)
}

/// A secret of one run.
pub(crate) fn nonce() -> Result<String, SandboxError> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|error| SandboxError::new("no random numbers", error))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// A helper, and then the program that it became.
struct Running {
    child: Child,
    /// Stays with the process, so that its end is seen without polling the clock.
    pidfd: OwnedFd,
    pipes: Pipes,
    nonce: String,
}

impl Running {
    fn new(mut child: Child, input: Vec<u8>, limit: usize, nonce: String) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let parts = pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|pidfd| Ok((pidfd, Pipes::of(&mut child, input, limit)?)));
        match parts {
            Ok((pidfd, pipes)) => Ok(Self { child, pidfd, pipes, nonce }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Until the program ends (`None`) or must be ended. Its time counts from the helper's word that it starts.
    fn supervise(&mut self, wall: Duration) -> io::Result<Option<End>> {
        let mut deadline = Instant::now() + SETUP;
        let mut started = false;
        loop {
            let Some(patience) = deadline.checked_duration_since(Instant::now()) else {
                return Ok(Some(End::TimedOut));
            };
            if self.pipes.wait(Some(self.pidfd.as_fd()), patience)? {
                return Ok(None);
            }
            if self.pipes.stdout.overflowed {
                return Ok(Some(End::TooMuchOutput));
            }
            if !started && self.said(READY).is_some() {
                started = true;
                deadline = Instant::now() + wall;
            }
        }
    }

    /// Kills what is left and collects what it said.
    fn finish(mut self, ended: io::Result<Option<End>>) -> Result<Run, SandboxError> {
        // First the leader: were it still on its way to a session of its own, there would be no group to kill yet, and
        // it would start more.
        let killed = self.child.kill();
        // Before the leader is waited for, or its number could already be another's.
        let group = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let drained = self.pipes.drain();
        let status = self.child.wait().map_err(wrap("cannot wait for the helper"))?;
        killed.map_err(wrap("cannot kill the program"))?;
        if let Err(error) = group
            && error != rustix::io::Errno::SRCH
        {
            return Err(SandboxError::new("cannot kill the program's group", error));
        }
        drained.map_err(wrap("cannot read the program's output"))?;
        let ended = ended.map_err(wrap("cannot read the program's output"))?;
        self.outcome(ended.unwrap_or_else(|| end_of(status)))
    }

    fn outcome(self, end: End) -> Result<Run, SandboxError> {
        let failure = |text: &[u8]| SandboxError(String::from_utf8_lossy(text).into_owned());
        if let Some(text) = self.said(FAILED) {
            return Err(failure(text));
        }
        let Some(stdout) = self.said(READY) else {
            return Err(SandboxError::new("the helper ended before the program started", format_args!("{end:?}")));
        };
        if let Some(text) = after(stdout, &self.nonce, FAILED) {
            return Err(failure(text));
        }
        let end = if self.pipes.stdout.overflowed { End::TooMuchOutput } else { end };
        Ok(Run { end, stdout: stdout.to_vec(), stderr: self.pipes.stderr.kept })
    }

    fn said(&self, kind: u8) -> Option<&[u8]> {
        after(&self.pipes.stdout.kept, &self.nonce, kind)
    }
}

/// How a program ended that nobody ended.
pub(super) fn end_of(status: ExitStatus) -> End {
    match status.signal() {
        Some(libc::SIGXCPU) => End::TimedOut,
        Some(signal) => End::Signaled(signal),
        None => End::Exited(status.code().unwrap_or(0)),
    }
}

/// What follows the nonce and `kind` at the start of `output`.
fn after<'a>(output: &'a [u8], nonce: &str, kind: u8) -> Option<&'a [u8]> {
    output.strip_prefix(nonce.as_bytes())?.strip_prefix(&[kind])
}
