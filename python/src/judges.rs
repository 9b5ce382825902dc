//! `Verifier` and `Rubric`. Arguments become examples while Python's lock is held; verdicts are given without it, on all
//! cores.

use std::path::{Path, PathBuf};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use reckon_datasets::{Example, Row};
use reckon_rewards::{Judged, RubricConfig, Submission, VerifierConfig, VerifierError, submission};
use serde_json::{Map, Value, json};

use crate::errors::{misconfigured, raised, unreadable, unusable};
use crate::value::{columns, text, to_json};
use crate::verdict::{Score, Verdict};

/// A completion with the example that it is judged by.
struct Taken {
    example: Example,
    completion: String,
    tokens: Vec<u32>,
    truncated: bool,
    rewards: Vec<f64>,
}

impl Taken {
    /// Of columns as a file's row has them; `None` is a column that the row lacks. `tokens`, `truncated` and
    /// `rewards` say more of the completion.
    fn of(mut row: Map<String, Value>, completion: String, place: &str) -> PyResult<Self> {
        let tokens = match row.shift_remove("tokens") {
            None | Some(Value::Null) => Vec::new(),
            Some(ids) => serde_json::from_value(ids).map_err(|_| unreadable("`tokens` must be a list of token ids"))?,
        };
        let truncated = row.shift_remove("truncated").is_some_and(|cut| cut == Value::Bool(true));
        let rewards = match row.shift_remove("rewards") {
            None | Some(Value::Null) => Vec::new(),
            Some(given) => serde_json::from_value(given)
                .map_err(|_| unreadable("`rewards` must be a list of finite numbers, those that tools gave"))?,
        };
        for name in ["answer", "question"] {
            if row.get(name) == Some(&Value::Null) {
                row.shift_remove(name);
            }
        }
        let id = row.get("id").and_then(Value::as_str).unwrap_or(place).to_owned();
        row.insert("completion".into(), Value::String(completion));
        let (example, completion) = submission(row, &id).map_err(unreadable)?;
        Ok(Self { example, completion, tokens, truncated, rewards })
    }

    fn submission(&self) -> Submission<'_> {
        let Self { example, completion, tokens, truncated, rewards } = self;
        Submission { example, completion, tokens, truncated: *truncated, rewards }
    }
}

/// A completion's text.
fn completion_of(value: &Bound<PyAny>) -> PyResult<String> {
    let kind = || unreadable(format!("a completion is a {}, not a text", value.get_type()));
    Ok(text(value.cast::<PyString>().map_err(|_| kind())?))
}

/// What judges, whichever class it is called by.
struct Judge {
    rubric: reckon_rewards::Rubric,
    /// The process that its workers belong to.
    process: u32,
}

impl Judge {
    fn new(rubric: Result<reckon_rewards::Rubric, VerifierError>) -> PyResult<Self> {
        Ok(Self { rubric: rubric.map_err(|error| raised(&error))?, process: std::process::id() })
    }

    fn check_process(&self) -> PyResult<()> {
        if self.rubric.spreads() && self.process != std::process::id() {
            let problem = "its workers belong to the process that made it, which forked; make it anew in this process";
            return Err(unusable(problem));
        }
        Ok(())
    }

    fn one(
        &self,
        py: Python,
        answer: &Bound<PyAny>,
        completion: &Bound<PyAny>,
        more: Option<&Bound<PyDict>>,
    ) -> PyResult<reckon_rewards::Score> {
        self.check_process()?;
        let mut row = columns(more)?;
        row.insert("answer".into(), to_json(answer, 0)?);
        let taken = Taken::of(row, completion_of(completion)?, "the completion")?;
        let scores = py.detach(|| self.rubric.score_batch(&[taken.submission()]));
        Ok(scores.map_err(|error| raised(&error))?.remove(0))
    }

    fn all(&self, py: Python, taken: &[Taken]) -> PyResult<Vec<Judged>> {
        self.check_process()?;
        let judge = || self.rubric.score_all(&taken.iter().map(Taken::submission).collect::<Vec<_>>());
        py.detach(judge).map_err(|error| raised(&error))
    }

    /// A score for each completion; the first that cannot be judged is an exception.
    fn batch(
        &self,
        answers: &Bound<PyAny>,
        completions: &Bound<PyAny>,
        more: Option<&Bound<PyDict>>,
    ) -> PyResult<Vec<reckon_rewards::Score>> {
        let taken = batch(answers, completions, more)?;
        let judged = self.all(completions.py(), &taken)?;
        judged.into_iter().map(|judged| judged.map_err(|error| raised(&error))).collect()
    }

    /// What is said of rows, each a dict with a completion.
    fn rows(&self, rows: &Bound<PyAny>) -> PyResult<Vec<Judged>> {
        let taken = rows.try_iter()?.enumerate().map(|(place, row)| {
            let row = row?;
            let row = row.cast::<PyDict>().map_err(|_| unreadable(format!("row {place} is no dict")))?;
            let place = format!("row {place}");
            let missing = || unreadable(format!("{place}: no column \"completion\""));
            let completion = completion_of(&row.get_item("completion")?.ok_or_else(missing)?)?;
            Taken::of(columns(Some(row))?, completion, &place)
        });
        self.all(rows.py(), &taken.collect::<PyResult<Vec<_>>>()?)
    }

    /// What is said of the rows of a file, of any kind that is read.
    fn file(&self, py: Python, path: &Path) -> PyResult<Vec<Judged>> {
        self.check_process()?;
        py.detach(|| {
            let mut rows: Vec<Row> = Vec::new();
            let read = reckon_datasets::read_rows(path, &mut |row| {
                rows.push(row);
                Ok(())
            });
            read.map_err(unreadable)?;
            let taken = rows.into_iter().map(|Row { columns, place, .. }| {
                submission(columns, &place).map_err(|error| unreadable(format!("{}, {place}: {error}", path.display())))
            });
            let taken = taken.collect::<PyResult<Vec<_>>>()?;
            let rows: Vec<_> = taken.iter().map(|(example, completion)| Submission::new(example, completion)).collect();
            self.rubric.score_all(&rows).map_err(|error| raised(&error))
        })
    }
}

/// The completions of columns, each a sequence with one value for each completion.
fn batch(answers: &Bound<PyAny>, completions: &Bound<PyAny>, more: Option<&Bound<PyDict>>) -> PyResult<Vec<Taken>> {
    let texts = sequence("completions", completions)?;
    let mut columns = vec![("answer".to_owned(), sequence("answers", answers)?)];
    for (name, values) in more.iter().flat_map(|more| more.iter()) {
        let name = name.extract::<String>()?;
        let values = sequence(&name, &values)?;
        columns.push((name, values));
    }
    let count = texts.len();
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != count) {
        let problem = format!("{} values of `{name}` for {count} completions; give one for each", values.len());
        return Err(PyValueError::new_err(problem));
    }
    let taken = texts.iter().enumerate().map(|(place, completion)| {
        let row = columns.iter().map(|(name, values)| Ok((name.clone(), to_json(&values[place], 0)?)));
        Taken::of(row.collect::<PyResult<_>>()?, completion_of(completion)?, &format!("row {place}"))
    });
    taken.collect()
}

fn sequence<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyDict>() {
        let problem = format!("`{name}` must be a sequence with one value for each completion");
        return Err(PyValueError::new_err(problem));
    }
    value.try_iter()?.collect()
}

/// A list of what is said, where a row that cannot be judged is an exception in its place.
fn listed<'py, T: pyo3::PyClass + Into<PyClassInitializer<T>>>(
    py: Python<'py>,
    judged: Vec<Judged>,
    say: impl Fn(reckon_rewards::Score) -> T,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for judged in judged {
        match judged {
            Ok(score) => list.append(Bound::new(py, say(score))?)?,
            Err(error) => list.append(raised(&error).into_value(py))?,
        }
    }
    Ok(list)
}

fn only(mut score: reckon_rewards::Score) -> Verdict {
    Verdict(score.parts.swap_remove(0))
}

/// One verifier, by its kind.
#[pyclass(frozen, module = "reckon.rewards")]
pub(crate) struct Verifier {
    judge: Judge,
    kind: String,
    options: Map<String, Value>,
}

#[pymethods]
impl Verifier {
    #[new]
    #[pyo3(signature = (kind, /, **options))]
    fn new(kind: String, options: Option<&Bound<PyDict>>) -> PyResult<Self> {
        let options = columns(options)?;
        if let Some(key) = ["weight", "required"].into_iter().find(|key| options.contains_key(*key)) {
            return Err(misconfigured(format!("`{key}` is a key of a part of a Rubric; a Verifier alone has none")));
        }
        let mut config = options.clone();
        config.insert("kind".into(), kind.as_str().into());
        let config: VerifierConfig = serde_json::from_value(Value::Object(config))
            .map_err(|error| misconfigured(format!("verifier `{kind}` is misconfigured: {error}")))?;
        let rubric = config.build().and_then(reckon_rewards::Rubric::of);
        Ok(Self { judge: Judge::new(rubric)?, kind, options })
    }

    #[getter]
    fn kind(&self) -> &str {
        &self.kind
    }

    #[getter]
    fn name(&self) -> String {
        self.judge.rubric.names().concat()
    }

    #[pyo3(signature = (answer, completion, **columns))]
    fn score(
        &self,
        py: Python,
        answer: &Bound<PyAny>,
        completion: &Bound<PyAny>,
        columns: Option<&Bound<PyDict>>,
    ) -> PyResult<Verdict> {
        self.judge.one(py, answer, completion, columns).map(only)
    }

    #[pyo3(signature = (answers, completions, **columns))]
    fn score_batch(
        &self,
        answers: &Bound<PyAny>,
        completions: &Bound<PyAny>,
        columns: Option<&Bound<PyDict>>,
    ) -> PyResult<Vec<Verdict>> {
        Ok(self.judge.batch(answers, completions, columns)?.into_iter().map(only).collect())
    }

    fn score_rows<'py>(&self, py: Python<'py>, rows: &Bound<PyAny>) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.judge.rows(rows)?, only)
    }

    fn score_file<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.judge.file(py, &path)?, only)
    }

    fn __reduce__(&self, py: Python) -> PyResult<Py<PyAny>> {
        let restore = py.import("reckon.rewards")?.getattr("_restore")?;
        let options = Value::Object(self.options.clone()).to_string();
        Ok((restore, ("Verifier", &self.kind, options)).into_pyobject(py)?.into_any().unbind())
    }

    fn __repr__(&self) -> String {
        format!("Verifier('{}', options={})", self.kind, Value::Object(self.options.clone()))
    }
}

/// Several verifiers, and how their verdicts become one reward.
#[pyclass(frozen, module = "reckon.rewards")]
pub(crate) struct Rubric {
    judge: Judge,
    names: Vec<String>,
    config: RubricConfig,
}

impl Rubric {
    fn of(config: RubricConfig) -> PyResult<Self> {
        let judge = Judge::new(reckon_rewards::Rubric::from_config(&config))?;
        let names = judge.rubric.names().into_iter().map(str::to_owned).collect();
        Ok(Self { judge, names, config })
    }

    fn said(&self, score: reckon_rewards::Score) -> Score {
        Score { score, names: self.names.clone() }
    }
}

#[pymethods]
impl Rubric {
    #[new]
    #[pyo3(signature = (verifiers, mode="binary", max_error_share=0.5))]
    fn new(verifiers: &Bound<PyAny>, mode: &str, max_error_share: f64) -> PyResult<Self> {
        let parts = verifiers.try_iter()?.map(|part| match to_json(&part?, 0)? {
            Value::String(kind) => Ok(json!({ "kind": kind })),
            table @ Value::Object(_) => Ok(table),
            other => {
                Err(misconfigured(format!("a verifier is the name of a kind, or a dict with `kind`, not {other}")))
            }
        });
        let parts = parts.collect::<PyResult<Vec<_>>>()?;
        let config = json!({"mode": mode, "max_error_share": max_error_share, "verifiers": parts});
        let config = serde_json::from_value(config);
        Self::of(config.map_err(|error| misconfigured(format!("the rubric is misconfigured: {error}")))?)
    }

    /// The `[rubric]` of a config of `reckon train`.
    #[staticmethod]
    fn from_config(path: PathBuf) -> PyResult<Self> {
        let fault = |problem: &dyn std::fmt::Display| misconfigured(format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| fault(&error))?;
        let mut config: toml::Table = text.parse().map_err(|error: toml::de::Error| fault(&error))?;
        let rubric = config.remove("rubric").ok_or_else(|| fault(&"there is no table [rubric]"))?;
        Self::of(rubric.try_into().map_err(|error| fault(&error))?)
    }

    #[getter]
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    #[pyo3(signature = (answer, completion, **columns))]
    fn score(
        &self,
        py: Python,
        answer: &Bound<PyAny>,
        completion: &Bound<PyAny>,
        columns: Option<&Bound<PyDict>>,
    ) -> PyResult<Score> {
        Ok(self.said(self.judge.one(py, answer, completion, columns)?))
    }

    #[pyo3(signature = (answers, completions, **columns))]
    fn score_batch(
        &self,
        answers: &Bound<PyAny>,
        completions: &Bound<PyAny>,
        columns: Option<&Bound<PyDict>>,
    ) -> PyResult<Vec<Score>> {
        let scores = self.judge.batch(answers, completions, columns)?;
        Ok(scores.into_iter().map(|score| self.said(score)).collect())
    }

    fn score_rows<'py>(&self, py: Python<'py>, rows: &Bound<PyAny>) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.judge.rows(rows)?, |score| self.said(score))
    }

    fn score_file<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.judge.file(py, &path)?, |score| self.said(score))
    }

    fn __reduce__(&self, py: Python) -> PyResult<Py<PyAny>> {
        let restore = py.import("reckon.rewards")?.getattr("_restore")?;
        let config = serde_json::to_string(&self.config).map_err(misconfigured)?;
        Ok((restore, ("Rubric", "", config)).into_pyobject(py)?.into_any().unbind())
    }

    fn __repr__(&self) -> String {
        format!("Rubric({})", self.names.join(", "))
    }
}

/// Options given as `KEY=VALUE`, as `reckon verify score --set` takes them: the value is TOML, or text where it is not,
/// and a dotted key lies in a table.
#[pyfunction]
pub(crate) fn parse_sets(py: Python<'_>, sets: Vec<String>) -> PyResult<Bound<'_, PyAny>> {
    let mut options = Map::new();
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| misconfigured(format!("--set {set:?}: no `=` in it")))?;
        let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let mut names: Vec<&str> = key.trim().split('.').collect();
        let last = names.pop().unwrap_or_default();
        let mut table = &mut options;
        for name in names {
            let inner = table.entry(name).or_insert_with(|| Value::Object(Map::new()));
            table = inner.as_object_mut().ok_or_else(|| misconfigured(format!("--set {set:?}: {name} is no table")))?;
        }
        table.insert(last.to_owned(), serde_json::to_value(parsed).map_err(misconfigured)?);
    }
    py.import("json")?.call_method1("loads", (Value::Object(options).to_string(),))
}
