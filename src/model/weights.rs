//! The values of a model's weights in this machine's memory: one flat fp32 buffer, read from files or random.

use std::ops::Range;

use anyhow::Result;
use reckon_datasets::Counted;

use super::config::ModelConfig;
use super::files::{Load, Source, TensorFile};
use super::layout::{Entry, Layout};

/// The values of a model's weights.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Where each tensor lies.
    pub layout: Layout,
    /// All values, `layout.len()` of them.
    pub values: Vec<f32>,
}

impl Load for Weights {
    fn load(_: &ModelConfig, layout: Layout, file: &mut dyn TensorFile) -> Result<Self> {
        let mut values = vec![0f32; layout.len()];
        for entry in &layout.entries {
            file.read_to(&entry.name, &mut values[entry.range.clone()])?;
        }
        Ok(Self { layout, values })
    }
}

impl Source for Weights {
    fn entries(&self) -> &[Entry] {
        &self.layout.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.values[entry.range.clone()][range]);
        Ok(())
    }
}

impl Weights {
    /// Random weights: normal with deviation 0.02, shrunk by `1/sqrt(2 layers)` where a layer writes to the residual
    /// stream (GPT-2); norms one, biases zero.
    pub fn random(layout: Layout, seed: u64) -> Self {
        let mut values = vec![0f32; layout.len()];
        let residual = 0.02 / (2.0 * layout.layers.len() as f64).sqrt();
        for (index, entry) in layout.entries.iter().enumerate() {
            let mut stream = Counted::new(&[seed, 0x1417, index as u64]);
            let writes_residual = entry.name.ends_with("o_proj.weight") || entry.name.ends_with("down_proj.weight");
            let deviation = if writes_residual { residual } else { 0.02 };
            for value in &mut values[entry.range.clone()] {
                *value = if entry.is_matrix() {
                    (stream.normal() * deviation) as f32
                } else if entry.name.ends_with("bias") {
                    0.0
                } else {
                    1.0
                };
            }
        }
        Self { layout, values }
    }
}
