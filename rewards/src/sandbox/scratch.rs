//! Empties the folder that a hostile program wrote into: folders that cannot be read, and trees too deep for recursion
//! or for a path.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long processes that were killed may still be dying, and writing.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Removes `folder` and all that it holds.
pub(super) fn remove(folder: TempDir) -> io::Result<()> {
    let path = folder.keep();
    let deadline = Instant::now() + AFTERMATH;
    loop {
        match empty(&path).and_then(|()| fs::remove_dir(&path)) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

/// Removes all that `folder` holds. Folders within folders are moved up until none is left, so no path grows.
fn empty(folder: &Path) -> io::Result<()> {
    let mut moved = 0u64;
    loop {
        let mut entries = fs::read_dir(folder)?.peekable();
        if entries.peek().is_none() {
            return Ok(());
        }
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            unlock(&entry.path())?;
            for child in fs::read_dir(entry.path())? {
                let child = child?;
                if child.file_type()?.is_dir() {
                    // Moving a folder writes to it, for it names its parent.
                    unlock(&child.path())?;
                    fs::rename(child.path(), fresh(folder, &mut moved))?;
                } else {
                    fs::remove_file(child.path())?;
                }
            }
            fs::remove_dir(entry.path())?;
        }
    }
}

/// A name that nothing in `folder` has.
fn fresh(folder: &Path, moved: &mut u64) -> PathBuf {
    loop {
        *moved += 1;
        let path = folder.join(format!("moved-{moved}"));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
    }
}

fn unlock(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_with_locked_folders_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let at = |depth: usize| dir.path().join("d/".repeat(depth));
        fs::create_dir_all(at(500)).unwrap();
        fs::write(at(500).join("f"), "x").unwrap();
        fs::write(dir.path().join("moved-1"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", at(3).join("link")).unwrap();
        fs::set_permissions(at(500), Permissions::from_mode(0o300)).unwrap();
        fs::set_permissions(at(2), Permissions::from_mode(0o000)).unwrap();
        let path = dir.path().to_owned();
        remove(dir).unwrap();
        assert!(!path.exists());
        assert!(Path::new("/etc").exists());
    }
}
