//! What a prepared interpreter is told at its start: the numbers of system calls and the bytes that the kernel takes,
//! so that `server.py` applies the layers of level S2 without knowing them.

use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, Scope};
use nix::sched::CloneFlags;
use serde::Serialize;

use super::files::DEVICES;
use super::root::{HOME, home_options};
use super::{Level, Limits, SandboxError, calls};

/// The process number of a script, process 1 of its namespace.
const FIRST: u32 = 1;

/// In the words of `server.py`.
#[derive(Serialize)]
struct Plan<'a> {
    scripts: &'a [&'a str],
    calls: Calls,
    /// Of each script, beside its own processes.
    spaces: i32,
    processes: i32,
    home: &'a str,
    /// Of the file system in memory that is a script's folder.
    flags: u32,
    options: String,
    /// Number, soft and hard limit.
    limits: Vec<(u32, u64, u64)>,
    options_of_process: [[i32; 5]; 2],
    /// Attributes of `landlock_create_ruleset`, for the newest kernels at first.
    rulesets: Vec<String>,
    rules: Vec<(&'a str, u64)>,
    seccomp: String,
}

#[derive(Serialize)]
struct Calls {
    unshare: i64,
    setns: i64,
    mount: i64,
    capset: i64,
    prctl: i64,
    seccomp: i64,
    landlock_create_ruleset: i64,
    landlock_add_rule: i64,
    landlock_restrict_self: i64,
}

const CALLS: Calls = Calls {
    unshare: libc::SYS_unshare,
    setns: libc::SYS_setns,
    mount: libc::SYS_mount,
    capset: libc::SYS_capset,
    prctl: libc::SYS_prctl,
    seccomp: libc::SYS_seccomp,
    landlock_create_ruleset: libc::SYS_landlock_create_ruleset,
    landlock_add_rule: libc::SYS_landlock_add_rule,
    landlock_restrict_self: libc::SYS_landlock_restrict_self,
};

/// The plan for `scripts` under `limits`, as JSON.
pub(super) fn plan(scripts: &[&str], limits: Limits) -> Result<String, SandboxError> {
    let all = AccessFs::from_all(ABI::V5);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut rules = vec![("/", AccessFs::from_read(ABI::V5).bits()), (HOME, all.bits())];
    rules.extend(DEVICES.map(|path| (path, device.bits())));
    let plan = Plan {
        scripts,
        calls: CALLS,
        spaces: (CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).bits(),
        processes: CloneFlags::CLONE_NEWPID.bits(),
        home: HOME,
        flags: rustix::mount::MountFlags::NOSUID.union(rustix::mount::MountFlags::NODEV).bits(),
        options: home_options(limits.file_bytes()),
        limits: limits.all(limits.process_limit(Level::S2, true)).map(numbered).to_vec(),
        options_of_process: [[libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0], [libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0]],
        rulesets: rulesets(),
        rules,
        seccomp: hex(&calls::bytes(false, FIRST)?),
    };
    serde_json::to_string(&plan).map_err(|error| SandboxError::new("cannot write the plan", io::Error::from(error)))
}

fn numbered((resource, soft, hard): (rustix::process::Resource, u64, u64)) -> (u32, u64, u64) {
    (resource as u32, soft, hard)
}

/// Of each version of Landlock what it knows, as `files` asks for it.
fn rulesets() -> Vec<String> {
    let versions = [ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1];
    let attributes = versions.map(|version| {
        let files: BitFlags<AccessFs> = AccessFs::from_all(version.min(ABI::V5));
        let net: BitFlags<AccessNet> = AccessNet::from_all(version.min(ABI::V4));
        let scope: BitFlags<Scope> = Scope::from_all(version);
        let fields = [files.bits(), net.bits(), scope.bits()];
        let known = match version {
            ABI::V1 | ABI::V2 | ABI::V3 => 1,
            ABI::V4 | ABI::V5 => 2,
            _ => 3,
        };
        hex(&fields[..known].iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<_>>())
    });
    attributes.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
