//! The file tree of level S2: an empty file system in memory, with the folders that a program may read grafted in.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::pivot_root;

use super::SandboxError;
use super::files::DEVICES;

/// The folder that a program starts in.
pub(super) const HOME: &str = "/box";

/// Files and folders that fit; a limit of bytes alone does not bound them.
const INODES: u32 = 16_384;

/// Makes `point`, an empty folder, the root of a new tree that holds `readable` and [`HOME`], the folder that this
/// process is in from then on. Needs a mount namespace of its own.
pub(super) fn enter(point: &Path, readable: &[PathBuf], bytes: u64) -> Result<PathBuf, SandboxError> {
    let failed = |what: &'static str| move |error| SandboxError::new(what, error);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("cannot part from the mounts outside"))?;
    let options =
        std::ffi::CString::new(home_options(bytes)).map_err(|error| SandboxError::new("mount options", error))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", point, "tmpfs", flags, Some(&*options)).map_err(failed("cannot mount a file system in memory"))?;
    let devices = DEVICES.map(PathBuf::from);
    for (index, path) in readable.iter().chain(&devices).enumerate() {
        let present = readable.iter().take(index).any(|earlier| path.starts_with(earlier));
        if !present {
            graft(point, path)
                .map_err(|error| SandboxError::new(format_args!("cannot mount {}", path.display()), error))?;
        }
    }
    fs::create_dir(point.join(&HOME[1..])).map_err(|error| SandboxError::new("cannot make a folder", error))?;
    std::env::set_current_dir(point).map_err(|error| SandboxError::new("cannot enter the new root", error))?;
    // The old root lands on top of the new one, and leaves.
    pivot_root(".", ".").map_err(failed("cannot change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("cannot leave the old root"))?;
    std::env::set_current_dir(HOME).map_err(|error| SandboxError::new("cannot enter the new root", error))?;
    Ok(HOME.into())
}

/// Of a file system in memory that holds up to `bytes`.
pub(super) fn home_options(bytes: u64) -> String {
    format!("mode=755,size={bytes},nr_inodes={INODES}")
}

/// Makes the tree that [`enter`] entered read-only, for processes that get a folder of their own on [`HOME`].
pub(super) fn seal() -> Result<(), SandboxError> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, "").map_err(|error| SandboxError::new("cannot make the tree read-only", error))
}

/// Shows `path` at the same place beneath `point`; a path that does not exist is left out.
fn graft(point: &Path, path: &Path) -> std::io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let target = point.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if meta.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(path)?, target);
    }
    if meta.is_dir() {
        fs::create_dir_all(&target)?;
        mount_bind_recursive(path, &target)?;
    } else {
        fs::File::create(&target)?;
        mount_bind(path, &target)?;
        if !meta.is_file() {
            return Ok(());
        }
    }
    // A namespace may not lift what the mount forbids, so that is kept.
    let kept = match statvfs(path)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        true => MountFlags::NOEXEC,
        false => MountFlags::empty(),
    };
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | kept;
    Ok(mount_remount(&target, flags, "")?)
}
