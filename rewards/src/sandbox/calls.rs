//! The seccomp layer: which system calls a program may make. A list of what is allowed; the rest fail as if the kernel
//! did not know them, which is what libraries are prepared for.

use std::collections::BTreeMap;

use libc::*;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::SandboxError;

/// Allowed with any arguments. Absent on purpose: sockets, other processes (ptrace, process_vm_*, pidfd_*,
/// setpriority), leaving the process group (setsid, setpgid), namespaces and mounts, keys, bpf, perf, io_uring,
/// userfaultfd, memory outside the limits (memfd_create, shmget), and descriptors sent to others (sendmsg).
const FREE: &[i64] = &[
    // Open files.
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_lseek,
    SYS_close,
    SYS_close_range,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_fstat,
    SYS_fstatfs,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_flock,
    SYS_sendfile,
    SYS_copy_file_range,
    SYS_getdents64,
    // Paths; Landlock decides which.
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_linkat,
    SYS_symlinkat,
    SYS_umask,
    // Memory.
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_msync,
    SYS_mincore,
    SYS_membarrier,
    // Its own processes and threads.
    SYS_execve,
    SYS_execveat,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
    SYS_futex,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_getcpu,
    SYS_getpriority,
    SYS_setrlimit,
    SYS_getrlimit,
    SYS_getrusage,
    // Who it is.
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getpgid,
    SYS_getsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_capget,
    SYS_uname,
    SYS_sysinfo,
    // Its own signals, waiting, time, chance.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_times,
    SYS_getitimer,
    SYS_setitimer,
    SYS_getrandom,
    // The ends of a socket pair.
    SYS_recvfrom,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_getsockname,
];

/// What other processors never had.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_link,
    SYS_symlink,
    SYS_creat,
    SYS_getdents,
    SYS_dup2,
    SYS_pipe,
    SYS_poll,
    SYS_select,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_eventfd,
    SYS_fork,
    SYS_vfork,
    SYS_getpgrp,
    SYS_alarm,
    SYS_pause,
    SYS_time,
    SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Landlock does not watch these, so they are allowed only where no file of the user's is in reach.
const METADATA: &[i64] = &[SYS_fchmod, SYS_fchmodat, SYS_utimensat];
#[cfg(target_arch = "x86_64")]
const OLD_METADATA: &[i64] = &[SYS_chmod, SYS_utime, SYS_utimes];
#[cfg(not(target_arch = "x86_64"))]
const OLD_METADATA: &[i64] = &[];

/// Namespaces, and `CLONE_PARENT`, whose child would be the host's.
const CLONE_DENIED: c_int = CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
    | CLONE_PARENT
    | CLONE_PTRACE;

/// Not `F_SETOWN` or `F_SETSIG`: they send signals to processes of one's choice.
const FCNTL: &[c_int] = &[
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_GETFD,
    F_SETFD,
    F_GETFL,
    F_SETFL,
    F_GETLK,
    F_SETLK,
    F_SETLKW,
    F_OFD_GETLK,
    F_OFD_SETLK,
    F_OFD_SETLKW,
    F_GETPIPE_SZ,
];

/// Not `TIOCSTI`, which types into a terminal.
const IOCTL: &[Ioctl] = &[TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX];

const PRCTL: &[c_int] = &[PR_SET_NAME, PR_GET_NAME, PR_SET_VMA];

/// Restricts this process, for good. `own_files` says that files of the user who owns this process are in reach.
pub(super) fn restrict(own_files: bool) -> Result<(), SandboxError> {
    let failed = |error: &dyn std::fmt::Display| SandboxError::new("seccomp", error);
    // The process keeps its number when it becomes the program.
    let program = program(own_files, std::process::id()).map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

/// The filter that [`restrict`] applies, for the process of number `own`, as the kernel takes it.
pub(super) fn bytes(own_files: bool, own: u32) -> Result<Vec<u8>, SandboxError> {
    let program = program(own_files, own).map_err(|error| SandboxError::new("seccomp", error))?;
    let instruction = |filter: &sock_filter| {
        let [c, d] = filter.code.to_ne_bytes();
        let [k, l, m, n] = filter.k.to_ne_bytes();
        [c, d, filter.jt, filter.jf, k, l, m, n]
    };
    Ok(program.iter().flat_map(instruction).collect())
}

fn program(own_files: bool, own: u32) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [FREE, OLD].concat().into_iter().map(|c| (c, vec![])).collect();
    if !own_files {
        rules.extend([METADATA, OLD_METADATA].concat().into_iter().map(|call| (call, vec![])));
    }
    let own = u64::from(own);
    rules.insert(SYS_kill, vec![equal(0, own)?]);
    rules.insert(SYS_tgkill, vec![equal(0, own)?]);
    rules.insert(SYS_prlimit64, vec![equal(0, 0)?, equal(0, own)?]);
    rules.insert(SYS_clone, vec![masked(0, CLONE_DENIED as u64, 0)?]);
    rules.insert(SYS_openat, opening(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(SYS_open, opening(1)?);
    rules.insert(SYS_socketpair, vec![equal(0, AF_UNIX as u64)?]);
    // With an address it would reach sockets of others.
    rules.insert(SYS_sendto, vec![argument(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?]);
    rules.insert(SYS_fcntl, FCNTL.iter().map(|command| equal(1, *command as u64)).collect::<Result<_, _>>()?);
    rules.insert(SYS_ioctl, IOCTL.iter().map(|request| equal(1, *request)).collect::<Result<_, _>>()?);
    rules.insert(SYS_prctl, PRCTL.iter().map(|option| equal(0, *option as u64)).collect::<Result<_, _>>()?);
    let denied = SeccompAction::Errno(ENOSYS as u32);
    SeccompFilter::new(rules, denied, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Emptying a file that is opened for reading escapes the Landlock of older kernels.
fn opening(index: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let mode = O_ACCMODE as u64;
    Ok(vec![
        masked(index, O_TRUNC as u64, 0)?,
        masked(index, mode, O_WRONLY as u64)?,
        masked(index, mode, O_RDWR as u64)?,
    ])
}

fn equal(index: u8, value: u64) -> Result<SeccompRule, BackendError> {
    argument(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(index: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    argument(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn argument(index: u8, length: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, length, op, value)?])
}
