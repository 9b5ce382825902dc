//! The file of `reckon experiment`: arms, each a set of overrides of one config, over seeds. Running them is left to the
//! command.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use reckon_datasets::table;
use serde::{Deserialize, Serialize};

use crate::strict::{Document, nearest};

table! {
    /// `reckon experiment`: arms by seeds, with the same held-out problems. Paths of configs are relative to the file's folder.
    pub struct ExperimentConfig {
        /// The config of `reckon train` that every arm begins with.
        pub train: PathBuf,
        /// Each arm is run once with each of them.
        pub seeds: Vec<u64>,
        /// Arms run at a time, each on one thread; two where there are two cores, and one on a card, when absent.
        pub at_a_time: Option<usize>,
        /// Overrides of every arm, as after `--set`.
        #[serde(default)]
        pub set: Vec<String>,
        /// Base models, each made once, whatever the seeds.
        #[serde(default)]
        pub bases: Vec<BaseConfig>,
        /// What is compared.
        pub arms: Vec<ArmConfig>,
        /// What is expected of the arms; the report says which of it is missed.
        #[serde(default)]
        pub criteria: Vec<CriterionConfig>,
    }
}

table! {
    /// A base model of an experiment.
    pub struct BaseConfig {
        /// What arms call it.
        pub name: String,
        /// The config of `reckon sft` that makes it.
        pub sft: PathBuf,
        /// An earlier base that it goes on from, in place of the config's model.
        pub from: Option<String>,
        /// Overrides of that config, as after `--set`.
        #[serde(default)]
        pub set: Vec<String>,
    }
}

table! {
    /// An arm of an experiment.
    pub struct ArmConfig {
        /// What the report calls it.
        pub name: String,
        /// What it is for, in a line.
        pub about: Option<String>,
        /// The base model that it starts from; the config's model when absent.
        pub base: Option<String>,
        /// What is different in it, as after `--set`; neither data nor evaluation nor the seed.
        #[serde(default)]
        pub set: Vec<String>,
    }
}

table! {
    /// A number that is expected of an arm, as the mean over its seeds.
    pub struct CriterionConfig {
        /// What it says, in a line.
        pub says: String,
        /// The arm.
        pub arm: String,
        /// `accuracy`, `length`, `length_right`, `length_wrong`, `length_max`, `truncated`, `entropy`, or what the run counts, such as `behaviour/attempts`.
        pub measure: String,
        /// What of it: the value after training, before it, the gain (after less before), the ratio (after / before), or
        /// the highest gain of any evaluation.
        #[serde(default)]
        pub of: Of,
        /// An arm by whose number this one is divided.
        pub relative_to: Option<String>,
        /// The least that is expected.
        pub at_least: Option<f64>,
        /// The most that is expected.
        pub at_most: Option<f64>,
    }
}

/// What of a measure is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Its value after training.
    #[default]
    After,
    /// Its value before training.
    Before,
    /// After less before.
    Gain,
    /// After / before.
    Ratio,
    /// The highest value of any evaluation, less that before training.
    HighestGain,
}

impl Document for ExperimentConfig {}

/// What no arm may change: arms are compared on the same held-out problems, and each runs with every seed.
const SHARED: [&str; 3] = ["data", "eval", "seed"];

impl ExperimentConfig {
    /// Refuses an experiment that could not be run, naming the key.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.seeds.is_empty(), "seeds = []: name at least one");
        ensure!(self.seeds.iter().collect::<BTreeSet<_>>().len() == self.seeds.len(), "seeds: one stands twice");
        ensure!(self.at_a_time != Some(0), "at_a_time = 0: at least one arm has to run");
        ensure!(!self.arms.is_empty(), "arms = []: name at least one");
        let (bases, arms) = (names("bases", self.bases.iter().map(|base| &base.name))?, self.arm_names()?);
        for (place, base) in self.bases.iter().enumerate() {
            known("bases", &base.name, "from", base.from.as_ref(), &bases[..place])?;
        }
        for arm in &self.arms {
            known("arms", &arm.name, "base", arm.base.as_ref(), &bases)?;
            for set in &arm.set {
                let key = set.split(['=', '.']).next().unwrap_or_default().trim();
                if SHARED.contains(&key) {
                    bail!(
                        "arm {:?} sets {set:?}: {key} is the same for all arms, or they could not be compared; set it in the \
                         experiment's own `set` or in its config",
                        arm.name
                    );
                }
            }
        }
        for criterion in &self.criteria {
            known("criteria", &criterion.says, "arm", Some(&criterion.arm), &arms)?;
            known("criteria", &criterion.says, "relative_to", criterion.relative_to.as_ref(), &arms)?;
            ensure!(
                criterion.at_least.is_some() || criterion.at_most.is_some(),
                "criterion {:?} has neither at_least nor at_most: nothing could miss it",
                criterion.says
            );
        }
        Ok(())
    }

    fn arm_names(&self) -> Result<Vec<&str>> {
        names("arms", self.arms.iter().map(|arm| &arm.name))
    }
}

/// Names that can be names of folders, each once.
fn names<'a>(what: &str, all: impl Iterator<Item = &'a String>) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for name in all {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "{what}: name = {name:?} becomes the name of a folder: use letters, digits, - and _"
        );
        ensure!(!found.contains(&name.as_str()), "{what}: two have the name {name:?}");
        found.push(name.as_str());
    }
    Ok(found)
}

/// Refuses a reference to what is not there.
fn known(what: &str, owner: &str, key: &str, name: Option<&String>, all: &[&str]) -> Result<()> {
    let Some(name) = name.filter(|name| !all.contains(&name.as_str())) else { return Ok(()) };
    let near = nearest(name, all.iter().copied()).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    bail!("{what}, {owner:?}: {key} = {name:?} is none that was named before{near}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    fn read(text: &str) -> Result<ExperimentConfig> {
        let config: ExperimentConfig = strict::load(text, "experiment.toml", &[])?;
        config.validate()?;
        Ok(config)
    }

    const GOOD: &str = "train = 'config.toml'\nseeds = [1, 2]\n[[bases]]\nname = 'primed'\nsft = 'base.toml'\n\
        [[arms]]\nname = 'a'\nbase = 'primed'\nset = ['optim.lr=1e-4']\n[[arms]]\nname = 'b'\n";

    #[test]
    fn an_experiment_is_read() {
        let config = read(GOOD).unwrap();
        assert_eq!((config.arms.len(), config.arms[0].base.as_deref()), (2, Some("primed")));
        assert!(
            read(&format!("{GOOD}[[criteria]]\nsays = 'x'\narm = 'a'\nmeasure = 'accuracy'\nat_least = 1\n")).is_ok()
        );
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_one_line() {
        let criterion = |rest: &str| format!("{GOOD}[[criteria]]\nsays = 'x'\nmeasure = 'accuracy'\n{rest}");
        for (text, expected) in [
            (GOOD.replace("[1, 2]", "[]"), "seeds = []"),
            (GOOD.replace("[1, 2]", "[2, 2]"), "one stands twice"),
            (GOOD.replace("name = 'b'", "name = 'a'"), "two have the name \"a\""),
            (GOOD.replace("name = 'b'", "name = 'a/b'"), "becomes the name of a folder"),
            (GOOD.replace("base = 'primed'", "base = 'prime'"), "did you mean \"primed\"?"),
            (GOOD.replace("optim.lr=1e-4", "eval.problems=3"), "eval is the same for all arms"),
            (GOOD.replace("optim.lr=1e-4", "seed=3"), "seed is the same for all arms"),
            (GOOD.replace("seeds", "seed"), "did you mean"),
            (criterion("arm = 'c'\nat_least = 1\n"), "arm = \"c\" is none"),
            (criterion("arm = 'a'\n"), "neither at_least nor at_most"),
            (format!("{GOOD}base = 'later'\n"), "base = \"later\" is none"),
        ] {
            let message = format!("{:#}", read(&text).unwrap_err());
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
    }
}
