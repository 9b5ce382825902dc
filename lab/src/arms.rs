//! Which runs are seeds of one arm. Folders are found, and grouped by the name that the user gave them, by an
//! experiment's layout (`ARM/seed-1`), or by configs that agree in all but the seed.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::evals::{self, Eval};
use crate::run::{Run, is_run};

/// How deep below a named folder runs are looked for: experiment, arm, seed.
const DEPTH: usize = 3;

/// Keys that say how fast, how long and with what names a run works, and not what it learns.
const NOT_LEARNING: [&str; 7] = ["seed", "steps", "save", "log", "eval", "audit", "compute"];

/// Runs that differ in their seed alone.
#[derive(Clone, Debug)]
pub struct Arm {
    /// For people.
    pub name: String,
    /// Its runs, by their place among all.
    pub runs: Vec<usize>,
}

/// Everything that a report is of.
#[derive(Clone, Debug)]
pub struct Study {
    /// In the order in which they were named.
    pub arms: Vec<Arm>,
    /// All runs.
    pub runs: Vec<Run>,
    /// The held-out evaluations of each run.
    pub evals: Vec<Vec<Eval>>,
}

impl Study {
    /// Reads the runs that `names` lead to: each a folder of a run, or one that holds some, as they are or as
    /// `ARM=FOLDER`.
    pub fn read(names: &[String]) -> Result<Self> {
        let (mut runs, mut arms): (Vec<Run>, Vec<Arm>) = (Vec::new(), Vec::new());
        let mut places: Vec<String> = Vec::new();
        for name in names {
            let (arm, folder) = named(name);
            let found = find(&folder, DEPTH);
            ensure!(!found.is_empty(), "there is no run in {}: name a folder with a config.toml", folder.display());
            for path in found {
                let run = Run::read(&path)?;
                let place = arm.map_or_else(|| place(&run), |arm| format!("named {arm}"));
                match places.iter().position(|known| *known == place) {
                    Some(known) => arms[known].runs.push(runs.len()),
                    None => {
                        arms.push(Arm { name: arm.unwrap_or_default().to_owned(), runs: vec![runs.len()] });
                        places.push(place);
                    }
                }
                runs.push(run);
            }
        }
        for arm in arms.iter_mut().filter(|arm| arm.name.is_empty()) {
            arm.runs.sort_by_key(|&run| runs[run].seed());
            arm.name = arm_name(arm.runs.iter().map(|&run| &runs[run]));
        }
        tell_apart(&mut arms);
        let evals = runs.iter().map(|run| evals::read(&run.path)).collect();
        Ok(Self { arms, runs, evals })
    }

    /// The runs of an arm.
    pub fn of<'a>(&'a self, arm: &'a Arm) -> impl Iterator<Item = &'a Run> {
        arm.runs.iter().map(|&run| &self.runs[run])
    }

    /// Keys of the config whose values differ between arms, with each arm's value.
    pub fn differences(&self) -> Vec<(String, Vec<String>)> {
        let flat: Vec<Vec<(String, String)>> = self
            .arms
            .iter()
            .map(|arm| self.of(arm).next().map(|run| flatten(&run.keys, "")).unwrap_or_default())
            .collect();
        let mut keys: Vec<&String> = Vec::new();
        for (key, _) in flat.iter().flatten() {
            if !keys.contains(&key) && key != "seed" {
                keys.push(key);
            }
        }
        let value = |arm: &Vec<(String, String)>, key: &String| {
            arm.iter().find(|(known, _)| known == key).map_or("not set".to_owned(), |(_, value)| value.clone())
        };
        let row = |key: &String| (key.clone(), flat.iter().map(|arm| value(arm, key)).collect::<Vec<_>>());
        keys.into_iter().map(row).filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
    }
}

/// `ARM=FOLDER`, where no folder has that very name.
fn named(name: &str) -> (Option<&str>, PathBuf) {
    match name.split_once('=') {
        Some((arm, folder)) if !Path::new(name).exists() => (Some(arm), PathBuf::from(folder)),
        _ => (None, PathBuf::from(name)),
    }
}

/// The run in `folder`, or the runs below it in the order of their names.
fn find(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let begun = |path: &Path| path.join("metrics.jsonl").is_file() || path.join("rollouts").is_dir();
    if begun(folder) || depth == DEPTH && is_run(folder) {
        return vec![folder.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.is_dir()).collect();
    folders.sort_by_key(|path| natural(&path.to_string_lossy()));
    if depth == 0 { Vec::new() } else { folders.iter().flat_map(|path| find(path, depth - 1)).collect() }
}

/// Names with numbers in the order of the numbers: `seed-10` after `seed-9`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let is_digit = |c: &char| c.is_ascii_digit();
    let characters: Vec<char> = name.chars().collect();
    let parts = characters.chunk_by(|a, b| is_digit(a) == is_digit(b));
    parts.map(|part| part.iter().collect::<String>()).map(|part| (part.parse().unwrap_or(0), part)).collect()
}

/// What runs of one arm have in common.
fn place(run: &Run) -> String {
    let path = run.path.canonicalize().unwrap_or_else(|_| run.path.clone());
    if is_seed(&run.folder_name())
        && let Some(parent) = path.parent()
    {
        return format!("folder {}", parent.display());
    }
    if run.keys.is_empty() {
        return format!("folder {}", path.display());
    }
    let mut keys = run.keys.clone();
    keys.retain(|key, _| !NOT_LEARNING.contains(&key));
    format!("config {keys}")
}

/// Whether a folder's name says which seed it is and nothing else: `seed-1`, `s2`, `3`.
fn is_seed(name: &str) -> bool {
    let digits = name.trim_start_matches("seed").trim_start_matches('s').trim_start_matches(['-', '_', '=']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the names of an arm's folders begin with, less what tells of a seed; the parent's where that is all they say.
fn arm_name<'a>(mut runs: impl Iterator<Item = &'a Run>) -> String {
    let Some(first) = runs.next() else { return String::new() };
    let name = first.folder_name();
    if is_seed(&name) {
        let path = first.path.canonicalize().unwrap_or_else(|_| first.path.clone());
        let parent = path.parent().and_then(Path::file_name);
        return parent.map_or(name, |parent| parent.to_string_lossy().into_owned());
    }
    let rest: Vec<String> = runs.map(Run::folder_name).collect();
    if rest.is_empty() {
        return name;
    }
    let shared = |other: &String| name.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let length = rest.iter().map(shared).min().unwrap_or(0);
    let prefix: String = name.chars().take(length).collect();
    let trimmed = prefix.trim_end_matches(|c: char| !c.is_alphanumeric()).trim_end_matches("seed");
    let trimmed = trimmed.trim_end_matches(|c: char| !c.is_alphanumeric());
    if trimmed.is_empty() { name } else { trimmed.to_owned() }
}

/// Arms of one name are numbered.
fn tell_apart(arms: &mut [Arm]) {
    for at in 1..arms.len() {
        let (before, rest) = arms.split_at_mut(at);
        let name = rest[0].name.clone();
        let mut number = 1;
        while before.iter().any(|arm| arm.name == rest[0].name) {
            number += 1;
            rest[0].name = format!("{name} ({number})");
        }
    }
}

/// A table as keys with dots and values as they are written.
pub fn flatten(table: &toml::Table, prefix: &str) -> Vec<(String, String)> {
    let below = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(table) => flatten(table, &format!("{prefix}{key}.")),
        value => vec![(format!("{prefix}{key}"), value.to_string())],
    };
    table.iter().flat_map(below).collect()
}
