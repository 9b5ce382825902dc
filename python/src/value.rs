//! Python's values to JSON, as a row of a file would hold them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is followed: a list may hold itself.
const MAX_DEPTH: usize = 100;

/// A text; half of a surrogate pair, which only Python can hold, becomes the replacement character.
pub(crate) fn text(value: &Bound<PyString>) -> String {
    value.to_string_lossy().into_owned()
}

/// The columns of keyword arguments or of a dict, in order.
pub(crate) fn columns(dict: Option<&Bound<PyDict>>) -> PyResult<Map<String, Value>> {
    dict.map_or_else(|| Ok(Map::new()), |dict| object(dict, 0))
}

/// The JSON of a value. NaN and infinities, which JSON lacks, become null.
///
/// # Errors
/// A type that no row can hold, and nesting without end.
pub(crate) fn to_json(value: &Bound<PyAny>, depth: usize) -> PyResult<Value> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!("a value is nested more than {MAX_DEPTH} deep; flatten it")));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text_value) = value.cast::<PyString>() {
        return Ok(Value::String(text(text_value)));
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return integer(number);
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Number::from_f64(number.value()).map_or(Value::Null, Value::Number));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return Ok(Value::Object(object(dict, depth)?));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?.map(|item| to_json(&item?, depth + 1));
        return Ok(Value::Array(items.collect::<PyResult<_>>()?));
    }
    // Arrays and scalars of numpy, tensors of torch, series of pandas.
    if value.hasattr("tolist")? {
        return to_json(&value.call_method0("tolist")?, depth + 1);
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("a {kind} is no value of a row; make a text, a number, a list or a dict of it")))
}

fn integer(number: &Bound<PyInt>) -> PyResult<Value> {
    if let Ok(small) = number.extract::<i64>() {
        return Ok(small.into());
    }
    // By way of its digits: there is no limit to it. A subclass may print itself otherwise.
    let digits = number.call_method1("__format__", ("d",))?.extract::<String>()?;
    Ok(Value::Number(Number::from_string_unchecked(digits)))
}

fn object(dict: &Bound<PyDict>, depth: usize) -> PyResult<Map<String, Value>> {
    let entries = dict.iter().map(|(key, value)| Ok((text(&key.str()?), to_json(&value, depth + 1)?)));
    entries.collect()
}
