//! The folder of a run, read as it is: config, metrics, machine. What a killed process left half-written is left out and
//! said; only a folder that holds no run is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// The numbers of a run by name, each with one value for each of its steps.
pub type Series = BTreeMap<String, Vec<f64>>;

/// What a run left, less its texts.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// The resolved config, as its file has it.
    pub config: String,
    /// The same as values; empty where the file is missing or torn.
    pub keys: toml::Table,
    /// What it ran on: `machine.json`.
    pub machine: Map<String, Value>,
    /// Steps that have a record, in order, each once; 0 is the state before training.
    pub steps: Vec<u64>,
    /// Every metric; NaN where the step has none or its value was not finite.
    pub series: Series,
    /// What could not be read.
    pub remarks: Vec<String>,
}

impl Run {
    /// Reads the run in `path`.
    pub fn read(path: &Path) -> Result<Self> {
        if !is_run(path) {
            bail!("{} holds no run: there is no config.toml and no metrics.jsonl in it", path.display());
        }
        let mut run = Self { path: path.to_owned(), ..Self::default() };
        run.read_config();
        if let Some(Value::Object(machine)) =
            text(&path.join("machine.json")).and_then(|t| serde_json::from_str(&t).ok())
        {
            run.machine = machine;
        }
        run.read_metrics()?;
        Ok(run)
    }

    /// Name of the folder.
    pub fn folder_name(&self) -> String {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// The run's seed, as its config has it; 0 where that says none.
    pub fn seed(&self) -> i64 {
        self.keys.get("seed").and_then(toml::Value::as_integer).unwrap_or(0)
    }

    /// How many steps its config asks for.
    pub fn steps_asked(&self) -> Option<u64> {
        self.keys.get("steps").and_then(toml::Value::as_integer).and_then(|steps| steps.try_into().ok())
    }

    /// A metric's values that are numbers, with their steps.
    pub fn points(&self, name: &str) -> impl DoubleEndedIterator<Item = (u64, f64)> + '_ {
        let values = self.series.get(name).map_or(&[][..], Vec::as_slice);
        self.steps.iter().copied().zip(values.iter().copied()).filter(|(_, value)| value.is_finite())
    }

    fn read_config(&mut self) {
        let Some(config) = text(&self.path.join("config.toml")) else {
            return self.remarks.push("there is no config.toml".into());
        };
        match config.parse() {
            Ok(keys) => self.keys = keys,
            Err(_) => self.remarks.push("config.toml is not TOML".into()),
        }
        self.config = config;
    }

    /// A step that was written twice, as a resumed run of another program may do, counts as it was written last.
    fn read_metrics(&mut self) -> Result<()> {
        let path = self.path.join("metrics.jsonl");
        if !path.exists() {
            self.remarks.push("there are no metrics yet".into());
            return Ok(());
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut records: BTreeMap<u64, BTreeMap<String, Option<f64>>> = BTreeMap::new();
        for line in whole_lines(&bytes, "metrics.jsonl", &mut self.remarks) {
            let Ok(mut record) = serde_json::from_str::<BTreeMap<String, Option<f64>>>(line) else {
                self.remarks.push(format!("a line of metrics.jsonl is no record: {line:.40}"));
                continue;
            };
            if let Some(step) = record.remove("step").flatten().filter(|step| *step >= 0.0) {
                records.insert(step as u64, record);
            }
        }
        self.steps = records.keys().copied().collect();
        for (at, record) in records.into_values().enumerate() {
            for (name, value) in record {
                let values = self.series.entry(name).or_insert_with(|| vec![f64::NAN; self.steps.len()]);
                values[at] = value.unwrap_or(f64::NAN);
            }
        }
        Ok(())
    }
}

/// Whether a run has begun in this folder.
pub fn is_run(path: &Path) -> bool {
    path.join("metrics.jsonl").is_file() || path.join("config.toml").is_file()
}

/// The steps whose files stand in `folder` as `step-000123.EXTENSION`, in order; none where there is no such folder.
pub fn step_files(folder: &Path, extension: &str) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(extension)?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> =
        entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter_map(|p| Some((step(&p)?, p))).collect();
    found.sort();
    found
}

/// The lines of a file of JSON lines. A last one without its end that is no JSON was cut as it was written, and is left
/// out.
pub fn whole_lines<'a>(bytes: &'a [u8], name: &str, remarks: &mut Vec<String>) -> Vec<&'a str> {
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        match std::str::from_utf8(line).map(str::trim) {
            Ok("") => {}
            Ok(line) if is_whole || serde_json::from_str::<Value>(line).is_ok() => lines.push(line),
            Err(_) if is_whole => remarks.push(format!("a line of {name} is not UTF-8")),
            _ => remarks.push(format!("the last line of {name} was cut, and is left out")),
        }
    }
    lines
}

fn text(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
