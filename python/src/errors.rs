//! Errors of the two library crates as the exceptions of `reckon/rewards/errors.py`.

use pyo3::prelude::*;
use reckon_rewards::VerifierError;

mod python {
    pyo3::import_exception!(reckon.rewards.errors, ConfigError);
    pyo3::import_exception!(reckon.rewards.errors, ExampleError);
    pyo3::import_exception!(reckon.rewards.errors, InfraError);
}

/// The exception of an error.
pub(crate) fn raised(error: &VerifierError) -> PyErr {
    let text = error.to_string();
    match error {
        VerifierError::Example { .. } => python::ExampleError::new_err(text),
        VerifierError::Config { .. } => python::ConfigError::new_err(text),
        _ => python::InfraError::new_err(text),
    }
}

/// A row or an argument that no example can be made of.
pub(crate) fn unreadable(problem: impl ToString) -> PyErr {
    python::ExampleError::new_err(problem.to_string())
}

/// Options that make no sense.
pub(crate) fn misconfigured(problem: impl ToString) -> PyErr {
    python::ConfigError::new_err(problem.to_string())
}

/// Machinery that cannot be used.
pub(crate) fn unusable(problem: impl ToString) -> PyErr {
    python::InfraError::new_err(problem.to_string())
}
