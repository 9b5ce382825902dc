//! The config of `reckon traces`. The work itself is [`crate::traces`].

use anyhow::{Error, Result, bail, ensure};
use reckon_datasets::Range::{Above, AtLeast, PositiveShare, Share};
use reckon_datasets::{Table, table};
use reckon_rewards::RubricConfig;
use serde::{Deserialize, Serialize};

use super::{ComputeConfig, DataConfig, PromptConfig, RolloutConfig, SourceView, environment};
use crate::strict::Document;

table! {
    /// `reckon traces`: completions of a teacher, kept by a rubric, for a student to learn from.
    pub struct TracesConfig {
        /// Names all random numbers of the work.
        #[serde(default)]
        pub seed: u64,
        /// Who answers.
        pub teacher: TeacherConfig,
        /// What is asked: the rows to train on, never those held out.
        pub data: DataConfig,
        /// How it is asked.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// How completions are sampled; its numbers of prompts and of completions are not read, and of a teacher behind a
        /// URL only `max_new_tokens`, `temperature`, `top_p` and `stop` are.
        #[serde(default)]
        pub rollout: RolloutConfig,
        /// How completions are judged, where a source has no rubric of its own.
        pub rubric: RubricConfig,
        /// Rows that are asked, from the first on; all of a file's when absent.
        pub problems: Option<usize>,
        /// Completions of each.
        #[serde(default = "samples")]
        pub samples: usize => AtLeast(1.0),
        /// Which of the completions that pass are kept.
        #[serde(default)]
        pub keep: Keep,
        /// Traces of a problem, at most.
        #[serde(default = "most")]
        pub most: usize => AtLeast(1.0),
        /// What is dropped beside completions that are wrong.
        #[serde(default)]
        pub filter: FilterConfig,
        /// Traces that are meant to teach worse, to compare with.
        #[serde(default)]
        pub control: TracesControl,
        /// Where and how a teacher of one's own is computed.
        #[serde(default)]
        pub compute: ComputeConfig,
    }
}

fn samples() -> usize {
    4
}

fn most() -> usize {
    4
}

impl Document for TracesConfig {
    fn resolve(&mut self) {
        self.compute.resolve();
    }
}

impl TracesConfig {
    /// Where prompts come from, with what is said of each.
    pub fn sources(&self) -> Result<Vec<SourceView<'_>>> {
        self.data.sources(&self.prompt, &self.rubric)
    }

    /// Refuses what could not work, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check("").map_err(Error::msg)?;
        self.rollout.check("rollout.").map_err(Error::msg)?;
        self.filter.check("filter.").map_err(Error::msg)?;
        self.teacher.check("teacher.").map_err(Error::msg)?;
        self.sources()?.iter().try_for_each(|source| environment::refuse_rewards(source.rubric))?;
        self.teacher.place().map(drop)
    }
}

table! {
    /// Who answers: a model that is computed here, or a service behind a URL.
    pub struct TeacherConfig {
        /// A model folder, an adapter, a GGUF file, a name on the hub, or `builtin:countdown`.
        pub path: Option<String> = None,
        /// The beginning of an OpenAI-compatible service's addresses, such as `http://localhost:8000/v1`; it is asked for
        /// `/chat/completions` there.
        pub url: Option<String> = None,
        /// What the service calls the model.
        pub model: Option<String> = None,
        /// The variable of the environment that holds the service's key; none is sent where it is not set.
        pub key_env: String = "OPENAI_API_KEY".to_owned(),
        /// Requests to the service at a time.
        pub concurrency: usize = 8 => AtLeast(1.0),
        /// How often a request is made again that failed, or was answered with nothing of use, before a completion is
        /// given up; the wait before it doubles each time.
        pub retries: usize = 4,
        /// Seconds before the first of these.
        pub backoff_s: f64 = 1.0 => AtLeast(0.0),
        /// Seconds that a request may take.
        pub timeout_s: f64 = 300.0 => Above(0.0),
        /// Share of a batch's completions that may be given up; beyond it the work stops, and goes on when it is called
        /// again.
        pub max_failed: f64 = 0.1 => Share,
    }
}

/// Where a teacher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeacherPlace<'a> {
    /// It is computed here.
    Path(&'a str),
    /// A service: its address, and its name of the model.
    Url(&'a str, &'a str),
}

impl TeacherConfig {
    /// Where the teacher is.
    pub fn place(&self) -> Result<TeacherPlace<'_>> {
        match (&self.path, &self.url, &self.model) {
            (Some(path), None, None) => Ok(TeacherPlace::Path(path)),
            (None, Some(url), Some(model)) => {
                let known = url.starts_with("http://") || url.starts_with("https://");
                ensure!(known, "teacher.url = {url:?} does not begin with http:// or https://");
                Ok(TeacherPlace::Url(url, model))
            }
            (None, Some(_), None) => bail!("teacher.url needs teacher.model: what the service calls the model"),
            _ => bail!("[teacher] needs either path, or url and model"),
        }
    }
}

/// Which of the completions of a problem that pass are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// As they come, up to `most`.
    #[default]
    All,
    /// Those of the highest rewards first.
    Best,
    /// The shortest first.
    Shortest,
}

table! {
    /// What is dropped beside completions that are wrong. Each reason is counted.
    pub struct FilterConfig {
        /// Of two completions of a problem that share this part of their stretches of five letters, the second; 1 drops
        /// copies alone.
        pub duplicates: f64 = 0.9 => PositiveShare,
        /// Completions of which more than this share stands in stretches of 32 letters that stood there before; 1 drops
        /// none.
        pub repetition: f64 = 0.5 => Share,
        /// Completions in which more than this share of the letters is of another script than most of them are, Greek
        /// ones apart, which are mathematics; 1 drops none.
        pub mixed: f64 = 0.02 => Share,
        /// Whether completions are dropped that have no words in thinking tags.
        pub thought: bool = false,
    }
}

/// Traces that are meant to teach worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracesControl {
    /// What the rubric passes.
    #[default]
    None,
    /// Whatever the rubric says.
    Unverified,
    /// What the rubric passes, each beside the question of another.
    Shuffled,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    #[test]
    fn a_teacher_is_in_one_place() {
        let read = |teacher: &str| -> Result<()> {
            let text = format!(
                "teacher = {teacher}\ndata = {{dataset = 'parity'}}\nrubric = {{verifiers = [{{kind = 'exact'}}]}}\n"
            );
            strict::load::<TracesConfig>(&text, "traces.toml", &[])?.validate()
        };
        read("{path = 'm'}").unwrap();
        read("{url = 'https://x/v1', model = 'm'}").unwrap();
        for (teacher, expected) in [
            ("{}", "needs either path, or url and model"),
            ("{path = 'm', url = 'http://x', model = 'm'}", "needs either path, or url and model"),
            ("{url = 'http://x'}", "needs teacher.model"),
            ("{url = 'x', model = 'm'}", "does not begin with http"),
            ("{path = 'm', concurrency = 0}", "teacher.concurrency = 0"),
            ("{path = 'm', timeout_s = 0.0}", "teacher.timeout_s = 0"),
        ] {
            let message = read(teacher).unwrap_err().to_string();
            assert!(message.contains(expected), "{teacher}: {message}");
        }
    }
}
