//! Lines to and from a worker process, with a deadline and a cap, in one thread: what is still to be written leaves
//! while answers are awaited, so neither side can wait for the other for ever. Knows nothing of what the lines say.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Process;

/// A line of more bytes than this is junk.
const MAX_LINE: usize = 1 << 20;

/// Why no line came.
#[derive(Debug)]
pub(crate) enum NoLine {
    /// The deadline passed.
    Late,
    /// The worker closed its output; how it ended, in words.
    Closed(String),
    /// The line is longer than [`MAX_LINE`].
    TooLong,
}

/// Both pipes of a worker.
pub(crate) struct Channel {
    process: Process,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that have left.
    sent: usize,
    incoming: Vec<u8>,
    /// Where the first line of `incoming` that was not taken begins.
    taken: usize,
    /// Bytes of `incoming` known to hold no line end after `taken`.
    searched: usize,
}

impl Channel {
    pub(crate) fn new(process: Process) -> Self {
        Self { process, outgoing: Vec::new(), sent: 0, incoming: Vec::new(), taken: 0, searched: 0 }
    }

    /// Lines that leave while answers are awaited.
    pub(crate) fn send<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        self.outgoing.drain(..self.sent);
        self.sent = 0;
        for line in lines {
            self.outgoing.extend_from_slice(line.as_bytes());
            self.outgoing.push(b'\n');
        }
    }

    /// The next line, without its end.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<&[u8], NoLine> {
        loop {
            let end = self.incoming[self.searched..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let line = self.taken..self.searched + end;
                self.taken = line.end + 1;
                self.searched = self.taken;
                return Ok(&self.incoming[line]);
            }
            self.searched = self.incoming.len();
            if self.searched - self.taken > MAX_LINE {
                return Err(NoLine::TooLong);
            }
            self.transfer(deadline)?;
        }
    }

    /// Whether the worker has said more than was taken.
    pub(crate) fn has_more(&mut self) -> bool {
        self.taken < self.incoming.len() || self.read().is_ok_and(|bytes| bytes > 0)
    }

    /// Waits until something can be read or written, and does it.
    fn transfer(&mut self, deadline: Instant) -> Result<(), NoLine> {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(NoLine::Late)?;
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let Process { stdin, stdout, .. } = &self.process;
        let mut both = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN), PollFd::new(stdin, PollFlags::OUT)];
        let pending = self.sent < self.outgoing.len();
        match poll(&mut both[..1 + usize::from(pending)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(NoLine::Closed(format!("cannot be listened to: {error}"))),
        }
        let [readable, writable] = both.map(|fd| !fd.revents().is_empty());
        if pending && writable {
            self.write();
        }
        if readable {
            match self.read() {
                Ok(0) => return Err(NoLine::Closed(self.end())),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(NoLine::Closed(format!("cannot be read from: {error}"))),
            }
        }
        Ok(())
    }

    fn write(&mut self) {
        match self.process.stdin.write(&self.outgoing[self.sent..]) {
            Ok(bytes) => self.sent += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It reads no more. Whether it has answered all the same, its output will tell.
            Err(_) => self.sent = self.outgoing.len(),
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        self.incoming.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        let held = self.incoming.len();
        self.incoming.resize(held + (1 << 16), 0);
        let result = self.process.stdout.read(&mut self.incoming[held..]);
        self.incoming.truncate(held + result.as_ref().map_or(0, |bytes| *bytes));
        result
    }

    fn end(&mut self) -> String {
        match self.process.kill() {
            Ok(status) => format!("ended ({status})"),
            Err(error) => format!("ended ({error})"),
        }
    }
}
