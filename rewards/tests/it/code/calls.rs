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

#[test]
fn numbers_of_any_length_go_in_and_come_back() {
    let Some(code) = verifier(json!({})) else { return };
    let power = |n: usize| format!("1{}", "0".repeat(n));
    let tests = format!("[{{\"input\": \"{}\", \"output\": \"{}\"}}]", power(5000), power(10_000));
    let info = json!({"function": "f", "tests": tests});
    assert!(judge(&code, info.clone(), "def f(x): return x * x").passed());
    assert_eq!(judge(&code, info, "def f(x): return x * x + 1").outcome, Fail);
    let printed = json!({"tests": [{"input": power(5000), "output": power(10_000)}]});
    assert!(judge(&code, printed, "print(int(input()) ** 2)").passed());
}

#[test]
fn programs_begin_with_futures_behind_a_prelude() {
    let prelude = "'''Imports.'''\nfrom __future__ import annotations\nfrom typing import List\nimport math";
    let Some(code) = verifier(json!({"prelude": prelude})) else { return };
    let call = json!({"function": "f", "tests": [{"args": [[2, 1]], "expected": [1, 2]}]});
    for (program, outcome, reason) in [
        ("'''Sorts.'''\nfrom __future__ import annotations\ndef f(x: List[int]): return sorted(x)", Pass, ""),
        ("# a comment\nfrom __future__ import division\ndef f(x: Later) -> No: return sorted(x)", Pass, ""),
        ("def f(x): return sorted(x) if math.pi > 3 and __doc__ == 'Imports.' else 0", Pass, ""),
        ("x = 1\nfrom __future__ import division", Crash, "from __future__ imports must occur at the beginning"),
        ("\ndef f(x) return x", Crash, "SyntaxError"),
    ] {
        let verdict = judge(&code, call.clone(), program);
        assert_eq!(verdict.outcome, outcome, "{program}: {verdict:?}");
        assert!(verdict.reason.contains(reason), "{program}: {verdict:?}");
    }
    let lines = "import sys\ntry: 1 / 0\nexcept ZeroDivisionError: print(sys._getframe().f_lineno, math.e > 2)";
    let verdict = judge(&code, json!({"tests": [{"output": "3 True"}]}), lines);
    assert!(verdict.passed(), "a program's lines count from its own first: {verdict:?}");
}

/// Stands for numpy's types, which an interpreter may lack: what they have in common is all that is used.
const NUMPY: &str = "class Item:
    __module__ = 'numpy'
    def __init__(self, value): self.value = value
    def __hash__(self): return hash(self.value)
    def __eq__(self, other): return self.value == other.value
    def tolist(self): return self.value
";

#[test]
fn numpy_values_are_their_plain_ones() {
    let Some(code) = verifier(json!({"packages": true})) else { return };
    let real = judge(&code, super::prints("1"), "import numpy\nprint(1)").passed();
    for (expected, stand_in, body) in [
        (json!(3), "Item(3)", "numpy.int64(3)"),
        (json!(true), "Item(True)", "numpy.bool_(True)"),
        (json!([[1, 2], [3, 4]]), "Item([[1, 2], [3, 4]])", "numpy.array([[1, 2], [3, 4]])"),
        (json!([1, [2.5]]), "[Item(1), (Item(2.5),)]", "[numpy.int32(1), (numpy.float64(2.5),)]"),
        (json!({"3": [1]}), "{Item(3): [Item(1)]}", "{numpy.int64(3): [numpy.int64(1)]}"),
        (json!([{"a": {"7": 1}}]), "[{'a': {Item(7): 1}}]", "[{'a': {numpy.int64(7): numpy.uint8(1)}}]"),
    ] {
        let info = json!({"function": "f", "tests": [{"args": [], "expected": expected}]});
        let stand_in = judge(&code, info.clone(), &format!("{NUMPY}def f(): return {stand_in}"));
        assert!(stand_in.passed(), "{expected}: {stand_in:?}");
        if real {
            let verdict = judge(&code, info, &format!("import numpy\ndef f(): return {body}"));
            assert!(verdict.passed(), "{body}: {verdict:?}");
        }
    }
}

#[test]
fn tests_are_judged_as_their_datasets_mean_them() {
    let Some(code) = verifier(json!({})) else { return };
    let apps = json!({"tests": {"fn_name": "f", "inputs": [[[1, 2]], [[3]]], "outputs": [[3], [3]]}});
    let live = json!({
        "metadata": "{\"func_name\": \"f\"}",
        "tests": "[{\"input\": \"[1, 2]\", \"output\": \"3\", \"testtype\": \"functional\"}]",
    });
    let lines = json!({"tests": {"inputs": [["2", "5"]], "outputs": [["7"]]}});
    for (info, program, outcome) in [
        (&apps, "def f(x): return sum(x)", Pass),
        (&apps, "def f(x): return [sum(x)]", Pass),
        (&apps, "class Solution:\n    def f(self, x): return sum(x)", Pass),
        (&apps, "def f(x): return sum(x) + 1", Fail),
        (&live, "class Solution:\n    def f(self, x): return sum(x)", Pass),
        (&live, "def f(x): return sum(x)", Pass),
        (&live, "def f(x): return [sum(x)]", Fail),
        (&live, "print(3)", Crash),
        (&lines, "print(int(input()) + int(input()))", Pass),
    ] {
        let verdict = judge(&code, info.clone(), program);
        assert_eq!(verdict.outcome, outcome, "{info}: {program}: {verdict:?}");
    }
    let near = json!({"tests": [{"output": "0.333333", "tolerance": 1e-5}, {"output": "0.333333"}]});
    let verdict = judge(&code, near, "print(1 / 3)");
    assert_eq!(verdict.reason, "test 2 of 2: wrong output");
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
