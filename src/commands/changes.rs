//! What a run that is resumed says of a config that was changed meanwhile, whatever kind of run it is.

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::checkpoint::{RunFolder, state};

/// The key whose value a config's other values are laid over.
const PRESET: &str = "grpo.preset";

/// Refuses a config that was changed since the newest checkpoint, but for keys that `sets` names.
pub(super) fn check_changes(
    config: &impl Serialize,
    sets: &[String],
    folder: &RunFolder,
    may_change: fn(&str) -> bool,
) -> Result<()> {
    const SHOWN: usize = 4;
    let keys: Vec<&str> = sets.iter().filter_map(|set| Some(set.split_once('=')?.0.trim())).collect();
    ensure!(
        !keys.contains(&PRESET),
        "--set {PRESET} changes nothing in a run that has begun: the values of its preset stand in {}; set those that are \
         to change",
        folder.config().display()
    );
    let named = |key: &str| {
        keys.iter().any(|set| key.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let mut differences = state::differences(config, folder, may_change)?;
    differences.retain(|difference| !named(&difference.key));
    let Some(first) = differences.first() else { return Ok(()) };
    let shown: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = differences.len().saturating_sub(SHOWN);
    let way_out = match first.key.as_str() {
        PRESET => "the name of a preset alone changes nothing: put it back, and change the keys of [grpo]".to_owned(),
        key => format!("put it back, or go on with it by --set {key}={}", first.now.as_deref().unwrap_or("...")),
    };
    bail!(
        "{} is not the config of the last checkpoint: {}{}; {way_out}",
        folder.config().display(),
        shown.join(", "),
        if more > 0 { format!(" and {more} more") } else { String::new() }
    )
}
