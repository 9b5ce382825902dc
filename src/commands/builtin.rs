//! The default run that lives in the binary: `examples/countdown/`.

use anyhow::Result;

use crate::model::folder::ModelFolder;

/// The name by which a config asks for the embedded model.
pub(super) const MODEL: &str = "builtin:countdown";

/// The embedded config.
pub(super) const CONFIG: &str = include_str!("../../examples/countdown/config.toml");

/// The embedded base model.
pub(super) fn model() -> Result<ModelFolder> {
    ModelFolder::parse(
        include_bytes!("../../examples/countdown/base/config.json"),
        include_bytes!("../../examples/countdown/base/tokenizer.json"),
        include_bytes!("../../examples/countdown/base/model.safetensors"),
    )
}
