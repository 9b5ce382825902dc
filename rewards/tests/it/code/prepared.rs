//! Prepared interpreters: a program finds nothing of the one before it, and leaves nothing to the next.

use reckon_rewards::sandbox::{End, Interpreter, Level, Limits, Run, Sandbox, Work, helper_at};

/// Runs its standard input.
const SCRIPTS: &[&str] = &["import sys\nexec(sys.stdin.read(), sys.modules['__main__'].__dict__)"];

const PYTHON: &str = "/usr/bin/python3";

/// At S2, or a printed word on what is missing here.
fn interpreter() -> Option<Interpreter> {
    helper_at(env!("CARGO_BIN_EXE_reckon-sandbox"));
    let limits = Limits { time_s: 1, ..Limits::default() };
    let sandbox = match Sandbox::new(Some(Level::S2), Vec::new(), limits) {
        Ok(sandbox) if std::path::Path::new(PYTHON).exists() => sandbox,
        sandbox => {
            eprintln!("skipped: {:?}", sandbox.err());
            return None;
        }
    };
    let argv = [PYTHON, "-s", "-B", "-S"].map(ToOwned::to_owned).into();
    let interpreter = Interpreter::new(sandbox, argv, SCRIPTS);
    assert_eq!(interpreter.unprepared(), None);
    Some(interpreter)
}

fn run(interpreter: &Interpreter, program: &str) -> Run {
    interpreter.run(0, &Work { arguments: &[], files: &[("f", "x")], input: program.as_bytes() }).unwrap()
}

fn says(interpreter: &Interpreter, program: &str) -> String {
    let run = run(interpreter, program);
    assert_eq!(run.end, End::Exited(0), "{program}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

/// What a program sees of the world that another could have changed.
const LOOK: &str = "import builtins, json, os, signal, stat, sys
handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1)]
print(os.getpid(), os.listdir('.'), os.getcwd(), sorted(os.listdir('/')), stat.S_IMODE(os.stat('/').st_mode), handlers,
      json.dumps([1]), len([1]), sorted(os.environ), os.umask(0o22), sys.getrecursionlimit(),
      sys.argv, sorted(vars(sys.modules['__main__'])), sys.path)";

/// Each tries to spoil the interpreter, the folder or the processes for whoever comes next.
const SPOILS: &[(&str, &str)] = &[
    (
        "modules",
        "import json, builtins, sys\njson.dumps = len = builtins.len = None\nsys.modules.clear()\nsys.path[:] = []",
    ),
    ("files", "import os\nopen('g', 'w').write('x')\nos.remove('f')\nos.mkdir('d')\nos.chmod('.', 0)"),
    ("the root's mode", "import os\ntry: os.chmod('/', 0)\nexcept OSError: pass"),
    ("the root", "import os\ntry: open('/new', 'w')\nexcept OSError: pass"),
    ("the folder behind the folder", "import os\nos.chdir('/')\ntry: os.rmdir('/box')\nexcept OSError: pass"),
    (
        "state of the process",
        "import os, signal\nos.umask(0)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.environ['X'] = '1'",
    ),
    ("children that stay", "import os, time\nfor i in range(8):\n    if os.fork() == 0:\n        time.sleep(60)"),
    (
        "memory of objects",
        "import gc\nfor x in gc.get_objects():\n    if type(x) is list: x.clear()\nimport os; os._exit(0)",
    ),
    (
        "every descriptor",
        "import os\nfor fd in range(3, 256):\n    for say in (b'ended 0\\n', b'ready\\n'):\n        try: os.write(fd, say)\n        except OSError: pass",
    ),
    (
        "signals",
        "import os, signal\nfor pid in (0, -1, 1, 2, 3, os.getppid()):\n    for s in (signal.SIGKILL, signal.SIGSTOP):\n        if pid != 1:\n            try: os.kill(pid, s)\n            except OSError: pass",
    ),
];

#[test]
fn nothing_of_a_program_reaches_the_next() {
    let Some(interpreter) = interpreter() else { return };
    let before = says(&interpreter, LOOK);
    assert!(before.starts_with("1 ['f'] /box "), "{before}");
    for (name, program) in SPOILS {
        assert_eq!(run(&interpreter, program).end, End::Exited(0), "{name}");
        assert_eq!(says(&interpreter, LOOK), before, "{name}");
    }
    for (program, end) in [
        ("while True: pass", End::TimedOut),
        ("import time\ntime.sleep(60)", End::TimedOut),
        ("while True: print('x' * 100000)", End::TooMuchOutput),
        ("import os, signal\nos.kill(1, signal.SIGKILL)\nraise SystemExit(7)", End::Exited(7)),
        ("import os\nos.abort()", End::Exited(0)),
        ("raise SystemExit(3)", End::Exited(3)),
        ("1 / 0", End::Exited(1)),
    ] {
        let run = run(&interpreter, program);
        assert!(run.end == end || program.contains("abort"), "{program}: {run:?}");
        assert_eq!(says(&interpreter, LOOK), before, "{program}");
    }
}

#[test]
fn a_program_has_no_rights_and_no_way_to_the_interpreter() {
    let Some(interpreter) = interpreter() else { return };
    let rights = "import ctypes, struct
data = ctypes.create_string_buffer(24)
print(ctypes.CDLL(None).syscall(ctypes.c_long(125), struct.pack('<II', 0x20080522, 0), data), data.raw == bytes(24))";
    if cfg!(target_arch = "x86_64") {
        assert_eq!(says(&interpreter, rights), "0 True");
    }
    let open = "import os
def is_open(fd):
    try: return bool(os.fstat(fd))
    except OSError: return False
print([fd for fd in range(256) if is_open(fd)], os.getppid(), os.getsid(0) == os.getpid())";
    assert_eq!(says(&interpreter, open), "[0, 1, 2] 0 True");
    let random = "import random, uuid\nprint(random.random(), uuid.uuid4())";
    assert_ne!(says(&interpreter, random), says(&interpreter, random));
}

#[test]
fn programs_that_run_at_a_time_have_interpreters_of_their_own() {
    let Some(interpreter) = interpreter() else { return };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let interpreter = &interpreter;
            scope.spawn(move || {
                for turn in 0..10 {
                    let said = says(interpreter, &format!("open('g', 'x').write('y')\nprint({thread}, {turn})"));
                    assert_eq!(said, format!("{thread} {turn}"));
                }
            });
        }
    });
}
