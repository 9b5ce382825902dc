//! The `[grpo]` table: a preset named after its paper, and the objective key by key. What the keys do to a batch is the
//! business of [`crate::grpo`].

use anyhow::{Result, ensure};
use reckon_datasets::Range::AtLeast;
use reckon_datasets::{Table, table};
use serde::{Deserialize, Serialize};

use crate::grpo::{AdvantageKind, KlEstimator, LossConfig, LossNorm, Objective, Truncated};
use crate::strict::Tree;

/// What each preset sets.
pub const PRESETS: &str = include_str!("presets.toml");

/// Where the keys that a config leaves open come from: the tables of `presets.toml`, which names the papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// GRPO with a mean over tokens and without a KL term: the recommended one.
    TokenGrpo,
    /// Group-relative policy optimisation, DeepSeekMath (arXiv:2402.03300).
    Grpo,
    /// GRPO without its biases toward long wrong completions and very easy or hard prompts (arXiv:2503.20783).
    DrGrpo,
    /// Clip higher, dynamic sampling, token-level loss, soft overlong punishment (arXiv:2503.14476).
    Dapo,
}

/// The words of the key `loss_weights`: how tokens share an update's objective. [`LossNorm`] has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeights {
    /// [`LossNorm::Sequence`].
    SequenceMean,
    /// [`LossNorm::Token`].
    TokenMean,
    /// [`LossNorm::Constant`], of `constant_length`.
    Constant,
}

/// The words of the key `truncated`. [`Truncated`] has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedKind {
    /// [`Truncated::Zero`].
    Zero,
    /// [`Truncated::Mask`].
    Mask,
    /// [`Truncated::SoftOverlong`], with `overlong_buffer`.
    SoftOverlong,
}

table! {
    /// The objective. What a config leaves open comes from its preset.
    pub struct GrpoConfig {
        /// Where the other keys of this table come from; the presets are below.
        pub preset: Preset = Preset::TokenGrpo,
        /// What a reward is relative to: the mean of its group, over the group's standard deviation (`mean_std`), as it is
        /// (`mean`), leaving the completion itself out (`leave_one_out`), or over the batch's deviation (`batch_std`).
        pub advantage: AdvantageKind = AdvantageKind::MeanStd,
        /// How tokens share the loss: the mean of each completion counts the same, or each token does, or each token
        /// counts 1 / `constant_length`.
        pub loss_weights: LossWeights = LossWeights::TokenMean,
        /// Tokens, at least 1; only with `loss_weights = "constant"`, and then `rollout.max_new_tokens` when absent.
        pub constant_length: Option<usize> = None,
        /// The ratio is clipped from below at 1 - `clip_low`; 1 or more never clips.
        pub clip_low: f64 = 0.2 => AtLeast(0.0),
        /// The ratio is clipped from above at 1 + `clip_high`.
        pub clip_high: f64 = 0.2 => AtLeast(0.0),
        /// Bound of the ratio where the advantage is negative: above 1 + `clip_high`, customarily 3; none when absent.
        pub dual_clip: Option<f64> = None,
        /// Weight of the KL term; 0 keeps no reference.
        pub kl_coef: f64 = 0.0 => AtLeast(0.0),
        /// Which estimate the KL term is.
        pub kl_estimator: KlEstimator = KlEstimator::K3,
        /// Steps after which the policy becomes the new reference; 0 never. Only with a KL term.
        pub ref_refresh_every: u64 = 0,
        /// Completions of an optimizer update; 0 takes all of a step's. A step's completions are cut into equal parts of
        /// about as many, and those of a smaller step are one part.
        pub completions_per_update: usize = 0,
        /// Whether groups whose rewards are all equal are left out.
        pub drop_zero_signal: bool = true,
        /// Extra batches of prompts, at most, to replace dropped groups in a step. Only with `drop_zero_signal`.
        pub resample_max: usize = 0,
        /// A completion that ran out of tokens has reward 0 (`zero`), is left out (`mask`), or has its reward lowered over
        /// the last tokens before the limit (`soft_overlong`).
        pub truncated: TruncatedKind = TruncatedKind::Zero,
        /// Tokens over which `soft_overlong` grows, at most `rollout.max_new_tokens`; only with it, and then a fifth of
        /// that when absent, DAPO's 4096 of 20480.
        pub overlong_buffer: Option<usize> = None,
    }
}

/// Lays the preset that a document names under its `[grpo]` table.
pub(super) fn lay_preset(document: &mut Tree) -> Result<()> {
    let name = document.word("grpo.preset").unwrap_or_else(|| "token_grpo".into());
    // The name of no preset is refused where the document is read.
    let Some(mut preset) = Tree::parse(PRESETS, "presets.toml", &[])?.take(&name) else { return Ok(()) };
    if document.word("grpo.drop_zero_signal").is_some_and(|value| value == "false") {
        // A preset's refill goes with its filter.
        preset.take("resample_max");
    }
    document.lay_under("grpo", preset);
    Ok(())
}

impl GrpoConfig {
    /// What the loss of an update is made of.
    pub fn loss(&self) -> LossConfig {
        let Self { clip_low: low, clip_high: high, dual_clip, kl_coef, kl_estimator, .. } = *self;
        let objective = match dual_clip {
            None => Objective::Clip { low, high },
            Some(bound) => Objective::DualClip { low, high, bound },
        };
        LossConfig { objective, kl_coef, kl_estimator }
    }

    /// Tokens to an update's loss.
    ///
    /// # Panics
    /// If the constant is not there: [`Self::resolve`] gives it, and [`Self::validate`] refuses its lack.
    pub fn loss_norm(&self) -> LossNorm {
        match self.loss_weights {
            LossWeights::SequenceMean => LossNorm::Sequence,
            LossWeights::TokenMean => LossNorm::Token,
            LossWeights::Constant => LossNorm::Constant { length: self.constant_length.expect("a resolved config") },
        }
    }

    /// What a completion that ran out of tokens is worth.
    ///
    /// # Panics
    /// As [`Self::loss_norm`], for the buffer.
    pub fn truncated(&self) -> Truncated {
        match self.truncated {
            TruncatedKind::Zero => Truncated::Zero,
            TruncatedKind::Mask => Truncated::Mask,
            TruncatedKind::SoftOverlong => {
                Truncated::SoftOverlong { buffer: self.overlong_buffer.expect("a resolved config") }
            }
        }
    }

    /// Whether the run keeps a reference.
    pub fn needs_reference(&self) -> bool {
        self.kl_coef > 0.0
    }

    /// Gives the lengths that follow from `max_tokens`, the longest completion.
    pub fn resolve(&mut self, max_tokens: usize) {
        if self.loss_weights == LossWeights::Constant {
            self.constant_length.get_or_insert(max_tokens);
        }
        if self.truncated == TruncatedKind::SoftOverlong {
            self.overlong_buffer.get_or_insert((max_tokens / 5).max(1));
        }
    }

    /// Refuses a value out of its range, and a key that has no effect beside the others.
    pub fn validate(&self, max_tokens: usize) -> Result<()> {
        self.check("grpo.").map_err(anyhow::Error::msg)?;
        ensure!(
            self.dual_clip.is_none_or(|bound| bound.is_finite() && bound > 1.0 + self.clip_high),
            "grpo.dual_clip = {}: it must be above 1 + clip_high = {}",
            self.dual_clip.unwrap_or_default(),
            1.0 + self.clip_high
        );
        ensure!(
            self.ref_refresh_every == 0 || self.needs_reference(),
            "grpo.ref_refresh_every = {}: there is no reference with kl_coef = 0",
            self.ref_refresh_every
        );
        ensure!(
            self.resample_max == 0 || self.drop_zero_signal,
            "grpo.resample_max = {}: it needs drop_zero_signal = true",
            self.resample_max
        );
        self.validate_lengths(max_tokens)
    }

    fn validate_lengths(&self, max_tokens: usize) -> Result<()> {
        let (constant, soft) =
            (self.loss_weights == LossWeights::Constant, self.truncated == TruncatedKind::SoftOverlong);
        let (length, buffer) = (self.constant_length.unwrap_or(0), self.overlong_buffer.unwrap_or(0));
        ensure!(
            constant || self.constant_length.is_none(),
            "grpo.constant_length = {length}: it needs loss_weights = \"constant\"; remove it or set that"
        );
        ensure!(!constant || length > 0, "grpo.constant_length = {length}: it must be at least 1 token");
        ensure!(
            soft || self.overlong_buffer.is_none(),
            "grpo.overlong_buffer = {buffer}: it needs truncated = \"soft_overlong\"; remove it or set that"
        );
        ensure!(
            !soft || (1..=max_tokens).contains(&buffer),
            "grpo.overlong_buffer = {buffer}: it must be from 1 to {max_tokens} tokens, the longest completion"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use crate::strict;

    /// A run of at most 1000 tokens with this `[grpo]` table.
    fn read(grpo: &str) -> Result<TrainConfig> {
        let run = "steps = 1\nmodel = {path = 'm'}\ndata = {dataset = 'parity'}\nrollout = {max_new_tokens = 1000}\n\
                   rubric = {verifiers = [{kind = 'exact'}]}\n";
        let config: TrainConfig = strict::load(&format!("{run}[grpo]\n{grpo}"), "config.toml", &[])?;
        config.validate()?;
        Ok(config)
    }

    fn grpo(text: &str) -> GrpoConfig {
        read(text).unwrap().grpo
    }

    #[test]
    fn presets_are_their_papers() {
        let paper = grpo("preset = 'grpo'");
        assert_eq!((paper.advantage, paper.loss_norm()), (AdvantageKind::MeanStd, LossNorm::Sequence));
        assert_eq!((paper.clip_low, paper.clip_high, paper.kl_coef), (0.2, 0.2, 0.04));
        assert!(paper.needs_reference() && paper.kl_estimator == KlEstimator::K3);

        let dr_grpo = grpo("preset = 'dr_grpo'");
        let norm = LossNorm::Constant { length: 1000 };
        assert_eq!((dr_grpo.advantage, dr_grpo.loss_norm()), (AdvantageKind::Mean, norm));
        assert!(!dr_grpo.needs_reference());

        let dapo = grpo("preset = 'dapo'");
        assert_eq!((dapo.loss_norm(), dapo.clip_low, dapo.clip_high), (LossNorm::Token, 0.2, 0.28));
        assert_eq!((dapo.completions_per_update, dapo.resample_max), (512, 10));
        assert_eq!(dapo.truncated(), Truncated::SoftOverlong { buffer: 200 });
        assert!(dapo.drop_zero_signal && !dapo.needs_reference());
    }

    #[test]
    fn the_defaults_are_the_recommended_preset() {
        let text = toml::to_string(&GrpoConfig::default()).unwrap();
        assert_eq!((grpo(""), grpo("preset = 'token_grpo'"), grpo(&text)), Default::default());
    }

    #[test]
    fn keys_lie_on_top_of_their_preset() {
        let found = grpo("preset = 'grpo'\nloss_weights = 'constant'\nconstant_length = 64\ndual_clip = 3.0");
        let (loss_weights, constant_length) = (LossWeights::Constant, Some(64));
        let rest = grpo("preset = 'grpo'");
        assert_eq!(found, GrpoConfig { loss_weights, constant_length, dual_clip: Some(3.0), ..rest });

        let found = grpo("preset = 'dapo'\ndrop_zero_signal = false\ntruncated = 'mask'");
        let (truncated, overlong_buffer) = (TruncatedKind::Mask, None);
        let rest = grpo("preset = 'dapo'");
        assert_eq!(found, GrpoConfig { drop_zero_signal: false, resample_max: 0, truncated, overlong_buffer, ..rest });
    }

    #[test]
    fn a_resolved_config_reads_back_as_itself() {
        for text in [
            "",
            "preset = 'grpo'\ndual_clip = 3.0\nref_refresh_every = 50",
            "preset = 'dr_grpo'",
            "preset = 'dapo'\nkl_coef = 0.01",
            "preset = 'dapo'\ndrop_zero_signal = false",
        ] {
            let config = read(text).unwrap();
            let printed = toml::to_string(&config).unwrap();
            let again: TrainConfig = strict::load(&printed, "config.toml", &[]).unwrap();
            again.validate().unwrap();
            assert_eq!(again, config, "{printed}");
            assert!(printed.contains("clip_high") && !printed.contains("auto"), "{printed}");
        }
    }

    #[test]
    fn a_value_out_of_range_or_without_effect_is_an_error_that_names_it() {
        for (text, expected) in [
            ("clip_low = -0.1", "grpo.clip_low = -0.1: it must be at least 0."),
            ("clip_high = inf", "grpo.clip_high = inf: it must be at least 0."),
            ("kl_coef = nan", "grpo.kl_coef = NaN: it must be at least 0."),
            ("dual_clip = 1.2", "grpo.dual_clip = 1.2: it must be above 1 + clip_high = 1.2"),
            ("preset = 'dr_grpo'\nconstant_length = 0", "grpo.constant_length = 0: it must be at least 1"),
            ("preset = 'grpo'\nconstant_length = 9", "grpo.constant_length = 9: it needs loss_weights"),
            ("overlong_buffer = 9", "grpo.overlong_buffer = 9: it needs truncated"),
            ("preset = 'dapo'\noverlong_buffer = 1001", "grpo.overlong_buffer = 1001: it must be from 1 to 1000"),
            ("ref_refresh_every = 5", "grpo.ref_refresh_every = 5: there is no reference"),
            ("drop_zero_signal = false\nresample_max = 2", "grpo.resample_max = 2: it needs"),
            ("preset = 'dappo'", "did you mean \"dapo\"?"),
            ("clip_lo = 0.1", "unknown key \"grpo.clip_lo\" in config.toml line 7: did you mean \"clip_low\"?"),
            ("advantage = 'meen'", "did you mean \"mean\"?"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
