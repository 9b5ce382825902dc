//! What verifiers and rubrics say, as Python sees it: values that do not change, can be compared and pickled.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reckon_rewards::Outcome;
use serde_json::Value;

/// What a verifier says of one completion.
#[pyclass(frozen, eq, module = "reckon.rewards", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Verdict(pub(crate) reckon_rewards::Verdict);

/// A single-precision reward as the shortest double that prints alike: 0.3, not 0.30000001192.
pub(crate) fn double(reward: f32) -> f64 {
    if reward.fract() == 0.0 { f64::from(reward) } else { reward.to_string().parse().unwrap_or(f64::from(reward)) }
}

fn name(outcome: Outcome) -> &'static str {
    Outcome::COUNTED.iter().find(|(counted, _)| *counted == outcome).map_or("error", |(_, name)| name)
}

#[pymethods]
impl Verdict {
    #[new]
    #[pyo3(signature = (reward, outcome, parsed=None, reason=""))]
    fn new(reward: f32, outcome: &str, parsed: Option<String>, reason: &str) -> PyResult<Self> {
        let known = Outcome::COUNTED.iter().find(|(_, name)| *name == outcome);
        let (outcome, _) = known.ok_or_else(|| {
            let names: Vec<_> = Outcome::COUNTED.iter().map(|(_, name)| *name).collect();
            PyValueError::new_err(format!("no outcome is called {outcome:?}; there are {}", names.join(", ")))
        })?;
        Ok(Self(reckon_rewards::Verdict { reward, outcome: *outcome, parsed, reason: reason.to_owned().into() }))
    }

    #[getter]
    fn reward(&self) -> f64 {
        double(self.0.reward)
    }

    #[getter]
    fn outcome(&self) -> &'static str {
        name(self.0.outcome)
    }

    #[getter]
    fn parsed(&self) -> Option<&str> {
        self.0.parsed.as_deref()
    }

    #[getter]
    fn reason(&self) -> &str {
        &self.0.reason
    }

    #[getter]
    fn passed(&self) -> bool {
        self.0.passed()
    }

    #[getter]
    fn judged(&self) -> Option<f64> {
        self.0.judged().map(double)
    }

    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("reward", self.reward())?;
        dict.set_item("outcome", name(self.0.outcome))?;
        dict.set_item("parsed", self.parsed())?;
        dict.set_item("reason", self.reason())?;
        Ok(dict)
    }

    /// The line that `reckon verify score --json` prints.
    fn to_json(&self) -> PyResult<String> {
        let value = serde_json::to_value(&self.0).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Value::to_string(&value))
    }

    fn __reduce__(&self, py: Python) -> PyResult<Py<PyAny>> {
        let parts = (self.0.reward, name(self.0.outcome), self.parsed(), self.reason());
        Ok((py.get_type::<Self>(), parts).into_pyobject(py)?.into_any().unbind())
    }

    fn __repr__(&self, py: Python) -> PyResult<String> {
        let (reward, outcome) = (self.reward(), self.outcome());
        let parsed = self.parsed().into_pyobject(py)?.repr()?;
        let reason = self.reason().into_pyobject(py)?.repr()?;
        Ok(format!("Verdict(reward={reward:?}, outcome='{outcome}', parsed={parsed}, reason={reason})"))
    }
}

/// What a rubric says of one completion.
#[pyclass(frozen, eq, module = "reckon.rewards", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Score {
    pub(crate) score: reckon_rewards::Score,
    pub(crate) names: Vec<String>,
}

#[pymethods]
impl Score {
    #[new]
    fn new(total: Option<f32>, parts: Vec<(String, Verdict)>) -> Self {
        let (names, parts) = parts.into_iter().map(|(name, Verdict(verdict))| (name, verdict)).unzip();
        Self { score: reckon_rewards::Score { total, parts }, names }
    }

    #[getter]
    fn total(&self) -> Option<f64> {
        self.score.total.map(double)
    }

    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let parts = self.names.iter().zip(&self.score.parts);
        parts.into_iter().try_for_each(|(name, verdict)| dict.set_item(name, Verdict(verdict.clone())))?;
        Ok(dict)
    }

    fn __reduce__(&self, py: Python) -> PyResult<Py<PyAny>> {
        let parts = self.names.iter().cloned().zip(self.score.parts.iter().cloned().map(Verdict));
        let arguments = (self.score.total, parts.collect::<Vec<_>>());
        Ok((py.get_type::<Self>(), arguments).into_pyobject(py)?.into_any().unbind())
    }

    fn __repr__(&self, py: Python) -> PyResult<String> {
        let total = self.total().map_or("None".into(), |total| format!("{total:?}"));
        Ok(format!("Score(total={total}, parts={})", self.parts(py)?.repr()?))
    }
}
