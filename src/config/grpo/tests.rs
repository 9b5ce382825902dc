//! Presets, and keys that make no sense.

use anyhow::Result;

use super::*;
use crate::config::TrainConfig;
use crate::grpo::Objective;
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
    assert_eq!((paper.clip_low, paper.clip_high, paper.kl_coef), (Some(0.2), Some(0.2), 0.04));
    assert!(paper.needs_reference() && paper.kl_estimator == KlEstimator::K3);

    let dr_grpo = grpo("preset = 'dr_grpo'");
    let norm = LossNorm::Constant { length: 1000 };
    assert_eq!((dr_grpo.advantage, dr_grpo.loss_norm()), (AdvantageKind::Mean, norm));
    assert!(!dr_grpo.needs_reference());

    let dapo = grpo("preset = 'dapo'");
    assert_eq!((dapo.loss_norm(), dapo.clip_low, dapo.clip_high), (LossNorm::Token, Some(0.2), Some(0.28)));
    assert_eq!((dapo.completions_per_update, dapo.resample_max), (512, 10));
    assert_eq!(dapo.truncated(), Truncated::SoftOverlong { buffer: 200 });
    assert!(dapo.drop_zero_signal && !dapo.needs_reference());
}

#[test]
fn the_defaults_are_the_recommended_preset() {
    let mut default = GrpoConfig::default();
    let text = toml::to_string(&default).unwrap();
    assert_eq!(grpo("").loss(0.0), default.loss(0.0), "a default needs not be resolved to be used");
    default.resolve(1000);
    assert_eq!((grpo(""), grpo("preset = 'token_grpo'"), grpo(&text)), (default.clone(), default.clone(), default));
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
        "preset = 'gspo'\nobjective = 'sapo'\nentropy_target = 0.5",
        "preset = 'remax'\ncorrection = 'mask_tokens'\nreject = 'max_kl'\nreject_bound = 0.1",
        "preset = 'pass_at_k'\npass_k = 3",
    ] {
        let config = read(text).unwrap();
        let printed = toml::to_string(&config).unwrap();
        let again: TrainConfig = strict::load(&printed, "config.toml", &[]).unwrap();
        again.validate().unwrap();
        assert_eq!(again, config, "{printed}");
        assert!(!printed.contains("auto"), "{printed}");
    }
}

#[test]
fn a_value_out_of_range_or_without_effect_is_an_error_that_names_it() {
    for (text, expected) in [
        ("clip_low = -0.1", "grpo.clip_low = -0.1: it must be at least 0. The ratio is clipped from below"),
        ("clip_high = inf", "grpo.clip_high = inf: it must be at least 0."),
        ("kl_coef = nan", "grpo.kl_coef = NaN: it must be at least 0."),
        ("clip_low = nan", "grpo.clip_low = NaN: it must be at least 0."),
        ("tau_positive = 2", "grpo.tau_positive = 2: objective = \"clip\" has no use for it, \"sapo\" has"),
        (
            "objective = 'sapo'\nclip_low = 0.1",
            "grpo.clip_low = 0.1: objective = \"sapo\" has no use for it, \"clip\",",
        ),
        ("objective = 'sapo'\ntau_negative = 0", "grpo.tau_negative = 0: it must be above 0."),
        ("preset = 'clip_cov'\ncovariance_low = 7", "grpo.covariance_low = 7: it must be below covariance_high"),
        ("pass_k = 2", "grpo.pass_k = 2: it needs advantage = \"pass_at_k\""),
        ("advantage = 'pass_at_k'\npass_k = 16", "grpo.pass_k = 16: it must be from 1 to 15"),
        ("advantage = 'pass_at_k'\ntruncated = 'soft_overlong'", "soft_overlong\" blurs"),
        ("advantage = 'greedy'", "compares with more than the group, so groups of equal rewards teach"),
        ("preset = 'gdpo'\nkl_coef = 0.1\nkl_place = 'reward'", "it normalises verdicts"),
        (
            "preset = 'gpg'\nratio = 'sequence'",
            "objective = \"reinforce\" takes none but \"token\", as it has no ratio",
        ),
        ("preset = 'dppo_tv'\nratio = 'sequence_token'", "as its trust region is each token's"),
        ("preset = 'kl_cov'\nratio = 'product'", "as its covariance is each token's"),
        (
            "preset = 'cispo'\nratio = 'sequence'",
            "holds the ratio fixed, so it has no gradient of the whole completion",
        ),
        ("preset = 'opo'\ncompletions_per_update = 8", "right for one update a step alone; set 0"),
        ("kl_place = 'reward'", "there is no KL term with kl_coef = 0"),
        ("entropy_target = 0", "grpo.entropy_target = 0: it must be above 0"),
        ("entropy_delta = 1", "grpo.entropy_delta = 1: it needs entropy_target"),
        ("correction = 'truncate_tokens'\ncorrection_low = 0.5", "correction = \"truncate_tokens\" has no use for it"),
        ("correction = 'mask_tokens'\ncorrection_low = 1.5", "must lie between them"),
        ("reject = 'mean_kl'\nreject_bound = 1", "set correction = \"recompute\""),
        ("correction = 'recompute'\nreject = 'mean_ratio'\nreject_bound = 1", "it needs a reject_bound above 1"),
        ("reject_bound = 1", "reject = \"none\" has no use for it"),
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

#[test]
fn every_preset_is_a_config_and_one_objective_over_another_takes_its_own_numbers() {
    let presets: toml::Table = PRESETS.parse().unwrap();
    assert_eq!(presets.len(), 21);
    for name in presets.keys() {
        let found = grpo(&format!("preset = '{name}'"));
        assert_eq!(toml::Value::try_from(found.preset).unwrap().as_str(), Some(name.as_str()));
    }
    let clip = |low, high| Objective::Clip(crate::grpo::Clip { low, high, bound: f64::INFINITY });
    let gspo = grpo("preset = 'gspo'");
    assert_eq!((gspo.ratio, gspo.loss(0.0).objective), (Ratio::Sequence, clip(3e-4, 4e-4)));
    assert_eq!(grpo("preset = 'cispo'").clip_high, Some(4.0));
    let sapo = grpo("preset = 'gspo'\nobjective = 'sapo'");
    assert_eq!((sapo.ratio, sapo.clip_low, sapo.tau_negative), (Ratio::Token, None, Some(1.05)));
    assert_eq!(grpo("preset = 'sapo'\nobjective = 'clip'").loss(0.0).objective, clip(0.2, 0.2));
    let rloo = grpo("preset = 'rloo'");
    assert_eq!((rloo.loss(0.0).kl_coef, rloo.needs_reference()), (0.0, true), "the KL term stands in the reward");
}
