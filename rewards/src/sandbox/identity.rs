//! Whom a program runs as. Root gives each program a user id that nobody has; others keep theirs.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::SandboxError;

/// The ids that systemd keeps for services without a user of their own: no account has them.
const FIRST_UID: u32 = 61184;
const UIDS: u32 = 4336;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The user id for the next program, where this process is root. Programs with ids of their own cannot signal each
/// other, and their processes are counted apart.
pub(super) fn fresh_uid() -> Option<u32> {
    let offset = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % UIDS;
    rustix::process::geteuid().is_root().then_some(FIRST_UID + offset)
}

/// Becomes that user, for good.
pub(super) fn become_uid(uid: u32) -> Result<(), SandboxError> {
    let failed = |error| SandboxError::new(format_args!("cannot become user {uid}"), error);
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    set_thread_groups(&[]).map_err(failed)?;
    set_thread_res_gid(group, group, group).map_err(failed)?;
    set_thread_res_uid(user, user, user).map_err(failed)?;
    // A change of user hides /proc/self from the process itself, which it still needs.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed)
}

/// Root in a namespace would get its capabilities back when it becomes the program; without this set it does not.
pub(super) fn forget_capabilities() -> Result<(), SandboxError> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // Newer than this kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(SandboxError::new("cannot drop capabilities", error)),
        }
    }
    Ok(())
}
