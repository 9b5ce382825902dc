//! A frozen policy on a CPU, for the KL term.

use crate::model::parameters::Parameters;
use crate::model::reference::Reference;

/// The reference of a model in this machine's memory.
pub type CpuReference = Reference<Vec<f32>>;

impl CpuReference {
    /// The reference that a run begins with: the base where there is one, else a copy.
    pub fn of(parameters: &Parameters) -> Self {
        match parameters {
            Parameters::Full(weights) => Self::Values(weights.values.clone()),
            Parameters::Frozen(..) => Self::Base,
        }
    }

    /// Makes it the model as it is now.
    pub fn refresh(&mut self, parameters: &Parameters) {
        match self {
            Self::Values(values) => values.copy_from_slice(parameters.trained_values()),
            Self::Base => *self = Self::Values(parameters.trained_values().to_vec()),
        }
    }
}
