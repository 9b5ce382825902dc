//! The tests of an example: what a program is given, and what is right. Reads one test; the shapes that datasets keep
//! lists of them in are left to `shapes`.

use serde_json::{Map, Value};

use super::compare::Tolerance;

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
    /// Absent where a checker alone knows what is right.
    pub(super) output: Option<String>,
    /// That of the test or of its row.
    pub(super) tolerance: Option<Tolerance>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) args: Value,
    pub(super) kwargs: Value,
    /// Each of them is right; none where a checker alone knows.
    pub(super) expected: Vec<Value>,
    /// That of the test or of its row.
    pub(super) tolerance: Option<Tolerance>,
}

/// What stands around a test and holds for it too.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// The name of the function that is called.
    pub(super) function: Option<String>,
    /// How far numbers may be off.
    pub(super) tolerance: Option<Tolerance>,
}

/// A test as it was read, before all of a list are known.
pub(super) struct Case {
    around: Around,
    input: Input,
    output: Option<Value>,
}

/// What a test gives to the program.
enum Input {
    /// Standard input.
    Stdin(Value),
    /// Arguments by place and by name, and how what is expected is written.
    Call(Vec<Value>, Map<String, Value>, Written),
}

/// How a call's expected value is written.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    /// As it is.
    Plain,
    /// As it is, or in a list of its own, as APPS has some.
    PerhapsWrapped,
    /// As JSON text, as its arguments are.
    Json,
}

/// Names of the key that names the function.
const FUNCTION: [&str; 4] = ["function", "fn_name", "func_name", "entry_point"];

/// What `type` or `testtype` may say.
const STDIN: [&str; 4] = ["stdin", "stdin_stdout", "stdio", "standard_input"];
const CALL: [&str; 4] = ["functional", "function_call", "call", "call_based"];

impl Around {
    /// With what `object` says itself, or its `metadata`, which may be JSON text.
    pub(super) fn within(&self, object: &Map<String, Value>) -> Result<Self, String> {
        let named = |map: &Map<String, Value>| {
            let name = FUNCTION.iter().filter_map(|key| map.get(*key)?.as_str()).find(|name| !name.trim().is_empty());
            name.map(|name| name.trim().to_owned())
        };
        let metadata = object.get("metadata").and_then(|value| match value {
            Value::String(json) => serde_json::from_str(json).ok(),
            value => value.as_object().cloned(),
        });
        let function = named(object).or_else(|| metadata.as_ref().and_then(named)).or_else(|| self.function.clone());
        let tolerance = match object.get("tolerance") {
            None | Some(Value::Null) => self.tolerance,
            Some(value) => Some(Tolerance::read(value)?),
        };
        Ok(Self { function, tolerance })
    }
}

impl Case {
    /// Reads an object with `input` and `output`, or with `args`, `kwargs` and `expected`.
    pub(super) fn read(test: &Map<String, Value>, around: &Around) -> Result<Self, String> {
        let around = around.within(test)?;
        let first =
            |keys: &[&str]| keys.iter().find_map(|key| test.get(*key)).filter(|value| !value.is_null()).cloned();
        let output = first(&["output", "expected", "expected_output", "outputs"]);
        let kind = ["testtype", "type"].iter().find_map(|key| test.get(*key)?.as_str());
        let calls = match kind {
            Some(kind) if STDIN.contains(&kind) => false,
            Some(kind) if CALL.contains(&kind) => true,
            Some(kind) => return Err(format!("its type `{kind}` is neither `stdin` nor `functional`")),
            None => around.function.is_some() || test.contains_key("args"),
        };
        let Some(args) = test.get("args").filter(|_| calls) else {
            return Self::new(first(&["input", "inputs"]).unwrap_or(Value::Null), output, calls, &around);
        };
        let kwargs = test.get("kwargs").cloned().unwrap_or(Value::Object(Map::new()));
        let (Value::Array(args), Value::Object(kwargs)) = (args.clone(), kwargs) else {
            return Err("`args` must be a list and `kwargs` an object".into());
        };
        Ok(Self { around, input: Input::Call(args, kwargs, Written::Plain), output })
    }

    /// One input and what must come of it, where the keys have names in the plural.
    pub(super) fn pair(input: Value, output: Value, around: &Around) -> Result<Self, String> {
        let output = Some(output).filter(|output| !output.is_null());
        Self::new(input, output, around.function.is_some(), around)
    }

    fn new(input: Value, output: Option<Value>, calls: bool, around: &Around) -> Result<Self, String> {
        let input = if calls { arguments(input)? } else { Input::Stdin(input) };
        Ok(Self { around: around.clone(), input, output })
    }
}

/// The arguments of a call: a list, named ones, one value, or text with a JSON value on each line.
fn arguments(input: Value) -> Result<Input, String> {
    Ok(match input {
        Value::Null => Input::Call(Vec::new(), Map::new(), Written::PerhapsWrapped),
        Value::Array(args) => Input::Call(args, Map::new(), Written::PerhapsWrapped),
        Value::Object(kwargs) => Input::Call(Vec::new(), kwargs, Written::PerhapsWrapped),
        Value::String(lines) => {
            let lines = lines.lines().filter(|line| !line.trim().is_empty()).map(|line| {
                json(line).ok_or_else(|| {
                    format!("{} is no JSON value; arguments are a list, or JSON, one on each line", shown(line))
                })
            });
            Input::Call(lines.collect::<Result<_, _>>()?, Map::new(), Written::Json)
        }
        one => Input::Call(vec![one], Map::new(), Written::PerhapsWrapped),
    })
}

impl Suite {
    /// Of tests that all read standard input, or all call one function.
    pub(super) fn new(cases: Vec<Case>) -> Result<Self, String> {
        let Some(Case { input: Input::Call(..), around, .. }) = cases.first() else {
            let streams = cases.into_iter().enumerate().map(|(index, case)| case.stream().map_err(nth(index)));
            return Ok(Self::Streams(streams.collect::<Result<_, _>>()?));
        };
        let Some(function) = around.function.clone() else {
            return Err(nth(0)("it calls a function, whose name is missing; give it in `function`".into()));
        };
        // A function that returns lists of one value in every test is as rare as data that wrap all are common.
        let lone = |case: &Case| matches!(&case.output, Some(Value::Array(values)) if values.len() == 1);
        let wrapped = cases.iter().all(lone);
        let calls = cases.into_iter().enumerate().map(|(index, case)| {
            if case.around.function.as_ref() != Some(&function) {
                return Err(nth(index)(format!("it does not call `{function}`, as the first does")));
            }
            case.call(wrapped).map_err(nth(index))
        });
        Ok(Self::Calls { calls: calls.collect::<Result<_, _>>()?, function })
    }

    /// Whether what is expected is there; a suite that an empty program would pass tells nothing.
    pub(super) fn comparable(self) -> Result<Self, String> {
        let missing = match &self {
            Self::Streams(streams) => streams.iter().position(|stream| stream.output.is_none()),
            Self::Calls { calls, .. } => calls.iter().position(|call| call.expected.is_empty()),
        };
        if let Some(index) = missing {
            return Err(nth(index)("it has no `output`".into()));
        }
        match &self {
            Self::Streams(streams) if streams.iter().flat_map(|s| &s.output).all(|output| output.trim().is_empty()) => {
                Err("no test expects any output".into())
            }
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

impl Case {
    fn stream(self) -> Result<Stream, String> {
        let Input::Stdin(input) = self.input else {
            return Err("it calls a function, and the first reads standard input".into());
        };
        // A number is text beside text. Two numbers would rather be a call of a function whose name got lost.
        let textual = |value: &Value| matches!(value, Value::String(_) | Value::Null) || lines(value).is_some();
        let beside_text = textual(&input) || self.output.as_ref().is_some_and(textual);
        let text = |value: Value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            Value::Number(number) if beside_text => Ok(number.to_string()),
            value => lines(&value).ok_or_else(|| {
                let shown = shown(&value.to_string());
                format!("{shown} is not text; a test of values needs the name of a `function`, or `fn_name`")
            }),
        };
        let (input, output) = (text(input)?, self.output.map(text).transpose()?);
        Ok(Stream { input, output, tolerance: self.around.tolerance })
    }

    /// `wrapped` says that what each test expects stands in a list of its own, as far as can be told.
    fn call(self, wrapped: bool) -> Result<Call, String> {
        let Input::Call(args, kwargs, written) = self.input else {
            return Err("it reads standard input, and the first calls a function".into());
        };
        let expected = match (self.output, written) {
            (None, _) => Vec::new(),
            (Some(Value::String(text)), Written::Json) => {
                let value = json(&text);
                vec![value.ok_or_else(|| format!("its output {} is no JSON value, as its input is", shown(&text)))?]
            }
            (Some(Value::Array(values)), Written::PerhapsWrapped) if wrapped => {
                values.first().cloned().into_iter().chain([Value::Array(values.clone())]).collect()
            }
            (Some(value), _) => vec![value],
        };
        Ok(Call { args: args.into(), kwargs: kwargs.into(), expected, tolerance: self.around.tolerance })
    }
}

/// A list of lines as one text, whether or not the lines bring their own ends.
fn lines(value: &Value) -> Option<String> {
    let lines = value.as_array()?.iter().map(|line| {
        let line = line.as_str()?;
        Some(format!("{}\n", line.strip_suffix('\n').unwrap_or(line)))
    });
    lines.collect()
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Says which test a problem is in.
pub(super) fn nth(index: usize) -> impl Fn(String) -> String {
    move |problem| format!("test {}: {problem}", index + 1)
}

/// The beginning of a text that may be long, fit for a line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
