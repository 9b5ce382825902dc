//! One decoder for the shapes of Llama, Qwen2 and Qwen3, with weights under their Hugging Face names.
//! Forward and backward are written out: the memory of a step is what [`workspace::Workspace`] lists, and weight
//! gradients are added straight into one flat buffer.

pub mod base;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod device;
pub mod folder;
pub mod lora;
pub mod packed;
pub mod parameters;
pub mod peft;
mod rope;
pub mod shards;
pub mod weights;
pub mod workspace;

pub use base::Base;
pub use config::{Family, ModelConfig};
pub use cpu::CpuModel;
pub use decoder::Decoder;
pub use device::{Decoding, DecodingRoom, DeviceLearnt, DeviceModel, DeviceReference};
pub use folder::{Companions, ModelFolder};
pub use lora::{Adapter, AdapterLayout};
pub use packed::PackedWeights;
pub use parameters::{CpuReference, Learnt, Parameters};
pub use shards::SaveDtype;
pub use weights::{Entry, Layout, Weights};
pub use workspace::Workspace;
