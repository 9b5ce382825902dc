//! The shapes that datasets keep tests in: lists, columns, either as JSON text or inside an object. What cannot be
//! read is said in a line that tells the way out; one test by itself is left to `cases`.

use std::borrow::Cow;

use reckon_datasets::Example;
use serde_json::{Map, Value};

use super::cases::{Around, Case, Suite, nth, shown};

/// Objects that hold tests under one of these names, beside other things.
const HOLDERS: [&str; 6] = ["tests", "test_cases", "unit_tests", "input_output", "ground_truth", "verification_info"];

/// How often JSON may hold tests as JSON text, and objects hold other objects.
const MAX_DEPTH: usize = 6;

impl Suite {
    /// Reads the tests of `example` in `column`: a key of `info`, one inside another as `outer.inner`, or `answer`.
    pub(super) fn read(example: &Example, column: &str) -> Result<Self, String> {
        let within = |problem: String| format!("`info.{column}`: {problem}");
        let value = match find(&example.info, column) {
            Some(value) => Cow::Borrowed(value),
            None if column == "answer" => Cow::Owned(Value::String(example.answer.as_str().to_owned())),
            None => return Err(format!("it has no `info.{column}` with test cases")),
        };
        let around = Around::default().within(&example.info).map_err(within)?;
        cases(&value, &around, MAX_DEPTH).and_then(Self::new).map_err(within)
    }
}

fn find<'a>(info: &'a Map<String, Value>, column: &str) -> Option<&'a Value> {
    info.get(column).or_else(|| {
        let (outer, inner) = column.split_once('.')?;
        find(info.get(outer)?.as_object()?, inner)
    })
}

fn cases(value: &Value, around: &Around, depth: usize) -> Result<Vec<Case>, String> {
    let Some(depth) = depth.checked_sub(1) else { return Err("its tests are nested too deep".into()) };
    match value {
        Value::String(text) => {
            let value: Value = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
            cases(&value, around, depth)
        }
        Value::Array(tests) if tests.is_empty() => Err("there is no test".into()),
        Value::Array(tests) => {
            let tests = tests.iter().enumerate().map(|(index, test)| match test {
                Value::Object(test) => Case::read(test, around).map_err(nth(index)),
                Value::String(text) if text.contains("assert") => Err(nth(index)(ASSERTION.into())),
                other => {
                    let shown = shown(&other.to_string());
                    Err(nth(index)(format!("{shown} is no object with `input` and `output`")))
                }
            });
            tests.collect()
        }
        Value::Object(object) => held(object, &around.within(object)?, depth),
        other => Err(format!("{other} is not a list of tests")),
    }
}

/// The tests of an object: columns in pairs, one test, or what it holds them under.
fn held(object: &Map<String, Value>, around: &Around, depth: usize) -> Result<Vec<Case>, String> {
    for (inputs, outputs) in [("inputs", "outputs"), ("input", "output")] {
        match (object.get(inputs), object.get(outputs)) {
            (Some(Value::Array(inputs)), Some(Value::Array(outputs))) => return columns(inputs, outputs, around),
            (Some(_), Some(_)) => return Ok(vec![Case::read(object, around).map_err(nth(0))?]),
            _ => {}
        }
    }
    let holder = HOLDERS.iter().find_map(|name| object.get(*name));
    let keys = || object.keys().map(|key| shown(key)).collect::<Vec<_>>().join(", ");
    let held = holder.ok_or_else(|| format!("it holds no `inputs` and `outputs`, but {}", keys()))?;
    cases(held, around, depth)
}

fn columns(inputs: &[Value], outputs: &[Value], around: &Around) -> Result<Vec<Case>, String> {
    if inputs.len() != outputs.len() {
        return Err(format!("{} inputs and {} outputs are no pairs", inputs.len(), outputs.len()));
    }
    if inputs.is_empty() {
        return Err("there is no test".into());
    }
    let pairs = inputs.iter().zip(outputs).enumerate();
    let cases =
        pairs.map(|(index, (input, output))| Case::pair(input.clone(), output.clone(), around).map_err(nth(index)));
    cases.collect()
}

/// Assertions would put what is expected where the program can read it.
const ASSERTION: &str = "an assertion is no test, as the program could read it; give the call as `args` and `expected`";

/// Why a text is no JSON, by what it seems to be.
fn unreadable(text: &str, error: &serde_json::Error) -> String {
    if text.contains("assert") {
        return ASSERTION.into();
    }
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '\n');
    if text.starts_with("eJ") && text.chars().all(base64) {
        // A pickle can run programs as it is opened.
        return "is packed (pickle in zlib in base64) and not opened here; unpack it once, in Python by \
                `json.loads(pickle.loads(zlib.decompress(base64.b64decode(text))))`"
            .into();
    }
    format!("is text that is no JSON: {error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::{Call, Stream};
    use super::*;
    use crate::Tolerance;

    fn read(info: &Value) -> Result<Suite, String> {
        let info = info.as_object().unwrap().clone();
        let answer = r#"{"inputs": ["1", ""], "outputs": ["2\n", "3\n"]}"#.into();
        let example = Example { id: "1".into(), question: String::new(), answer, messages: Vec::new(), info };
        let comparable = |suite: Suite| suite.comparable().map_err(|problem| format!("`info.tests`: {problem}"));
        Suite::read(&example, "tests").and_then(comparable)
    }

    #[test]
    fn streams_are_read_from_all_their_shapes() {
        let stream = |input: &str| Stream { input: input.into(), output: Some("3\n".into()), tolerance: None };
        let list = json!([{"input": "1\n2\n", "output": "3\n"}, {"output": "3\n"}]);
        let columns = json!({"inputs": ["1\n2\n", ""], "outputs": ["3\n", "3\n"]});
        let lines = json!({"inputs": [["1", "2\n"], []], "outputs": [["3"], ["3"]], "fn_name": null});
        let deepcoder = json!([
            {"type": "stdin_stdout", "input": "1\n2\n", "output": "3\n", "fn_name": "", "metadata": {"func_name": null}},
            {"type": "stdin_stdout", "input": "", "output": "3\n"},
        ]);
        let livecodebench = json!([
            {"input": "1\n2\n", "output": "3\n", "testtype": "stdin"},
            {"input": "", "output": "3\n", "testtype": "stdin"},
        ]);
        let code_contests = json!({"input": ["1\n2\n", null], "output": ["3\n", "3\n"]});
        let synthetic = json!({"language": "python", "test_cases": list});
        let verl = json!({"ground_truth": columns.to_string(), "style": "rule"});
        for tests in [list, columns, lines, deepcoder, livecodebench, code_contests, synthetic, verl] {
            for tests in [tests.clone(), tests.to_string().into(), json!(tests.to_string()).to_string().into()] {
                let suite = read(&json!({"tests": tests}));
                assert_eq!(suite, Ok(Suite::Streams(vec![stream("1\n2\n"), stream("")])), "{tests}");
            }
        }
        // Numbers beside text are text; their digits stay.
        let text = json!({"tests": r#"[{"input": "1", "output": 1.50}, {"input": 7, "output": "2"}]"#});
        let stream =
            |input: &str, output: &str| Stream { input: input.into(), output: Some(output.into()), tolerance: None };
        assert_eq!(read(&text), Ok(Suite::Streams(vec![stream("1", "1.50"), stream("7", "2")])));
    }

    #[test]
    fn calls_are_read_from_all_their_shapes() {
        let tests = |args: Value, expected: &[Value]| {
            let call = Call { args, kwargs: json!({}), expected: expected.to_vec(), tolerance: None };
            Ok(Suite::Calls { function: "f".into(), calls: vec![call] })
        };
        let plain = tests(json!([[1, 2], "a"]), &[json!(3)]);
        for info in [
            json!({"function": "f", "tests": [{"args": [[1, 2], "a"], "expected": 3}]}),
            json!({"tests": [{"function": "f", "args": [[1, 2], "a"], "expected": 3}]}),
            json!({"tests": {"fn_name": "f", "inputs": [[[1, 2], "a"]], "outputs": [3]}}),
            json!({"fn_name": "f", "tests": {"inputs": ["[1, 2]\n\"a\""], "outputs": ["3"]}}),
            json!({"metadata": r#"{"func_name": "f"}"#, "tests": [
                {"input": "[1, 2]\n\"a\"", "output": "3", "testtype": "functional"}]}),
            json!({"metadata": {"func_name": "f"}, "tests": r#"[{"input": "[1, 2]\n\"a\"", "output": "3"}]"#}),
            json!({"tests": [{"input": "[1, 2]\n\"a\"\n", "output": "3", "testtype": "functional",
                "metadata": {"func_name": "f"}}]}),
            json!({"tests": {"language": "python", "test_cases": [
                {"type": "function_call", "fn_name": "f", "input": [[1, 2], "a"], "output": 3}]}}),
        ] {
            assert_eq!(read(&info), plain, "{info}");
        }
        // APPS wraps what is expected in many rows, and one cannot tell which; so either is right.
        let wrapped = json!({"tests": {"fn_name": "f", "inputs": [[1]], "outputs": [[[2]]]}});
        assert_eq!(read(&wrapped), tests(json!([1]), &[json!([2]), json!([[2]])]));
        let own = json!({"function": "f", "tests": [{"args": [1], "expected": [2]}]});
        assert_eq!(read(&own), tests(json!([1]), &[json!([2])]));
        let lines = json!({"fn_name": "f", "tests": [{"input": "1", "output": "[2]"}]});
        assert_eq!(read(&lines), tests(json!([1]), &[json!([2])]));
        let text = json!({"fn_name": "f", "tests": {"inputs": [["1"]], "outputs": ["2"]}});
        assert_eq!(read(&text), tests(json!(["1"]), &[json!("2")]));
        let mixed = read(&json!({"tests": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [1, 2]]}})).unwrap();
        let Suite::Calls { calls, .. } = mixed else { panic!("they are calls") };
        assert_eq!(calls[0].expected, [json!([1])]);
        let named = read(&json!({"tests": {"fn_name": "f", "inputs": [{"x": 1}], "outputs": [2]}})).unwrap();
        let Suite::Calls { calls, .. } = named else { panic!("they are calls") };
        assert_eq!((&calls[0].args, &calls[0].kwargs), (&json!([]), &json!({"x": 1})));
        let long = format!("1{}", "0".repeat(5000));
        let digits = read(&json!({"fn_name": "f", "tests": [{"input": long, "output": long}]})).unwrap();
        let Suite::Calls { calls, .. } = digits else { panic!("they are calls") };
        assert_eq!(calls[0].expected[0].to_string(), long);
    }

    #[test]
    fn a_tolerance_holds_for_a_test_its_list_or_its_row() {
        let of = |info: Value| match read(&info).unwrap() {
            Suite::Streams(streams) => streams[0].tolerance,
            Suite::Calls { calls, .. } => calls[0].tolerance,
        };
        let near = |abs, rel| Some(Tolerance { abs, rel });
        assert_eq!(of(json!({"tolerance": 1e-6, "tests": [{"output": "1"}]})), near(1e-6, 1e-6));
        assert_eq!(
            of(json!({"tests": {"tolerance": {"abs": 0.5}, "inputs": ["1"], "outputs": ["1"]}})),
            near(0.5, 0.0)
        );
        let both = json!({"tolerance": 1, "tests": [{"output": "1", "tolerance": {"rel": 0.25}}]});
        assert_eq!(of(both), near(0.0, 0.25));
        assert_eq!(of(json!({"tolerance": null, "function": "f", "tests": [{"args": [], "expected": 1}]})), None);
    }

    #[test]
    fn tests_are_found_inside_columns_and_in_the_answer() {
        let at = |info: Value, column: &str| {
            let info = info.as_object().unwrap().clone();
            let answer = r#"{"inputs": ["1"], "outputs": ["2"]}"#.into();
            Suite::read(
                &Example { id: "1".into(), question: String::new(), answer, messages: Vec::new(), info },
                column,
            )
            .map(|s| s.len())
        };
        assert_eq!(at(json!({"a": {"b": [{"output": "1"}, {"output": "2"}]}}), "a.b"), Ok(2));
        assert_eq!(at(json!({}), "answer"), Ok(1));
        assert!(at(json!({}), "a.b").is_err());
    }

    #[test]
    fn damaged_tests_are_refused_in_one_line() {
        let texts = [
            r#"{"fn_name": "f", "inputs": [[1, "a"], ["2"]], "outputs": [[3], ["é"]], "tolerance": {"abs": 1e-6}}"#,
            r#"[{"input": "[1]\n2", "output": "3", "testtype": "functional", "metadata": "{\"func_name\": \"f\"}"}]"#,
            r#"{"test_cases": [{"type": "stdin_stdout", "input": ["1"], "output": 2}]}"#,
        ];
        for text in texts {
            let pieces: Vec<char> = text.chars().collect();
            for (at, with) in (0..pieces.len()).flat_map(|at| ["", "\"", "[", "}", "0", "null"].map(|with| (at, with)))
            {
                let damaged: String =
                    pieces[..at].iter().collect::<String>() + with + &pieces[at + 1..].iter().collect::<String>();
                let problem = read(&json!({"tests": damaged})).err().unwrap_or_default();
                assert!(!problem.contains('\n'), "{damaged}: {problem}");
            }
        }
    }

    fn refused(tests: &Value, problem: &str) {
        assert_eq!(read(&json!({"tests": tests})), Err(format!("`info.tests`: {problem}")), "{tests}");
    }

    #[test]
    fn a_suite_that_cannot_be_held_to_anything_is_refused() {
        let packed = "is packed (pickle in zlib in base64) and not opened here; unpack it once, in Python by \
                      `json.loads(pickle.loads(zlib.decompress(base64.b64decode(text))))`";
        for (tests, problem) in [
            (json!([]), "there is no test"),
            (json!([{"output": "\n"}]), "no test expects any output"),
            (json!(3), "3 is not a list of tests"),
            (json!({"inputs": ["1"], "outputs": []}), "1 inputs and 0 outputs are no pairs"),
            (json!({"inputs": [], "outputs": []}), "there is no test"),
            (json!(["assert f(1) == 2"]), &format!("test 1: {ASSERTION}")),
            (json!("def check(candidate):\n    assert candidate(1) == 2"), ASSERTION),
            (json!("eJxrYJmqzAABtVMVpxYA"), packed),
            (json!("no tests"), "is text that is no JSON: expected ident at line 1 column 2"),
            (json!({"entry_point": "f", "test": "1"}), "it holds no `inputs` and `outputs`, but `entry_point`, `test`"),
        ] {
            refused(&tests, problem);
        }
        assert_eq!(read(&json!({})), Err("it has no `info.tests` with test cases".into()));
        refused(&(0..8).fold(json!("[]"), |text, _| text.to_string().into()), "its tests are nested too deep");
    }

    #[test]
    fn a_test_that_cannot_be_read_is_refused() {
        let test = |output: &str| json!({"input": "1", "output": output, "fn_name": "f"});
        let nameless = "it calls a function, whose name is missing; give it in `function`";
        for (tests, problem) in [
            (json!([{"input": ""}]), "it has no `output`"),
            (json!([{"args": 1, "expected": 2, "function": "f"}]), "`args` must be a list and `kwargs` an object"),
            (
                json!({"inputs": [[1, 2]], "outputs": [3]}),
                "`[1,2]` is not text; a test of values needs the name of a `function`, or `fn_name`",
            ),
            (json!([{"args": [1], "expected": 2}]), nameless),
            (json!([{"input": "1", "output": "1", "testtype": "functional"}]), nameless),
            (
                json!([{"input": "1", "output": "1", "type": "image"}]),
                "its type `image` is neither `stdin` nor `functional`",
            ),
            (
                json!([{"input": "nums = [1]", "output": "1", "fn_name": "f"}]),
                "`nums = [1]` is no JSON value; arguments are a list, or JSON, one on each line",
            ),
            (json!([test("True")]), "its output `True` is no JSON value, as its input is"),
            (
                json!([{"output": "1", "tolerance": -1}]),
                "`tolerance` -1 must be a number or {abs, rel}, finite and not negative",
            ),
        ] {
            refused(&tests, &format!("test 1: {problem}"));
        }
        let other = json!([test("1"), {"input": "1", "output": "1"}]);
        refused(&other, "test 2: it does not call `f`, as the first does");
        let stdin = json!([test("1"), {"input": "1", "output": "1", "fn_name": "f", "testtype": "stdin"}]);
        refused(&stdin, "test 2: it reads standard input, and the first calls a function");
    }
}
