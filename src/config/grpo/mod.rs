//! The `[grpo]` table: a preset named after its paper, and the objective key by key. What the keys do to a batch is the
//! business of [`crate::grpo`]; which of them make sense together is said in `sense.rs`.

mod sense;
#[cfg(test)]
mod tests;

use anyhow::Result;
use reckon_datasets::Range::AtLeast;
use reckon_datasets::table;
use serde::{Deserialize, Serialize};

use crate::batch::RouterReplay;
use crate::grpo::{
    AdvantageKind, Correction, CorrectionKind, EntropyBonus, KlEstimator, KlPlace, LossConfig, LossNorm, Numbers,
    ObjectiveKind, Ratio, Reject, Truncated,
};
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
    /// The ratio of a completion, clipped (arXiv:2507.18071).
    Gspo,
    /// Its value with each token's own gradient (arXiv:2507.18071).
    GspoToken,
    /// Clipped weights, and a gradient for every token (arXiv:2506.13585).
    Cispo,
    /// A soft gate in place of a clip (arXiv:2511.20347).
    Sapo,
    /// REINFORCE with the mean of the others as its baseline (arXiv:2402.14740).
    Rloo,
    /// Advantages normalised over the tokens of the batch, no groups (arXiv:2501.03262).
    ReinforcePlusPlus,
    /// The same after each group's mean is taken (arXiv:2501.03262).
    ReinforcePlusPlusBaseline,
    /// REINFORCE with the most likely completion as its baseline (arXiv:2310.10505).
    Remax,
    /// REINFORCE with a baseline that longer completions weigh more in (arXiv:2505.23585).
    Opo,
    /// The policy gradient and little else (arXiv:2504.02546).
    Gpg,
    /// A trust region of total variation (arXiv:2602.04879).
    DppoTv,
    /// A trust region of the KL divergence (arXiv:2602.04879).
    DppoKl,
    /// No gradient for some tokens by which entropy falls (arXiv:2505.22617).
    ClipCov,
    /// A KL term for the tokens by which entropy falls most (arXiv:2505.22617).
    KlCov,
    /// Each verifier normalised apart (arXiv:2601.05242).
    Gdpo,
    /// Raises the chance that one of several completions is right (arXiv:2508.10751).
    PassAtK,
    /// Raises the likelihood of a right completion (arXiv:2602.02710).
    MaxRl,
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
    /// The objective; `docs/objectives.md` has the formulas. What a config leaves open comes from its preset.
    pub struct GrpoConfig {
        /// Where the other keys of this table come from; the presets are below.
        pub preset: Preset = Preset::TokenGrpo,
        /// What a reward is relative to: the mean of its group, over the group's standard deviation (`mean_std`), as it is
        /// (`mean`), leaving the completion itself out (`leave_one_out`), or over the batch's deviation (`batch_std`); a
        /// mean in which long completions weigh more (`length_weighted`); the most likely completion (`greedy`); all
        /// tokens of the batch (`whitened`), after the group's mean (`group_whitened`); each verifier apart
        /// (`decoupled`); the chance that one of `pass_k` is right (`pass_at_k`); the best of the others (`max_at_k`);
        /// the mean, and over it (`max_rl`).
        pub advantage: AdvantageKind = AdvantageKind::MeanStd,
        /// Completions of which one is to be right, fewer than `rollout.group_size`; only with `advantage =
        /// "pass_at_k"`, and then 4 when absent.
        pub pass_k: Option<usize> = None,
        /// What of a token is raised: the clipped ratio (`clip`), its logarithm by a clipped weight (`cispo`), a soft gate
        /// (`sapo`), the log-probability (`reinforce`), that within a trust region (`dppo_tv`, `dppo_kl`), or the ratio
        /// with tokens of a large covariance treated apart (`clip_cov`, `kl_cov`).
        pub objective: ObjectiveKind = ObjectiveKind::Clip,
        /// The ratio of a token is its own, that of its completion with (`sequence`) or without (`sequence_token`) the
        /// completion's gradient, each to the power of 1 / its tokens, or the whole completion's (`product`).
        pub ratio: Ratio = Ratio::Token,
        /// How tokens share the loss: the mean of each completion counts the same, or each token does, or each token
        /// counts 1 / `constant_length`.
        pub loss_weights: LossWeights = LossWeights::TokenMean,
        /// Tokens, at least 1; only with `loss_weights = "constant"`, and then `rollout.max_new_tokens` when absent.
        pub constant_length: Option<usize> = None,
        /// The ratio is clipped from below at 1 - `clip_low`; 1 or more never clips. With `clip` and `clip_cov` 0.2 when
        /// absent, with `cispo` 1.
        pub clip_low: Option<f64> = None,
        /// The ratio is clipped from above at 1 + `clip_high`. With `clip` and `clip_cov` 0.2 when absent, with `cispo` 4.
        pub clip_high: Option<f64> = None,
        /// Bound of the ratio where the advantage is negative: above 1 + `clip_high`, customarily 3; only with `clip`, and
        /// none when absent.
        pub dual_clip: Option<f64> = None,
        /// How fast the gate of `sapo` shuts where the advantage is positive; 1 when absent.
        pub tau_positive: Option<f64> = None,
        /// How fast it shuts where the advantage is negative; 1.05 when absent.
        pub tau_negative: Option<f64> = None,
        /// How far down a token of negative advantage may move with `dppo_tv` (0.2 when absent) and `dppo_kl` (0.05).
        pub divergence_low: Option<f64> = None,
        /// How far up one of positive advantage may; the same when absent.
        pub divergence_high: Option<f64> = None,
        /// The largest weight of a token with `dppo_tv` and `dppo_kl`; 20 when absent.
        pub weight_max: Option<f64> = None,
        /// The share of an update's tokens that `clip_cov` and `kl_cov` treat apart, though always one; 0.0002 when absent.
        pub covariance_share: Option<f64> = None,
        /// Covariances above it are large, with `clip_cov`; 1 when absent.
        pub covariance_low: Option<f64> = None,
        /// Covariances from it on are left alone, with `clip_cov`; 5 when absent.
        pub covariance_high: Option<f64> = None,
        /// Weight of the KL term of the tokens that `kl_cov` selects; 1 when absent.
        pub covariance_kl: Option<f64> = None,
        /// Weight of the KL term; 0 keeps no reference.
        pub kl_coef: f64 = 0.0 => AtLeast(0.0),
        /// Which estimate the KL term is.
        pub kl_estimator: KlEstimator = KlEstimator::K3,
        /// Whether the KL term stands in the loss or is taken from the reward.
        pub kl_place: KlPlace = KlPlace::Loss,
        /// Steps after which the policy becomes the new reference; 0 never. Only with a KL term.
        pub ref_refresh_every: u64 = 0,
        /// Weight of a bonus for the entropy of each token's distribution; with `entropy_target` the first one.
        pub entropy_coef: f64 = 0.0 => AtLeast(0.0),
        /// Entropy in nats a token below which the bonus is given, its weight growing by `entropy_delta` with each
        /// update; above it the weight shrinks by as much.
        pub entropy_target: Option<f64> = None,
        /// What the weight of the entropy bonus moves by; only with `entropy_target`, and then 0.005 when absent.
        pub entropy_delta: Option<f64> = None,
        /// Where the sampler is not the policy: log-probabilities by the policy are computed anew before a step's first
        /// update (`recompute`), and tokens weighed by their ratio to the sampler's, cut (`truncate_tokens`, TIS) or 0
        /// beyond bounds (`mask_tokens`, IcePop), or by their completion's (`truncate_sequences`, `mask_sequences`).
        pub correction: CorrectionKind = CorrectionKind::None,
        /// Weights below it are 0; only with `mask_tokens`, and then 0.5 when absent, and `mask_sequences`, 0.
        pub correction_low: Option<f64> = None,
        /// Weights above it are cut or 0; 5 with `mask_tokens` when absent, else 2.
        pub correction_high: Option<f64> = None,
        /// Completions that are left out because they lie too far from the sampler: by the geometric mean of their
        /// tokens' ratios (`mean_ratio`), or the mean or largest estimate `k3` of a token (`mean_kl`, `max_kl`).
        pub reject: Reject = Reject::None,
        /// How far is too far: a ratio above 1 with `mean_ratio`, nats with the others; needed by `reject`.
        pub reject_bound: Option<f64> = None,
        /// Which experts the updates of a step send tokens to, of a model that has some: those that its routers choose by
        /// then (`none`), or those that the tokens went to when they were sampled (`rollout`, R3), which hold routers
        /// still through several updates and behind servers. Reference and teacher choose by themselves.
        pub router_replay: RouterReplay = RouterReplay::None,
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
    let objective = preset.word("objective").unwrap_or_else(|| "clip".into());
    if document.word("grpo.objective").is_some_and(|own| own != objective) {
        // So do the numbers of its objective, and its ratio.
        GrpoConfig::default().knobs().iter().for_each(|(key, _)| drop(preset.take(key)));
        preset.take("ratio");
    }
    document.lay_under("grpo", preset);
    Ok(())
}

impl GrpoConfig {
    /// What the loss of an update is made of, with this weight of the entropy bonus.
    pub fn loss(&self, entropy_coef: f64) -> LossConfig {
        let knobs = self.clone().knobs().map(|(name, value)| (name, *value));
        let number = |name: &str| knobs.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
        LossConfig {
            objective: self.objective.with(&Numbers(&number)),
            ratio: self.ratio,
            kl_coef: if self.kl_place == KlPlace::Loss { self.kl_coef } else { 0.0 },
            kl_estimator: self.kl_estimator,
            entropy_coef,
        }
    }

    /// The entropy bonus.
    pub fn entropy(&self) -> EntropyBonus {
        let delta = self.entropy_delta.unwrap_or(ENTROPY_DELTA);
        EntropyBonus { coef: self.entropy_coef, target: self.entropy_target, delta }
    }

    /// What is done about a sampler that is not the policy; `None` where nothing is.
    pub fn correction(&self) -> Option<Correction> {
        let (low, high) = self.correction_bounds();
        let (low, high) = (self.correction_low.unwrap_or(low), self.correction_high.unwrap_or(high));
        let bound = self.reject_bound.unwrap_or(f64::INFINITY);
        let correction = Correction { kind: self.correction, low, high, reject: self.reject, bound };
        correction.needs_old().then_some(correction)
    }

    /// Bounds of the weights where a config gives none.
    fn correction_bounds(&self) -> (f64, f64) {
        if self.correction == CorrectionKind::MaskTokens { (0.5, 5.0) } else { (0.0, 2.0) }
    }

    /// The `k` of `pass_at_k`.
    pub fn pass_k(&self) -> usize {
        self.pass_k.unwrap_or(PASS_K)
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

    /// The numbers that objectives are made of, by their keys.
    fn knobs(&mut self) -> [(&'static str, &mut Option<f64>); 12] {
        [
            ("clip_low", &mut self.clip_low),
            ("clip_high", &mut self.clip_high),
            ("dual_clip", &mut self.dual_clip),
            ("tau_positive", &mut self.tau_positive),
            ("tau_negative", &mut self.tau_negative),
            ("divergence_low", &mut self.divergence_low),
            ("divergence_high", &mut self.divergence_high),
            ("weight_max", &mut self.weight_max),
            ("covariance_share", &mut self.covariance_share),
            ("covariance_low", &mut self.covariance_low),
            ("covariance_high", &mut self.covariance_high),
            ("covariance_kl", &mut self.covariance_kl),
        ]
    }

    /// Gives what follows from other keys, and from `max_tokens`, the longest completion.
    pub fn resolve(&mut self, max_tokens: usize) {
        let objective = self.objective;
        for (name, value) in self.knobs() {
            *value = value.or_else(|| objective.knobs().iter().find(|knob| knob.name == name)?.default);
        }
        if self.advantage == AdvantageKind::PassAtK {
            self.pass_k.get_or_insert(PASS_K);
        }
        if self.loss_weights == LossWeights::Constant {
            self.constant_length.get_or_insert(max_tokens);
        }
        if self.truncated == TruncatedKind::SoftOverlong {
            self.overlong_buffer.get_or_insert((max_tokens / 5).max(1));
        }
        if self.entropy_target.is_some() {
            self.entropy_delta.get_or_insert(ENTROPY_DELTA);
        }
        let (low, high) = self.correction_bounds();
        if self.correction.has_lower_bound() {
            self.correction_low.get_or_insert(low);
        }
        if self.correction.weighs() {
            self.correction_high.get_or_insert(high);
        }
    }
}

/// Skywork-OR1's.
const ENTROPY_DELTA: f64 = 0.005;

const PASS_K: usize = 4;
