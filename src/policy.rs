//! The model being trained, with its version: log-probabilities of given tokens, with gradients, on a CPU or on a device.

use std::path::Path;

use anyhow::Result;
use tokenizers::Tokenizer;

use crate::grpo::{MicroBatch, Prompts};
use crate::model::files::{Source, safetensors::Reader};
use crate::model::files::{folder, peft};
use crate::model::{
    Adapter, Companions, CpuModel, CpuReference, Decoder, DeviceModel, DeviceReference, Layout, ModelConfig,
    ModelFolder, Parameters, SaveDtype,
};
use crate::ops::device::Device;
use crate::plan::Job;
use crate::rollout::{Engine, Place};
use crate::tensor::Tensor;

/// A model and how it is computed.
#[derive(Debug)]
pub struct Policy {
    /// `config.json`.
    pub config: ModelConfig,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The files beside them, kept for saving.
    pub companions: Companions,
    /// The computation and its values.
    pub model: Model,
    /// Number of updates made.
    pub version: u64,
}

/// Where a model's values are, and what computes with them.
#[derive(Debug)]
pub enum Model {
    /// fp32, on this machine's threads.
    Cpu(Box<CpuModel>),
    /// bf16 on a device, with fp32 master values of what learns.
    Device(Box<DeviceModel>, Kept),
}

/// What stays on the host of a model on a device.
#[derive(Debug)]
pub struct Kept {
    /// Threads for what the host does.
    threads: usize,
    /// Names the frozen base, where there is one.
    fingerprint: Option<String>,
    /// The adapter as it was brought to the device.
    adapter: Option<Adapter>,
}

impl Kept {
    fn of(parameters: Parameters, threads: usize) -> Self {
        match parameters {
            Parameters::Full(_) => Self { threads, fingerprint: None, adapter: None },
            Parameters::Frozen(base, adapter) => Self { threads, fingerprint: Some(base.fingerprint), adapter },
        }
    }
}

/// A frozen policy that the KL term holds on to, on the side of its policy.
#[derive(Debug)]
pub enum Reference {
    /// In this machine's memory.
    Cpu(CpuReference),
    /// On the device.
    Device(DeviceReference),
}

impl Reference {
    /// Its values, where it is no base that is there anyway.
    pub fn tensor(&self) -> Option<&dyn Tensor> {
        match self {
            Self::Cpu(CpuReference::Values(values)) => Some(values),
            Self::Device(DeviceReference::Values(values)) => Some(values),
            Self::Cpu(CpuReference::Base) | Self::Device(DeviceReference::Base) => None,
        }
    }

    /// The same, to be replaced.
    pub fn tensor_mut(&mut self) -> Option<&mut dyn Tensor> {
        match self {
            Self::Cpu(CpuReference::Values(values)) => Some(values),
            Self::Device(DeviceReference::Values(values)) => Some(values),
            Self::Cpu(CpuReference::Base) | Self::Device(DeviceReference::Base) => None,
        }
    }
}

/// Log-probability and entropy of each row of a micro-batch.
#[derive(Debug, Clone, Default)]
pub struct TokenStats {
    /// `log p(target)` at the temperature.
    pub logprobs: Vec<f32>,
    /// Entropy in nats of the distribution the target was drawn from.
    pub entropies: Vec<f32>,
}

/// What a head makes of a micro-batch's log-probabilities: `dlogprob`, and whatever it wants to keep.
pub type Head<'a, S> = dyn Fn(&MicroBatch, &TokenStats) -> (Vec<f32>, S) + Sync + 'a;

impl Policy {
    /// The policy that a model folder holds, on `threads` of this machine.
    pub fn new(folder: ModelFolder<impl Into<Parameters>>, recompute: bool, threads: usize) -> Self {
        let decoder = Decoder::new(&folder.config, recompute);
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        let model = Model::Cpu(Box::new(CpuModel::new(decoder, weights.into(), threads)));
        Self { config, tokenizer, companions, model, version: 0 }
    }

    /// The same on a device, with `threads` of this machine for what the host does of it.
    pub fn on_device(
        folder: ModelFolder<impl Into<Parameters>>,
        recompute: bool,
        threads: usize,
        device: Device,
    ) -> Result<Self> {
        let decoder = Decoder::new(&folder.config, recompute);
        let ModelFolder { config, tokenizer, companions, weights } = folder;
        let parameters = weights.into();
        let model = Box::new(DeviceModel::new(device, &decoder, &parameters)?);
        let model = Model::Device(model, Kept::of(parameters, threads));
        Ok(Self { config, tokenizer, companions, model, version: 0 })
    }

    /// Writes what learns into `folder`, which exists: a model folder, or the files of an adapter.
    pub fn save(&self, folder: &Path, dtype: SaveDtype) -> Result<()> {
        let source: &dyn Source = match &self.model {
            Model::Cpu(model) => match model.parameters.adapter() {
                Some(adapter) => return peft::write(folder, adapter, dtype),
                None => &model.parameters,
            },
            Model::Device(model, Kept { adapter: Some(adapter), .. }) => {
                let values = model.learnt.download()?;
                return peft::write(folder, &Adapter { values, ..adapter.clone() }, dtype);
            }
            Model::Device(model, _) => &model.learnt,
        };
        folder::write(folder, &self.config, &self.tokenizer, &self.companions, source, dtype)
    }

    /// Takes the values of what learns from a folder that [`Policy::save`] wrote.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        match &mut self.model {
            Model::Cpu(model) => model.parameters.restore(folder),
            Model::Device(model, Kept { adapter: Some(adapter), .. }) => {
                let layout = Layout::new(&self.config, self.config.family()?);
                model.learnt.upload(&peft::read_values(folder, &layout, &adapter.layout)?)
            }
            Model::Device(model, _) => model.learnt.read_from(&mut Reader::open(folder)?),
        }
    }

    /// Names what of the model does not learn, where there is such a part.
    pub fn base_fingerprint(&self) -> Option<&str> {
        match &self.model {
            Model::Cpu(model) => model.parameters.base().map(|base| base.fingerprint.as_str()),
            Model::Device(_, kept) => kept.fingerprint.as_deref(),
        }
    }

    /// The sampler over the weights as they are now, `capacity` rows at a time.
    pub fn engine(&self, capacity: usize) -> Engine<'_> {
        let (place, threads) = match &self.model {
            Model::Cpu(model) => {
                let CpuModel { decoder, parameters, threads, memory, .. } = &**model;
                (Place::Cpu { decoder, parameters, memory }, *threads)
            }
            Model::Device(model, kept) => (Place::Device(model), kept.threads),
        };
        Engine { place, tokenizer: &self.tokenizer, policy_version: self.version, threads, capacity }
    }

    /// How micro-batches for this policy hold prompts.
    pub fn prompts(&self) -> Prompts {
        match self.model {
            Model::Cpu(_) => Prompts::Shared,
            Model::Device(..) => Prompts::Repeated,
        }
    }

    /// Log-probabilities of all micro-batches, without gradients.
    pub fn logprobs(&self, micros: &[MicroBatch], temperature: f32) -> Result<Vec<TokenStats>> {
        match &self.model {
            Model::Cpu(model) => Ok(model.logprobs(micros, temperature)),
            Model::Device(model, _) => micros.iter().map(|micro| model.logprobs(micro, temperature)).collect(),
        }
    }

    /// The reference that a run begins with: the base where there is one, else a copy.
    pub fn reference(&self) -> Result<Reference> {
        match &self.model {
            Model::Cpu(model) => Ok(Reference::Cpu(model.parameters.reference())),
            Model::Device(model, _) => Ok(Reference::Device(model.reference()?)),
        }
    }

    /// Makes the reference the policy as it is now.
    pub fn refresh(&self, reference: &mut Reference) -> Result<()> {
        match (&self.model, reference) {
            (Model::Cpu(model), Reference::Cpu(reference)) => model.parameters.refresh(reference),
            (Model::Device(model, _), Reference::Device(reference)) => model.refresh(reference)?,
            _ => unreachable!("a reference is on the side of its policy"),
        }
        Ok(())
    }

    /// Log-probabilities that the reference gives.
    pub fn reference_logprobs(
        &self,
        reference: &Reference,
        micros: &[MicroBatch],
        temperature: f32,
    ) -> Result<Vec<TokenStats>> {
        match (&self.model, reference) {
            (Model::Cpu(model), Reference::Cpu(reference)) => {
                Ok(model.reference_logprobs(reference, micros, temperature))
            }
            (Model::Device(model, _), Reference::Device(reference)) => {
                micros.iter().map(|micro| model.logprobs_as(reference, micro, temperature)).collect()
            }
            _ => unreachable!("a reference is on the side of its policy"),
        }
    }

    /// Does what takes most memory of sampling in `job` once, so that a lack of it shows before the run begins: a token for
    /// every seat at its longest. On a CPU nothing is done: its memory is the system's to give.
    pub fn rehearse_sampling(&self, job: &Job) -> Result<()> {
        match &self.model {
            Model::Cpu(_) => Ok(()),
            Model::Device(model, _) => model.rehearse_sampling(job.rows, job.prompt, job.sequence),
        }
    }

    /// The same of updates: a micro-batch of `tokens` in sequences of `longest`, all of which predict. The weights stay.
    pub fn rehearse_update(&mut self, tokens: usize, longest: usize) -> Result<()> {
        match &self.model {
            Model::Cpu(_) => Ok(()),
            Model::Device(..) => {
                let nothing = |micro: &MicroBatch, _: &TokenStats| (vec![0.0; micro.rows.len()], ());
                self.gradients(&[full_micro_batch(tokens, longest)], 1.0, &nothing).map(drop)
            }
        }
    }

    /// Bytes that it holds on a device.
    pub fn held(&self) -> usize {
        match &self.model {
            Model::Cpu(_) => 0,
            Model::Device(model, _) => model.device.held_in_all(),
        }
    }

    /// Sums the gradients of all micro-batches where the next update finds them, and returns what `head` kept of each, in
    /// order. Earlier gradients are gone.
    pub fn gradients<S: Send>(&mut self, micros: &[MicroBatch], temperature: f32, head: &Head<S>) -> Result<Vec<S>> {
        match &mut self.model {
            Model::Cpu(model) => {
                // Freed first: the two sums need not fit side by side.
                model.sum = Vec::new();
                let (sum, kept) = model.gradients(micros, temperature, head);
                model.sum = sum;
                Ok(kept)
            }
            Model::Device(model, _) => {
                model.learnt.gradients.all().zero()?;
                micros.iter().map(|micro| model.gradient(micro, temperature, head)).collect()
            }
        }
    }
}

/// A micro-batch of which every token predicts one.
fn full_micro_batch(tokens: usize, longest: usize) -> MicroBatch {
    let (rows, targets) = ((0..tokens as u32).collect(), vec![0; tokens]);
    let mut micro = MicroBatch { rows, targets, ..MicroBatch::default() };
    while micro.tokens.len() < tokens {
        micro.push_sequence(&vec![0; longest.min(tokens - micro.tokens.len())]);
    }
    micro
}
