//! `reckon.rewards._native`: the verifiers of `reckon-rewards` for Python. Read [`judges`] first: a verifier and a rubric;
//! [`verdict`] is what they say, [`value`] takes Python's values to JSON, [`errors`] Rust's errors to exceptions.
//!
//! Nothing of the trainer is linked; what runs programs in a sandbox is the binary `reckon`, whose place the package
//! tells ([`set_helper`](native::set_helper)). What is public in Python is documented in `reckon/rewards/_native.pyi`.

mod errors;
mod judges;
mod value;
mod verdict;

#[pyo3::pymodule(name = "_native")]
mod native {
    use std::path::PathBuf;

    use pyo3::prelude::*;
    use reckon_rewards::{KINDS, sandbox};

    #[pymodule_export]
    use crate::judges::{Rubric, Verifier, parse_sets};
    #[pymodule_export]
    use crate::verdict::{Score, Verdict};

    /// Every kind of verifier that this module has.
    #[pyfunction]
    fn kinds() -> Vec<&'static str> {
        // Kind `rust` is for programs in Rust that bring verifiers along.
        KINDS.iter().copied().filter(|kind| *kind != "rust").collect()
    }

    /// Names the binary that runs programs in a sandbox; the first call counts.
    #[pyfunction]
    pub(super) fn set_helper(program: PathBuf) {
        sandbox::helper_at(program);
    }
}
