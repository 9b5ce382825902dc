//! What is trained of a model on a device: all of its weights, or an adapter. The optimizer, checkpoints and tests need
//! not ask which. To files and back it goes a piece at a time.

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use crate::model::files::{Source, TensorFile, check};
use crate::model::layout::Entry;
use crate::ops::adamw::device as adamw;
use crate::ops::device::{Buffer, Class, Device};

/// Flat buffers of one layout.
#[derive(Debug)]
pub struct DeviceTrainable {
    /// Names, shapes and places.
    pub entries: Vec<Entry>,
    /// Master values, which the optimizer moves.
    pub values: Buffer<f32>,
    /// What is computed with: the values rounded to bf16.
    pub rounded: Buffer<bf16>,
    /// Sum of the gradients since it was last zeroed.
    pub gradients: Buffer<f32>,
}

impl DeviceTrainable {
    pub(super) fn new(device: &Device, entries: &[Entry], values: &[f32]) -> Result<Self> {
        let trained = Self {
            entries: entries.to_vec(),
            values: device.buffer(Class::Weights, values.len())?,
            rounded: device.buffer(Class::Weights, values.len())?,
            gradients: device.zeros(Class::Gradients, values.len())?,
        };
        trained.upload(values)?;
        Ok(trained)
    }

    /// The values as they are now.
    pub fn download(&self) -> Result<Vec<f32>> {
        self.values.all().read()
    }

    /// Replaces the values, by a checkpoint's.
    pub fn upload(&self, values: &[f32]) -> Result<()> {
        self.values.all().write(values)?;
        adamw::round_weights(self.values.all(), self.rounded.all())
    }

    /// Changes the values at `place` on the host.
    pub(super) fn change(&self, place: Range<usize>, change: impl FnOnce(&mut [f32])) -> Result<()> {
        let (values, rounded) = (self.values.part(place.clone()), self.rounded.part(place));
        let mut on_host = values.read()?;
        change(&mut on_host);
        values.write(&on_host)?;
        adamw::round_weights(values, rounded)
    }

    /// Replaces the values by those of a file.
    pub fn read_from(&self, file: &mut dyn TensorFile) -> Result<()> {
        check(file, &self.entries, &|_| false)?;
        for entry in &self.entries {
            file.read(&entry.name, &mut |first, values| {
                let start = entry.range.start + first;
                self.values.part(start..start + values.len()).write(values)
            })?;
        }
        adamw::round_weights(self.values.all(), self.rounded.all())
    }
}

impl Source for DeviceTrainable {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        let start = entry.range.start;
        out.copy_from_slice(&self.values.part(start + range.start..start + range.end).read()?);
        Ok(())
    }
}
