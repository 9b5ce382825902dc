//! The typed configuration of a run, table by table, with the defaults of a run and the ranges of its values. Reading TOML,
//! overrides and the errors of both are left to [`crate::strict`].

mod compute;
mod curriculum;
mod data;
mod distil;
mod environment;
mod eval;
mod experiment;
mod grpo;
mod lora;
mod optim;
mod pipeline;
mod servers;
mod sft;
mod traces;

use anyhow::{Error, Result, ensure};
use reckon_datasets::Range::{Above, AtLeast, PositiveShare, Share};
use reckon_datasets::{Table, table};
use reckon_rewards::RubricConfig;
use serde::{Deserialize, Serialize};

pub use compute::{ComputeConfig, DeviceChoice, PrecisionChoice, Target};
pub use curriculum::{Curriculum, CurriculumConfig};
pub use data::{DataConfig, FileConfig, HeldOut, LongPrompts, Paths, PromptConfig, SourceConfig, SourceView};
pub use distil::{DistilConfig, DistilObjective};
pub use environment::{EnvironmentConfig, ToolFormat};
pub use eval::{EvalConfig, EvalSet, passes_at};
pub use experiment::{ArmConfig, BaseConfig, CriterionConfig, ExperimentConfig, Of};
pub use grpo::{GrpoConfig, LossWeights, PRESETS, Preset, TruncatedKind};
pub use lora::LoraConfig;
pub use optim::OptimConfig;
pub use pipeline::{HERE, PipelineConfig, StageConfig, StageKind};
pub use servers::{ServerEngine, ServersConfig};
pub use sft::{Learn, Length, SftAccuracy, SftConfig, SftEval, SftModel, StepSize};
pub use traces::{FilterConfig, Keep, TeacherConfig, TeacherPlace, TracesConfig, TracesControl};

use crate::grpo::CorrectionKind;
use crate::rollout::Sampling;
use crate::strict::{Document, Tree};

table! {
    /// `reckon train`: sample, score, update.
    pub struct TrainConfig {
        /// Names all random numbers of the run.
        #[serde(default)]
        pub seed: u64,
        /// Steps of the run; those of `epochs` when absent.
        #[serde(default)]
        pub steps: u64,
        /// Passes over the rows to train on, in place of `steps`, where these are of files; prompts that replace others
        /// count too.
        pub epochs: Option<f64>,
        /// What is trained.
        pub model: ModelSource,
        /// A low-rank adapter to train in place of all weights.
        pub lora: Option<LoraConfig>,
        /// A model that teaches it on its own completions.
        pub teacher: Option<DistilConfig>,
        /// What it is asked.
        pub data: DataConfig,
        /// How it is asked.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// Which rows are asked.
        #[serde(default)]
        pub curriculum: CurriculumConfig,
        /// How completions are sampled.
        #[serde(default)]
        pub rollout: RolloutConfig,
        /// What completions may call between their turns.
        pub environment: Option<EnvironmentConfig>,
        /// How they are judged, where a source has no rubric of its own.
        pub rubric: RubricConfig,
        /// The objective.
        #[serde(default)]
        pub grpo: GrpoConfig,
        /// How the weights move.
        #[serde(default)]
        pub optim: OptimConfig,
        /// Where and how it is computed.
        #[serde(default)]
        pub compute: ComputeConfig,
        /// Held-out evaluation.
        #[serde(default)]
        pub eval: EvalConfig,
        /// What is counted in completions: readers of traces (`countdown-traces`, `countdown-prose`, `three-sum-traces`,
        /// `parity-traces`) and published lists of key words (`aha-r1`, `aha-qwen`, `aha-orz`, `aha-simplerl`,
        /// `aha-logic-rl`, `aha-logic-rl-lite`, `aha-mini-r1`, `wait`); the reader of the dataset when absent.
        pub behaviours: Option<Vec<String>>,
        /// What is kept on disk.
        #[serde(default)]
        pub save: SaveConfig,
        /// What is kept for looking at the run, and for other programs.
        #[serde(default)]
        pub log: LogConfig,
        /// What is asked of rubric and data before step 0.
        #[serde(default)]
        pub audit: AuditConfig,
        /// Experiments that are meant to fail: `coin_flip` replaces rewards by coin flips.
        #[serde(default)]
        pub control: Control,
        /// Servers that sample in place of this program.
        pub servers: Option<ServersConfig>,
    }
}

impl Document for TrainConfig {
    fn lay_under(tree: &mut Tree) -> Result<()> {
        grpo::lay_preset(tree)
    }

    fn resolve(&mut self) {
        if (self.servers.is_some() || self.rollout.ahead > 0) && self.grpo.correction == CorrectionKind::None {
            // What samples is not what learns, or is older.
            self.grpo.correction = CorrectionKind::TruncateTokens;
        }
        self.grpo.resolve(self.rollout.max_new_tokens);
        self.compute.resolve();
    }
}

table! {
    /// The model to train.
    pub struct ModelSource {
        /// A folder of `config.json`, `tokenizer.json` and safetensors files, a GGUF file, either by its name on the hub
        /// (`owner/name`, `hf://owner/name/file.gguf`), or `builtin:countdown`.
        pub path: String,
        /// A branch, tag or commit of the hub's repository; `main` when absent.
        pub revision: Option<String>,
    }
}

impl ModelSource {
    /// What the model is loaded by.
    pub fn name(&self) -> String {
        self.revision.as_ref().map_or_else(|| self.path.clone(), |revision| format!("{}@{revision}", self.path))
    }
}

table! {
    /// How completions are sampled.
    pub struct RolloutConfig {
        /// Prompts per step; a batch without prompts gives no update.
        pub prompts_per_step: usize = 16 => AtLeast(1.0),
        /// Completions per prompt; with fewer than 2 no group has a signal, and a teacher alone can teach.
        pub group_size: usize = 16 => AtLeast(1.0),
        /// Completions of a group that are judged before its others are sampled: a group that they decide stops there, and
        /// the next prompt has the rest, so that a step has as many completions as without; 0 for whole groups at once.
        /// Only with `grpo.drop_zero_signal`.
        pub probe: usize = 0,
        /// Which groups go on behind the probe: those whose rewards differ (`mixed`), all the way, or those whose rewards are
        /// equal (`flat`), a probe at a time until they differ, so that a step asks more prompts in smaller groups.
        pub goes_on: GoesOn = GoesOn::Mixed,
        /// Longest completion, in tokens.
        pub max_new_tokens: usize = 256 => AtLeast(1.0),
        /// Shorter limits of the first steps, each with the last step that it holds for, as in `[[100, 64], [150, 96]]`;
        /// `max_new_tokens` holds after them. Evaluation has the limit of its step.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub shorter_until: Vec<(u64, usize)> = Vec::new(),
        /// Divides the logits.
        pub temperature: f64 = 1.0 => Above(0.0),
        /// Keep the smallest set of tokens with this much probability.
        pub top_p: f64 = 1.0 => PositiveShare,
        /// Keep this many tokens; 0 keeps all.
        pub top_k: usize = 0,
        /// Keep tokens this likely relative to the likeliest; 0 keeps all.
        pub min_p: f64 = 0.0 => Share,
        /// Texts that end a completion.
        pub stop: Vec<String> = Vec::new(),
        /// Most rows sampled at a time, over all threads. A small model on a CPU takes as many of them as stay in a
        /// processor's caches.
        pub capacity: usize = 128 => AtLeast(1.0),
        /// 1 samples the next step while this one updates: completions are of the weights before the last step, which
        /// `grpo.correction` weighs (`truncate_tokens` where it says none). On a CPU, in one process; it takes a copy of
        /// what is trained.
        pub ahead: usize = 0,
    }
}

/// The words of the key `goes_on`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoesOn {
    /// Groups whose rewards differ, to their whole size.
    #[default]
    Mixed,
    /// Groups whose rewards are equal, until they differ.
    Flat,
}

impl RolloutConfig {
    /// Longest completion of a step, counted from 1.
    pub fn max_new_tokens_at(&self, step: u64) -> usize {
        self.shorter_until.iter().find(|(last, _)| step <= *last).map_or(self.max_new_tokens, |(_, tokens)| *tokens)
    }

    /// Refuses limits that are not shorter, or out of order.
    fn validate_limits(&self) -> Result<()> {
        for (place, &(last, tokens)) in self.shorter_until.iter().enumerate() {
            ensure!(
                (1..=self.max_new_tokens).contains(&tokens),
                "rollout.shorter_until = [[{last}, {tokens}]]: a limit is from 1 to max_new_tokens = {}",
                self.max_new_tokens
            );
            let before = place.checked_sub(1).map_or(0, |place| self.shorter_until[place].0);
            ensure!(last > before, "rollout.shorter_until: step {last} stands after step {before}; put them in order");
        }
        Ok(())
    }

    /// The engine's view of it, with the model's end token.
    pub fn sampling(&self, stop_tokens: Vec<u32>) -> Result<Sampling> {
        ensure!(
            !stop_tokens.is_empty() || !self.stop.is_empty(),
            "nothing ends a completion: set eos_token_id in the model's config.json or rollout.stop"
        );
        Ok(Sampling {
            temperature: self.temperature as f32,
            top_p: self.top_p as f32,
            top_k: self.top_k,
            min_p: self.min_p as f32,
            max_new_tokens: self.max_new_tokens,
            stop_tokens,
            stop_strings: self.stop.clone(),
        })
    }
}

table! {
    /// What is kept on disk.
    pub struct SaveConfig {
        /// Steps between checkpoints.
        pub every: u64 = 25 => AtLeast(1.0),
        /// Checkpoints kept, the best apart.
        pub keep_last: usize = 2,
        /// Steps between those whose rollouts are kept, all of them for a replay and some to read; 0 for none.
        pub rollouts_every: u64 = 10,
    }
}

table! {
    /// What is kept for looking at the run, and for other programs. `docs/lab.md` has what it is good for.
    pub struct LogConfig {
        /// Groups of a step whose kept rollouts have each token's probability and entropy, and its share of the text; 0
        /// for none.
        pub token_groups: usize = 4,
        /// Whether the metrics are written for TensorBoard too, into `tensorboard/` of the run's folder.
        pub tensorboard: bool = false,
        /// Whether they are written in the offline format of Weights & Biases too, into `wandb/`, for `wandb sync`.
        pub wandb: bool = false,
    }
}

table! {
    /// What is asked of rubric and data before step 0: a short `reckon verify audit`.
    pub struct AuditConfig {
        /// Rows that are looked at; 0 for none.
        pub rows: usize = 64,
        /// Share of reference answers that may fail.
        pub max_failed: f64 = 0.0 => Share,
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
    /// Whether a run may be resumed with another value of this key without a word: how long it runs, how fast, and what is
    /// kept of it, but not what is learned.
    pub fn may_change(key: &str) -> bool {
        const KEYS: [&str; 7] = [
            "steps",
            "compute.threads",
            "compute.micro_batch_tokens",
            "compute.recompute",
            "rollout.capacity",
            "eval.every",
            "eval.patience",
        ];
        KEYS.contains(&key) || ["save.", "log.", "audit.", "behaviours"].iter().any(|table| key.starts_with(table))
    }

    /// Fixes the day that chat templates are told, where the config gives none: a run that is resumed on another day
    /// has the prompts that it began with.
    pub fn begin_on(&mut self, date: &str) {
        self.data.begin_on(&mut self.prompt, date);
        for prompt in self.eval.sets.iter_mut().filter_map(|set| set.prompt.as_mut()).filter(|prompt| prompt.is_chat())
        {
            prompt.date.get_or_insert_with(|| date.to_owned());
        }
    }

    /// Where prompts come from, with what is said of each.
    pub fn sources(&self) -> Result<Vec<SourceView<'_>>> {
        let rows = self.curriculum.rows;
        let views = self.data.sources(&self.prompt, &self.rubric)?;
        Ok(views.into_iter().map(|view| SourceView { rows, ..view }).collect())
    }

    /// Where the prompts of further held-out sets come from.
    pub fn eval_sources(&self) -> Vec<SourceView<'_>> {
        self.eval.sources(&self.prompt, &self.rubric)
    }

    /// Refuses a run that could not learn, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check("").map_err(Error::msg)?;
        let epochs = self.epochs.unwrap_or_default();
        ensure!(
            self.epochs.is_none_or(|epochs| epochs.is_finite() && epochs > 0.0),
            "epochs = {epochs}: it must be above 0"
        );
        ensure!(
            self.epochs.is_none() || self.steps == 0,
            "steps = {}: epochs = {epochs} says so too; remove one",
            self.steps
        );
        ensure!(self.epochs.is_some() || self.steps > 0, "steps = 0: it must be at least 1, or give epochs");
        self.rollout.check("rollout.").map_err(Error::msg)?;
        self.rollout.validate_limits()?;
        self.optim.check("optim.").map_err(Error::msg)?;
        self.eval.validate(&self.rollout)?;
        self.curriculum.validate(self.sources()?.iter().any(|source| !matches!(source.from, DataConfig::File(_))))?;
        self.save.check("save.").map_err(Error::msg)?;
        self.audit.check("audit.").map_err(Error::msg)?;
        self.grpo.validate(self.rollout.max_new_tokens, self.rollout.group_size)?;
        self.lora.iter().try_for_each(LoraConfig::validate)?;
        self.environment.iter().try_for_each(EnvironmentConfig::validate)?;
        for source in self.sources()?.into_iter().chain(self.eval_sources()) {
            environment::check_rewards(source.rubric, self.environment.as_ref())?;
        }
        self.teacher.iter().try_for_each(DistilConfig::validate)?;
        self.servers.iter().try_for_each(ServersConfig::validate)?;
        self.validate_ahead()?;
        ensure!(
            self.servers.is_none() || self.environment.is_none(),
            "[servers] sample completions of one turn: remove [environment], or [servers]"
        );
        ensure!(
            self.rollout.group_size > 1 || self.teacher.as_ref().is_some_and(|teacher| !teacher.rewards),
            "rollout.group_size = 1: no group has a signal; it must be at least 2, but with a [teacher] alone"
        );
        let (probe, group_size) = (self.rollout.probe, self.rollout.group_size);
        ensure!(
            probe == 0 || (2..group_size).contains(&probe),
            "rollout.probe = {probe}: it is 0, or from 2 to less than rollout.group_size = {group_size}"
        );
        ensure!(
            probe == 0 || self.grpo.drop_zero_signal && self.teacher.is_none(),
            "rollout.probe = {probe}: groups of equal rewards teach here, so they cannot stop early; it needs \
             grpo.drop_zero_signal, and no [teacher]"
        );
        let whole = self.teacher.as_ref().is_some_and(|teacher| teacher.objective == DistilObjective::Full);
        ensure!(
            !whole || self.grpo.entropy_coef == 0.0 && self.grpo.entropy_target.is_none(),
            "grpo.entropy_coef = {}: beside teacher.objective = \"full\" there is no bonus for entropy; take \"sampled\"",
            self.grpo.entropy_coef
        );
        Ok(())
    }
}

impl TrainConfig {
    /// Refuses to sample ahead where that cannot be, or where older completions would be taken for the policy's own.
    fn validate_ahead(&self) -> Result<()> {
        let (ahead, correction) = (self.rollout.ahead, self.grpo.correction);
        ensure!(ahead <= 1, "rollout.ahead = {ahead}: completions are at most 1 step old; set 0 or 1");
        ensure!(
            ahead == 0 || self.servers.is_none(),
            "rollout.ahead = 1: [servers] have one set of weights, those after the last step; set 0, or remove [servers]"
        );
        ensure!(
            ahead == 0 || self.compute.target() == Target::Cpu,
            "rollout.ahead = 1: a card samples and updates in the same memory, in turn; set 0, or compute.device = \"cpu\""
        );
        ensure!(
            ahead == 0 || correction.weighs(),
            "rollout.ahead = 1: completions are of older weights than the policy's, and grpo.correction = {} does not \
             weigh them; set \"truncate_tokens\"",
            toml::Value::try_from(correction)?
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_first_steps_hold_until_their_steps() {
        let rollout = |shorter_until| RolloutConfig { max_new_tokens: 128, shorter_until, ..RolloutConfig::default() };
        let limits = rollout(vec![(10, 32), (20, 64)]);
        for (step, tokens) in [(0, 32), (1, 32), (10, 32), (11, 64), (20, 64), (21, 128)] {
            assert_eq!(limits.max_new_tokens_at(step), tokens, "at step {step}");
        }
        assert!(limits.validate_limits().is_ok());
        for (limits, expected) in [
            (vec![(10, 256)], "[[10, 256]]: a limit is from 1 to max_new_tokens = 128"),
            (vec![(10, 0)], "[[10, 0]]: a limit"),
            (vec![(20, 32), (10, 64)], "step 10 stands after step 20"),
            (vec![(0, 32)], "step 0 stands after step 0"),
        ] {
            let message = rollout(limits).validate_limits().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
