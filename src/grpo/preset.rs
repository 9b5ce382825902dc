//! The `[grpo]` table of a config: a preset named after its paper, and the keys that override it.
//!
//! [`GrpoOverrides`] is what a user writes; [`GrpoOverrides::resolve`] makes of it a [`GrpoConfig`], in which every
//! choice is made; [`GrpoConfig::spelled_out`] goes back, for printing. The defaults of the algorithm live here alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::advantage::AdvantageKind;
use super::batch::LossNorm;
use super::loss::{KlEstimator, LossConfig};
use super::objective::Objective;

/// Where the keys that are not overridden come from.
///
/// | key                 | `grpo`          | `dr_grpo`             | `dapo`             |
/// |---------------------|-----------------|-----------------------|--------------------|
/// | paper               | arXiv:2402.03300 | arXiv:2503.20783     | arXiv:2503.14476   |
/// | `advantage`         | `mean_std`      | `mean`                | `mean_std`         |
/// | `loss_weights`      | `sequence_mean` | `constant`            | `token_mean`       |
/// | `constant_length`   |                 | longest completion    |                    |
/// | `clip_low`          | 0.2             | 0.2                   | 0.2                |
/// | `clip_high`         | 0.2             | 0.2                   | 0.28               |
/// | `kl_coef`           | 0.04, `k3`      | 0                     | 0                  |
/// | `updates_per_step`  | 1               | 1                     | 16                 |
/// | `resample_max`      | 0               | 0                     | 10                 |
/// | `truncated`         | `zero`          | `zero`                | `soft_overlong`    |
/// | `overlong_buffer`   |                 |                       | 1/5 of the longest |
///
/// None has a dual clip or refreshes its reference, and all drop groups without signal. That is DAPO's; the other two
/// keep such groups, which add to `N` and to the KL term. Set `drop_zero_signal = false` for those papers to the
/// letter. The GRPO paper does not print its clip range: 0.2 is PPO's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Group-relative policy optimisation, DeepSeekMath (arXiv:2402.03300).
    Grpo,
    /// GRPO without its biases toward long wrong completions and toward very easy or hard prompts (arXiv:2503.20783).
    /// The default: it needs no reference and has the fewest terms.
    #[default]
    DrGrpo,
    /// Clip higher, dynamic sampling, token-level loss, soft overlong punishment (arXiv:2503.14476).
    Dapo,
}

/// The key `loss_weights`: how tokens share an update's objective. [`LossNorm`] has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeighting {
    /// [`LossNorm::Sequence`].
    SequenceMean,
    /// [`LossNorm::Token`].
    TokenMean,
    /// [`LossNorm::Constant`], of `constant_length`.
    Constant,
}

/// The key `truncated`: what a completion that ran out of tokens is worth. [`Truncated`] has the details.
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

/// The `[grpo]` table: a preset and the keys set on top of it. An unknown key is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoOverrides {
    /// `"grpo"`, `"dr_grpo"` (default) or `"dapo"`.
    pub preset: Preset,
    /// `"mean_std"`, `"mean"`, `"leave_one_out"` or `"batch_std"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advantage: Option<AdvantageKind>,
    /// `"sequence_mean"`, `"token_mean"` or `"constant"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_weights: Option<LossWeighting>,
    /// Tokens, at least 1; only with `loss_weights = "constant"`. Default: the longest completion the run allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constant_length: Option<usize>,
    /// At least 0; 1 or more never clips from below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,
    /// At least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
    /// Above `1 + clip_high`, customarily 3. Default: no dual clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
    /// At least 0; 0 keeps no reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coef: Option<f64>,
    /// `"k1"`, `"k2"` or `"k3"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_estimator: Option<KlEstimator>,
    /// Steps after which the policy becomes the new reference; 0 never. Only with a KL term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_refresh_every: Option<u64>,
    /// Updates a step, at least 1: the step's samples are cut into as many parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates_per_step: Option<usize>,
    /// Whether groups whose rewards are all equal are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_zero_signal: Option<bool>,
    /// Extra batches of prompts, at most, to replace dropped groups in a step; 0 none. Only with `drop_zero_signal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resample_max: Option<usize>,
    /// `"zero"`, `"mask"` or `"soft_overlong"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<TruncatedKind>,
    /// Tokens, from 1 to the longest completion the run allows; only with `truncated = "soft_overlong"`. Default: a
    /// fifth of the longest completion, DAPO's 4096 of 20480.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong_buffer: Option<usize>,
}

/// The algorithm of a run, every choice made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrpoConfig {
    /// Where the choices that were not overridden come from.
    pub preset: Preset,
    /// Rewards to advantages.
    pub advantage: AdvantageKind,
    /// Tokens to an update's loss.
    pub loss_norm: LossNorm,
    /// The objective of a token.
    pub loss: LossKeys,
    /// Steps after which the policy becomes the new reference; 0 never.
    pub ref_refresh_every: u64,
    /// Updates a step.
    pub updates_per_step: usize,
    /// Whether groups whose rewards are all equal are left out.
    pub drop_zero_signal: bool,
    /// Extra batches of prompts, at most, to replace dropped groups in a step.
    pub resample_max: usize,
    /// What a completion that ran out of tokens is worth.
    pub truncated: Truncated,
}

/// What a completion that ran out of tokens is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// Reward 0, like any wrong completion.
    Zero,
    /// Left out of the objective (DAPO's overlong filtering).
    Mask,
    /// Whatever its verdict, plus [`soft_overlong`], which also applies to completions that nearly ran out.
    SoftOverlong {
        /// `L_cache`: the last tokens before the limit, over which the punishment grows.
        buffer: usize,
    },
}

/// A key of the `[grpo]` table has a value it must not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidGrpo {
    /// The key.
    pub key: &'static str,
    /// Its value, as written.
    pub value: String,
    /// What would do instead.
    pub rule: String,
}

impl fmt::Display for InvalidGrpo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "grpo.{} = {} is invalid: {}", self.key, self.value, self.rule)
    }
}

impl std::error::Error for InvalidGrpo {}

/// DAPO's punishment for a completion of `length` tokens near or at the limit, to be added to its reward.
///
/// ```text
/// 0                                      length <= max_length - buffer
/// (max_length - buffer - length)/buffer  up to max_length
/// -1                                     beyond                          (arXiv:2503.14476, eq. 13)
/// ```
/// Made for rewards of 1 and -1. With rewards of 1 and 0 it weighs twice as much against the reward.
pub fn soft_overlong(length: usize, max_length: usize, buffer: usize) -> f32 {
    let free = max_length.saturating_sub(buffer);
    if length <= free {
        0.0
    } else if length <= max_length {
        -((length - free) as f32) / (max_length - free) as f32
    } else {
        -1.0
    }
}

impl GrpoOverrides {
    /// Fills in the preset and checks ranges. `max_tokens` is the longest completion the run allows.
    ///
    /// # Errors
    /// If a value is out of its range, or a key is set that has no effect beside the others.
    pub fn resolve(&self, max_tokens: usize) -> Result<GrpoConfig, InvalidGrpo> {
        let base = self.preset.config(max_tokens);
        let drop_zero_signal = self.drop_zero_signal.unwrap_or(base.drop_zero_signal);
        let config = GrpoConfig {
            preset: self.preset,
            advantage: self.advantage.unwrap_or(base.advantage),
            loss_norm: self.loss_norm(base.loss_norm, max_tokens)?,
            loss: self.loss(base.loss),
            ref_refresh_every: self.ref_refresh_every.unwrap_or(base.ref_refresh_every),
            updates_per_step: self.updates_per_step.unwrap_or(base.updates_per_step),
            drop_zero_signal,
            // A preset's refill goes with its filter.
            resample_max: self.resample_max.unwrap_or(if drop_zero_signal { base.resample_max } else { 0 }),
            truncated: self.truncated(base.truncated, max_tokens)?,
        };
        config.check(max_tokens)?;
        Ok(config)
    }

    fn loss_norm(&self, base: LossNorm, max_tokens: usize) -> Result<LossNorm, InvalidGrpo> {
        let weighting = self.loss_weights.unwrap_or(base.weighting());
        match (weighting, self.constant_length) {
            (LossWeighting::Constant, length) => Ok(LossNorm::Constant { length: length.unwrap_or(max_tokens) }),
            (_, Some(length)) => {
                Err(invalid("constant_length", length, "it needs loss_weights = \"constant\"; remove it or set that"))
            }
            (LossWeighting::SequenceMean, None) => Ok(LossNorm::Sequence),
            (LossWeighting::TokenMean, None) => Ok(LossNorm::Token),
        }
    }

    fn loss(&self, base: LossKeys) -> LossKeys {
        LossKeys {
            clip_low: self.clip_low.unwrap_or(base.clip_low),
            clip_high: self.clip_high.unwrap_or(base.clip_high),
            dual_clip: self.dual_clip.or(base.dual_clip),
            kl_coef: self.kl_coef.unwrap_or(base.kl_coef),
            kl_estimator: self.kl_estimator.unwrap_or(base.kl_estimator),
        }
    }

    fn truncated(&self, base: Truncated, max_tokens: usize) -> Result<Truncated, InvalidGrpo> {
        let kind = self.truncated.unwrap_or(base.kind());
        match (kind, self.overlong_buffer) {
            (TruncatedKind::SoftOverlong, buffer) => {
                Ok(Truncated::SoftOverlong { buffer: buffer.unwrap_or(default_buffer(max_tokens)) })
            }
            (_, Some(buffer)) => {
                Err(invalid("overlong_buffer", buffer, "it needs truncated = \"soft_overlong\"; remove it or set that"))
            }
            (TruncatedKind::Zero, None) => Ok(Truncated::Zero),
            (TruncatedKind::Mask, None) => Ok(Truncated::Mask),
        }
    }
}

/// What the keys of `[grpo]` say of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct LossKeys {
    pub clip_low: f64,
    pub clip_high: f64,
    pub dual_clip: Option<f64>,
    pub kl_coef: f64,
    pub kl_estimator: KlEstimator,
}

impl GrpoConfig {
    /// The loss that the keys ask for.
    pub fn loss(&self) -> LossConfig {
        let LossKeys { clip_low: low, clip_high: high, dual_clip, kl_coef, kl_estimator } = self.loss;
        let objective =
            dual_clip.map_or(Objective::Clip { low, high }, |bound| Objective::DualClip { low, high, bound });
        LossConfig { objective, kl_coef, kl_estimator }
    }

    /// Whether the run keeps a reference.
    pub fn needs_reference(&self) -> bool {
        self.loss.kl_coef > 0.0
    }

    /// The same config with every key written, for printing. It resolves to itself.
    pub fn spelled_out(&self) -> GrpoOverrides {
        GrpoOverrides {
            preset: self.preset,
            advantage: Some(self.advantage),
            loss_weights: Some(self.loss_norm.weighting()),
            constant_length: match self.loss_norm {
                LossNorm::Constant { length } => Some(length),
                _ => None,
            },
            clip_low: Some(self.loss.clip_low),
            clip_high: Some(self.loss.clip_high),
            dual_clip: self.loss.dual_clip,
            kl_coef: Some(self.loss.kl_coef),
            kl_estimator: Some(self.loss.kl_estimator),
            ref_refresh_every: Some(self.ref_refresh_every),
            updates_per_step: Some(self.updates_per_step),
            drop_zero_signal: Some(self.drop_zero_signal),
            resample_max: Some(self.resample_max),
            truncated: Some(self.truncated.kind()),
            overlong_buffer: match self.truncated {
                Truncated::SoftOverlong { buffer } => Some(buffer),
                _ => None,
            },
        }
    }

    fn check(&self, max_tokens: usize) -> Result<(), InvalidGrpo> {
        let LossKeys { clip_low, clip_high, dual_clip, kl_coef, .. } = self.loss;
        for (key, value) in [("clip_low", clip_low), ("clip_high", clip_high), ("kl_coef", kl_coef)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(invalid(key, value, "it must be a finite number, 0 or more"));
            }
        }
        if let Some(bound) = dual_clip.filter(|bound| !(bound.is_finite() && *bound > 1.0 + clip_high)) {
            return Err(invalid("dual_clip", bound, &format!("it must be above 1 + clip_high = {}", 1.0 + clip_high)));
        }
        if self.ref_refresh_every > 0 && !self.needs_reference() {
            return Err(invalid("ref_refresh_every", self.ref_refresh_every, "there is no reference with kl_coef = 0"));
        }
        if self.updates_per_step == 0 {
            return Err(invalid("updates_per_step", 0, "it must be 1 or more"));
        }
        if self.resample_max > 0 && !self.drop_zero_signal {
            return Err(invalid("resample_max", self.resample_max, "it needs drop_zero_signal = true"));
        }
        if self.loss_norm == (LossNorm::Constant { length: 0 }) {
            return Err(invalid("constant_length", 0, "it must be 1 token or more"));
        }
        match self.truncated {
            Truncated::SoftOverlong { buffer } if buffer == 0 || buffer > max_tokens => {
                let rule = format!("it must be from 1 to {max_tokens} tokens, the longest completion");
                Err(invalid("overlong_buffer", buffer, &rule))
            }
            _ => Ok(()),
        }
    }
}

impl Preset {
    fn config(self, max_tokens: usize) -> GrpoConfig {
        let grpo = GrpoConfig {
            preset: self,
            advantage: AdvantageKind::MeanStd,
            loss_norm: LossNorm::Sequence,
            loss: LossKeys {
                clip_low: 0.2,
                clip_high: 0.2,
                dual_clip: None,
                kl_coef: 0.04,
                kl_estimator: KlEstimator::K3,
            },
            ref_refresh_every: 0,
            updates_per_step: 1,
            drop_zero_signal: true,
            resample_max: 0,
            truncated: Truncated::Zero,
        };
        match self {
            Self::Grpo => grpo,
            Self::DrGrpo => GrpoConfig {
                advantage: AdvantageKind::Mean,
                loss_norm: LossNorm::Constant { length: max_tokens },
                loss: LossKeys { kl_coef: 0.0, ..grpo.loss },
                ..grpo
            },
            Self::Dapo => GrpoConfig {
                loss_norm: LossNorm::Token,
                loss: LossKeys { clip_high: 0.28, kl_coef: 0.0, ..grpo.loss },
                updates_per_step: 16,
                resample_max: 10,
                truncated: Truncated::SoftOverlong { buffer: default_buffer(max_tokens) },
                ..grpo
            },
        }
    }
}

impl LossNorm {
    fn weighting(self) -> LossWeighting {
        match self {
            Self::Sequence => LossWeighting::SequenceMean,
            Self::Token => LossWeighting::TokenMean,
            Self::Constant { .. } => LossWeighting::Constant,
        }
    }
}

impl Truncated {
    fn kind(self) -> TruncatedKind {
        match self {
            Self::Zero => TruncatedKind::Zero,
            Self::Mask => TruncatedKind::Mask,
            Self::SoftOverlong { .. } => TruncatedKind::SoftOverlong,
        }
    }
}

/// DAPO's share, 4096 of 20480 tokens.
fn default_buffer(max_tokens: usize) -> usize {
    (max_tokens / 5).max(1)
}

fn invalid(key: &'static str, value: impl fmt::Display, rule: &str) -> InvalidGrpo {
    InvalidGrpo { key, value: value.to_string(), rule: rule.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<GrpoConfig, InvalidGrpo> {
        toml::from_str::<GrpoOverrides>(toml).unwrap().resolve(1000)
    }

    #[test]
    fn presets_are_their_papers() {
        let grpo = resolve("preset = 'grpo'").unwrap();
        assert_eq!((grpo.advantage, grpo.loss_norm), (AdvantageKind::MeanStd, LossNorm::Sequence));
        assert_eq!((grpo.loss.clip_low, grpo.loss.clip_high, grpo.loss.kl_coef), (0.2, 0.2, 0.04));
        assert!(grpo.needs_reference());

        let dr_grpo = resolve("preset = 'dr_grpo'").unwrap();
        assert_eq!((dr_grpo.advantage, dr_grpo.loss_norm), (AdvantageKind::Mean, LossNorm::Constant { length: 1000 }));
        assert!(!dr_grpo.needs_reference());
        assert_eq!(resolve("").unwrap(), dr_grpo);

        let dapo = resolve("preset = 'dapo'").unwrap();
        assert_eq!((dapo.loss_norm, dapo.loss.clip_low, dapo.loss.clip_high), (LossNorm::Token, 0.2, 0.28));
        assert_eq!((dapo.updates_per_step, dapo.resample_max), (16, 10));
        assert_eq!(dapo.truncated, Truncated::SoftOverlong { buffer: 200 });
        assert!(dapo.drop_zero_signal && !dapo.needs_reference());
    }

    #[test]
    fn keys_override_their_preset_and_leave_the_rest() {
        let found =
            resolve("preset = 'grpo'\nloss_weights = 'constant'\nconstant_length = 64\ndual_clip = 3.0").unwrap();
        let base = Preset::Grpo.config(1000);
        let loss = LossKeys { dual_clip: Some(3.0), ..base.loss };
        assert_eq!(found, GrpoConfig { loss_norm: LossNorm::Constant { length: 64 }, loss, ..base });

        let found = resolve("preset = 'dapo'\ndrop_zero_signal = false\ntruncated = 'mask'").unwrap();
        let base = Preset::Dapo.config(1000);
        let expected = GrpoConfig { drop_zero_signal: false, resample_max: 0, truncated: Truncated::Mask, ..base };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_config_spelled_out_reads_back_as_itself() {
        for text in ["preset = 'grpo'\ndual_clip = 3.0\nref_refresh_every = 50", "", "preset = 'dapo'"] {
            let config = resolve(text).unwrap();
            let printed = toml::to_string(&config.spelled_out()).unwrap();
            assert_eq!(resolve(&printed).unwrap(), config, "{printed}");
        }
    }

    #[test]
    fn a_value_out_of_range_or_without_effect_is_an_error_that_names_it() {
        let check = |toml: &str, expected: &str| {
            let message = resolve(toml).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        };
        check("clip_low = -0.1", "grpo.clip_low = -0.1 is invalid");
        check("clip_high = inf", "grpo.clip_high = inf is invalid");
        check("kl_coef = nan", "grpo.kl_coef = NaN is invalid");
        check("dual_clip = 1.2", "grpo.dual_clip = 1.2 is invalid: it must be above 1 + clip_high = 1.2");
        check("updates_per_step = 0", "grpo.updates_per_step = 0 is invalid");
        check("constant_length = 0", "grpo.constant_length = 0 is invalid");
        check("preset = 'grpo'\nconstant_length = 9", "grpo.constant_length = 9 is invalid: it needs loss_weights");
        check("overlong_buffer = 9", "grpo.overlong_buffer = 9 is invalid: it needs truncated");
        check(
            "preset = 'dapo'\noverlong_buffer = 1001",
            "grpo.overlong_buffer = 1001 is invalid: it must be from 1 to 1000",
        );
        check("ref_refresh_every = 5", "grpo.ref_refresh_every = 5 is invalid: there is no reference");
        check("drop_zero_signal = false\nresample_max = 2", "grpo.resample_max = 2 is invalid: it needs");
    }

    #[test]
    fn an_unknown_key_or_choice_is_an_error() {
        assert!(toml::from_str::<GrpoOverrides>("clip_lo = 0.1").unwrap_err().to_string().contains("clip_lo"));
        assert!(toml::from_str::<GrpoOverrides>("advantage = 'median'").unwrap_err().to_string().contains("median"));
    }

    #[test]
    fn the_overlong_punishment_grows_over_the_buffer() {
        let check = |length, expected| assert_eq!(soft_overlong(length, 100, 20), expected, "{length}");
        check(0, 0.0);
        check(80, 0.0);
        check(85, -0.25);
        check(100, -1.0);
        check(101, -1.0);
        assert_eq!(soft_overlong(5, 10, 20), -0.5, "a buffer beyond the limit is the limit");
        assert_eq!((soft_overlong(10, 10, 0), soft_overlong(11, 10, 0)), (0.0, -1.0));
    }
}
