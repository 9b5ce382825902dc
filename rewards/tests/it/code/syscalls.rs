//! System calls that reach into the kernel or into other processes: each is tried and refused.

use reckon_rewards::sandbox::Level;
use serde_json::json;

use super::{judge, prints, verifier_at};

/// With the arguments of a call that would do something; `PARENT` is the number of the judging process.
const CALLS: &[(&str, libc::c_long, &str)] = &[
    ("ptrace(ATTACH)", libc::SYS_ptrace, "16, PARENT, 0, 0"),
    ("process_vm_readv", libc::SYS_process_vm_readv, "PARENT, buffer, 1, buffer, 1, 0"),
    ("process_vm_writev", libc::SYS_process_vm_writev, "PARENT, buffer, 1, buffer, 1, 0"),
    ("pidfd_open", libc::SYS_pidfd_open, "PARENT, 0"),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, "0, 0, 0"),
    ("kcmp", libc::SYS_kcmp, "PARENT, PARENT, 0, 0, 0"),
    ("tkill", libc::SYS_tkill, "PARENT, 0"),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, "PARENT, 0, buffer"),
    ("migrate_pages", libc::SYS_migrate_pages, "PARENT, 8, buffer, buffer"),
    ("unshare(NEWUSER)", libc::SYS_unshare, "0x10000000"),
    ("unshare(NEWNS)", libc::SYS_unshare, "0x00020000"),
    ("setns", libc::SYS_setns, "0, 0"),
    ("clone(NEWUSER)", libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
    ("clone(PARENT)", libc::SYS_clone, "0x00008011, 0, 0, 0, 0"),
    ("clone3", libc::SYS_clone3, "buffer, 88"),
    ("mount", libc::SYS_mount, "b'tmpfs', b'.', b'tmpfs', 0, 0"),
    ("umount2", libc::SYS_umount2, "b'/', 2"),
    ("pivot_root", libc::SYS_pivot_root, "b'.', b'.'"),
    ("chroot", libc::SYS_chroot, "b'.'"),
    ("open_tree", libc::SYS_open_tree, "-100, b'/', 1"),
    ("keyctl", libc::SYS_keyctl, "0, -3, 1"),
    ("add_key", libc::SYS_add_key, "b'user', b'x', b'x', 1, -3"),
    ("bpf", libc::SYS_bpf, "0, buffer, 64"),
    ("perf_event_open", libc::SYS_perf_event_open, "buffer, 0, -1, -1, 0"),
    ("io_uring_setup", libc::SYS_io_uring_setup, "8, buffer"),
    ("userfaultfd", libc::SYS_userfaultfd, "1"),
    ("memfd_create", libc::SYS_memfd_create, "b'x', 0"),
    ("shmget", libc::SYS_shmget, "0, 4096, 0o1600"),
    ("mq_open", libc::SYS_mq_open, "b'x', 0o102, 0o600, 0"),
    ("setsid", libc::SYS_setsid, ""),
    ("setpgid", libc::SYS_setpgid, "0, 0"),
    ("setuid", libc::SYS_setuid, "0"),
    ("capset", libc::SYS_capset, "buffer, buffer"),
    ("setxattr", libc::SYS_setxattr, "b'.', b'user.x', b'x', 1, 0"),
    ("mknodat", libc::SYS_mknodat, "-100, b'node', 0o10600, 0"),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, "-100, b'/', buffer, buffer, 0"),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, "-100, buffer, 0"),
    ("inotify_init1", libc::SYS_inotify_init1, "0"),
    ("fanotify_init", libc::SYS_fanotify_init, "0, 0"),
    ("landlock of its own", libc::SYS_landlock_create_ruleset, "0, 0, 1"),
    ("seccomp of its own", libc::SYS_seccomp, "2, 0, buffer"),
    ("init_module", libc::SYS_init_module, "buffer, 8, b''"),
    ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
    ("reboot", libc::SYS_reboot, "0xfee1dead, 672274793, 0, 0"),
    ("sendmsg", libc::SYS_sendmsg, "1, buffer, 0"),
    ("personality", libc::SYS_personality, "0x0040000"),
    ("prctl(PDEATHSIG)", libc::SYS_prctl, "1, 0, 0, 0, 0"),
    ("prctl(DUMPABLE)", libc::SYS_prctl, "4, 0, 0, 0, 0"),
];

#[test]
fn calls_into_the_kernel_are_refused() {
    let calls: Vec<_> =
        CALLS.iter().map(|(name, number, arguments)| format!("('{name}', ({number}, {arguments}))")).collect();
    // No call fails for a reason of its own: the filter answers all with the same error.
    let program = format!(
        "import ctypes, errno, sys
PARENT = {}
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)
def refused(call):
    ctypes.set_errno(0)
    return (libc.syscall(*call), ctypes.get_errno()) == (-1, errno.ENOSYS)
open = [name for name, call in [{}] if not refused(call)]
print('tried') if not open else sys.exit(str(open))",
        std::process::id(),
        calls.join(", ")
    );
    for level in [Level::S1, Level::S2] {
        let Some(code) = verifier_at(level, json!({})) else { continue };
        let verdict = judge(&code, prints("tried"), &program);
        assert!(verdict.passed(), "{level}: {}", verdict.reason);
    }
}
