//! What learns on a device, to files and back, a piece at a time.

use std::ops::Range;

use anyhow::Result;

use super::DeviceLearnt;
use crate::model::Entry;
use crate::model::files::{Source, TensorFile, check};
use crate::ops::adamw::device as adamw;

impl Source for DeviceLearnt {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        let start = entry.range.start;
        out.copy_from_slice(&self.values.part(start + range.start..start + range.end).read()?);
        Ok(())
    }
}

impl DeviceLearnt {
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
