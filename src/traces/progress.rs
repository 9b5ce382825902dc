//! The problems that are done: a line of JSON for each, behind a first one that says for which config they were asked.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Fates;
use crate::config::TracesConfig;
use crate::disk::read_text;
use crate::strict;

/// A file of problems that are done.
pub struct Progress {
    path: PathBuf,
    file: File,
    done: HashMap<String, Fates>,
}

/// Where the problems that are done stand for the traces `out`.
pub fn progress_file(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".progress");
    out.with_file_name(name)
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    config: BTreeMap<String, String>,
}

impl Progress {
    /// Opens the file that belongs to the traces `out`, to go on with, or begins it. A line that was cut by a kill is
    /// written anew.
    ///
    /// # Errors
    /// Traces that are there already, or problems that were asked for another config.
    pub fn open(out: &Path, config: &TracesConfig) -> Result<Self> {
        let path = progress_file(out);
        if out.exists() && !path.exists() {
            bail!("{} is there already: remove it, or give --out another name", out.display());
        }
        let text = if path.exists() { read_text(&path)? } else { String::new() };
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let (head, done) = read(&text[..whole]).with_context(|| path.display().to_string())?;
        let now = asked_for(config)?;
        if let Some(was) = &head {
            check(&was.config, &now).with_context(|| path.display().to_string())?;
        }
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().with_context(|| format!("cannot write {}", path.display()))?;
        let mut progress = Self { path, file, done };
        if head.is_none() {
            progress.write(&Head { config: now })?;
        }
        Ok(progress)
    }

    /// What became of a problem, if it is done.
    pub fn get(&self, id: &str) -> Option<&Fates> {
        self.done.get(id)
    }

    /// Problems that are done.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Traces that are kept so far.
    pub fn kept(&self) -> usize {
        self.done.values().map(|fates| fates.kept.len()).sum()
    }

    /// Adds problems that are done.
    pub fn add(&mut self, fates: Vec<Fates>) -> Result<()> {
        for fates in fates {
            self.write(&fates)?;
            self.done.insert(fates.id.clone(), fates);
        }
        Ok(())
    }

    /// Removes the file: the traces are written.
    pub fn finish(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn read(text: &str) -> Result<(Option<Head>, HashMap<String, Fates>)> {
    let mut lines = text.lines().enumerate();
    let Some((_, first)) = lines.next() else { return Ok((None, HashMap::new())) };
    let head = serde_json::from_str(first).context("line 1: no file of `reckon traces`")?;
    let line = |(index, line): (usize, &str)| {
        let fates: Fates = serde_json::from_str(line).with_context(|| format!("line {}", index + 1))?;
        Ok((fates.id.clone(), fates))
    };
    Ok((Some(head), lines.map(line).collect::<Result<_>>()?))
}

/// What of a config decides about a problem's traces.
fn asked_for(config: &TracesConfig) -> Result<BTreeMap<String, String>> {
    const FREE: [&str; 6] =
        ["problems", "control", "rollout.capacity", "teacher.concurrency", "teacher.retries", "teacher.max_failed"];
    let free = |key: &str| {
        let tables = ["compute.", "teacher.backoff_s", "teacher.timeout_s", "teacher.key_env"];
        FREE.contains(&key) || tables.iter().any(|table| key.starts_with(table))
    };
    let mut flat = strict::flat(config)?;
    flat.retain(|key, _| !free(key));
    // A control is of the writing alone, but for the one that decides what is kept.
    flat.insert("control".into(), format!("{:?}", config.control == crate::config::TracesControl::Unverified));
    Ok(flat)
}

fn check(was: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Result<()> {
    let absent = || "absent".to_owned();
    let differs = was.keys().chain(now.keys()).find(|key| was.get(*key) != now.get(*key));
    if let Some(key) = differs {
        bail!(
            "its problems were asked with {key} = {}, which now is {}: put it back, or give --out another name",
            was.get(key).cloned().unwrap_or_else(absent),
            now.get(key).cloned().unwrap_or_else(absent)
        );
    }
    Ok(())
}
