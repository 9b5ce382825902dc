//! The frequencies of the rotary angles as `config.json` asks for them: `rope_theta` and `rope_scaling`, or the one
//! `rope_parameters` that newer files hold instead. Turning vectors is left to [`crate::ops::rope`].

use std::f64::consts::TAU;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What `rope_scaling` and `rope_parameters` may say. Unknown keys belong to types that are refused by name.
#[derive(Debug, Deserialize)]
struct Parameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

/// What the file says beside `rope_theta`, and under which key.
fn parameters(other: &Map<String, Value>) -> Result<Option<(&'static str, Parameters)>> {
    let object = ["rope_parameters", "rope_scaling"]
        .into_iter()
        .find_map(|key| other.get(key).filter(|value| !value.is_null()).map(|value| (key, value)));
    object.map(|(key, value)| Ok((key, Parameters::deserialize(value).with_context(|| key.to_owned())?))).transpose()
}

/// The base of the rotary angles. `theta` is the file's `rope_theta`, `other` its remaining keys.
pub(super) fn base(theta: Option<f64>, other: &Map<String, Value>) -> Result<f64> {
    let own = parameters(other)?.and_then(|(_, p)| p.rope_theta);
    let theta = own.or(theta).unwrap_or(10_000.0);
    ensure!(theta > 1.0, "rope_theta = {theta}: the base of the rotary angles is larger than 1");
    Ok(theta)
}

/// How much of each head is rotated, where the file says.
pub(super) fn part(other: &Map<String, Value>) -> Result<Option<f64>> {
    let own = parameters(other)?.and_then(|(_, p)| p.partial_rotary_factor);
    Ok(own.or_else(|| other.get("partial_rotary_factor").and_then(Value::as_f64)))
}

/// Radians a position for each pair of the values of a head that are rotated: `(head_dim / 2)` of them, highest first.
///
/// `theta` is the file's `rope_theta`, `other` its remaining keys, `context` its `max_position_embeddings`.
pub(super) fn frequencies(
    theta: Option<f64>,
    other: &Map<String, Value>,
    head_dim: usize,
    context: usize,
) -> Result<Vec<f64>> {
    let theta = base(theta, other)?;
    let plain: Vec<f64> = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
    let Some((key, p)) = parameters(other)? else { return Ok(plain) };
    match p.rope_type.as_deref().unwrap_or("default") {
        "default" => Ok(plain),
        "llama3" => p.llama3(plain).with_context(|| format!("{key} of type llama3")),
        "yarn" => p.yarn(plain, theta, context).with_context(|| format!("{key} of type yarn")),
        other => bail!("{key} has type \"{other}\", which is not supported; known are default, llama3, yarn"),
    }
}

/// What rotated values are multiplied by, and what the scores of latent attention are (YaRN's temperature).
pub(super) fn factors(other: &Map<String, Value>, context: usize) -> Result<[f64; 2]> {
    match parameters(other)? {
        Some((key, p)) if p.rope_type.as_deref() == Some("yarn") => {
            p.yarn_factors(context).with_context(|| format!("{key} of type yarn"))
        }
        _ => Ok([1.0, 1.0]),
    }
}

fn needed(name: &str, value: Option<f64>) -> Result<f64> {
    value.with_context(|| format!("{name} is missing"))
}

/// What a file says of YaRN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Yarn {
    /// How far positions are stretched.
    pub(super) factor: f64,
    /// The context that the model was first trained for.
    pub(super) original: f64,
    /// Turns within it from which on a pair stays, and below which it is slowed down by the factor.
    pub(super) beta_fast: f64,
    /// The latter.
    pub(super) beta_slow: f64,
    /// How much scores are sharpened; 0 where the file does not say.
    pub(super) mscale_all_dim: f64,
}

/// YaRN as a file asks for it, where it does.
pub(super) fn yarn(other: &Map<String, Value>, context: usize) -> Result<Option<Yarn>> {
    let Some((_, p)) = parameters(other)?.filter(|(_, p)| p.rope_type.as_deref() == Some("yarn")) else {
        return Ok(None);
    };
    Ok(Some(Yarn {
        factor: p.stretch(context)?,
        original: p.original()?,
        beta_fast: p.beta_fast.unwrap_or(BETAS[0]),
        beta_slow: p.beta_slow.unwrap_or(BETAS[1]),
        mscale_all_dim: p.mscale_all_dim.unwrap_or(0.0),
    }))
}

/// YaRN's own bounds.
const BETAS: [f64; 2] = [32.0, 1.0];

/// How much a stretch by `factor` sharpens attention, `mscale` times as much as YaRN's own.
fn sharpened(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl Parameters {
    /// Llama 3's stretch: slow turns are slowed down by `factor`, fast ones stay, those between are blended by how
    /// often they turn within the context the model was first trained for.
    fn llama3(&self, plain: Vec<f64>) -> Result<Vec<f64>> {
        let factor = needed("factor", self.factor)?;
        let low = needed("low_freq_factor", self.low_freq_factor)?;
        let high = needed("high_freq_factor", self.high_freq_factor)?;
        let context = self.original()?;
        ensure!(factor >= 1.0 && high > low, "factor {factor} is at least 1, and {high} above {low}");
        let stretch = |frequency: f64| {
            let turns = context * frequency / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (kept + (1.0 - kept) / factor)
        };
        Ok(plain.into_iter().map(stretch).collect())
    }

    /// The context that the model was first trained for.
    fn original(&self) -> Result<f64> {
        needed("original_max_position_embeddings", self.original_max_position_embeddings)
    }

    /// How far YaRN stretches positions.
    fn stretch(&self, context: usize) -> Result<f64> {
        Ok(self.factor.unwrap_or(context as f64 / self.original()?))
    }

    /// YaRN (Peng et al. 2023, arXiv:2309.00071): fast turns stay, slow ones are slowed down, and between the pairs
    /// that turn `beta_fast` and `beta_slow` times within the first context the share changes evenly.
    fn yarn(&self, plain: Vec<f64>, theta: f64, context: usize) -> Result<Vec<f64>> {
        let (original, factor, dim) = (self.original()?, self.stretch(context)?, 2.0 * plain.len() as f64);
        let pair_of = |turns: f64| dim * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) =
            (pair_of(self.beta_fast.unwrap_or(BETAS[0])), pair_of(self.beta_slow.unwrap_or(BETAS[1])));
        if self.truncate.unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let stretch = |(pair, frequency): (usize, f64)| {
            let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (slowed / factor + (1.0 - slowed))
        };
        Ok(plain.into_iter().enumerate().map(stretch).collect())
    }

    fn yarn_factors(&self, context: usize) -> Result<[f64; 2]> {
        let factor = self.stretch(context)?;
        let [own, all] = [self.mscale, self.mscale_all_dim].map(|scale| scale.filter(|scale| *scale != 0.0));
        let turned = match (self.attention_factor, own, all) {
            (Some(given), ..) => given,
            (None, Some(own), Some(all)) => sharpened(factor, own) / sharpened(factor, all),
            (None, ..) => sharpened(factor, 1.0),
        };
        Ok([turned, all.map_or(1.0, |all| sharpened(factor, all).powi(2))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Vec<f64>> {
        let theta = config.get("rope_theta").and_then(Value::as_f64);
        frequencies(theta, config.as_object().unwrap(), 8, 256)
    }

    #[test]
    fn old_and_new_spellings_give_the_same_frequencies() {
        let scaling = json!({ "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3" });
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(500.0);
        let old = read(json!({ "rope_theta": 500.0, "rope_scaling": scaling })).unwrap();
        assert_eq!(old, read(json!({ "rope_parameters": parameters })).unwrap());
        let plain = read(json!({ "rope_theta": 500.0, "rope_scaling": null })).unwrap();
        assert_eq!(plain, read(json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 500.0 } })).unwrap());
        assert_eq!(old[0], plain[0], "64 / (2 pi) = 10.2 turns are kept");
        assert_eq!(old[3], plain[3] / 8.0, "less than one turn is slowed down");
        assert!(old[1] < plain[1] && old[1] > plain[1] / 8.0, "2.15 turns lie between");
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for (config, word) in [
            (json!({ "rope_scaling": { "type": "dynamic", "factor": 4.0 } }), "dynamic"),
            (json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } }), "original_max_position_embeddings"),
            (json!({ "rope_scaling": { "rope_type": "llama3", "factor": 4.0 } }), "low_freq_factor"),
            (json!({ "rope_theta": 0.0 }), "rope_theta"),
        ] {
            let message = format!("{:#}", read(config).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn yarn_keeps_fast_turns_and_slows_down_slow_ones_and_sharpens_attention() {
        let yarn = json!({ "type": "yarn", "original_max_position_embeddings": 64, "beta_fast": 4.0 });
        let read = |more: Value| {
            let mut scaling = yarn.clone();
            scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let config = json!({ "rope_scaling": scaling });
            let config = config.as_object().unwrap();
            (frequencies(Some(500.0), config, 8, 256).unwrap(), factors(config, 256).unwrap())
        };
        let (stretched, [turned, scores]) = read(json!({}));
        let plain: Vec<f64> = (0..4).map(|i| 500f64.powf(-f64::from(i) / 4.0)).collect();
        assert_eq!(stretched[0], plain[0]);
        assert_eq!(stretched[3], plain[3] / 4.0, "by the ratio of the contexts, where no factor is given");
        assert!(stretched[1] < plain[1] && stretched[1] > plain[1] / 4.0);
        assert!((turned - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12 && scores == 1.0);
        let (_, [turned, scores]) = read(json!({ "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0 }));
        assert_eq!((turned, scores), (1.0, (0.1 * 40f64.ln() + 1.0).powi(2)), "DeepSeek's");
        let (_, [turned, _]) = read(json!({ "attention_factor": 1.5 }));
        assert_eq!(turned, 1.5);
    }
}
