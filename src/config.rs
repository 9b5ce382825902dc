//! The typed configuration of a run. Defaults live here and nowhere else; they are the recommended run.
//! Reading TOML, overrides and the errors of both are left to [`crate::strict`].

mod data;
mod lora;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use reckon_datasets::TraceConfig;
use reckon_rewards::RubricConfig;
use serde::{Deserialize, Serialize};

pub use data::{DataConfig, FileConfig, HeldOut, Paths, PromptConfig, SourceConfig, SourceView};
pub use lora::LoraConfig;

use crate::grpo::GrpoOverrides;
use crate::model::SaveDtype;
use crate::optim::{AdamWConfig, MomentKind, Schedule, ScheduleKind};
use crate::parallel::default_threads;
use crate::plan::Device;
use crate::rollout::Sampling;

/// `reckon train`: sample, score, update.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Names all random numbers of the run.
    #[serde(default)]
    pub seed: u64,
    /// Steps of the run, at least 1.
    pub steps: u64,
    /// What is trained.
    pub model: ModelSource,
    /// A low-rank adapter to train in place of all weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// What it is asked.
    pub data: DataConfig,
    /// How it is asked.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// How completions are sampled.
    #[serde(default)]
    pub rollout: RolloutConfig,
    /// How they are judged, where a source has no rubric of its own.
    pub rubric: RubricConfig,
    /// The objective.
    #[serde(default)]
    pub grpo: GrpoOverrides,
    /// How the weights move.
    #[serde(default)]
    pub optim: OptimConfig,
    /// What is computed how.
    #[serde(default)]
    pub compute: ComputeConfig,
    /// Held-out evaluation.
    #[serde(default)]
    pub eval: EvalConfig,
    /// What is kept on disk.
    #[serde(default)]
    pub save: SaveConfig,
    /// What is asked of rubric and data before step 0.
    #[serde(default)]
    pub audit: AuditConfig,
    /// Experiments that are meant to fail.
    #[serde(default)]
    pub control: Control,
}

/// `reckon sft`: supervised steps on generated traces, or on completions from files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Names all random numbers of the run.
    #[serde(default)]
    pub seed: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Packed tokens a step.
    pub tokens_per_step: usize,
    /// Where the weights start.
    pub model: SftModel,
    /// Countdown problems to make traces of, or files with completions.
    pub data: DataConfig,
    /// How a question becomes a prompt.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Which tokens are learnt.
    #[serde(default)]
    pub learn: Learn,
    /// The traces, where problems are generated.
    #[serde(default)]
    pub traces: TraceConfig,
    /// How the weights move.
    #[serde(default)]
    pub optim: OptimConfig,
    /// What is computed how.
    #[serde(default)]
    pub compute: ComputeConfig,
    /// Type of the saved weights.
    #[serde(default)]
    pub dtype: SaveDtype,
    /// Steps between two saves of the model; the last step and a signal save it too.
    #[serde(default = "default_sft_save_every")]
    pub save_every: u64,
}

fn default_sft_save_every() -> u64 {
    500
}

/// Which tokens supervised training learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Those of completions.
    #[default]
    Completion,
    /// Those of prompts too: a model that starts from random weights has their words to learn.
    All,
}

/// Where supervised training starts: `shape` and `tokenizer` files for random weights, or `path` for a model folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftModel {
    /// A model folder to go on from.
    pub path: Option<PathBuf>,
    /// A `config.json` for random weights.
    pub shape: Option<PathBuf>,
    /// A `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
}

/// The model to train.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// A folder of `config.json`, `tokenizer.json` and safetensors files, the hub's `owner/name`, or `builtin:countdown`.
    pub path: String,
    /// A branch, tag or commit of the hub's repository; `main` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl ModelSource {
    /// What the model is loaded by.
    pub fn name(&self) -> String {
        self.revision.as_ref().map_or_else(|| self.path.clone(), |revision| format!("{}@{revision}", self.path))
    }
}

/// How completions are sampled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Prompts a step.
    pub prompts_per_step: usize,
    /// Completions a prompt; at least 2, or no group has a signal.
    pub group_size: usize,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Keep the smallest set of tokens with this much probability.
    pub top_p: f32,
    /// Keep this many tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// Rows sampled at a time, over all threads.
    pub capacity: usize,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            prompts_per_step: 16,
            group_size: 16,
            max_new_tokens: 256,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            stop: Vec::new(),
            capacity: 128,
        }
    }
}

impl RolloutConfig {
    /// The engine's view of it, with the model's end tokens; an error if nothing would end a completion.
    pub fn sampling(&self, stop_tokens: Vec<u32>) -> Result<Sampling> {
        ensure!(
            !stop_tokens.is_empty() || !self.stop.is_empty(),
            "nothing ends a completion: set eos_token_id in the model's config.json or rollout.stop"
        );
        Ok(Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            max_new_tokens: self.max_new_tokens,
            stop_tokens,
            stop_strings: self.stop.clone(),
        })
    }
}

/// How the weights move.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Learning rate after warm-up.
    pub lr: f64,
    /// What it does then.
    pub schedule: ScheduleKind,
    /// Steps from 0 to `lr`.
    pub warmup_steps: u64,
    /// Share of `lr` left at the end of a linear or cosine schedule.
    pub final_ratio: f64,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub max_grad_norm: f32,
    /// A run stops after this many skipped updates in a row.
    pub max_skipped: u64,
    /// How the moments are kept; `eight_bit` on a device alone.
    pub moments: MomentKind,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            lr: 3e-4,
            schedule: ScheduleKind::Constant,
            warmup_steps: 0,
            final_ratio: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_skipped: 3,
            moments: MomentKind::Full,
        }
    }
}

impl OptimConfig {
    /// Settings of the optimizer.
    pub fn adamw(&self) -> AdamWConfig {
        let Self { beta1, beta2, eps, weight_decay, max_grad_norm, .. } = *self;
        AdamWConfig { beta1, beta2, eps, weight_decay, max_grad_norm }
    }

    /// Refuses moments that a device of this kind does not keep.
    pub fn check_moments(&self, device: Device) -> Result<()> {
        ensure!(
            self.moments == MomentKind::Full || device == Device::Cuda,
            "optim.moments = \"eight_bit\" is for a card: set compute.device = \"cuda\", or leave optim.moments away"
        );
        Ok(())
    }

    /// The learning rate over a run of `total_steps`.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let Self { schedule: kind, lr, warmup_steps, final_ratio, .. } = *self;
        Schedule { kind, lr, warmup_steps, total_steps, final_ratio }
    }
}

/// What is computed how. `device` and `micro_batch_tokens` change the rounding of a result, nothing else here changes any.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeConfig {
    /// A CPU, or the first CUDA card that `CUDA_VISIBLE_DEVICES` leaves.
    pub device: Device,
    /// Threads; 0 takes one a core.
    pub threads: usize,
    /// Most tokens of a micro-batch.
    pub micro_batch_tokens: usize,
    /// Compute layers again in the backward instead of keeping their activations.
    pub recompute: bool,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        Self { device: Device::Cpu, threads: 0, micro_batch_tokens: 512, recompute: false }
    }
}

impl ComputeConfig {
    /// Threads to use on this machine.
    pub fn threads(&self) -> usize {
        if self.threads == 0 { default_threads() } else { self.threads }
    }
}

/// Held-out evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Held-out problems; 0 for none.
    pub problems: usize,
    /// Completions a problem.
    pub samples: usize,
    /// Steps between evaluations; there is always one before and one after.
    pub every: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { problems: 200, samples: 1, every: 50 }
    }
}

/// What is kept on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaveConfig {
    /// Steps between checkpoints.
    pub every: u64,
    /// Checkpoints kept, the best apart.
    pub keep_last: usize,
    /// Steps between those whose rollouts are kept, all of them for a replay and some to read; 0 for none.
    pub rollouts_every: u64,
}

impl Default for SaveConfig {
    fn default() -> Self {
        Self { every: 25, keep_last: 2, rollouts_every: 10 }
    }
}

/// What is asked of rubric and data before step 0: a short `reckon verify audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Rows that are looked at; 0 for none.
    pub rows: usize,
    /// Share of reference answers that may fail, in [0, 1].
    pub max_failed: f64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { rows: 64, max_failed: 0.0 }
    }
}

/// Experiments that are meant to fail, to show that the others do not succeed by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Rewards are what the rubric says.
    #[default]
    None,
    /// Rewards are coin flips.
    CoinFlip,
}

impl TrainConfig {
    /// Where prompts come from, with what is said of each.
    pub fn sources(&self) -> Result<Vec<SourceView<'_>>> {
        self.data.sources(&self.prompt, &self.rubric)
    }

    /// Refuses a run that could not learn, naming the key.
    pub fn validate(&self) -> Result<()> {
        let r = &self.rollout;
        ensure!(self.steps > 0, "steps = 0: a run needs at least 1 step");
        ensure!(r.prompts_per_step > 0, "rollout.prompts_per_step = 0: a batch without prompts gives no update");
        ensure!(
            r.group_size > 1,
            "rollout.group_size = {}: with fewer than 2 completions no group has a signal, so no update happens",
            r.group_size
        );
        ensure!(r.max_new_tokens > 0, "rollout.max_new_tokens = 0: nothing would be sampled");
        ensure!(r.temperature > 0.0, "rollout.temperature = {}: training samples need a positive one", r.temperature);
        ensure!(r.top_p > 0.0 && r.top_p <= 1.0, "rollout.top_p = {}: it lies in (0, 1]", r.top_p);
        ensure!((0.0..=1.0).contains(&r.min_p), "rollout.min_p = {}: it lies in [0, 1]", r.min_p);
        ensure!(r.capacity > 0, "rollout.capacity = 0: it is the number of rows sampled at a time, at least 1");
        ensure!(self.compute.micro_batch_tokens > 0, "compute.micro_batch_tokens = 0: it must be at least 1");
        ensure!(self.save.every > 0 && self.eval.every > 0, "save.every and eval.every must be at least 1");
        let failed = self.audit.max_failed;
        ensure!((0.0..=1.0).contains(&failed), "audit.max_failed = {failed}: a share lies in [0, 1]");
        ensure!(self.optim.lr > 0.0, "optim.lr = {}: it must be positive, or nothing is learnt", self.optim.lr);
        self.optim.check_moments(self.compute.device)?;
        self.lora.iter().try_for_each(LoraConfig::validate)
    }
}
