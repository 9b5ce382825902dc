//! A frozen policy on a CPU, for the KL term.

use crate::model::parameters::Parameters;
use crate::tensor::Tensor;

/// What the KL term holds the policy to.
#[derive(Debug, Clone)]
pub enum CpuReference {
    /// The base without the adapter: it is in memory anyway.
    Base,
    /// The model with these values in place of what is trained.
    Values(Vec<f32>),
}

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

    /// Its values, where they are a copy.
    pub fn values(&self) -> Option<&dyn Tensor> {
        match self {
            Self::Base => None,
            Self::Values(values) => Some(values),
        }
    }

    /// The same, to be replaced.
    pub fn values_mut(&mut self) -> Option<&mut dyn Tensor> {
        match self {
            Self::Base => None,
            Self::Values(values) => Some(values),
        }
    }
}
