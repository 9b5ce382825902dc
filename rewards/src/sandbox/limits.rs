//! What a program may use, and the resource limits that say so to the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::{Level, SandboxError};

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processor time of each process, in seconds; the wall clock allows twice as much from the moment the program
    /// starts, so that a busy machine makes no timeouts.
    pub time_s: u32,
    /// Address space of each process, in MiB.
    pub memory_mb: u32,
    /// Size of each file, and at S2 of all files together, in MiB.
    pub file_mb: u32,
    /// Processes and threads at a time.
    pub processes: u32,
    /// Standard output, in KiB.
    pub output_kb: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time_s: 5, memory_mb: 2048, file_mb: 64, processes: 32, output_kb: 4096 }
    }
}

impl Limits {
    /// Why these cannot be limits.
    pub(crate) fn problem(&self) -> Option<String> {
        let all = [
            ("time_s", self.time_s),
            ("memory_mb", self.memory_mb),
            ("file_mb", self.file_mb),
            ("processes", self.processes),
            ("output_kb", self.output_kb),
        ];
        let zero = all.iter().find(|(_, value)| *value == 0);
        zero.map(|(name, _)| format!("`limits.{name} = 0` lets no program run; give it at least 1"))
    }

    pub(super) fn wall(&self) -> Duration {
        Duration::from_secs(2 * u64::from(self.time_s))
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output_kb as usize * 1024
    }

    pub(super) fn file_bytes(&self) -> u64 {
        u64::from(self.file_mb) << 20
    }

    /// Each resource with its soft and its hard limit.
    pub(super) fn all(&self, processes: u64) -> [(Resource, u64, u64); 7] {
        let time = u64::from(self.time_s);
        let memory = u64::from(self.memory_mb) << 20;
        let file = self.file_bytes();
        // Soft below hard: the first second too many is SIGXCPU, which says why. The first process of a namespace does
        // not get it, and others may ignore it: the host's clock ends those, as long as SIGKILL comes later.
        [
            (Resource::Cpu, time, 2 * time + 10),
            (Resource::Fsize, file, file),
            (Resource::Nproc, processes, processes),
            (Resource::Nofile, 64, 64),
            (Resource::Core, 0, 0),
            (Resource::Memlock, 0, 0),
            (Resource::As, memory, memory),
        ]
    }

    /// Applies them to this process and all that it starts.
    pub(super) fn apply(&self, processes: u64) -> Result<(), SandboxError> {
        for (resource, soft, hard) in self.all(processes) {
            setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
                .map_err(|error| SandboxError::new(format_args!("cannot limit {resource:?}"), error))?;
        }
        Ok(())
    }

    /// The kernel counts processes by user: a namespace and a user id of its own start at none, a shared user id at
    /// those that run already.
    pub(super) fn process_limit(&self, level: Level, shared_uid: bool) -> u64 {
        let running = if shared_uid && level < Level::S2 { running_tasks() } else { 0 };
        running + u64::from(self.processes)
    }
}

/// Threads of all processes of this user.
fn running_tasks() -> u64 {
    let mine = rustix::process::getuid().as_raw();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = processes.filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == mine));
    // A folder has a link for itself, one in its parent, and one for each folder in it.
    own.filter_map(|entry| fs::metadata(entry.path().join("task")).ok())
        .map(|task| task.nlink().saturating_sub(2))
        .sum()
}
