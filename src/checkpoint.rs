//! Folders that appear on disk whole or not at all, and the folder of a run that holds them.
//!
//! A checkpoint is filled in a hidden folder, flushed to the disk and then renamed, so a power cut or a full disk leaves
//! the earlier checkpoints as they were. What goes into the checkpoint of a trainer is [`state`]'s.

pub mod state;
pub mod tensors;

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

/// The folder of one run, locked against a second process for as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The operating system frees the lock when the process ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Starts a run in `path`, which must not exist yet or be empty.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        refuse_used(&path)?;
        fs::create_dir_all(&path).with_context(|| format!("cannot create the run folder {path:?}"))?;
        let lock = lock(&path)?;
        // Another process may have used the folder and left between the first look and the lock.
        refuse_used(&path)?;
        let run = Self { path, _lock: lock };
        for folder in [run.rollouts(), run.checkpoints()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
        }
        Ok(run)
    }

    /// Opens the run in `path` to continue it, and clears away what an interrupted write left there.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            bail!("there is no run in {path:?} to resume: check the path, or start one with --out");
        }
        let lock = lock(&path)?;
        let run = Self { path, _lock: lock };
        for folder in [run.rollouts(), run.checkpoints()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
            tidy(&folder)?;
        }
        tidy(&run.path)?;
        Ok(run)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration of the run.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// One record a step; see [`crate::metrics`].
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The held-out evaluation before the first step.
    pub fn before(&self) -> PathBuf {
        self.path.join("before.json")
    }

    /// The folder of the recorded rollouts.
    pub fn rollouts(&self) -> PathBuf {
        self.path.join("rollouts")
    }

    /// The folder of the checkpoints, one folder a saved step.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}

const LOCK: &str = "lock";

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

/// Writes the folder `root/name`: `fill` puts files into the folder it is given, which then becomes `root/name`.
///
/// Nothing of that name is to be seen until every file is on the disk. An existing folder of that name is replaced. If
/// `fill` or the disk fails, what was written is removed and everything else in `root` stays.
pub fn write(root: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {root:?}"))?;
    remove_leftovers(root, |of| of == name)?;
    let target = root.join(name);
    let partial = Partial { path: hidden(root, name, TEMPORARY) };
    let outcome = fs::create_dir(&partial.path)
        .map_err(anyhow::Error::from)
        .and_then(|()| fill(&partial.path))
        .and_then(|()| Ok(sync_all(&partial.path)?))
        .and_then(|()| Ok(put_in_place(root, name, &partial.path)?));
    outcome.map_err(|error| explain(error, &target))?;
    Ok(target)
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
    for (step, path) in old.into_iter().filter(|(step, _)| Some(*step) != best) {
        // Hidden first: a half-removed folder must not look like a checkpoint.
        let doomed = hidden(root, &step_name(step), TEMPORARY);
        let removed = fs::rename(&path, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
        removed.with_context(|| format!("cannot remove the old checkpoint {path:?}"))?;
    }
    Ok(())
}

/// Writes one file so that `path` holds either its old content or all of `bytes`, whatever happens meanwhile.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(OsStr::to_str).with_context(|| format!("{path:?} does not name a file"))?;
    let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let partial = Partial { path: hidden(root, name, TEMPORARY) };
    let outcome = File::create(&partial.path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial.path, path))
        .and_then(|()| sync_folder(root));
    outcome.map_err(|error| explain(error.into(), path))
}

/// Marks what is being written or removed: of no use after a crash.
const TEMPORARY: &str = "tmp";
/// Marks a complete folder that is being replaced: to be put back if its successor never arrived.
const REPLACED: &str = "old";

/// `root/.name.kind-PID`.
fn hidden(root: &Path, name: &str, kind: &str) -> PathBuf {
    root.join(format!(".{name}.{kind}-{}", std::process::id()))
}

/// The name and the kind that [`hidden`] made a file name from.
fn parse_hidden(path: &Path) -> Option<(&str, &str)> {
    let (stem, process) = path.file_name()?.to_str()?.strip_prefix('.')?.rsplit_once('-')?;
    process.parse::<u32>().ok()?;
    let (name, kind) = stem.rsplit_once('.')?;
    (!name.is_empty() && [TEMPORARY, REPLACED].contains(&kind)).then_some((name, kind))
}

/// A path that is removed when the write it belongs to ends, unless it was renamed before; a panic counts as an end.
struct Partial {
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // There is nobody to tell; a leftover is removed by the next write of the same name.
        let _ = remove(&self.path);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Renames `partial` to `root/name`. A folder cannot be renamed over a full one, so the old one steps aside first.
fn put_in_place(root: &Path, name: &str, partial: &Path) -> io::Result<()> {
    let (target, aside) = (root.join(name), hidden(root, name, REPLACED));
    let replaces = target.exists();
    if replaces {
        fs::rename(&target, &aside)?;
    }
    if let Err(error) = fs::rename(partial, &target) {
        if replaces {
            fs::rename(&aside, &target)?;
        }
        return Err(error);
    }
    sync_folder(root)?;
    if replaces { remove(&aside) } else { Ok(()) }
}

/// Clears `root` of what interrupted writes left. The caller holds the lock of the run.
fn tidy(root: &Path) -> Result<()> {
    remove_leftovers(root, |_| true)
}

/// Removes hidden leftovers of the names that `chosen` accepts, and puts back a replaced folder without a successor.
fn remove_leftovers(root: &Path, chosen: impl Fn(&str) -> bool) -> Result<()> {
    for path in entries(root)? {
        let Some((name, kind)) = parse_hidden(&path).filter(|(name, _)| chosen(name)) else { continue };
        let target = root.join(name);
        let outcome = if kind == REPLACED && !target.exists() { fs::rename(&path, target) } else { remove(&path) };
        outcome.with_context(|| format!("cannot clear away {path:?}, left by an interrupted write"))?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().with_context(|| format!("cannot read the folder {folder:?}"))
}

/// Flushes every file below `folder`, and the folder, to the disk.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::options().read(true).open(&path)?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Makes renames in `folder` last. Only Unix lets a folder be opened and flushed.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn explain(error: anyhow::Error, target: &Path) -> anyhow::Error {
    let is_full =
        |cause: &io::Error| [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&cause.kind());
    let full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_full);
    let way_out = if full { " (the disk is full: free some space and go on with --resume)" } else { "" };
    error
        .context(format!("could not write {target:?}; the partial copy was removed, earlier files are intact{way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = entries(folder)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn save(root: &Path, step: u64) {
        write(root, &step_name(step), |folder| Ok(fs::write(folder.join("step"), step.to_string())?)).unwrap();
    }

    #[test]
    fn a_checkpoint_appears_only_when_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let path = write(root, "step-000001", |folder| {
            fs::create_dir(folder.join("model"))?;
            fs::write(folder.join("model/weights"), "1")?;
            assert!(latest(root).unwrap().is_none(), "visible before it is complete");
            Ok(())
        });
        assert_eq!(fs::read_to_string(path.unwrap().join("model/weights")).unwrap(), "1");
        assert_eq!(names(root), ["step-000001"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_checkpoint_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        save(root, 7);
        let error = write(root, &step_name(7), |folder| {
            fs::write(folder.join("step"), "half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("step-000007") && message.contains("the disk is full"), "{message}");
        assert_eq!(names(root), ["step-000007"]);
        assert_eq!(fs::read_to_string(root.join("step-000007/step")).unwrap(), "7");
    }

    #[test]
    fn a_panic_while_writing_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let outcome = std::panic::catch_unwind(|| write(root.path(), "a", |_| panic!("a bug")));
        assert!(outcome.is_err() && names(root.path()).is_empty());
    }

    #[test]
    fn a_checkpoint_of_the_same_name_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        save(root.path(), 1);
        write(root.path(), &step_name(1), |folder| Ok(fs::write(folder.join("new"), "")?)).unwrap();
        assert_eq!(names(root.path()), ["step-000001"]);
        assert_eq!(names(&root.path().join("step-000001")), ["new"]);
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_by_the_next_write() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".step-000001.tmp-1")).unwrap();
        save(root.path(), 1);
        assert_eq!(names(root.path()), ["step-000001"]);
    }

    #[test]
    fn resuming_puts_back_a_checkpoint_that_lost_its_successor() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = RunFolder::create(root.path().join("run")).unwrap().checkpoints();
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
    fn a_file_is_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        write_file(&path, b"a longer text").unwrap();
        write_file(&path, b"short").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(root.path())), (b"short".to_vec(), vec!["config.toml".to_owned()]));
        assert!(write_file(&root.path().join("absent/x"), b"").is_err());
    }

    #[test]
    fn a_used_folder_is_refused_with_a_way_out() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        let run = RunFolder::create(&path).expect("a run that wrote nothing may be started again");
        write_file(&run.config(), b"seed = 1").unwrap();
        drop(run);
        let message = RunFolder::create(&path).unwrap_err().to_string();
        assert!(message.contains("--resume") && message.contains("--out"), "{message}");
        RunFolder::resume(&path).unwrap();
        assert!(RunFolder::resume(root.path().join("absent")).is_err());
    }

    #[test]
    fn a_run_in_use_is_locked_and_a_dead_process_holds_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let run = RunFolder::create(root.path()).unwrap();
        let message = RunFolder::resume(root.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
        drop(run);
        fs::write(root.path().join(LOCK), "999999").unwrap();
        RunFolder::resume(root.path()).unwrap();
    }
}
