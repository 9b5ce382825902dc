//! One decoder for dense models, mixtures of experts and delta nets ([`family`]), with weights under their Hugging Face names.
//! Forward and backward are written out: the memory of a step is what [`cpu::workspace::Workspace`] lists, and weight
//! gradients are added straight into one flat buffer.

pub mod base;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod delta;
pub mod device;
pub mod dtype;
pub mod experts;
pub mod family;
pub mod fidelity;
pub mod files;
mod keys;
pub mod latent;
pub mod layer;
pub mod layout;
pub mod lora;
pub mod parameters;
pub mod reference;
mod rope;
mod routing;
mod text_part;
pub mod weights;

pub use base::{Base, Fingerprint};
pub use config::{Family, ModelConfig};
pub use cpu::reference::CpuReference;
pub use cpu::weights::PackedWeights;
pub use cpu::workspace::Workspace;
pub use cpu::{CpuModel, CpuOptions, Phases, Sharing};
pub use decoder::Decoder;
pub use device::{DeviceModel, DeviceReference, DeviceTrainable};
pub use dtype::SaveDtype;
pub use fidelity::{Expectations, Fidelity};
pub use files::folder::{Companions, ModelFolder};
pub use files::requantized::BaseType;
pub use layout::{Entry, Layout};
pub use lora::{Adapter, AdapterLayout};
pub use parameters::{Parameters, Trainable};
pub use weights::Weights;
