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

/// Whether a tensor is the matrix of this module.
fn is_of(tensor: &str, module: &str) -> bool {
    tensor.strip_suffix(".weight").is_some_and(|name| name.ends_with(module))
}

impl Weights {
    /// Random weights: normal with deviation 0.02, shrunk by `1/sqrt(2 layers)` where a layer writes to the residual
    /// stream (GPT-2); norms one, biases zero. Taps of a short convolution are normal with deviation `1/sqrt(taps)`, and
    /// its states forget at rates between 0.01 and 16 a step of one, as transformers begins them.
    pub fn random(layout: Layout, seed: u64) -> Self {
        let mut values = vec![0f32; layout.len()];
        let residual = 0.02 / (2.0 * layout.layers.len() as f64).sqrt();
        let writes_residual = |name: &str| ["o_proj", "down_proj", "out_proj"].iter().any(|p| is_of(name, p));
        for (index, entry) in layout.entries.iter().enumerate() {
            let mut stream = Counted::new(&[seed, 0x1417, index as u64]);
            let values = &mut values[entry.range.clone()];
            match entry.shape[..] {
                [_] if entry.name.ends_with("A_log") => {
                    values.fill_with(|| (0.01 + 15.99 * stream.unit()).ln() as f32);
                }
                [_] if entry.name.ends_with("dt_bias") => values.fill(1.0),
                [_] if entry.name.ends_with("bias") => values.fill(0.0),
                [_] => values.fill(1.0),
                [.., taps] if is_of(&entry.name, "conv1d") => {
                    values.fill_with(|| (stream.normal() / (taps as f64).sqrt()) as f32);
                }
                _ => {
                    let deviation = if writes_residual(&entry.name) { residual } else { 0.02 };
                    values.fill_with(|| (stream.normal() * deviation) as f32);
                }
            }
        }
        let mut all = vec![layout.norm.clone()];
        layout.layers.iter().for_each(|layer| drop(layer.map(|_| (), |vector| all.push(vector.clone()))));
        all.into_iter().filter(|vector| vector.around_one).for_each(|norm| values[norm.range.clone()].fill(0.0));
        Self { layout, values }
    }
}
