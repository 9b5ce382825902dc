//! Which values of `[grpo]` are refused: those out of their ranges, those without an effect beside the others, and
//! combinations that make no sense.

use anyhow::{Error, Result, ensure};
use reckon_datasets::Table;

use super::{GrpoConfig, LossWeights, TruncatedKind};
use crate::grpo::{AdvantageKind, KlPlace, ObjectiveKind, Ratio, Reject};

impl GrpoConfig {
    /// Refuses a value out of its range, a key that has no effect beside the others, and what makes no sense together.
    /// `max_tokens` is the longest completion, `group_size` the number of a group's.
    pub fn validate(&self, max_tokens: usize, group_size: usize) -> Result<()> {
        self.check("grpo.").map_err(Error::msg)?;
        self.validate_knobs()?;
        self.validate_advantage(group_size)?;
        self.validate_ratio()?;
        self.validate_reference()?;
        self.validate_entropy()?;
        self.validate_correction()?;
        ensure!(
            self.resample_max == 0 || self.drop_zero_signal,
            "grpo.resample_max = {}: it needs drop_zero_signal = true",
            self.resample_max
        );
        self.validate_lengths(max_tokens)
    }

    /// The numbers of the objective.
    fn validate_knobs(&self) -> Result<()> {
        let own = self.objective.knobs();
        for (name, value) in self.clone().knobs() {
            let Some(value) = *value else { continue };
            let Some(knob) = own.iter().find(|knob| knob.name == name) else {
                let takes = |kind: &&ObjectiveKind| kind.knobs().iter().any(|knob| knob.name == name);
                let others: Vec<String> = ObjectiveKind::ALL.iter().filter(takes).map(word).collect();
                anyhow::bail!(
                    "grpo.{name} = {value}: objective = {} has no use for it, {} has; remove it or set that",
                    word(&self.objective),
                    others.join(", ")
                );
            };
            let doc = Self::keys().into_iter().find(|key| key.name == name).map_or("", |key| key.doc);
            ensure!(knob.range.contains(value), "grpo.{name} = {value}: it must be {}. {doc}", knob.range);
        }
        let high = self.clip_high.unwrap_or(0.0);
        ensure!(
            self.dual_clip.is_none_or(|bound| bound > 1.0 + high),
            "grpo.dual_clip = {}: it must be above 1 + clip_high = {}",
            self.dual_clip.unwrap_or_default(),
            1.0 + high
        );
        let bounds = self.covariance_low.zip(self.covariance_high);
        ensure!(
            bounds.is_none_or(|(low, high)| low < high),
            "grpo.covariance_low = {}: it must be below covariance_high",
            self.covariance_low.unwrap_or_default()
        );
        Ok(())
    }

    fn validate_advantage(&self, group_size: usize) -> Result<()> {
        let (k, asked) = (self.pass_k.unwrap_or_default(), self.advantage == AdvantageKind::PassAtK);
        ensure!(
            asked || self.pass_k.is_none(),
            "grpo.pass_k = {k}: it needs advantage = \"pass_at_k\"; remove it or set that"
        );
        ensure!(
            !asked || (1..group_size).contains(&k),
            "grpo.pass_k = {k}: it must be from 1 to {}, one less than rollout.group_size",
            group_size - 1
        );
        ensure!(
            !asked || self.truncated != TruncatedKind::SoftOverlong,
            "grpo.advantage = \"pass_at_k\": it asks whether a completion is right, which truncated = \"soft_overlong\" \
             blurs; set zero or mask"
        );
        ensure!(
            !(self.drop_zero_signal && self.advantage.looks_beyond_the_group()),
            "grpo.drop_zero_signal = true: advantage = {} compares with more than the group, so groups of equal rewards \
             teach; set drop_zero_signal = false",
            word(&self.advantage)
        );
        let decoupled = self.advantage == AdvantageKind::Decoupled;
        ensure!(
            !decoupled || self.truncated != TruncatedKind::SoftOverlong && self.kl_place == KlPlace::Loss,
            "grpo.advantage = \"decoupled\": it normalises verdicts, so neither a penalty on length nor a KL term can \
             stand in the reward; set truncated = \"zero\" and kl_place = \"loss\""
        );
        Ok(())
    }

    fn validate_ratio(&self) -> Result<()> {
        let (objective, ratio) = (word(&self.objective), word(&self.ratio));
        let own = match self.objective {
            ObjectiveKind::Reinforce => Some("it has no ratio"),
            ObjectiveKind::DppoTv | ObjectiveKind::DppoKl => Some("its trust region is each token's"),
            ObjectiveKind::ClipCov | ObjectiveKind::KlCov => Some("its covariance is each token's"),
            ObjectiveKind::Clip | ObjectiveKind::Cispo | ObjectiveKind::Sapo => None,
        };
        ensure!(
            own.is_none() || self.ratio == Ratio::Token,
            "grpo.ratio = {ratio}: objective = {objective} takes none but \"token\", as {}",
            own.unwrap_or_default()
        );
        ensure!(
            self.ratio.is_own() || !self.objective.is_detached(),
            "grpo.ratio = {ratio}: objective = {objective} holds the ratio fixed, so it has no gradient of the whole \
             completion; set ratio = \"sequence_token\""
        );
        ensure!(
            self.objective != ObjectiveKind::Reinforce || self.completions_per_update == 0,
            "grpo.completions_per_update = {}: objective = {objective} has no ratio, so it is right for one update a \
             step alone; set 0, or another objective",
            self.completions_per_update
        );
        Ok(())
    }

    fn validate_reference(&self) -> Result<()> {
        ensure!(
            self.ref_refresh_every == 0 || self.needs_reference(),
            "grpo.ref_refresh_every = {}: there is no reference with kl_coef = 0",
            self.ref_refresh_every
        );
        ensure!(
            self.kl_place == KlPlace::Loss || self.needs_reference(),
            "grpo.kl_place = \"reward\": there is no KL term with kl_coef = 0; set that, or kl_place = \"loss\""
        );
        Ok(())
    }

    fn validate_entropy(&self) -> Result<()> {
        let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value > 0.0);
        ensure!(
            positive(self.entropy_target),
            "grpo.entropy_target = {}: it must be above 0 nats",
            self.entropy_target.unwrap_or_default()
        );
        let delta = self.entropy_delta.unwrap_or_default();
        ensure!(
            self.entropy_target.is_some() || self.entropy_delta.is_none(),
            "grpo.entropy_delta = {delta}: it needs entropy_target; remove it or set that"
        );
        ensure!(positive(self.entropy_delta), "grpo.entropy_delta = {delta}: it must be above 0");
        Ok(())
    }

    fn validate_correction(&self) -> Result<()> {
        let kind = word(&self.correction);
        for (name, value, takes) in [
            ("correction_low", self.correction_low, self.correction.has_lower_bound()),
            ("correction_high", self.correction_high, self.correction.weighs()),
            ("reject_bound", self.reject_bound, self.reject != Reject::None),
        ] {
            let shown = value.unwrap_or_default();
            let user = if name == "reject_bound" { "reject = \"none\"".into() } else { format!("correction = {kind}") };
            ensure!(takes || value.is_none(), "grpo.{name} = {shown}: {user} has no use for it; remove it");
            ensure!(
                value.is_none_or(|value| value.is_finite() && value >= 0.0),
                "grpo.{name} = {shown}: it must be at least 0"
            );
        }
        let (low, high) = (self.correction_low.unwrap_or(0.0), self.correction_high.unwrap_or(1.0));
        ensure!(
            low <= 1.0 && high >= 1.0,
            "grpo.correction_low = {low}, correction_high = {high}: 1, the weight of a token that nothing is wrong \
             with, must lie between them"
        );
        ensure!(
            self.reject == Reject::None || self.correction().is_some(),
            "grpo.reject = {}: it needs the policy's own log-probabilities; set correction = \"recompute\"",
            word(&self.reject)
        );
        let least = if self.reject == Reject::MeanRatio { 1.0 } else { 0.0 };
        ensure!(
            self.reject == Reject::None || self.reject_bound.is_some_and(|bound| bound > least),
            "grpo.reject = {}: it needs a reject_bound above {least}",
            word(&self.reject)
        );
        Ok(())
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

/// A word of a config, in quotes.
fn word(value: &impl serde::Serialize) -> String {
    toml::Value::try_from(value).map_or_else(|_| String::new(), |value| value.to_string())
}
