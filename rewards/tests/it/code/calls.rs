//! Programs whose function is called: values, and grading that cannot be forged from inside.

use reckon_rewards::Outcome::{Crash, Fail, Pass};
use reckon_rewards::sandbox::Level;
use serde_json::json;

use super::{judge, verifier, verifier_at};

#[test]
fn a_function_is_judged_by_what_it_returns() {
    let Some(code) = verifier(json!({"prelude": "from typing import List\n"})) else { return };
    let info = json!({"function": "f", "tests": [{"args": [[3, 1, 2]], "expected": [1, 2, 3]}]});
    for (program, outcome, reason) in [
        ("def f(x: List[int]): return sorted(x)", Pass, "all 1 tests passed"),
        ("def f(x): return tuple(sorted(x))", Pass, "all 1 tests passed"),
        ("def f(x):\n    print('debug')\n    return sorted(x)", Pass, "all 1 tests passed"),
        ("f = sorted\nif __name__ == '__main__': raise SystemExit(1)", Pass, "all 1 tests passed"),
        ("def f(x): return x", Fail, "test 1 of 1: wrong value"),
        ("def f(x): print(sorted(x))", Fail, "test 1 of 1: wrong value"),
        ("def f(x): return set(x)", Crash, "test 1 of 1: exit status 1: TypeError: Object of type set is not JSON"),
        ("def f(x): return float('nan')", Crash, "test 1 of 1: exit status 1: ValueError"),
        ("def g(x): return sorted(x)", Crash, "test 1 of 1: exit status 1: AttributeError"),
        ("def f(x): return f(x)", Crash, "test 1 of 1: exit status 1: RecursionError"),
        ("def f(x) return x", Crash, "test 1 of 1: exit status 1: SyntaxError"),
    ] {
        let verdict = judge(&code, info.clone(), program);
        assert_eq!(verdict.outcome, outcome, "{program}: {verdict:?}");
        assert!(verdict.reason.starts_with(reason), "{program}: {verdict:?}");
    }
    let method = json!({
        "function": "Solution.add",
        "tests": [{"args": [1], "kwargs": {"b": 2}, "expected": 3}, {"args": [1, 1], "expected": 2}],
    });
    let verdict = judge(&code, method, "class Solution:\n    def add(self, a, b): return a + b");
    assert!(verdict.passed(), "{verdict:?}");
}

/// What the call should return; no program finds it.
const EXPECTED: u64 = 8_314_459_812_331;

/// Each would fool a grader that shares a process with the program, or believes what the program prints.
const FORGERIES: &[(&str, &str)] = &[
    ("an object that equals everything", "class X:\n    def __eq__(self, o): return True\ndef f(): return X()"),
    ("a number that equals everything", "class X(int):\n    def __eq__(self, o): return True\ndef f(): return X(1)"),
    (
        "frames and the heap",
        "import gc, sys
def f():
    frame, seen = sys._getframe(), []
    while frame:
        seen += [*frame.f_locals.values(), *frame.f_globals.values()]
        frame = frame.f_back
    for x in gc.get_objects():
        seen += list(x.values()) if isinstance(x, dict) else list(x) if isinstance(x, (list, tuple)) else []
    big = [x for x in seen if type(x) is int and 10 ** 12 < x < 10 ** 13]
    return big[0] if big else 0",
    ),
    ("an early exit", "import sys\nsys.exit(0)"),
    ("an early exit in the call", "import os\ndef f(): os._exit(0)"),
    ("a record on standard output", "def f():\n    print('8314459812331', flush=True)\n    import os; os._exit(0)"),
    (
        "records on every descriptor",
        "import os
def f():
    for fd in range(1, 64):
        try: os.write(fd, b'8314459812331\\n')
        except OSError: pass
    os._exit(0)",
    ),
    (
        "a record of its own before the right one",
        "import os, sys
def f():
    nonce = sys._getframe(2).f_locals['nonce']
    os.write(sys._getframe(2).f_locals['channel'], (nonce + '0\\n').encode())
    return 8314459812331",
    ),
    ("two processes that both return", "import os\ndef f():\n    if os.fork(): os.wait()\n    return 8314459812331"),
    ("a spoofed sys.stdout", "import sys, io\nsys.stdout = io.StringIO('8314459812331')\ndef f(): return 1"),
    (
        "an exit handler that rewrites the result",
        "import atexit, os\natexit.register(lambda: os.write(3, b'8314459812331'))\ndef f(): return 1",
    ),
    (
        "a json module of its own",
        "open('json.py', 'w').write('def dumps(*a, **k): return \"8314459812331\"')
import sys
sys.modules.pop('json')
sys.path.insert(0, '.')
import json
def f(): return 1",
    ),
    (
        "expected values in files",
        "import os\ndef f():\n    return [open(n).read() for n in os.listdir('.') if n != 'program.py']",
    ),
    (
        "expected values in arguments or environment",
        "import os, sys\ndef f(): return [*sys.argv, *os.environ.values()]",
    ),
];

#[test]
fn no_grading_is_forged() {
    let info = json!({"function": "f", "tests": [{"args": [], "expected": EXPECTED}]});
    for level in [Level::S1, Level::S2] {
        let Some(code) = verifier_at(level, json!({})) else { continue };
        for (name, program) in FORGERIES {
            let verdict = judge(&code, info.clone(), program);
            assert_eq!(verdict.reward, 0.0, "{level}: {name}: {verdict:?}");
        }
        let verdict = judge(&code, info.clone(), &format!("def f(): return {EXPECTED}"));
        assert!(verdict.passed(), "{level}: {verdict:?}");
    }
}

#[test]
fn nothing_is_left_for_the_next_test() {
    let program = "import os
def f(n):
    before = sorted(os.listdir('.'))
    open('json.py', 'w').write('x = 1')
    return before";
    let test = json!({"args": [1], "expected": ["program.py"]});
    let info = json!({"function": "f", "tests": [test, test]});
    for level in Level::ALL {
        let Some(code) = verifier_at(level, json!({})) else { continue };
        let verdict = judge(&code, info.clone(), program);
        assert!(verdict.passed(), "{level}: {verdict:?}");
    }
}
