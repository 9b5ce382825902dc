//! Models of other families from GGUF files, which candle-transformers computes from their blocks. Each family here is
//! compared with transformers in `tests/it/foreign.rs`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::quantized::gguf_file::Value;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::{quantized_glm4, quantized_phi3};

use super::TextModel;
use crate::model::files::gguf::Other;

/// Reads the weights of a file into the model of a family.
pub(super) fn read(family: &str, path: &Path, device: &Device) -> Result<Box<dyn TextModel>> {
    let Other { content, mut source, .. } = Other::open(path)?;
    let source = &mut source;
    let model = || -> Result<Box<dyn TextModel>> {
        Ok(match family {
            "glm4" => Box::new(quantized_glm4::ModelWeights::from_gguf(content, source, device, DType::F32)?),
            "phi3" => {
                // candle takes this base for every file.
                let base = content.metadata.get("phi3.rope.freq_base").map(Value::to_f32).transpose()?;
                ensure!(base.unwrap_or(1e4) == 1e4, "phi3.rope.freq_base = {base:?} is not read: 10000 is");
                Box::new(quantized_phi3::ModelWeights::from_gguf(false, content, source, device)?)
            }
            other => bail!("family {other} is not known"),
        })
    };
    model().with_context(|| format!("a model of family {family} in {}", path.display()))
}

/// A model that empties its cache at position 0.
macro_rules! text_model {
    ($($model:path),*) => {$(
        impl TextModel for $model {
            fn forward(&mut self, tokens: &Tensor, position: usize) -> candle_core::Result<Tensor> {
                <$model>::forward(self, tokens, position)
            }

            fn forget(&mut self) {}
        }
    )*};
}

text_model!(quantized_glm4::ModelWeights, quantized_phi3::ModelWeights);
