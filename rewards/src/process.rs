//! Child processes that can be stopped for good: each leads a process group of its own, talks through pipes that never
//! block, may be held to an amount of memory, and is killed with its whole group. What is said through the pipes is
//! left to the callers.

use std::io;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};

/// A running child with its group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Never blocks: a full pipe is [`io::ErrorKind::WouldBlock`].
    pub(crate) stdin: ChildStdin,
    /// Never blocks: an empty pipe is [`io::ErrorKind::WouldBlock`].
    pub(crate) stdout: ChildStdout,
}

impl Process {
    /// Starts `command`; its standard error stays as the caller set it. `memory` bounds its private memory, in bytes.
    pub(crate) fn spawn(command: &mut Command, memory: Option<u64>) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut child = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for as pipes")
        };
        let process = Self { child, stdin, stdout };
        if let Some(bytes) = memory {
            // The limit counts from now on, before the child has had time to take much. Private memory is limited
            // rather than address space, of which some runtimes reserve terabytes without using them.
            let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            match prlimit(Some(process.pid()), Resource::Data, limit) {
                // Gone already: its exit will tell more than this error.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        rustix::io::ioctl_fionbio(&process.stdin, true)?;
        rustix::io::ioctl_fionbio(&process.stdout, true)?;
        Ok(process)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills what is left of the group, and says how its leader ended. The leader is reaped here and nowhere before,
    /// so its number cannot have gone to another process.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        // An error means that nothing is left to kill.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
