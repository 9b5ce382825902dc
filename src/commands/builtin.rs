//! The default run that lives in the binary: `examples/countdown/`.

use anyhow::Result;

use crate::model::{Base, BaseType, ModelFolder};

/// The name by which a config asks for the embedded model.
pub(super) const MODEL: &str = "builtin:countdown";

/// The embedded config.
pub(super) const CONFIG: &str = include_str!("../../examples/countdown/config.toml");

const FILES: [&[u8]; 3] = [
    include_bytes!("../../examples/countdown/base/config.json"),
    include_bytes!("../../examples/countdown/base/tokenizer.json"),
    include_bytes!("../../examples/countdown/base/model.safetensors"),
];

/// The embedded base model.
pub(super) fn model() -> Result<ModelFolder> {
    let [config, tokenizer, weights] = FILES;
    ModelFolder::parse(config, tokenizer, weights)
}

/// The same, not to learn.
pub(super) fn base(base: Option<BaseType>) -> Result<ModelFolder<Base>> {
    let [config, tokenizer, weights] = FILES;
    ModelFolder::parse_frozen(config, tokenizer, weights, base)
}
