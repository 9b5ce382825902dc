//! The folder of a run, locked against a second process, and which checkpoints stand in it.
//!
//! What goes into the checkpoint of a trainer is [`state`]'s; that one appears whole or not at all is
//! [`disk`](crate::disk)'s.

pub mod state;
pub mod tensors;

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::disk::{entries, remove_folder, tidy};

/// The folder of one run, locked against a second process for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The operating system frees the lock when the process ends, however it ends. None where another rank has it.
    _lock: Option<File>,
}

impl RunFolder {
    /// Starts a run in `path`, which must not exist yet or be empty.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        refuse_used(&path)?;
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot create the run folder {path:?}: name one that can be written by --out"))?;
        let lock = lock(&path)?;
        // Another process may have used the folder and left between the first look and the lock.
        refuse_used(&path)?;
        let run = Self { path, _lock: Some(lock) };
        for folder in [run.rollouts(), run.path.join(EVALS), run.checkpoints()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
        }
        Ok(run)
    }

    /// Opens the run in `path` to continue it, and clears away what an interrupted write left there.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.join(CONFIG).is_file() {
            bail!("there is no run in {path:?} to resume: check the path, or start one with --out");
        }
        let lock = lock(&path)?;
        let run = Self { path, _lock: Some(lock) };
        for folder in [run.rollouts(), run.path.join(EVALS), run.checkpoints()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
            tidy(&folder)?;
        }
        tidy(&run.path)?;
        Ok(run)
    }

    /// Looks at a run that another process has resumed, to read it.
    pub fn look(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            bail!(
                "there is no run in {path:?} on this machine: all ranks read its folder, so it is to be on a file system of all"
            );
        }
        Ok(Self { path, _lock: None })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration of the run.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// One record for each step; see [`crate::metrics`].
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The held-out evaluation before the first step.
    pub fn before(&self) -> PathBuf {
        self.path.join("before.json")
    }

    /// The one after the last step, of a run that is over.
    pub fn after(&self) -> PathBuf {
        self.path.join("after.json")
    }

    /// The folder of the recorded rollouts.
    pub fn rollouts(&self) -> PathBuf {
        self.path.join("rollouts")
    }

    /// The held-out evaluation after `step` steps.
    pub fn eval(&self, step: u64) -> PathBuf {
        self.path.join(EVALS).join(format!("{}.json", step_name(step)))
    }

    /// What the run was started on.
    pub fn machine(&self) -> PathBuf {
        self.path.join("machine.json")
    }

    /// A few rollouts of the step just done, for who watches the run.
    pub fn live(&self) -> PathBuf {
        self.path.join("live.jsonl")
    }

    /// The folder of the checkpoints, one folder a saved step.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}

const CONFIG: &str = "config.toml";
const LOCK: &str = "lock";
/// The folder of the held-out evaluations.
const EVALS: &str = "evals";

/// An error if `path` holds anything but a lock and empty folders, which a run that failed at once leaves behind.
fn refuse_used(path: &Path) -> Result<()> {
    let holds_something = |entry: &Path| match fs::read_dir(entry) {
        Ok(mut below) => below.next().is_some(),
        Err(_) => entry.file_name() != Some(OsStr::new(LOCK)),
    };
    if path.exists() && entries(path)?.iter().any(|entry| holds_something(entry)) {
        bail!("{path:?} is not empty: pass --resume to continue the run in it, or another --out to start a new one");
    }
    Ok(())
}

/// Takes the lock of the run in `path`; the file says which process has it.
fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = open.with_context(|| format!("cannot open {name:?}"))?;
    match file.try_lock() {
        Ok(()) => {}
        // Some network file systems have no locks; a run there goes without.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(anyhow!(error).context(format!("cannot lock {name:?}"))),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Only for the message: an unreadable owner is not worth another error.
            let _ = file.read_to_string(&mut owner);
            bail!("{path:?} is in use by process {}: stop it first, or choose another --out", owner.trim());
        }
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()))?;
    Ok(file)
}

/// The folder name of the checkpoint after `step` steps, such as `step-000123`.
pub fn step_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The newest checkpoint in `root` with its step, or `None` if there is none.
pub fn latest(root: &Path) -> Result<Option<(u64, PathBuf)>> {
    Ok(steps(root)?.pop())
}

/// All checkpoints in `root`, in the order of their steps. A folder that does not exist holds none.
pub fn steps(root: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let step_of = |path: &Path| {
        let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let folders = entries(root)?.into_iter().filter(|path| path.is_dir());
    let mut found: Vec<(u64, PathBuf)> = folders.filter_map(|path| Some((step_of(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

/// Removes all checkpoints in `root` but the `keep_last` newest (the newest always stays) and that of step `best`.
pub fn prune(root: &Path, keep_last: usize, best: Option<u64>) -> Result<()> {
    let mut old = steps(root)?;
    old.truncate(old.len().saturating_sub(keep_last.max(1)));
    for (_, path) in old.iter().filter(|(step, _)| Some(*step) != best) {
        remove_folder(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{write_file, write_folder};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(folder)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The folder of a run that has written its config.
    fn begun(path: &Path) -> RunFolder {
        let run = RunFolder::create(path).unwrap();
        write_file(&run.config(), b"seed = 1").unwrap();
        run
    }

    fn save(root: &Path, step: u64) {
        write_folder(&root.join(step_name(step)), |folder| Ok(fs::write(folder.join("step"), "")?)).unwrap();
    }

    #[test]
    fn resuming_puts_back_a_checkpoint_that_lost_its_successor() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = begun(&root.path().join("run")).checkpoints();
        save(&checkpoints, 3);
        fs::rename(checkpoints.join("step-000003"), checkpoints.join(".step-000003.old-1")).unwrap();
        fs::create_dir(checkpoints.join(".step-000003.tmp-1")).unwrap();
        RunFolder::resume(root.path().join("run")).unwrap();
        assert_eq!(names(&checkpoints), ["step-000003"]);
        assert_eq!(latest(&checkpoints).unwrap().unwrap().0, 3);
    }

    #[test]
    fn latest_orders_by_number_and_ignores_other_names() {
        let root = tempfile::tempdir().unwrap();
        assert!(latest(&root.path().join("absent")).unwrap().is_none());
        for name in ["step-000009", "step-1000000", "step-999999", "step-x", "best", ".step-2000000.tmp-1"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("step-3000000"), "a file").unwrap();
        assert_eq!(latest(root.path()).unwrap(), Some((1_000_000, root.path().join("step-1000000"))));
    }

    #[test]
    fn prune_keeps_the_newest_and_the_best() {
        let root = tempfile::tempdir().unwrap();
        (1..=6).for_each(|step| save(root.path(), step));
        prune(root.path(), 2, Some(3)).unwrap();
        assert_eq!(names(root.path()), ["step-000003", "step-000005", "step-000006"]);
        prune(root.path(), 0, None).unwrap();
        assert_eq!(names(root.path()), ["step-000006"]);
    }

    #[test]
    fn a_used_folder_is_refused_with_a_way_out() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        assert!(RunFolder::resume(&path).is_err(), "there is nothing to go on with");
        // A run that wrote nothing may be started again.
        drop(begun(&path));
        let message = RunFolder::create(&path).unwrap_err().to_string();
        assert!(message.contains("--resume") && message.contains("--out"), "{message}");
        RunFolder::resume(&path).unwrap();
        assert!(RunFolder::resume(root.path().join("absent")).is_err());
    }

    #[test]
    fn a_run_in_use_is_locked_and_a_dead_process_holds_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let run = begun(root.path());
        let message = RunFolder::resume(root.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
        drop(run);
        fs::write(root.path().join(LOCK), "999999").unwrap();
        RunFolder::resume(root.path()).unwrap();
    }
}
