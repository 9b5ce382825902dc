//! What a completion may call between its turns: a calculator, Python in the sandbox, a program or a Python function of
//! the user's, an environment on a server. Text in, text and perhaps a reward out: which text is a call, and what becomes
//! of an answer in the context, is left to the trainer; a call's own form (which tool, which input) is read here.
//!
//! A tool that has state gets it with each call and hands back the next one. So whichever worker answers, and whichever
//! rows are asked beside it, an answer is a function of the row and of the calls before. An environment on a server keeps
//! its state there, in a session of the completion's own.

mod calculator;
mod openenv;
mod program;
mod worker;

use std::collections::BTreeMap;
use std::fmt;

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use calculator::{Calculator, CalculatorOptions};
pub use openenv::{OpenEnv, OpenEnvOptions, Session};
pub use program::{Program, ProgramOptions};
pub use worker::{CommandToolOptions, FunctionOptions, WorkerTool};

/// Most characters of what is said of a call that failed.
const MAX_REASON: usize = 200;

/// A tool with its options: a `[[environment.tools]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToolOptions {
    /// Exact arithmetic.
    Calculator(CalculatorOptions),
    /// Python programs in the sandbox.
    Python(ProgramOptions),
    /// A program of the user's own, which is trusted.
    Command(CommandToolOptions),
    /// A Python function or class of the user's own, which is trusted.
    Function(FunctionOptions),
    /// An environment on servers that speak OpenEnv's protocol.
    #[serde(rename = "openenv")]
    OpenEnv(OpenEnvOptions),
}

/// Every `kind` of tool.
pub const TOOL_KINDS: [&str; 5] = ["calculator", "python", "command", "function", "openenv"];

/// What a tool says of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// An answer, or why there is none, which the model is told too.
    pub text: Result<String, String>,
    /// The reward that the call earned by the tool's own account, a finite number; nothing of it is shown to the model.
    pub reward: Option<f64>,
}

impl Said {
    /// An answer without a reward.
    pub fn answer(text: impl Into<String>) -> Self {
        Self { text: Ok(text.into()), reward: None }
    }

    /// Why there is no answer.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { text: Err(reason.into()), reward: None }
    }
}

/// What a tool keeps of a completion from call to call.
#[derive(Debug, Default)]
pub enum State {
    /// Nothing: in the first call, and always of a tool without state.
    #[default]
    Nothing,
    /// What a worker gave back, to be handed to whichever is asked next.
    Told(Value),
    /// A session on a server, which is closed where this is dropped.
    Session(Box<Session>),
}

/// Something that answers calls.
pub trait Tool: Send + Sync {
    /// Answers `input`, a call of a completion of `example`; `state` is what it left there in the completion's last call.
    ///
    /// # Errors
    /// What is broken here, and is not the call's fault.
    fn call(&self, example: &Example, state: &mut State, input: &str) -> Result<Said, String>;
}

/// Broken machinery of a tool: no answer can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("tool `{tool}`: {problem}")]
pub struct ToolError {
    tool: String,
    problem: String,
}

/// What a completion's tools remember of it, by name.
pub type Memory = BTreeMap<String, State>;

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// What the model reads.
    pub text: String,
    /// Whether it says that the call failed.
    pub failed: bool,
    /// The reward that the tool gave for the call.
    pub reward: Option<f64>,
}

/// The tools of a run, by name.
pub struct Toolbox {
    tools: Vec<(String, Box<dyn Tool>)>,
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tools.iter().map(|(name, _)| name)).finish()
    }
}

impl ToolOptions {
    /// What calls name it by.
    pub fn name(&self) -> &str {
        let (name, kind) = match self {
            Self::Calculator(options) => (&options.name, "calculator"),
            Self::Python(options) => (&options.name, "python"),
            Self::Command(options) => (&options.name, "command"),
            Self::Function(options) => (&options.name, "function"),
            Self::OpenEnv(options) => (&options.name, "openenv"),
        };
        name.as_deref().unwrap_or(kind)
    }

    /// Whether answers of this kind of tool may bring a reward.
    pub fn may_reward(&self) -> bool {
        match self {
            Self::Calculator(_) | Self::Python(_) => false,
            Self::Command(_) | Self::Function(_) | Self::OpenEnv(_) => true,
        }
    }

    fn build(&self) -> Result<Box<dyn Tool>, String> {
        Ok(match self {
            Self::Calculator(options) => Box::new(Calculator::new(options)?),
            Self::Python(options) => Box::new(Program::new(options)?),
            Self::Command(options) => Box::new(WorkerTool::command(options)?),
            Self::Function(options) => Box::new(WorkerTool::function(options)?),
            Self::OpenEnv(options) => Box::new(OpenEnv::new(options)?),
        })
    }
}

impl Toolbox {
    /// The tools that a config asks for. Workers and sandbox are tried, so that what is missing is said at once.
    ///
    /// # Errors
    /// A tool that cannot work, two of one name, or none at all.
    pub fn new(options: &[ToolOptions]) -> Result<Self, ToolError> {
        let failed = |tool: &str, problem: &str| ToolError { tool: tool.into(), problem: problem.into() };
        let mut tools: Vec<(String, Box<dyn Tool>)> = Vec::new();
        for options in options {
            let name = options.name();
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == ':') {
                return Err(failed(name, "a name is one word without `:`"));
            }
            if tools.iter().any(|(known, _)| known == name) {
                return Err(failed(name, "two tools have this name; give one of them another `name`"));
            }
            tools.push((name.to_owned(), options.build().map_err(|problem| failed(name, &problem))?));
        }
        if tools.is_empty() { Err(failed("", "there is none; give [[environment.tools]]")) } else { Ok(Self { tools }) }
    }

    /// Answers a call. It is `input` where there is one tool, `name: input` or `name input` where there are several, or a
    /// JSON object of `name` and `arguments`, as the tools of chat models are called; a single argument that is a text is
    /// the input, other arguments are as JSON.
    ///
    /// # Errors
    /// Where a tool is broken; a call that makes no sense gets an answer that says so.
    pub fn answer(&self, example: &Example, memory: &mut Memory, call: &str) -> Result<ToolAnswer, ToolError> {
        let said = match self.read(call) {
            Err(problem) => Said::failed(problem),
            Ok((place, input)) => {
                let (name, tool) = &self.tools[place];
                let said = tool.call(example, memory.entry(name.clone()).or_default(), &input);
                said.map_err(|problem| ToolError { tool: name.clone(), problem })?
            }
        };
        let (failed, reward) = (said.text.is_err(), said.reward);
        let text = said.text.unwrap_or_else(|reason| format!("error: {}", one_line(&reason)));
        Ok(ToolAnswer { text, failed, reward })
    }

    /// Which tool a call is for, and its input.
    fn read(&self, call: &str) -> Result<(usize, String), String> {
        let call = call.trim_matches(['\n', '\r']);
        if let Some((name, input)) = as_object(call.trim()) {
            return Ok((self.place(&name)?, input));
        }
        if self.tools.len() == 1 {
            return Ok((0, call.to_owned()));
        }
        let end = call.find(|c: char| c.is_whitespace() || c == ':').unwrap_or(call.len());
        let (name, rest) = call.split_at(end);
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let input = rest.strip_prefix([' ', '\n']).unwrap_or(rest);
        Ok((self.place(name)?, input.to_owned()))
    }

    fn place(&self, name: &str) -> Result<usize, String> {
        self.tools.iter().position(|(known, _)| known == name).ok_or_else(|| {
            let names: Vec<&str> = self.tools.iter().map(|(name, _)| name.as_str()).collect();
            format!("there is no tool `{name}`; there is {}", names.join(", "))
        })
    }
}

/// Name and input of a call that is a JSON object.
fn as_object(call: &str) -> Option<(String, String)> {
    if !call.starts_with('{') {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_str(call).ok()?;
    let name = object.get("name")?.as_str()?.to_owned();
    let arguments = object.get("arguments").or_else(|| object.get("parameters"))?;
    let only = arguments.as_object().filter(|arguments| arguments.len() == 1).and_then(|map| map.values().next());
    let input = only.unwrap_or(arguments);
    Some((name, input.as_str().map_or_else(|| input.to_string(), ToOwned::to_owned)))
}

/// The reward in a tool's answer: a number, or a truth value as 1 and 0; null is none.
fn reward_in(answer: &Value) -> Result<Option<f64>, String> {
    match answer {
        Value::Null => Ok(None),
        Value::Bool(given) => Ok(Some(f64::from(u8::from(*given)))),
        other => match other.as_f64().filter(|reward| reward.is_finite()) {
            Some(reward) => Ok(Some(reward)),
            None => Err(format!("the reward {} is not a finite number", one_line(&other.to_string()))),
        },
    }
}

/// The start of a text, on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_REASON).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn toolbox(text: &str) -> Result<Toolbox, ToolError> {
        let options: Tables = toml::from_str(text).unwrap();
        Toolbox::new(&options.tools)
    }

    #[derive(Deserialize)]
    struct Tables {
        tools: Vec<ToolOptions>,
    }

    #[test]
    fn a_call_names_its_tool_where_there_are_several() {
        let one = toolbox("tools = [{kind = 'calculator'}]").unwrap();
        let two =
            toolbox("tools = [{kind = 'calculator'}, {kind = 'calculator', name = 'round', places = 1}]").unwrap();
        for (tools, call, expected) in [
            (&one, "2*3", "6"),
            (&one, "\n7/4\n", "1.75"),
            (&one, r#"{"name": "calculator", "arguments": {"expression": "2*3"}}"#, "6"),
            (&one, r#"{"name": "python", "arguments": {}}"#, "error: there is no tool `python`; there is calculator"),
            (&one, "2*", "error: a number is missing at the end"),
            (&two, "round: 7/4", "1.8"),
            (&two, "round 7/4", "1.8"),
            (&two, "calculator\n7/4", "1.75"),
            (&two, r#"{"name": "round", "parameters": {"x": "2/3"}}"#, "0.7"),
            (&two, "7/4", "error: there is no tool `7/4`; there is calculator, round"),
        ] {
            let answer = tools.answer(&Example::default(), &mut Memory::new(), call).unwrap();
            assert_eq!(answer.text, expected, "{call}");
            assert_eq!(answer.failed, expected.starts_with("error"), "{call}");
        }
    }

    #[test]
    fn a_reward_is_a_finite_number_a_truth_value_or_none() {
        for (answer, expected) in [
            ("null", Ok(None)),
            ("0.25", Ok(Some(0.25))),
            ("-3", Ok(Some(-3.0))),
            ("true", Ok(Some(1.0))),
            ("false", Ok(Some(0.0))),
            ("1e999", Err("the reward 1e+999 is not a finite number")),
            ("\"1\"", Err("the reward \"1\" is not a finite number")),
            ("[1]", Err("the reward [1] is not a finite number")),
        ] {
            let found = reward_in(&serde_json::from_str(answer).unwrap());
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{answer}");
        }
    }

    #[test]
    fn tools_that_cannot_be_told_apart_are_refused() {
        for (tools, expected) in [
            ("tools = []", "there is none"),
            ("tools = [{kind = 'calculator'}, {kind = 'calculator'}]", "two tools have this name"),
            ("tools = [{kind = 'calculator', name = 'a b'}]", "one word"),
        ] {
            let message = toolbox(tools).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
