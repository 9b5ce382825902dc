//! The host's ends of a program's standard streams: moved without blocking, read up to a limit.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{End, Run};

/// How long the streams of killed processes may take to close.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Standard error is for people: a traceback fits.
const STDERR_BYTES: usize = 64 << 10;

/// Standard input on its way in, standard output and error on their way out.
pub(super) struct Pipes {
    stdin: Option<File>,
    input: Vec<u8>,
    sent: usize,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
}

/// What was read of a stream.
pub(super) struct Capture {
    pipe: Option<File>,
    limit: usize,
    pub(super) kept: Vec<u8>,
    /// There was more than the limit; the rest is read and dropped.
    pub(super) overflowed: bool,
}

impl Pipes {
    /// Takes the pipes of `child`, which were asked for.
    pub(super) fn of(child: &mut Child, input: Vec<u8>, limit: usize) -> io::Result<Self> {
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for as pipes")
        };
        Self::new([stdin.into(), stdout.into(), stderr.into()], input, limit)
    }

    /// The host's ends of standard input, output and error: to send `input` and keep up to `limit` bytes of what is
    /// printed.
    pub(super) fn new([stdin, stdout, stderr]: [OwnedFd; 3], input: Vec<u8>, limit: usize) -> io::Result<Self> {
        Ok(Self {
            stdin: Some(open(stdin)?),
            input,
            sent: 0,
            stdout: Capture::new(open(stdout)?, limit),
            stderr: Capture::new(open(stderr)?, STDERR_BYTES),
        })
    }

    /// Reads on until the program and all that it started have let go of both outputs.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + AFTERMATH;
        while let Some(patience) = deadline.checked_duration_since(Instant::now())
            && (self.stdout.pipe.is_some() || self.stderr.pipe.is_some())
        {
            self.wait(None, patience)?;
        }
        Ok(())
    }

    /// What came of a program that ended so.
    pub(super) fn into_run(self, end: End) -> Run {
        Run { end, stdout: self.stdout.kept, stderr: self.stderr.kept }
    }

    /// Waits up to `patience` until something moves, and moves it, or until `process` ends. Says whether it has.
    pub(super) fn wait(&mut self, process: Option<BorrowedFd>, patience: Duration) -> io::Result<bool> {
        let mut polled: Vec<_> = process.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).into_iter().collect();
        for pipe in [&self.stdout.pipe, &self.stderr.pipe].into_iter().flatten() {
            polled.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(pipe) = &self.stdin {
            polled.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            result => result?,
        };
        let ended = process.is_some() && !polled[0].revents().is_empty();
        self.send()?;
        self.stdout.read()?;
        self.stderr.read()?;
        Ok(ended)
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(pipe) = &mut self.stdin {
            match pipe.write(&self.input[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // It need not read what it is given.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.sent = self.input.len(),
                Err(error) => return Err(error),
            }
            if self.sent == self.input.len() {
                self.stdin = None;
            }
        }
        Ok(())
    }
}

impl Capture {
    fn new(pipe: File, limit: usize) -> Self {
        Self { pipe: Some(pipe), limit, kept: Vec::new(), overflowed: false }
    }

    /// Reads what is there; a program that prints for ever gets no more than one turn.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.read(&mut chunk) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                let room = self.limit - self.kept.len();
                self.kept.extend_from_slice(&chunk[..read.min(room)]);
                self.overflowed |= read > room;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The pipe as a file that never blocks.
fn open(pipe: OwnedFd) -> io::Result<File> {
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
    Ok(File::from(pipe))
}
