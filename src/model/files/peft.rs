//! An adapter's files, as PEFT reads and writes them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::safetensors::{self, Reader};
use super::{TensorFile, check};
use crate::model::dtype::SaveDtype;
use crate::model::layout::Layout;
use crate::model::lora::{Adapter, AdapterLayout, modules, parse_name};

/// The file that says what an adapter is; where it lies, an adapter does.
pub const CONFIG: &str = "adapter_config.json";
/// The file of an adapter's values.
pub const VALUES: &str = "adapter_model.safetensors";

/// Keys under which a file asks for another computation than is done here. Absent, null, false and empty ask for nothing.
const UNSUPPORTED: [&str; 10] = [
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
];

/// What Reckon reads of `adapter_config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    target_modules: Value,
    #[serde(default)]
    use_rslora: bool,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Config {
    fn read(folder: &Path) -> Result<Self> {
        let bytes = fs::read(folder.join(CONFIG)).with_context(|| format!("cannot read {CONFIG}"))?;
        let config: Self = serde_json::from_slice(&bytes).context(CONFIG)?;
        ensure!(config.peft_type == "LORA", "peft_type = \"{}\" is not supported: LORA is", config.peft_type);
        ensure!(config.r > 0, "r = 0: an adapter needs a rank of at least 1");
        for key in UNSUPPORTED {
            let nothing = match config.other.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(_) => false,
            };
            ensure!(nothing, "{key} is set in {CONFIG}, which is not supported");
        }
        let bias = config.other.get("bias").and_then(Value::as_str).unwrap_or("none");
        ensure!(bias == "none", "bias = \"{bias}\" in {CONFIG} is not supported: none is");
        Ok(config)
    }

    /// The alpha that is divided by the rank; rsLoRA (Kalajdzievski 2023, arXiv:2312.03732) divides by its root.
    fn alpha(&self) -> f32 {
        if self.use_rslora { self.lora_alpha * (self.r as f32).sqrt() } else { self.lora_alpha }
    }

    /// The patterns as a list; PEFT also knows a single text, which is then no list of endings but a pattern of its own kind.
    fn targets(&self, layout: &AdapterLayout) -> Vec<String> {
        let list = self.target_modules.as_array().into_iter().flatten();
        let list: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
        if list.is_empty() { layout.modules().map(str::to_owned).collect() } else { list }
    }
}

/// The model that the adapter in `folder` was made for, as its file names it.
pub fn base_of(folder: &Path) -> Result<String> {
    let read = || Config::read(folder)?.base_model_name_or_path.context("base_model_name_or_path is not set");
    read().with_context(|| format!("adapter {}", folder.display()))
}

/// Reads the adapter in `folder` for a model of this layout. Which modules it adds to, its tensors say.
pub fn read(folder: &Path, layout: &Layout) -> Result<Adapter> {
    let read = || {
        let (config, mut reader) = (Config::read(folder)?, Reader::open_file(folder, VALUES)?);
        let known: BTreeSet<&str> = modules(layout).into_iter().collect();
        let mut has = BTreeSet::new();
        for name in reader.names() {
            let module = parse_name(name).map(|(module, _)| module).filter(|module| known.contains(module));
            has.insert(
                module
                    .with_context(|| {
                        format!(
                            "{VALUES} has a tensor {name}, which belongs to no linear layer of this model's decoder"
                        )
                    })?
                    .to_owned(),
            );
        }
        ensure!(!has.is_empty(), "{VALUES} holds no tensor");
        let adapter = AdapterLayout::new(layout, config.r, config.alpha(), |module| has.contains(module));
        check(&reader, &adapter.entries, &|_| false)?;
        let mut values = vec![0f32; adapter.values()];
        for entry in &adapter.entries {
            reader.read_to(&entry.name, &mut values[entry.range.clone()])?;
        }
        let (targets, base) = (config.targets(&adapter), config.base_model_name_or_path.unwrap_or_default());
        Ok(Adapter { layout: adapter, values, targets, base })
    };
    read().with_context(|| format!("adapter {}", folder.display()))
}

/// The values of the adapter in `folder`, which has to be of the shape `expected`.
pub fn read_values(folder: &Path, layout: &Layout, expected: &AdapterLayout) -> Result<Vec<f32>> {
    let Adapter { layout, values, .. } = read(folder, layout)?;
    let same = layout.entries == expected.entries && layout.alpha == expected.alpha;
    ensure!(same, "the adapter in {} is not of the shape that [lora] asks for", folder.display());
    Ok(values)
}

/// Writes an adapter into `folder`, which exists, and reads it back.
pub fn write(folder: &Path, adapter: &Adapter, dtype: SaveDtype) -> Result<()> {
    let AdapterLayout { rank, alpha, .. } = adapter.layout;
    // PEFT knows endings, and no stars.
    let plain = adapter.targets.iter().all(|target| !target.contains('*'));
    let targets: Vec<&str> =
        if plain { adapter.targets.iter().map(String::as_str).collect() } else { adapter.layout.modules().collect() };
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": adapter.base,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": targets,
        "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "modules_to_save": null, "use_rslora": false, "use_dora": false,
    });
    let path = folder.join(CONFIG);
    fs::write(&path, serde_json::to_vec_pretty(&config)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    safetensors::write_file(&folder.join(VALUES), adapter, dtype)?;
    safetensors::verify(&mut Reader::open_file(folder, VALUES)?, adapter, dtype)
        .with_context(|| format!("the adapter saved in {} does not read back", folder.display()))
}
