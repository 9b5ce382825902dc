//! Programs that read standard input: outcomes and reasons.

use std::fs;
use std::os::unix::fs::MetadataExt;

use reckon_rewards::Outcome::{Crash, Fail, Pass, Timeout, Unparsed};
use reckon_rewards::sandbox::{End, Level, Limits, Sandbox, Task, helper_at};
use reckon_rewards::{Verifier, VerifierError};
use serde_json::json;

use super::{example, judge, prints, verifier};

#[test]
fn each_end_of_a_program_has_its_outcome() {
    let limits = json!({"time_s": 1, "output_kb": 64, "memory_mb": 256});
    let Some(code) = verifier(json!({"limits": limits})) else { return };
    let info = json!({"tests": [{"input": "3\n", "output": "9\n"}, {"input": "4\n", "output": "16\n"}]});
    for (program, outcome, reason) in [
        ("n = int(input())\nprint(n * n)", Pass, "all 2 tests passed"),
        ("print(9)", Fail, "test 2 of 2: wrong output"),
        ("print(int(input()) ** 2, end='\\n\\n')", Pass, "all 2 tests passed"),
        ("print(9)\nprint(16)", Fail, "test 1 of 2: wrong output"),
        ("print(int(input()) ** 2)\nexit()\nprint(1)", Pass, "all 2 tests passed"),
        (
            "import sys\nprint(int(input()) ** 2 if (__name__, len(sys.argv)) == ('__main__', 1) else 0)",
            Pass,
            "all 2 tests passed",
        ),
        ("x", Crash, "test 1 of 2: exit status 1: NameError: name 'x' is not defined"),
        ("import sys\nprint(int(input()) ** 2)\nsys.exit(3)", Crash, "test 1 of 2: exit status 3"),
        ("import os\nprint(9, flush=True)\nos.abort()", Crash, "test 1 of 2: killed by signal"),
        ("while True: pass", Timeout, "test 1 of 2: out of time"),
        ("import time\ntime.sleep(60)", Timeout, "test 1 of 2: out of time"),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            Timeout,
            "test 1 of 2: out of time",
        ),
        ("while True: print('x' * 1000)", Fail, "test 1 of 2: more than 64 KiB of output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", Timeout, "test 1 of 2: out of time"),
        ("x = bytearray(1 << 30)", Crash, "test 1 of 2: exit status 1: MemoryError"),
        ("import sys\nsys.stdout.buffer.write(b'\\xff')", Fail, "test 1 of 2: the output is not UTF-8"),
        (
            "import sys\nsys.stdout.close()\nsys.stderr.close()\nimport time\ntime.sleep(60)",
            Timeout,
            "test 1 of 2: out of time",
        ),
    ] {
        let verdict = judge(&code, info.clone(), program);
        assert_eq!((verdict.outcome, verdict.reward), (outcome, f32::from(outcome == Pass)), "{program}: {verdict:?}");
        assert!(verdict.reason.starts_with(reason), "{program}: {verdict:?}");
    }
}

#[test]
fn a_completion_without_a_program_is_unparsed() {
    let Some(code) = verifier(json!({})) else { return };
    let fence = "```python\nprint(1)\n```";
    for (completion, outcome) in [
        (format!("<think>{fence}</think>"), Unparsed),
        (format!("<think>{fence}"), Unparsed),
        ("print(1)".into(), Unparsed),
        ("```python\nprint(1)".into(), Unparsed),
        (format!("<think>\n```python\nprint(2)\n```\n</think>\n{fence}"), Pass),
        (format!("```python\nprint(2)\n```\nbetter:\n{fence}\nIt prints\n```\n1\n```"), Pass),
    ] {
        let verdict = code.verify(&example(prints("1")), &completion).unwrap();
        assert_eq!(verdict.outcome, outcome, "{completion}: {verdict:?}");
    }
}

#[test]
fn credit_can_be_the_share_of_tests() {
    let limits = json!({"time_s": 1});
    let Some(code) = verifier(json!({"credit": "share", "limits": limits})) else { return };
    let tests = ["1", "2", "3", "4"].map(|n| json!({"input": n, "output": n}));
    let info = json!({"tests": tests});
    for (program, outcome, reward) in [
        ("print(input())", Pass, 1.0),
        ("print(min(int(input()), 3))", Fail, 0.75),
        ("n = int(input())\nwhile n == 2: pass\nprint(n)", Timeout, 0.25),
    ] {
        let verdict = judge(&code, info.clone(), program);
        assert_eq!((verdict.outcome, verdict.reward), (outcome, reward), "{program}: {verdict:?}");
    }
}

#[test]
fn the_same_program_prints_the_same_in_every_run() {
    helper_at(env!("CARGO_BIN_EXE_reckon-sandbox"));
    let program = "import os, time
print({'a', 'b', 'c', 'd', 'e'}, hash('x'), sorted(os.environ), os.listdir('.'), time.tzname)";
    let argv = ["/usr/bin/python3", "-B", "-c", program].map(ToOwned::to_owned);
    if !std::path::Path::new(&argv[0]).exists() {
        return eprintln!("skipped: there is no /usr/bin/python3");
    }
    for level in Level::ALL {
        let sandbox = match Sandbox::new(Some(level), Vec::new(), Limits::default()) {
            Ok(sandbox) => sandbox,
            Err(problem) => return eprintln!("skipped at {level}: {problem}"),
        };
        let run = || sandbox.run(&Task { argv: &argv, files: &[], input: b"" }).unwrap();
        let (first, second) = (run(), run());
        assert_eq!((first.end, first.stdout.is_empty()), (End::Exited(0), false), "{level}: {first:?}");
        assert_eq!(first.stdout, second.stdout, "{level}");
    }
}

#[test]
fn programs_import_installed_packages_only_where_they_may() {
    let program = "import sys\nprint(any('-packages' in path for path in sys.path))";
    for (packages, printed) in [(false, "False"), (true, "True")] {
        let Some(code) = verifier(json!({"packages": packages})) else { return };
        let verdict = judge(&code, prints(printed), program);
        assert!(verdict.passed(), "packages = {packages}: {verdict:?}");
    }
}

#[test]
fn any_command_runs_programs() {
    let options = json!({"command": ["sh"], "file": "program.sh", "labels": ["sh"]});
    let Some(code) = verifier(options) else { return };
    let info = json!({"tests": [{"input": "a b\n", "output": "b a\n"}]});
    let verdict = code.verify(&example(info.clone()), "```sh\nread x y\necho $y $x\n```").unwrap();
    assert!(verdict.passed(), "{verdict:?}");
    let calls = json!({"function": "f", "tests": [{"args": [], "expected": 1}]});
    let error = code.verify(&example(calls), "").unwrap_err();
    assert!(error.to_string().contains("only Python can"), "{error}");
}

#[test]
fn programs_are_compiled_at_every_level() {
    if std::process::Command::new("cc").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no C compiler");
    }
    let command = ["sh", "-c", "cc -o program program.c && ./program"];
    let options = json!({"command": command, "file": "program.c", "labels": ["c"]});
    let program =
        "```c\n#include <stdio.h>\nint main(void) { int n; scanf(\"%d\", &n); printf(\"%d\\n\", 2 * n); }\n```";
    for level in Level::ALL {
        if level == Level::S1 && fs::metadata("/proc/self").unwrap().uid() != 0 {
            eprintln!("skipped at S1: GNU ld needs chmod, which only root's programs have there");
            continue;
        }
        let Some(code) = super::verifier_at(level, options.clone()) else { continue };
        let info = json!({"tests": [{"input": "21", "output": "42"}]});
        let verdict = code.verify(&example(info), program).unwrap();
        assert!(verdict.passed(), "{level}: {verdict:?}");
    }
}

#[test]
fn what_is_wrong_with_an_example_or_a_config_is_an_error() {
    let Some(code) = verifier(json!({})) else { return };
    let error = code.verify(&example(json!({})), "").unwrap_err();
    assert!(matches!(error, VerifierError::Example { .. }), "{error}");
    assert_eq!(code.check(&example(json!({}))), Err(error), "it is known without a program");
    assert_eq!(code.check(&example(prints("x"))), Ok(()));
    for (options, problem) in [
        (json!({"limits": {"time_s": 0}}), "`limits.time_s = 0`"),
        (json!({"file": "../x"}), "`file = \"../x\"`"),
        (json!({"readable": ["/"]}), "`readable` holds \"/\""),
        (json!({"readable": ["data"]}), "`readable` holds \"data\""),
        (json!({"tolerance": {"abs": -1.0}}), "`tolerance`"),
        (json!({"python": "no-such-python"}), "cannot start `no-such-python`"),
        (json!({"python": "true"}), "does not say where it lives"),
        (json!({"command": ["no-such-program"]}), "there is no program `no-such-program`"),
    ] {
        let options = serde_json::from_value(options).unwrap();
        let error = reckon_rewards::Code::new("code", &options).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn the_machinery_failing_is_an_error_and_no_reward() {
    // An interpreter that goes away after the verifier was built.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shell");
    fs::copy("/bin/sh", &path).unwrap();
    let options = json!({"command": [path], "file": "p.sh", "labels": ["sh"], "readable": [folder.path()]});
    let Some(code) = verifier(options) else { return };
    let program = "```sh\necho 1\n```";
    fs::remove_file(&path).unwrap();
    let error = code.verify(&example(prints("1")), program).unwrap_err();
    assert!(matches!(&error, VerifierError::Infra { problem, .. } if problem.contains("cannot start")), "{error}");
}
