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

/// Radians a position for each pair of a head's values: `(head_dim / 2)` of them, highest first.
///
/// `theta` is the file's `rope_theta`, `other` its remaining keys.
pub(super) fn frequencies(theta: Option<f64>, other: &Map<String, Value>, head_dim: usize) -> Result<Vec<f64>> {
    let theta = base(theta, other)?;
    let plain: Vec<f64> = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
    let Some((key, p)) = parameters(other)? else { return Ok(plain) };
    ensure!(
        p.partial_rotary_factor.is_none_or(|factor| factor == 1.0),
        "{key} turns only a part of each head (partial_rotary_factor), which is not supported"
    );
    match p.rope_type.as_deref().unwrap_or("default") {
        "default" => Ok(plain),
        "llama3" => p.llama3(plain).with_context(|| format!("{key} of type llama3")),
        other => bail!("{key} has type \"{other}\", which is not supported; known are default, llama3"),
    }
}

impl Parameters {
    /// Llama 3's stretch: slow turns are slowed down by `factor`, fast ones stay, those between are blended by how
    /// often they turn within the context the model was first trained for.
    fn llama3(&self, plain: Vec<f64>) -> Result<Vec<f64>> {
        let get = |name: &str, value: Option<f64>| value.with_context(|| format!("{name} is missing"));
        let factor = get("factor", self.factor)?;
        let low = get("low_freq_factor", self.low_freq_factor)?;
        let high = get("high_freq_factor", self.high_freq_factor)?;
        let context = get("original_max_position_embeddings", self.original_max_position_embeddings)?;
        ensure!(factor >= 1.0 && high > low, "factor {factor} is at least 1, and {high} above {low}");
        let stretch = |frequency: f64| {
            let turns = context * frequency / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (kept + (1.0 - kept) / factor)
        };
        Ok(plain.into_iter().map(stretch).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Vec<f64>> {
        let theta = config.get("rope_theta").and_then(Value::as_f64);
        frequencies(theta, config.as_object().unwrap(), 8)
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
            (json!({ "rope_scaling": { "type": "yarn", "factor": 4.0 } }), "yarn"),
            (json!({ "rope_scaling": { "rope_type": "llama3", "factor": 4.0 } }), "low_freq_factor"),
            (json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }), "partial_rotary_factor"),
            (json!({ "rope_theta": 0.0 }), "rope_theta"),
        ] {
            let message = format!("{:#}", read(config).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }
}
