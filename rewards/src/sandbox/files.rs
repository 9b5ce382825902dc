//! The Landlock layer: which files a program reaches, at whatever path it finds them.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};

use super::SandboxError;

/// What programs of any kind read: libraries, interpreters, compilers. Nothing of a user's.
pub(super) const SYSTEM: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"];

/// Devices that hold no one's data.
pub(super) const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Restricts this process, for good, to reading `readable` and [`DEVICES`] and to writing beneath `writable`.
/// Connections and signals to processes outside are refused too, where the kernel knows these rules.
pub(super) fn restrict(readable: &[PathBuf], writable: &Path) -> Result<(), SandboxError> {
    let failed = |error: RulesetError| SandboxError::new("landlock", error);
    // Of each set, what the kernel knows is enforced; the system-call filter covers the rest.
    let all = AccessFs::from_all(ABI::V5);
    let devices = AccessFs::ReadFile | AccessFs::WriteFile;
    let status = Ruleset::default()
        .handle_access(all)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V4)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.add_rules(path_beneath_rules(readable, AccessFs::from_read(ABI::V5))))
        .and_then(|rules| rules.add_rules(path_beneath_rules(DEVICES, devices)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([writable], all)))
        .and_then(|rules| rules.restrict_self())
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError(
            "landlock: this kernel has none; it needs Linux 5.13 with `landlock` in the boot parameter `lsm`".into(),
        )),
        _ => Ok(()),
    }
}
