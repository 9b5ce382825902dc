//! The file of `reckon pipeline`: stages one after the other, each an ordinary config. Running them is left to
//! `commands/pipeline.rs`.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use reckon_datasets::table;
use serde::{Deserialize, Serialize};

use crate::strict::Document;

table! {
    /// `reckon pipeline`: stages, each of which may begin with what an earlier one made.
    pub struct PipelineConfig {
        /// The stages, in order.
        pub stages: Vec<StageConfig>,
    }
}

table! {
    /// A stage: a config and what is changed in it.
    pub struct StageConfig {
        /// What other stages, and the stage's folder, call it.
        pub name: String,
        /// The command whose config it is.
        pub kind: StageKind,
        /// The config, relative to the folder of the pipeline's file.
        pub config: PathBuf,
        /// Keys to override, as `--set` takes them. `{name}` stands for what the stage of that name made: the model of
        /// `sft` and `train`, the file of `traces`. `{here}` stands for the folder of the pipeline's file.
        #[serde(default)]
        pub set: Vec<String>,
    }
}

/// What a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// `reckon sft`.
    Sft,
    /// `reckon train`.
    Train,
    /// `reckon traces`.
    Traces,
}

/// The word that stands for the folder of the pipeline's file.
pub const HERE: &str = "here";

impl Document for PipelineConfig {}

impl PipelineConfig {
    /// Refuses stages that could not follow one another.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.stages.is_empty(), "a pipeline needs at least one of [[stages]]");
        let mut known = HashSet::from([HERE]);
        for stage in &self.stages {
            let name = stage.name.as_str();
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            ensure!(
                !name.is_empty() && name.chars().all(is_word),
                "stage {name:?}: a name is of letters, digits, - and _, as it is that of a folder"
            );
            for set in &stage.set {
                for asked in placeholders(set) {
                    ensure!(
                        known.contains(asked),
                        "stage {name:?}: {set:?} asks for {{{asked}}}, which is no stage before it"
                    );
                }
            }
            ensure!(known.insert(name), "two stages are called {name:?}: rename one");
        }
        Ok(())
    }
}

/// The names in braces in an override, those apart that are a table's.
fn placeholders(set: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = set;
    while let Some((_, behind)) = rest.split_once('{') {
        let name = behind.split('}').next().unwrap_or_default();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if behind.len() > name.len() && !name.is_empty() && name.chars().all(is_word) {
            found.push(name);
        }
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    #[test]
    fn stages_name_what_was_made_before_them() {
        let read = |text: &str| -> Result<()> {
            let stages = text.replace("S(", "{config = 'c.toml', kind = 'sft', name = ").replace(')', "}");
            strict::load::<PipelineConfig>(&format!("stages = [{stages}]"), "p.toml", &[])?.validate()
        };
        read("S('a'), S('b', set = ['model.path={a}', 'data={dataset = \"parity\"}', 'x={here}/y'])").unwrap();
        for (stages, expected) in [
            ("", "at least one of [[stages]]"),
            ("S('a'), S('a')", "two stages are called \"a\""),
            ("S('a', set = ['model.path={b}']), S('b')", "asks for {b}, which is no stage before it"),
            ("S('../a')", "a name is of letters"),
            ("S('here')", "two stages are called \"here\""),
            ("S('a', set = 3)", "set"),
        ] {
            let message = read(stages).unwrap_err().to_string();
            assert!(message.contains(expected), "{stages}: {message}");
        }
    }
}
