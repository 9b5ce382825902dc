//! The helper: a process of our own that puts itself under every layer and becomes the program. At S2 there are two:
//! the outer one makes namespaces and waits, the inner one is process 1 in them.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::{env, fs};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use rustix::thread::set_no_new_privs;

use super::job::{FAILED, Job, MARKER, READY};
use super::{Level, Limits, SandboxError, calls, files, identity, root};

/// The program that calls [`helper`]; the link stays right if the file is replaced while it runs.
const THIS_PROGRAM: &str = "/proc/self/exe";

static HELPER: OnceLock<PathBuf> = OnceLock::new();

/// To be called first in `main`, before there are threads. In a process that was started as the helper it does the
/// helper's work and gives the exit code to return at once; in any other it remembers that this program has a helper.
#[must_use = "the exit code of a helper must be returned from main"]
pub fn helper() -> Option<ExitCode> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.first().is_none_or(|first| first != MARKER) {
        HELPER.get_or_init(|| THIS_PROGRAM.into());
        return None;
    }
    let [_, nonce, part, uid] = &arguments[..] else { return Some(ExitCode::FAILURE) };
    let (nonce, uid) = (nonce.to_string_lossy(), uid.to_string_lossy().parse().ok());
    let ended = match part.to_str() {
        Some(OUTER) => outer(&nonce, uid),
        _ => inner(&nonce, uid),
    };
    Some(ended.unwrap_or_else(|error| {
        say(&nonce, FAILED, &error.to_string());
        ExitCode::FAILURE
    }))
}

/// For programs whose `main` is not their own, such as tests: another program that calls [`helper`] serves as helper.
pub fn helper_at(program: impl Into<PathBuf>) {
    HELPER.get_or_init(|| program.into());
}

/// The command that starts a helper for a program at `level`.
pub(super) fn command(level: Level, nonce: &str, uid: Option<u32>) -> Result<Command, SandboxError> {
    let program = HELPER.get().ok_or_else(|| {
        SandboxError::new("this program has no helper", "call `reckon_rewards::sandbox::helper()` first in `main`")
    })?;
    Ok(part(program, nonce, if level == Level::S2 { OUTER } else { INNER }, uid))
}

const OUTER: &str = "outer";
const INNER: &str = "inner";

fn part(program: &Path, nonce: &str, name: &str, uid: Option<u32>) -> Command {
    let mut command = Command::new(program);
    command.args([MARKER, nonce, name, &uid.map_or("own".to_owned(), |uid| uid.to_string())]).env_clear();
    command
}

/// Makes the namespaces, starts the inner helper in them, and ends as it ends.
fn outer(nonce: &str, uid: Option<u32>) -> Result<ExitCode, SandboxError> {
    begin()?;
    let uid = namespaces(uid)?;
    let status = part(Path::new(THIS_PROGRAM), nonce, INNER, uid)
        .status()
        .map_err(|error| SandboxError::new("cannot start the inner helper", error))?;
    if let Some(signal) = status.signal().and_then(|signal| nix::sys::signal::Signal::try_from(signal).ok()) {
        // Rust's own handler of SIGSEGV steps aside the first time.
        let _ = nix::sys::signal::raise(signal);
        nix::sys::signal::raise(signal).map_err(|error| SandboxError::new("cannot end by a signal", error))?;
    }
    Ok(ExitCode::from(status.code().unwrap_or(1) as u8))
}

/// Real root makes namespaces outright and gives up being root in the inner helper. All others, and root in most
/// containers, need a user namespace; there the user is root in name only, and the id that is left to change is none.
fn namespaces(uid: Option<u32>) -> Result<Option<u32>, SandboxError> {
    let spaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    if uid.is_some() && unshare(spaces).is_ok() {
        return Ok(uid);
    }
    if let Some(uid) = uid {
        identity::become_uid(uid)?;
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(spaces | CloneFlags::CLONE_NEWUSER).map_err(|error| SandboxError::new("cannot make namespaces", error))?;
    let maps =
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| SandboxError::new(format_args!("cannot write {file}"), error))?;
    }
    Ok(None)
}

/// Applies the layers and becomes the program; returns only from a probe.
fn inner(nonce: &str, uid: Option<u32>) -> Result<ExitCode, SandboxError> {
    close_inherited().map_err(|error| SandboxError::new("cannot close inherited files", error))?;
    let job = read_job().map_err(|error| SandboxError::new("cannot read the job", error))?;
    let readable: Vec<PathBuf> = files::SYSTEM.iter().map(PathBuf::from).chain(job.readable).collect();
    let home = match job.level {
        Level::S2 => root::enter(&job.folder, &readable, job.limits.file_bytes())?,
        _ => {
            begin()?;
            env::set_current_dir(&job.folder).map_err(|error| SandboxError::new("cannot enter its folder", error))?;
            job.folder
        }
    };
    if job.serves {
        root::seal()?;
        say(nonce, READY, "");
        let ids = if uid.is_some() { "fresh" } else { "own" };
        return Err(become_program(&[&job.argv[..], &[ids.to_owned()]].concat(), &home));
    }
    write_files(&home, &job.files, uid).map_err(|error| SandboxError::new("cannot write its files", error))?;
    give_up_rights(job.level, job.limits, &home, &readable, uid)?;
    say(nonce, READY, "");
    if job.argv.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(become_program(&job.argv, &home)) }
}

/// Comes back only to say why it could not.
fn become_program(argv: &[String], home: &Path) -> SandboxError {
    let error = Command::new(&argv[0]).args(&argv[1..]).env_clear().envs(environment(home)).exec();
    SandboxError::new(format_args!("cannot start {}", argv[0]), error)
}

/// From here on nothing of the host is in reach; the order matters, for each layer forbids what the one before needs.
fn give_up_rights(
    level: Level,
    limits: Limits,
    home: &Path,
    readable: &[PathBuf],
    uid: Option<u32>,
) -> Result<(), SandboxError> {
    let processes = limits.process_limit(level, uid.is_none());
    if rustix::process::geteuid().is_root() {
        identity::forget_capabilities()?;
    }
    if let Some(uid) = uid {
        identity::become_uid(uid)?;
    }
    limits.apply(processes)?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| SandboxError::new("prctl", error))?;
    set_no_new_privs(true).map_err(|error| SandboxError::new("prctl", error))?;
    match level {
        Level::S0 => Ok(()),
        Level::S1 => files::restrict(readable, home).and_then(|()| calls::restrict(uid.is_none())),
        Level::S2 => files::restrict(&["/".into()], home).and_then(|()| calls::restrict(false)),
    }
}

/// All that a program finds in its environment. The same for every run, so that a program does the same in each.
fn environment(home: &Path) -> [(&'static str, OsString); 10] {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ("HOME", home.into()),
        ("TMPDIR", home.into()),
        ("LANG", "C.UTF-8".into()),
        ("TZ", "UTC".into()),
        ("PYTHONHASHSEED", "0".into()),
        ("PYTHONIOENCODING", "utf-8".into()),
        // Long integers become text and are read from it.
        ("PYTHONINTMAXSTRDIGITS", "0".into()),
        ("OMP_NUM_THREADS", "1".into()),
        ("OPENBLAS_NUM_THREADS", "1".into()),
    ]
}

/// A session of its own, to be killed as a whole, and the first to go when the machine runs out of memory.
fn begin() -> Result<(), SandboxError> {
    setsid().map_err(|error| SandboxError::new("cannot start a session", error))?;
    fs::write("/proc/self/oom_score_adj", "1000")
        .map_err(|error| SandboxError::new("cannot write oom_score_adj", error))
}

/// Whatever the host's libraries left open.
fn close_inherited() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name().to_string_lossy().parse().ok()));
    let open: Vec<Option<RawFd>> = open.collect::<io::Result<_>>()?;
    for fd in open.into_iter().flatten().filter(|fd| *fd > 2) {
        // The folder just read is among them, and closed.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Reads the frame without a buffer, which would swallow the program's own input.
fn read_job() -> io::Result<Job> {
    Job::read(fs::File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn write_files(home: &Path, files: &[(String, String)], uid: Option<u32>) -> io::Result<()> {
    let own = |path: &Path| std::os::unix::fs::chown(path, uid, uid);
    for (name, text) in files {
        fs::write(home.join(name), text)?;
        own(&home.join(name))?;
    }
    own(home)
}

fn say(nonce: &str, kind: u8, text: &str) {
    // Nobody is left to be told if this fails; the host sees that the helper ended without a word.
    let _ = rustix::io::write(io::stdout(), &[nonce.as_bytes(), &[kind], text.as_bytes()].concat());
}
