//! The test cases of an example, in the shapes that datasets have them in.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// What a program is tested by.
#[derive(Debug, PartialEq)]
pub(super) enum Suite {
    /// Standard input, and what must come out.
    Streams(Vec<Stream>),
    /// Calls of one function.
    Calls {
        /// Its name; `Class.method` is a method.
        function: String,
        /// The calls.
        calls: Vec<Call>,
    },
}

#[derive(Debug, PartialEq)]
pub(super) struct Stream {
    pub(super) input: String,
    pub(super) output: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) args: Value,
    pub(super) kwargs: Value,
    pub(super) expected: Value,
}

impl Suite {
    /// Reads `info[column]`: a list of tests, or an object of `inputs` and `outputs`, or either as JSON text.
    pub(super) fn read(info: &Map<String, Value>, column: &str) -> Result<Self, String> {
        let within = |problem: String| format!("`info.{column}`: {problem}");
        let value = info.get(column).ok_or_else(|| format!("it has no `info.{column}` with test cases"))?;
        let value = match value {
            Value::String(json) => Cow::Owned(
                serde_json::from_str(json).map_err(|error| within(format!("is text that is no JSON: {error}")))?,
            ),
            value => Cow::Borrowed(value),
        };
        let named = |map: &Map<String, Value>| {
            let name = map.get("function").or_else(|| map.get("fn_name")).and_then(Value::as_str);
            name.map(ToOwned::to_owned)
        };
        let suite = match &*value {
            Value::Array(tests) => Self::from_list(tests, named(info)),
            Value::Object(columns) => Self::from_columns(columns, named(columns).or_else(|| named(info))),
            other => Err(format!("{other} is not a list of tests")),
        };
        suite.and_then(Self::checked).map_err(within)
    }

    /// `[{input, output}]`, or `[{args, kwargs, expected}]` with the name of a function.
    fn from_list(tests: &[Value], function: Option<String>) -> Result<Self, String> {
        let part = |test: &Value, index: usize, key: &str| {
            test.get(key).cloned().ok_or_else(|| format!("test {} has no `{key}`", index + 1))
        };
        let tests = tests.iter().enumerate();
        let Some(function) = function else {
            let streams = tests.map(|(i, test)| {
                Stream::new(test.get("input").cloned().unwrap_or("".into()), part(test, i, "output")?, i)
            });
            return Ok(Self::Streams(streams.collect::<Result<_, _>>()?));
        };
        let calls = tests.map(|(i, test)| {
            let kwargs = test.get("kwargs").cloned().unwrap_or(Value::Object(Map::new()));
            Call::new(part(test, i, "args")?, kwargs, part(test, i, "expected")?, i)
        });
        Ok(Self::Calls { function, calls: calls.collect::<Result<_, _>>()? })
    }

    /// `{inputs: [...], outputs: [...]}`, in pairs.
    fn from_columns(columns: &Map<String, Value>, function: Option<String>) -> Result<Self, String> {
        let list = |key: &str| {
            columns.get(key).and_then(Value::as_array).ok_or_else(|| format!("`{key}` is missing or not a list"))
        };
        let (inputs, outputs) = (list("inputs")?, list("outputs")?);
        if inputs.len() != outputs.len() {
            return Err(format!("{} `inputs` and {} `outputs` are no pairs", inputs.len(), outputs.len()));
        }
        let pairs = inputs.iter().cloned().zip(outputs.iter().cloned()).enumerate();
        Ok(match function {
            None => Self::Streams(
                pairs.map(|(i, (input, output))| Stream::new(input, output, i)).collect::<Result<_, _>>()?,
            ),
            Some(function) => {
                let none = || Value::Object(Map::new());
                let calls = pairs.map(|(i, (args, expected))| Call::new(args, none(), expected, i));
                Self::Calls { function, calls: calls.collect::<Result<_, _>>()? }
            }
        })
    }

    /// A suite that an empty program would pass tells nothing.
    fn checked(self) -> Result<Self, String> {
        match &self {
            Self::Streams(streams) if streams.iter().all(|stream| stream.output.trim().is_empty()) => {
                Err("no test expects any output".into())
            }
            Self::Calls { calls, .. } if calls.is_empty() => Err("there is no test".into()),
            _ => Ok(self),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Streams(streams) => streams.len(),
            Self::Calls { calls, .. } => calls.len(),
        }
    }
}

impl Stream {
    fn new(input: Value, output: Value, index: usize) -> Result<Self, String> {
        match (input, output) {
            (Value::String(input), Value::String(output)) => Ok(Self { input, output }),
            (Value::String(_), other) | (other, _) => {
                Err(format!("test {}: {other} is not text; a test of values needs the name of a `function`", index + 1))
            }
        }
    }
}

impl Call {
    fn new(args: Value, kwargs: Value, expected: Value, index: usize) -> Result<Self, String> {
        if !args.is_array() || !kwargs.is_object() {
            return Err(format!("test {}: `args` must be a list and `kwargs` an object", index + 1));
        }
        Ok(Self { args, kwargs, expected })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(info: &Value) -> Result<Suite, String> {
        Suite::read(info.as_object().unwrap(), "tests")
    }

    #[test]
    fn suites_are_read_from_all_their_shapes() {
        let streams = read(&json!({"tests": [{"input": "1", "output": "2"}, {"output": "3"}]})).unwrap();
        let stream = |input: &str, output: &str| Stream { input: input.into(), output: output.into() };
        assert_eq!(streams, Suite::Streams(vec![stream("1", "2"), stream("", "3")]));
        let text = json!({"tests": r#"{"inputs": ["1", ""], "outputs": ["2", "3"]}"#});
        assert_eq!(read(&text).unwrap(), streams);

        let calls = read(&json!({"function": "f", "tests": [{"args": [1], "expected": 2}]})).unwrap();
        let call = Call { args: json!([1]), kwargs: json!({}), expected: json!(2) };
        assert_eq!(calls, Suite::Calls { function: "f".into(), calls: vec![call] });
        let columns = json!({"tests": {"fn_name": "f", "inputs": [[1]], "outputs": [2]}});
        assert_eq!(read(&columns).unwrap(), calls);
    }

    #[test]
    fn a_suite_that_tests_nothing_is_refused() {
        for (info, problem) in [
            (json!({}), "it has no `info.tests` with test cases"),
            (json!({"tests": []}), "`info.tests`: no test expects any output"),
            (json!({"tests": [{"output": "\n"}]}), "`info.tests`: no test expects any output"),
            (json!({"tests": [], "function": "f"}), "`info.tests`: there is no test"),
            (json!({"tests": 3}), "`info.tests`: 3 is not a list of tests"),
            (json!({"tests": [{"input": ""}]}), "`info.tests`: test 1 has no `output`"),
            (
                json!({"tests": {"inputs": ["1"], "outputs": []}}),
                "`info.tests`: 1 `inputs` and 0 `outputs` are no pairs",
            ),
            (
                json!({"function": "f", "tests": [{"args": 1, "expected": 2}]}),
                "`info.tests`: test 1: `args` must be a list and `kwargs` an object",
            ),
            (
                json!({"tests": [{"input": "", "output": 2}]}),
                "`info.tests`: test 1: 2 is not text; a test of values needs the name of a `function`",
            ),
        ] {
            assert_eq!(read(&info), Err(problem.to_owned()), "{info}");
        }
    }
}
