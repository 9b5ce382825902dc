//! From columns to examples: which column is the question and which the answer, recognised from the first row or given
//! in the config. The shapes of public datasets are rows of the tables below.

use serde_json::{Map, Value};

use super::cut::Cut;
use crate::{Answer, Example, table};

table! {
    /// Which columns hold what; a column inside another is written `reward_model.ground_truth`. What is not given is
    /// recognised from the first row.
    pub struct Columns {
        /// Column of the question: a text, or messages of `role` and `content`.
        pub question: Option<String> = None,
        /// Column of the reference answer, or of the completion to learn; `""` for rows without one.
        pub answer: Option<String> = None,
        /// Column of the id; rows are numbered without it.
        pub id: Option<String> = None,
        /// What of the answer column is the answer; from the first row when absent.
        pub cut: Option<Cut> = None,
    }
}

/// What the answer column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A reference answer, for verifiers to compare with.
    Reference,
    /// A completion, to learn from.
    Completion,
}

/// Name, question and answer of shapes that are recognised, the more telling first.
type Shapes = &'static [(&'static str, &'static str, &'static str)];

const REFERENCES: Shapes = &[
    ("verl", "prompt", "reward_model.ground_truth"),
    ("open-instruct", "messages", "ground_truth"),
    ("TRL", "prompt", "answer"),
    ("TRL", "prompt", "solution"),
    ("question and answer", "question", "answer"),
    ("problem and answer", "problem", "answer"),
    ("problem and solution", "problem", "solution"),
];

const COMPLETIONS: Shapes = &[
    ("TRL", "prompt", "completion"),
    ("question and completion", "question", "completion"),
    ("messages", "messages", "messages"),
    ("question and answer", "question", "answer"),
    ("problem and solution", "problem", "solution"),
];

/// How the rows of a dataset are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) shape: String,
    question: String,
    answer: String,
    id: Option<String>,
    cut: Cut,
    purpose: Purpose,
}

/// A row's columns.
type Row = Map<String, Value>;

impl Reading {
    /// The reading that fits the first row, with what `columns` gives taking precedence.
    pub(super) fn of(row: &Row, columns: &Columns, purpose: Purpose) -> Result<Self, String> {
        let countdown = purpose == Purpose::Reference && *columns == Columns::default() && is_countdown(row);
        let (shape, question, answer) = match (&columns.question, &columns.answer) {
            _ if countdown => ("Countdown".into(), String::new(), String::new()),
            (Some(question), Some(answer)) => ("as configured".to_owned(), question.clone(), answer.clone()),
            (question, answer) => {
                let (shape, q, a) = recognise(row, question.as_deref(), answer.as_deref(), purpose)?;
                (shape.to_owned(), question.clone().unwrap_or(q), answer.clone().unwrap_or(a))
            }
        };
        let mut reading = Self { shape, question, answer, id: columns.id.clone(), cut: Cut::Whole, purpose };
        reading.cut = match columns.cut {
            Some(cut) => cut,
            None if purpose == Purpose::Completion => Cut::Whole,
            None => reading.raw_answers(row).map_or(Cut::Whole, |texts| Cut::of(&texts[0])),
        };
        match (reading.shape.as_str(), reading.cut) {
            ("question and answer", Cut::Hashes) => reading.shape = "GSM8K".into(),
            ("problem and solution", Cut::Boxed) => reading.shape = "MATH".into(),
            _ => {}
        }
        Ok(reading)
    }

    /// A row as an example, called `fallback` where no column holds its id.
    pub(super) fn example(&self, mut row: Row, fallback: String) -> Result<Example, String> {
        if is_countdown(&row) && self.question.is_empty() {
            return Ok(countdown(row, fallback));
        }
        let (question, messages) = self.conversation(&row)?;
        let id = match &self.id {
            Some(name) => plain_text(name, column(&row, name)?)?,
            None => fallback,
        };
        let mut answer = Answer::default();
        if let Some(numbers) = countdown_truth(&row, &self.answer) {
            row.extend(numbers);
        } else if !self.answer.is_empty() {
            let texts = self.raw_answers(&row)?.into_iter().map(|text| self.cut(&text));
            answer = Answer::any_of(texts.collect::<Result<_, _>>()?);
        }
        Ok(Example { id, question, answer, messages, info: row })
    }

    /// The last thing the user says, and the messages of the prompt where the column holds messages.
    fn conversation(&self, row: &Row) -> Result<(String, Vec<Value>), String> {
        let messages = match column(row, &self.question)? {
            Value::Array(messages) => self.of_prompt(messages),
            other => return Ok((plain_text(&self.question, other)?, Vec::new())),
        };
        let asked = messages.iter().rfind(|message| message["role"] == "user");
        let asked = asked.ok_or_else(|| format!("column {:?} has no message of role \"user\"", self.question))?;
        let question = content(asked).unwrap_or_default();
        let messages = messages.iter().map(|message| {
            turn(message).ok_or_else(|| {
                format!("column {:?} holds {}, not a message of role and content", self.question, short(message))
            })
        });
        Ok((question, messages.collect::<Result<_, String>>()?))
    }

    /// The messages that come before the completion: a column that holds the whole conversation ends with an answer,
    /// one of prompts alone with the words that the assistant begins with.
    fn of_prompt<'a>(&self, messages: &'a [Value]) -> &'a [Value] {
        let whole = self.question == self.answer || self.shape == "open-instruct";
        match messages {
            [prompt @ .., last] if whole && last["role"] == "assistant" => prompt,
            _ => messages,
        }
    }

    /// The reference answer in a text of the answer column.
    fn cut(&self, text: &str) -> Result<String, String> {
        let mark = || format!("column {:?} has no {} to cut the answer from", self.answer, self.cut.mark());
        let answer = self.cut.apply(text).ok_or_else(mark)?;
        if answer.is_empty() {
            return Err(format!("column {:?} is empty: every row needs an answer", self.answer));
        }
        Ok(answer)
    }

    /// The text of the answer column, or the texts of a list of right answers; one at least.
    fn raw_answers(&self, row: &Row) -> Result<Vec<String>, String> {
        let name = &self.answer;
        let value = column(row, name)?;
        let one = match (value, self.purpose) {
            (Value::Array(messages), Purpose::Completion) => {
                let last = messages.last().filter(|message| message["role"] == "assistant").and_then(content);
                last.ok_or_else(|| format!("column {name:?} does not end with a message of role \"assistant\""))
            }
            (Value::Array(several), Purpose::Reference) if !several.is_empty() && several.iter().all(is_plain) => {
                return several.iter().map(|answer| plain_text(name, answer)).collect();
            }
            // Constraints to follow, or values of names: their verifier reads JSON.
            (Value::Array(_) | Value::Object(_), Purpose::Reference) => Ok(value.to_string()),
            _ => plain_text(name, value),
        };
        Ok(vec![one?])
    }
}

/// The first shape whose columns the row has, where the config does not name them.
fn recognise(
    row: &Row,
    question: Option<&str>,
    answer: Option<&str>,
    purpose: Purpose,
) -> Result<(&'static str, String, String), String> {
    let shapes = if purpose == Purpose::Reference { REFERENCES } else { COMPLETIONS };
    let has = |name: &str| find(row, name).is_some();
    let fits = |shape: &&(&str, &str, &str)| (question.is_some() || has(shape.1)) && (answer.is_some() || has(shape.2));
    let found = shapes.iter().find(fits).map(|&(name, q, a)| (name, q.to_owned(), a.to_owned()));
    found.ok_or_else(|| {
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        format!(
            "no known shape has the columns {}: name them with columns = {{ question = \"...\", answer = \"...\" }}",
            columns.join(", ")
        )
    })
}

/// A value by its column's name, or by a path of names and indices into it.
fn find<'a>(row: &'a Row, name: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(row.get(first)?, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => value.get(key),
    })
}

fn column<'a>(row: &'a Row, name: &str) -> Result<&'a Value, String> {
    find(row, name).ok_or_else(|| {
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        format!("no column {name:?}; the row has: {}", columns.join(", "))
    })
}

fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// A text, or a number or truth value as it is written.
fn plain_text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        Value::String(_) => Err(format!("column {name:?} is empty: every row needs a value there")),
        Value::Null => Err(format!("column {name:?} is empty (null, NaN or Infinity): every row needs a value there")),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(format!("column {name:?} holds {}, not a text or a number", short(other))),
    }
}

/// The text of a message; parts of it that are texts are joined.
fn content(message: &Value) -> Option<String> {
    match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str()).collect(),
        _ => None,
    }
}

/// A message with its text joined and what else it holds, but for the nulls of columns that other messages fill. One
/// that calls functions may say nothing, which stays null.
fn turn(message: &Value) -> Option<Value> {
    let mut turn = message.as_object().filter(|turn| turn.get("role").is_some_and(Value::is_string))?.clone();
    turn.retain(|key, value| key == "content" || !value.is_null());
    match content(message) {
        Some(text) => drop(turn.insert("content".into(), text.into())),
        None => turn.get("tool_calls").and_then(Value::as_array).filter(|calls| !calls.is_empty()).map(drop)?,
    }
    Some(Value::Object(turn))
}

/// The start of a value as JSON.
fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// Rows of Countdown-Tasks-3to4 and its kin: a target and numbers, without a question.
fn is_countdown(row: &Row) -> bool {
    let numbers = row.get("nums").or_else(|| row.get("numbers"));
    numbers.is_some_and(Value::is_array)
        && row.get("target").is_some_and(Value::is_number)
        && !row.contains_key("question")
        && !row.contains_key("prompt")
}

/// A countdown problem, its question as the generator writes it. Any expression of the target's value is an answer.
fn countdown(mut row: Row, id: String) -> Example {
    if let Some(numbers) = row.get("nums").cloned() {
        row.insert("numbers".into(), numbers);
    }
    let list: Vec<String> = row["numbers"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let question = format!("{}:{}", list.join(","), row["target"]);
    Example { id, question, answer: Answer::default(), messages: Vec::new(), info: row }
}

/// Numbers and target, where the answer column holds those, as in verl's files of countdown.
fn countdown_truth(row: &Row, answer: &str) -> Option<Row> {
    let truth = find(row, answer)?.as_object()?;
    let numbers = truth.get("numbers").or_else(|| truth.get("nums"))?;
    let pairs = [("numbers", numbers), ("target", truth.get("target")?)];
    Some(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect())
}
