//! Files and folders that appear on disk whole or not at all.
//!
//! What is written has a hidden name until every byte of it is on the disk; then it is renamed, so a power cut or a full
//! disk leaves what stood there before. Knows nothing of runs: [`crate::checkpoint`] says what is written where.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes the folder `path`: `fill` puts files into the folder it is given, which then becomes `path`.
///
/// Nothing is to be seen there until every file is on the disk. An existing folder is replaced. If `fill` or the disk
/// fails, what was written is removed and everything beside it stays.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (root, name) = split(path)?;
    fs::create_dir_all(root).with_context(|| format!("cannot create {root:?}"))?;
    remove_leftovers(root, |of| of == name)?;
    let partial = Partial { path: hidden(root, name, TEMPORARY) };
    let outcome = fs::create_dir(&partial.path)
        .map_err(anyhow::Error::from)
        .and_then(|()| fill(&partial.path))
        .and_then(|()| Ok(sync_all(&partial.path)?))
        .and_then(|()| Ok(put_in_place(root, name, &partial.path)?));
    outcome.map_err(|error| explain(error, path))
}

/// Puts files into the folder `root`, which stays: `fill` writes them into the folder that it is given, and when all of
/// them are on the disk each takes the place of the one of its name.
pub fn put_files(root: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = Partial { path: hidden(root, "files", TEMPORARY) };
    let write = || {
        fs::create_dir(&partial.path)?;
        fill(&partial.path)?;
        sync_all(&partial.path)?;
        for path in entries(&partial.path)? {
            if let Some(name) = path.file_name() {
                fs::rename(&path, root.join(name))?;
            }
        }
        Ok(sync_folder(root)?)
    };
    write().map_err(|error| explain(error, root))
}

/// Writes one file so that `path` holds either its old content or all of `bytes`, whatever happens meanwhile.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fill_file(path, |file| Ok(file.write_all(bytes)?))
}

/// The same with what `fill` writes into the file that it is given.
pub fn fill_file(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let (root, name) = split(path)?;
    let partial = Partial { path: hidden(root, name, TEMPORARY) };
    let write = || {
        let mut file = File::create(&partial.path)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&partial.path, path)?;
        Ok(sync_folder(root)?)
    };
    write().map_err(|error| explain(error, path))
}

/// A file's text, or an error that names it.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Removes a folder and all that is in it. It is hidden first: half of it never stands under its name.
pub fn remove_folder(path: &Path) -> Result<()> {
    let (root, name) = split(path)?;
    let doomed = hidden(root, name, TEMPORARY);
    let removed = fs::rename(path, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
    removed.with_context(|| format!("cannot remove {path:?}"))
}

/// Clears `root` of what interrupted writes left. No other process may be writing there.
pub fn tidy(root: &Path) -> Result<()> {
    remove_leftovers(root, |_| true)
}

/// The paths of everything in `folder`, hidden or not, in no order.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().with_context(|| format!("cannot read the folder {folder:?}"))
}

/// The folder that `path` is in, and its name there.
fn split(path: &Path) -> Result<(&Path, &str)> {
    let name = path.file_name().and_then(OsStr::to_str);
    let name = name.with_context(|| format!("{path:?} does not name a file or a folder that can be written"))?;
    Ok((path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), name))
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
        let paths = entries(folder).unwrap();
        let mut names: Vec<_> =
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Writes the folder `root/a`, with one file in it.
    fn write(root: &Path, text: &str) {
        write_folder(&root.join("a"), |folder| Ok(fs::write(folder.join("text"), text)?)).unwrap();
    }

    #[test]
    fn a_folder_appears_only_when_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        write_folder(&path, |folder| {
            fs::create_dir(folder.join("model"))?;
            fs::write(folder.join("model/weights"), "1")?;
            assert!(!path.exists(), "visible before it is complete");
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read_to_string(path.join("model/weights")).unwrap(), "1");
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_folder_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "old");
        let error = write_folder(&root.path().join("a"), |folder| {
            fs::write(folder.join("text"), "half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        });
        let message = error.unwrap_err().to_string();
        assert!(message.contains("/a\"") && message.contains("the disk is full"), "{message}");
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(fs::read_to_string(root.path().join("a/text")).unwrap(), "old");
    }

    #[test]
    fn files_take_the_place_of_those_of_their_names_when_all_are_written() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "old").unwrap();
        fs::write(root.path().join("b"), "stays").unwrap();
        let put = |text: &'static str, outcome: Result<()>| {
            put_files(root.path(), |folder| {
                fs::write(folder.join("a"), text)?;
                outcome
            })
        };
        assert!(put("half", Err(anyhow::anyhow!("no"))).is_err());
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "old");
        put("new", Ok(())).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "new");
        let mut left = names(root.path());
        left.sort();
        assert_eq!(left, ["a", "b"]);
    }

    #[test]
    fn a_panic_while_writing_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let outcome = std::panic::catch_unwind(|| write_folder(&root.path().join("a"), |_| panic!("a bug")));
        assert!(outcome.is_err() && names(root.path()).is_empty());
    }

    #[test]
    fn a_folder_of_the_same_name_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "old");
        write_folder(&root.path().join("a"), |folder| Ok(fs::write(folder.join("new"), "")?)).unwrap();
        assert_eq!((names(root.path()), names(&root.path().join("a"))), (vec!["a".into()], vec!["new".into()]));
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_by_the_next_write() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".a.tmp-1")).unwrap();
        write(root.path(), "new");
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_replaced_folder_whose_successor_never_came_is_put_back() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "old");
        fs::rename(root.path().join("a"), root.path().join(".a.old-1")).unwrap();
        fs::create_dir(root.path().join(".a.tmp-1")).unwrap();
        tidy(root.path()).unwrap();
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        write_file(&path, b"a longer text").unwrap();
        write_file(&path, b"short").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(root.path())), (b"short".to_vec(), vec!["config.toml".to_owned()]));
        assert!(write_file(&root.path().join("absent/x"), b"").is_err());
        assert!(write_file(Path::new("/"), b"").unwrap_err().to_string().contains("does not name a file"));
    }
}
