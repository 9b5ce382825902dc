//! The host's side of a prepared interpreter, which runs scripts of level S2 one after the other: starts it, gives it
//! orders, reads what comes of them. What happens inside is `server.py`.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;

use super::host::{SETUP, end_of, nonce};
use super::job::{Job, READY, framed};
use super::pipes::Pipes;
use super::plan::plan;
use super::{End, Run, Sandbox, SandboxError, helper, identity};

/// What runs in the interpreter.
const SERVER: &str = include_str!("server.py");

/// The bytes of an order, which its three pipes travel with.
const ORDER: usize = 16;

/// What a child reads on its standard input before the program's own.
#[derive(Serialize)]
pub(super) struct Order<'a> {
    /// Which of the scripts that the interpreter was prepared with.
    pub(super) script: usize,
    pub(super) arguments: &'a [&'a str],
    pub(super) files: &'a [(&'a str, &'a str)],
}

/// A prepared interpreter. Dropping it kills all that runs in it.
#[derive(Debug)]
pub(super) struct Server {
    /// The outer helper, whose inner one became the interpreter.
    child: Child,
    control: UnixStream,
    /// What it said and nobody has heard.
    heard: Vec<u8>,
}

/// What came of an order.
pub(super) enum Served {
    /// The program ended by itself, and the interpreter waits for the next.
    Ended(Run),
    /// It had to be ended, and the interpreter with it.
    Killed(Run),
}

impl Server {
    /// Starts the interpreter `argv` in a tree of files of its own, with `scripts`.
    pub(super) fn start(sandbox: &Sandbox, argv: &[String], scripts: &[&str]) -> Result<Self, SandboxError> {
        let failed = |error: io::Error| SandboxError::new("cannot prepare an interpreter", error);
        let folder = tempfile::Builder::new().prefix("reckon-").tempdir().map_err(failed)?;
        let more = ["-c".to_owned(), SERVER.to_owned(), plan(scripts, sandbox.limits)?];
        let job = Job {
            level: sandbox.level,
            limits: sandbox.limits,
            readable: sandbox.readable.clone(),
            folder: folder.path().into(),
            files: Vec::new(),
            argv: [argv, &more].concat(),
            serves: true,
        };
        let nonce = nonce()?;
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = helper::command(sandbox.level, &nonce, identity::fresh_uid())?;
        let input: OwnedFd = theirs.try_clone().map_err(failed)?.into();
        command.stdin(input).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // The command holds their end too, and an interpreter that ends early would not be noticed.
        drop(command);
        let mut server = Self { child, control, heard: Vec::new() };
        server.begin(&job, &nonce).map_err(failed)?;
        // Its tree is a mount of its own by now, which does not need the folder.
        folder.close().map_err(failed)?;
        Ok(server)
    }

    fn begin(&mut self, job: &Job, nonce: &str) -> io::Result<()> {
        io::Write::write_all(&mut self.control, &job.frame()?)?;
        self.control.set_read_timeout(Some(SETUP))?;
        let ready = [nonce.as_bytes(), &[READY], b"ready\n"].concat();
        let mut said = vec![0; ready.len()];
        let heard = self.control.read_exact(&mut said);
        self.control.set_nonblocking(true)?;
        match heard {
            Ok(()) if said == ready => Ok(()),
            _ => Err(io::Error::other(String::from_utf8_lossy(&said[nonce.len() + 1..]).trim_matches('\0').to_owned())),
        }
    }

    /// Runs a script to its end. After an error, or a program that was killed, the server is of no more use.
    pub(super) fn run(&mut self, sandbox: &Sandbox, order: &Order, input: &[u8]) -> Result<Served, SandboxError> {
        let failed = |error: io::Error| SandboxError::new("cannot reach the prepared interpreter", error);
        let frame = serde_json::to_vec(order).map_err(|error| failed(error.into()))?;
        let input = [framed(&frame), input.to_vec()].concat();
        let pipes = self.send(input, sandbox.limits.output_bytes()).map_err(failed)?;
        self.supervise(pipes, sandbox.limits.wall())
    }

    /// Sends an order with the program's ends of its standard streams.
    fn send(&self, input: Vec<u8>, limit: usize) -> io::Result<Pipes> {
        let ((their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr)) =
            (io::pipe()?, io::pipe()?, io::pipe()?);
        let theirs = [their_stdin.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut buffer = SendAncillaryBuffer::new(&mut space);
        buffer.push(SendAncillaryMessage::ScmRights(&theirs));
        let order = format!("{:0ORDER$}", identity::fresh_uid().unwrap_or(0));
        sendmsg(&self.control, &[IoSlice::new(order.as_bytes())], &mut buffer, SendFlags::NOSIGNAL)?;
        Pipes::new([stdin.into(), stdout.into(), stderr.into()], input, limit)
    }

    fn supervise(&mut self, mut pipes: Pipes, wall: Duration) -> Result<Served, SandboxError> {
        let failed = |error: io::Error| SandboxError::new("cannot reach the prepared interpreter", error);
        let mut deadline = Instant::now() + SETUP;
        loop {
            let patience = deadline.checked_duration_since(Instant::now());
            if patience.is_none() || pipes.stdout.overflowed {
                self.kill();
                pipes.drain().map_err(failed)?;
                let end = if pipes.stdout.overflowed { End::TooMuchOutput } else { End::TimedOut };
                return Ok(Served::Killed(pipes.into_run(end)));
            }
            if !pipes.wait(Some(self.control.as_fd()), patience.unwrap_or_default()).map_err(failed)? {
                continue;
            }
            while let Some(line) = self.line().map_err(failed)? {
                match line.split_once(' ') {
                    None if line == "ready" => deadline = Instant::now() + wall,
                    Some(("ended", status)) => {
                        let status = status.parse().map_err(|_| failed(io::Error::other(line.clone())))?;
                        pipes.drain().map_err(failed)?;
                        let end = if pipes.stdout.overflowed {
                            End::TooMuchOutput
                        } else {
                            end_of(ExitStatus::from_raw(status))
                        };
                        return Ok(Served::Ended(pipes.into_run(end)));
                    }
                    _ => return Err(failed(io::Error::other(line))),
                }
            }
        }
    }

    /// The next line that the interpreter, or its child before it runs a program, has said.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut chunk = [0; 4096];
        match self.control.read(&mut chunk) {
            Ok(0) => return Err(io::Error::other(format!("it ended: {}", String::from_utf8_lossy(&self.heard)))),
            Ok(read) => self.heard.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = self.heard.drain(..=end).collect::<Vec<_>>();
        Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()))
    }

    fn kill(&mut self) {
        // Errors mean that nothing is left to kill. The leader goes first, or its inner helper could be on its way.
        let _ = self.child.kill();
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
