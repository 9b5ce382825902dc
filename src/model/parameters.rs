//! The values of a model, and which of them learn: all, or those of an adapter on a frozen base.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use super::base::Base;
use super::cpu::weights::PackedWeights;
use super::files::Source;
use super::files::folder::ModelFolder;
use super::files::peft;
use super::layout::Entry;
use super::lora::Adapter;
use super::weights::Weights;

/// A model's values. What of them learns lies in one flat buffer, whose layout gradients and optimizer state share.
#[derive(Debug, Clone)]
pub enum Parameters {
    /// All learn.
    Full(Weights),
    /// The base does not; an adapter on it does, where there is one.
    Frozen(Base, Option<Adapter>),
}

/// What learns, for the optimizer to move.
#[derive(Debug)]
pub struct Learnt<'a> {
    /// Names and places.
    pub entries: &'a [Entry],
    /// Values.
    pub values: &'a mut [f32],
}

/// A policy that the KL term holds on to.
#[derive(Debug, Clone)]
pub enum CpuReference {
    /// The model without its adapter, which is there anyway.
    Base,
    /// The model with these values of what learns.
    Values(Vec<f32>),
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
    /// Names, shapes and places of what learns.
    pub fn entries(&self) -> &[Entry] {
        match self {
            Self::Full(weights) => &weights.layout.entries,
            Self::Frozen(_, Some(adapter)) => &adapter.layout.entries,
            Self::Frozen(_, None) => &[],
        }
    }

    /// Values of what learns.
    pub fn values(&self) -> &[f32] {
        match self {
            Self::Full(weights) => &weights.values,
            Self::Frozen(_, Some(adapter)) => &adapter.values,
            Self::Frozen(_, None) => &[],
        }
    }

    /// What learns, to be moved.
    pub fn learnt(&mut self) -> Learnt<'_> {
        match self {
            Self::Full(weights) => Learnt { entries: &weights.layout.entries, values: &mut weights.values },
            Self::Frozen(_, Some(adapter)) => Learnt { entries: &adapter.layout.entries, values: &mut adapter.values },
            Self::Frozen(_, None) => Learnt { entries: &[], values: &mut [] },
        }
    }

    /// The adapter, where there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        match self {
            Self::Full(_) | Self::Frozen(_, None) => None,
            Self::Frozen(_, Some(adapter)) => Some(adapter),
        }
    }

    /// The base that does not learn, where there is one.
    pub fn base(&self) -> Option<&Base> {
        match self {
            Self::Full(_) => None,
            Self::Frozen(base, _) => Some(base),
        }
    }

    /// The model as it is now, ready for forwards and backwards.
    pub fn packed(&self) -> PackedWeights<'_> {
        self.packed_with(self.values())
    }

    /// The model as `reference` is.
    pub fn packed_as<'a>(&'a self, reference: &'a CpuReference) -> PackedWeights<'a> {
        match (self, reference) {
            (_, CpuReference::Values(values)) => self.packed_with(values),
            (Self::Frozen(base, _), CpuReference::Base) => PackedWeights::frozen(base, None),
            (Self::Full(_), CpuReference::Base) => self.packed(),
        }
    }

    fn packed_with<'a>(&'a self, values: &'a [f32]) -> PackedWeights<'a> {
        match self {
            Self::Full(weights) => PackedWeights::trained(&weights.layout, values),
            Self::Frozen(base, adapter) => {
                PackedWeights::frozen(base, adapter.as_ref().map(|adapter| (&adapter.layout, values)))
            }
        }
    }

    /// The reference that a run begins with: the base where there is one, else a copy.
    pub fn reference(&self) -> CpuReference {
        match self {
            Self::Full(weights) => CpuReference::Values(weights.values.clone()),
            Self::Frozen(..) => CpuReference::Base,
        }
    }

    /// Makes a reference the model as it is now.
    pub fn refresh(&self, reference: &mut CpuReference) {
        match reference {
            CpuReference::Values(values) => values.copy_from_slice(self.values()),
            CpuReference::Base => *reference = CpuReference::Values(self.values().to_vec()),
        }
    }

    /// Takes the values of what learns from a folder that [`crate::policy::Policy::save`] wrote.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        match self {
            Self::Full(weights) => {
                // Freed first: there may be no room for both.
                weights.values = Vec::new();
                *weights = ModelFolder::read(folder)?.weights;
            }
            Self::Frozen(base, Some(adapter)) => {
                adapter.values = peft::read_values(folder, &base.layout, &adapter.layout)?;
            }
            Self::Frozen(_, None) => {}
        }
        Ok(())
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
