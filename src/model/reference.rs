//! A frozen policy for the KL term, in this machine's memory or on a device. How it is made and refreshed is left to
//! [`super::cpu`] and [`super::device`].

use crate::tensor::Tensor;

/// What the KL term holds the policy to.
#[derive(Debug, Clone)]
pub enum Reference<V> {
    /// The base without the adapter: it is in memory anyway.
    Base,
    /// The model with these values in place of what is trained.
    Values(V),
}

impl<V: Tensor> Reference<V> {
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
