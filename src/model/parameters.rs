//! The values of a model, and which of them are trained: all, or those of an adapter on a frozen base.

use std::ops::Range;

use anyhow::Result;

use super::base::Base;
use super::files::Source;
use super::layout::Entry;
use super::lora::Adapter;
use super::weights::Weights;
use crate::ops::linear::Precision;

/// A model's values. Those that are trained lie in one flat buffer, whose layout gradients and optimizer state share.
#[derive(Debug, Clone)]
pub enum Parameters {
    /// All are trained.
    Full(Weights),
    /// The base is not; an adapter on it is, where there is one.
    Frozen(Base, Option<Adapter>),
}

/// What is trained, for the optimizer to move.
#[derive(Debug)]
pub struct Trainable<'a> {
    /// Names and places.
    pub entries: &'a [Entry],
    /// Values.
    pub values: &'a mut [f32],
}

impl From<Weights> for Parameters {
    fn from(weights: Weights) -> Self {
        Self::Full(weights)
    }
}

impl From<Base> for Parameters {
    fn from(base: Base) -> Self {
        Self::Frozen(base, None)
    }
}

impl Parameters {
    /// The same values, a frozen base ready for products of a precision.
    pub fn in_precision(self, precision: Precision) -> Self {
        match self {
            Self::Full(weights) => Self::Full(weights),
            Self::Frozen(base, adapter) => Self::Frozen(base.in_precision(precision), adapter),
        }
    }

    /// All weights of the model, an adapter's not counted.
    pub fn weights(&self) -> usize {
        match self {
            Self::Full(weights) => weights.layout.len(),
            Self::Frozen(base, _) => base.layout.len(),
        }
    }

    /// Names, shapes and places of what is trained.
    pub fn trained_entries(&self) -> &[Entry] {
        match self {
            Self::Full(weights) => &weights.layout.entries,
            Self::Frozen(_, Some(adapter)) => &adapter.layout.entries,
            Self::Frozen(_, None) => &[],
        }
    }

    /// Values of what is trained.
    pub fn trained_values(&self) -> &[f32] {
        match self {
            Self::Full(weights) => &weights.values,
            Self::Frozen(_, Some(adapter)) => &adapter.values,
            Self::Frozen(_, None) => &[],
        }
    }

    /// What is trained, to be moved.
    pub fn trainable(&mut self) -> Trainable<'_> {
        match self {
            Self::Full(weights) => Trainable { entries: &weights.layout.entries, values: &mut weights.values },
            Self::Frozen(_, Some(adapter)) => {
                Trainable { entries: &adapter.layout.entries, values: &mut adapter.values }
            }
            Self::Frozen(_, None) => Trainable { entries: &[], values: &mut [] },
        }
    }

    /// The adapter, where there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Full(_) | Self::Frozen(_, None) => None,
            Self::Frozen(_, Some(adapter)) => Some(adapter),
        }
    }

    /// The base that is not trained, where there is one.
    pub fn base(&self) -> Option<&Base> {
        match self {
            Self::Full(_) => None,
            Self::Frozen(base, _) => Some(base),
        }
    }
}

/// The whole model, an adapter merged into its base: `W + s B A`, computed a piece at a time.
impl Source for Parameters {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::Full(weights) => Source::entries(weights),
            Self::Frozen(base, _) => Source::entries(base),
        }
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Full(weights) => Source::values(weights, entry, range, out),
            Self::Frozen(base, adapter) => {
                Source::values(base, entry, range.clone(), out)?;
                if let Some(adapter) = adapter {
                    adapter.add_to(entry, range, out);
                }
                Ok(())
            }
        }
    }
}
