//! A user's own checker: what it is given, what it may say, and that no program reaches it.

use std::path::Path;

use reckon_rewards::Outcome::{Fail, Pass};
use reckon_rewards::{Code, CodeOptions};
use serde_json::{Value, json};

use super::{judge, verifier};

fn checking(folder: &Path, text: &str, options: Value) -> Option<Code> {
    let path = folder.join("checker.py");
    std::fs::write(&path, text).unwrap();
    let mut options = options;
    options["checker"] = json!(path);
    verifier(options)
}

/// Any two numbers of this sum and product will do.
const PAIR: &str = "def check(input, expected, got):
    total, product = map(int, input.split())
    a, b = map(int, got.split())
    return a + b == total and a * b == product
";

#[test]
fn problems_with_many_right_outputs_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(code) = checking(folder.path(), PAIR, json!({})) else { return };
    let info = json!({"tests": [{"input": "5 6\n"}, {"input": "7 12\n", "output": "3 4"}]});
    let search = "s, p = map(int, input().split())\na = next(a for a in range(s) if a * (s - a) == p)\n";
    for (program, outcome, reason) in [
        (format!("{search}print(a, s - a)"), Pass, "all 2 tests passed"),
        (format!("{search}print(s - a, a)"), Pass, "all 2 tests passed"),
        ("print(1, 4)".into(), Fail, "test 1 of 2: the checker gives 0"),
        ("print('x')".into(), Fail, "test 1 of 2: the checker: exit status 1: ValueError"),
        (
            "import builtins, os\nopen('checker.py', 'w').write('def check(*a): return True')\n\
             builtins.int = lambda x: 0\nprint(1, 1)"
                .into(),
            Fail,
            "test 1 of 2: the checker gives 0",
        ),
    ] {
        let verdict = judge(&code, info.clone(), &program);
        assert_eq!(verdict.outcome, outcome, "{program}: {verdict:?}");
        assert!(verdict.reason.starts_with(reason), "{program}: {verdict:?}");
    }
}

#[test]
fn a_checker_sees_values_and_may_give_shares() {
    let folder = tempfile::tempdir().unwrap();
    let share = "def check(input, expected, got):\n    return len(set(got) & set(expected)) / input[0]\n";
    let Some(code) = checking(folder.path(), share, json!({"credit": "share"})) else { return };
    let info = json!({"function": "f", "tests": [{"args": [4], "expected": [1, 2, 3, 4]}]});
    for (program, reward) in [("def f(n): return [1, 2, 3, 9]", 0.75), ("def f(n): return [4, 3, 2, 1]", 1.0)] {
        let verdict = judge(&code, info.clone(), program);
        assert_eq!(verdict.reward, reward, "{program}: {verdict:?}");
    }
    let Some(code) = checking(folder.path(), "def check(*test): return 'yes'\n", json!({})) else { return };
    let verdict = judge(&code, info, "def f(n): return 1");
    let said = "test 1 of 1: the checker says \"yes\", which is no truth value and not 0 to 1";
    assert_eq!((verdict.outcome, &*verdict.reason), (Fail, said));
}

#[test]
fn a_checker_that_cannot_be_used_is_refused_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    // Finds out where the sandbox works.
    let Some(working) = checking(folder.path(), PAIR, json!({"python": "/usr/bin/python3"})) else { return };
    for (text, problem) in [
        ("def judge(): pass", "NameError: name 'check' is not defined"),
        ("check = 3", "its `check` is no function"),
        ("def check(input, expected, got) return 1", "SyntaxError"),
        ("import no_such_module\ndef check(*test): return True", "No module named 'no_such_module'"),
    ] {
        let path = folder.path().join("checker.py");
        std::fs::write(&path, text).unwrap();
        let options = CodeOptions {
            level: Some(working.level()),
            python: "/usr/bin/python3".into(),
            checker: Some(path),
            ..CodeOptions::default()
        };
        let error = Code::new("code", &options).unwrap_err().to_string();
        assert!(error.contains("`checker = ") && error.contains(problem), "{text}: {error}");
    }
    let options =
        CodeOptions { checker: Some("no-such.py".into()), python: "/usr/bin/python3".into(), ..CodeOptions::default() };
    let error = Code::new("code", &options).unwrap_err().to_string();
    assert!(error.contains("`checker = \"no-such.py\"`: cannot read it"), "{error}");
}
