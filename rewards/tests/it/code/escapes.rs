//! What a program cannot do to the machine, at S1 and at S2. Each program prints `held` if its attempt failed; some are
//! run at S0 too, where they succeed, to show that the attempt is a real one.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use reckon_rewards::sandbox::Level;
use reckon_rewards::{Code, Outcome};
use serde_json::json;

use super::{judge, prints, verifier_at};

/// The program of an attempt: `body` is what is tried, and returns what it got or raises.
fn attempt(body: &str) -> String {
    let body = body.replace('\n', "\n    ");
    format!(
        "import os, sys\ndef attempt():\n    {body}\ntry: got = attempt()\nexcept BaseException as e: \
         got = None; sys.stderr.write(repr(e))\nprint('held' if got in (None, False) else 'escaped')"
    )
}

fn held(code: &Code, name: &str, body: &str) {
    let verdict = judge(code, prints("held"), &attempt(body));
    assert!(verdict.passed(), "{}: {name}: {verdict:?}", code.level());
}

/// The sandboxed levels that this machine has.
fn sandboxes() -> Vec<Code> {
    let at = |level| verifier_at(level, json!({"limits": {"time_s": 2}}));
    let sandboxes: Vec<Code> = [Level::S1, Level::S2].into_iter().filter_map(at).collect();
    for code in sandboxes.iter().filter(|code| code.level() == Level::S2) {
        assert_eq!(code.unprepared(), None, "programs are kept in by what a prepared interpreter is kept in by");
    }
    sandboxes
}

fn escapes_at_s0(name: &str, body: &str) {
    let Some(code) = verifier_at(Level::S0, json!({})) else { return };
    let verdict = judge(&code, prints("escaped"), &attempt(body));
    assert!(verdict.passed(), "the attempt is no attempt: {name}: {verdict:?}");
}

#[test]
fn files_of_the_host_are_out_of_reach() {
    // A dataset that everyone may read, and a folder that everyone may write.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let dataset = folder.path().join("dataset.jsonl");
    fs::write(&dataset, "{\"answer\": 42}").unwrap();
    fs::set_permissions(&dataset, fs::Permissions::from_mode(0o666)).unwrap();
    let (folder_name, name) = (folder.path().display(), dataset.display());
    let attempts = [
        ("read the dataset", format!("return open('{name}').read()")),
        ("list its folder", format!("return os.listdir('{folder_name}')")),
        ("write beside it", format!("open('{folder_name}/new', 'w').write('x')\nreturn True")),
        ("make a folder beside it", format!("os.mkdir('{folder_name}/newer')\nreturn True")),
        ("follow a link to it", format!("os.symlink('{name}', 'link')\nreturn open('link').read()")),
        (
            "write through a link",
            format!("os.symlink('{folder_name}', 'd')\nopen('d/newest', 'w').write('x')\nreturn True"),
        ),
    ];
    for (name, body) in &attempts {
        escapes_at_s0(name, body);
    }
    fs::write(&dataset, "{\"answer\": 42}").unwrap();
    for file in ["new", "newest"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    fs::remove_dir(folder.path().join("newer")).unwrap();
    let refused_at_any_level = [
        ("read /etc/shadow", "return open('/etc/shadow').read()".to_owned()),
        ("read /etc/passwd", "return open('/etc/passwd').read()".to_owned()),
        ("read ~/.ssh", format!("return os.listdir('{}/.ssh')", std::env::var("HOME").unwrap_or_default())),
        ("read the host's memory", "return open(f'/proc/{os.getppid()}/mem', 'rb')".to_owned()),
        ("read the host's environment", format!("return open('/proc/{}/environ').read()", std::process::id())),
        ("empty it", format!("os.close(os.open('{name}', os.O_RDONLY | os.O_TRUNC))\nreturn True")),
        ("truncate it", format!("os.truncate('{name}', 0)\nreturn True")),
        ("link to it", format!("os.link('{name}', 'link')\nreturn open('link').read()")),
        ("change its mode", format!("os.chmod('{name}', 0)\nreturn True")),
        ("rename it", format!("os.rename('{name}', 'mine')\nreturn True")),
        ("remove it", format!("os.remove('{name}')\nreturn True")),
        ("write to /usr", "open('/usr/lib/new', 'w')\nreturn True".to_owned()),
        ("open a terminal", "return os.open('/dev/tty', os.O_RDWR)".to_owned()),
    ];
    for code in sandboxes() {
        for (name, body) in attempts.iter().chain(&refused_at_any_level) {
            held(&code, name, body);
        }
        assert_eq!(fs::read_to_string(&dataset).unwrap(), "{\"answer\": 42}");
        assert_eq!(fs::metadata(&dataset).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn no_socket_leads_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("socket");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _unix = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("reckon-test-{}", std::process::id());
    let _hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let (tcp, udp) = (listener.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
    let connect = |kind: &str, to: String| {
        format!("import socket\ns = socket.socket({kind})\ns.settimeout(1)\ns.connect({to})\ns.send(b'x')\nreturn True")
    };
    let attempts = [
        ("TCP", connect("socket.AF_INET", format!("('127.0.0.1', {tcp})"))),
        ("UDP", connect("socket.AF_INET, socket.SOCK_DGRAM", format!("('127.0.0.1', {udp})"))),
        ("a unix socket", connect("socket.AF_UNIX", format!("'{}'", path.display()))),
        ("an abstract socket", connect("socket.AF_UNIX", format!("'\\0{name}'"))),
        (
            "netlink",
            "import socket\nreturn socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0)) is None".into(),
        ),
        ("listening", "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nreturn True".into()),
    ];
    for (name, body) in &attempts {
        escapes_at_s0(name, body);
    }
    datagrams.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while datagrams.recv(&mut [0; 8]).is_ok() {}
    for code in sandboxes() {
        for (name, body) in &attempts {
            held(&code, name, body);
        }
        // A pair of datagram sockets needs no `socket` call, and could be pointed elsewhere.
        let redirected = format!(
            "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
             a.sendto(b'x', '\\0{name}')\nreturn True"
        );
        held(&code, "a redirected pair", &redirected);
        assert!(datagrams.recv(&mut [0; 8]).is_err());
        let loops = "import asyncio\nprint(asyncio.run(asyncio.sleep(0, 'fine')))";
        assert!(judge(&code, prints("fine"), loops).passed(), "event loops work: their wake-up is a socket pair");
    }
}

#[test]
fn other_processes_are_out_of_reach() {
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let (host, other) = (std::process::id(), bystander.id());
    let signals = [
        ("kill the parent", "os.kill(os.getppid(), 9)\nreturn True".to_owned()),
        ("kill the host", format!("os.kill({host}, 9)\nreturn True")),
        ("kill a bystander", format!("os.kill({other}, 9)\nreturn True")),
        ("kill all", "os.kill(-1, 9)\nreturn True".to_owned()),
        (
            "kill by the owner of a pipe",
            format!(
                "import fcntl, signal\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, {other})\n\
                 fcntl.fcntl(r, 10, signal.SIGKILL)\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\n\
                 os.write(w, b'x')\nreturn True"
            ),
        ),
        (
            "limit the host",
            format!("import resource\nresource.prlimit({other}, resource.RLIMIT_CPU, (0, 0))\nreturn True"),
        ),
        ("slow the host", format!("os.setpriority(os.PRIO_PROCESS, {other}, 19)\nreturn True")),
        ("pin the host", format!("os.sched_setaffinity({other}, {{0}})\nreturn True")),
        (
            "type into the terminal",
            "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSTI, b'x')\nreturn True".to_owned(),
        ),
    ];
    for code in sandboxes() {
        for (name, body) in &signals {
            held(&code, name, body);
        }
        assert_eq!(bystander.try_wait().unwrap(), None, "{}: the bystander lives", code.level());
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn inherited_files_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("leak"), "leaked").unwrap();
    let leak = fs::File::open(folder.path().join("leak")).unwrap();
    // As a library of the host's might have opened it.
    rustix::io::fcntl_setfd(leak.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    let body = "for fd in range(3, 256):
    try: text = os.pread(fd, 6, 0)
    except OSError: continue
    if text == b'leaked': return True
return False";
    for level in Level::ALL {
        let Some(code) = verifier_at(level, json!({})) else { continue };
        held(&code, "inherited files", body);
    }
    let mut text = String::new();
    (&leak).read_to_string(&mut text).unwrap();
    assert_eq!(text, "leaked");
}

#[test]
fn resources_run_out_inside_only() {
    let bounded = [
        (
            "processes",
            "n = 0
try:
    while n < 200:
        if os.fork() == 0:
            import time
            time.sleep(30)
        n += 1
except OSError: pass
print('held' if n < 40 else 'escaped', flush=True)
os._exit(0)",
        ),
        (
            "threads",
            "import threading, time
n = 0
try:
    while n < 200:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        n += 1
except RuntimeError: pass
print('held' if n < 40 else 'escaped', flush=True)
os._exit(0)",
        ),
        ("memory", "return bytearray(10 << 30)"),
        (
            "a file",
            "with open('f', 'wb', buffering=0) as f:
    for _ in range(10 << 10): f.write(bytes(1 << 20))
return True",
        ),
        ("a file by its length", "with open('f', 'wb') as f: f.truncate(10 << 30)\nreturn True"),
        ("descriptors", "fds = [os.dup(0) for _ in range(1000)]\nreturn fds"),
        (
            "locked memory",
            "import mmap, ctypes
m = ctypes.create_string_buffer(1 << 22)
return ctypes.CDLL(None).mlock(m, 1 << 22) == 0",
        ),
    ];
    for code in sandboxes() {
        for (name, body) in bounded {
            held(&code, name, body);
        }
        let flood =
            judge(&code, prints("held"), "import sys\nfor _ in range(1 << 10): sys.stdout.write('x' * (1 << 20))");
        assert_eq!(flood.outcome, Outcome::Fail, "{flood:?}");
        assert!(flood.reason.contains("of output"), "{flood:?}");
    }
}

#[test]
fn nothing_outlives_its_program() {
    let marker = format!("reckon-survivor-{}", std::process::id());
    let deaf = "import signal, time
for s in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
    signal.signal(s, signal.SIG_IGN)
while True: time.sleep(1)";
    let sleep = format!("os.execv('/bin/sh', ['sh', '-c', 'while :; do sleep 1; done # {marker}'])");
    let daemon = format!(
        "import os
if os.fork() == 0:
    try: os.setsid()
    except OSError: pass
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        {sleep}
    os._exit(0)
os.wait()
print('started')"
    );
    let holder = format!("import os\nif os.fork() == 0:\n    {sleep}\nprint('started')");
    for code in sandboxes() {
        assert_eq!(judge(&code, prints("held"), deaf).outcome, Outcome::Timeout);
        for program in [&daemon, &holder] {
            let verdict = judge(&code, prints("started"), program);
            assert!(verdict.passed(), "{}: {verdict:?}", code.level());
            // A killed process is listed until its new parent has seen it.
            for _ in 0..100 {
                if survivors(&marker) > 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            assert_eq!(survivors(&marker), 0, "{}: {program}", code.level());
        }
    }
}

fn survivors(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(marker)).count()
}

#[test]
fn whatever_a_program_leaves_in_its_folder_goes_away() {
    let before = folders();
    let messes = [
        "for _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\nprint('held')\nsys.exit()",
        "os.mkdir('locked', 0o300)\nopen('locked/f', 'w').write('x')\nos.mkdir('none', 0)\nprint('held')\nsys.exit()",
        "for i in range(2000): open(f'f{i}', 'w').write('x')\nos.symlink('/', 'root')\nprint('held')\nsys.exit()",
    ];
    for code in sandboxes() {
        for mess in messes {
            let verdict = judge(&code, prints("held"), &format!("import os, sys\n{mess}"));
            assert!(verdict.passed(), "{}: {mess}: {verdict:?}", code.level());
        }
    }
    // Other tests run beside this one and have folders for the moment.
    for _ in 0..200 {
        if folders() > before {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(folders() <= before, "{} folders before, {} after", before, folders());
}

/// Folders of programs that this process runs.
fn folders() -> usize {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("reckon-")).count()
}
