//! The `[eval]` table: what is evaluated, how it is sampled, and what an evaluation decides.

use std::collections::HashSet;

use anyhow::{Error, Result, ensure};
use reckon_datasets::Range::AtLeast;
use reckon_datasets::{Table, table};
use reckon_rewards::RubricConfig;

use super::RolloutConfig;
use super::data::{DataConfig, PromptConfig, SourceView};
use crate::rollout::Sampling;

table! {
    /// Held-out evaluation.
    pub struct EvalConfig {
        /// Held-out problems; 0 for none.
        pub problems: usize = 200,
        /// Completions per problem.
        pub samples: usize = 1,
        /// Steps between evaluations; there is always one before and one after.
        pub every: u64 = 50 => AtLeast(1.0),
        /// Take the likeliest token in them, in place of sampling as in training.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        pub greedy: bool = false,
        /// Divides the logits in evaluations, 0 to take the most likely token; `rollout.temperature` when absent.
        pub temperature: Option<f64> = None,
        /// As `rollout.top_p`, which holds when this is absent.
        pub top_p: Option<f64> = None,
        /// As `rollout.top_k`, which holds when this is absent.
        pub top_k: Option<usize> = None,
        /// As `rollout.min_p`, which holds when this is absent.
        pub min_p: Option<f64> = None,
        /// Longest completion in evaluations, at most `rollout.max_new_tokens`, which holds when this is absent.
        pub max_new_tokens: Option<usize> = None,
        /// The metric under `eval/` that says which checkpoint is the best, such as `pass@1`, or `math/pass@8` of a set.
        pub best_by: String = "pass@1".to_owned(),
        /// Evaluations without a new best after which the run ends; 0 for never.
        pub patience: u64 = 0,
        /// Further held-out sets, each `[[eval.sets]]`.
        pub sets: Vec<EvalSet> = Vec::new(),
    }
}

table! {
    /// A held-out set of its own: all rows of a file, or the held-out problems of a generator.
    pub struct EvalSet {
        /// What its metrics are called, `eval/NAME/pass@1`.
        pub name: String,
        /// Where its examples come from; no mixture.
        pub data: DataConfig,
        /// Problems of it; `eval.problems` when absent.
        pub problems: Option<usize>,
        /// Completions per problem; `eval.samples` when absent.
        pub samples: Option<usize>,
        /// How its questions become prompts; the run's `[prompt]` when absent.
        pub prompt: Option<PromptConfig>,
        /// How its completions are judged; the run's `[rubric]` when absent.
        pub rubric: Option<RubricConfig>,
    }
}

impl EvalConfig {
    /// How completions are sampled where training samples them by `rollout`.
    pub fn sampling(&self, rollout: &Sampling) -> Sampling {
        Sampling {
            temperature: match self.temperature {
                _ if self.greedy => 0.0,
                own => own.map_or(rollout.temperature, |value| value as f32),
            },
            top_p: self.top_p.map_or(rollout.top_p, |value| value as f32),
            top_k: self.top_k.unwrap_or(rollout.top_k),
            min_p: self.min_p.map_or(rollout.min_p, |value| value as f32),
            max_new_tokens: self.max_new_tokens.map_or(rollout.max_new_tokens, |own| own.min(rollout.max_new_tokens)),
            ..rollout.clone()
        }
    }

    /// The sets, with what the run gives them.
    pub fn sources<'a>(&'a self, prompt: &'a PromptConfig, rubric: &'a RubricConfig) -> Vec<SourceView<'a>> {
        let view = |set: &'a EvalSet| SourceView {
            name: Some(&set.name),
            weight: 1.0,
            from: &set.data,
            prompt: set.prompt.as_ref().unwrap_or(prompt),
            rubric: set.rubric.as_ref().unwrap_or(rubric),
            rows: None,
        };
        self.sets.iter().map(view).collect()
    }

    /// Refuses what could not be evaluated, or could not decide.
    pub fn validate(&self, rollout: &RolloutConfig) -> Result<()> {
        self.check("eval.").map_err(Error::msg)?;
        self.validate_sampling(rollout)?;
        let mut names = HashSet::new();
        for set in &self.sets {
            let name = &set.name;
            ensure!(
                !["", "behaviour", "words"].contains(&name.as_str()) && !name.contains(['/', '@']),
                "eval.sets: \"{name}\" cannot be the name of a set, as metrics are called by it; choose another, without \
                 / and @"
            );
            ensure!(names.insert(name), "eval.sets: two sets are called \"{name}\"; rename one");
            ensure!(
                !matches!(set.data, DataConfig::Mixture { .. }),
                "eval.sets: the data of \"{name}\" is a mixture; make each of its sources a set"
            );
        }
        let known = self.metrics();
        ensure!(
            known.is_empty() || known.contains(&self.best_by),
            "eval.best_by = \"{}\": no evaluation of this run has it; it is one of {}",
            self.best_by,
            known.join(", ")
        );
        ensure!(
            self.patience == 0 || !known.is_empty(),
            "eval.patience = {}: nothing is evaluated; set eval.problems, or patience = 0",
            self.patience
        );
        Ok(())
    }

    fn validate_sampling(&self, rollout: &RolloutConfig) -> Result<()> {
        let share = |value: f64| value.is_finite() && (0.0..=1.0).contains(&value);
        for (name, value, fits, must) in [
            ("temperature", self.temperature, self.temperature.is_none_or(|t| t.is_finite() && t >= 0.0), "at least 0"),
            ("top_p", self.top_p, self.top_p.is_none_or(|p| share(p) && p > 0.0), "in (0, 1]"),
            ("min_p", self.min_p, self.min_p.is_none_or(share), "in [0, 1]"),
        ] {
            ensure!(fits, "eval.{name} = {}: it must be {must}", value.unwrap_or_default());
        }
        let longest = self.max_new_tokens.unwrap_or(1);
        ensure!(
            (1..=rollout.max_new_tokens).contains(&longest),
            "eval.max_new_tokens = {longest}: it must be from 1 to rollout.max_new_tokens = {}, by which memory is planned",
            rollout.max_new_tokens
        );
        let several = self.samples > 1 || self.sets.iter().any(|set| set.samples.is_some_and(|samples| samples > 1));
        ensure!(
            self.temperature.is_none() || !self.greedy,
            "eval.greedy = true: eval.temperature says otherwise; remove one"
        );
        ensure!(
            self.temperature != Some(0.0) || !several,
            "eval.temperature = 0: all samples of a problem would be equal; set eval.samples = 1"
        );
        Ok(())
    }

    /// What evaluations of the run measure that may say which checkpoint is the best.
    fn metrics(&self) -> Vec<String> {
        let main = (self.problems > 0).then(|| names_of("", self.samples));
        let sets = self.sets.iter().filter(|set| set.problems.unwrap_or(self.problems) > 0);
        let sets = sets.map(|set| names_of(&format!("{}/", set.name), set.samples.unwrap_or(self.samples)));
        main.into_iter().chain(sets).flatten().collect()
    }
}

/// The metrics of a set.
fn names_of(prefix: &str, samples: usize) -> Vec<String> {
    let mut names = vec![format!("{prefix}pass@1")];
    names.extend(passes_at(samples).into_iter().map(|k| format!("{prefix}pass@{k}")));
    names.extend((samples > 1).then(|| format!("{prefix}maj@{samples}")));
    names
}

/// The `k` of the `pass@k` of problems with so many samples: 2, 4, 8 and so on, and all of them.
pub fn passes_at(samples: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (1..).map(|power| 1 << power).take_while(|&k| k < samples).collect();
    all.extend((samples > 1).then_some(samples));
    all
}

#[cfg(test)]
mod tests {
    use crate::config::TrainConfig;
    use crate::strict;

    fn read(eval: &str) -> anyhow::Result<TrainConfig> {
        let run = "steps = 1\nmodel = {path = 'm'}\ndata = {dataset = 'parity'}\nrollout = {max_new_tokens = 9}\n\
                   rubric = {verifiers = [{kind = 'exact'}]}\n";
        let config: TrainConfig = strict::load(&format!("{run}[eval]\n{eval}"), "config.toml", &[])?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn evaluations_are_sampled_as_training_is_but_for_what_they_say() {
        let config = read("temperature = 0.6\ntop_k = 5").unwrap();
        let sampling = config.rollout.sampling(vec![1]).unwrap();
        let own = config.eval.sampling(&sampling);
        assert_eq!((own.temperature, own.top_k, own.top_p, own.max_new_tokens), (0.6, 5, 1.0, 9));
        assert_eq!(read("").unwrap().eval.sampling(&sampling), sampling);
        let printed = strict::print(&config).unwrap();
        let again: TrainConfig = strict::load(&printed, "config.toml", &[]).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn what_cannot_be_evaluated_or_decided_is_refused() {
        let set = "[[eval.sets]]\nname = 'a'\ndata = {dataset = 'parity'}\n";
        for (text, expected) in [
            ("temperature = -1".to_owned(), "eval.temperature = -1: it must be at least 0"),
            ("top_p = 0.0".to_owned(), "eval.top_p = 0: it must be in (0, 1]"),
            ("min_p = 2.0".to_owned(), "eval.min_p = 2: it must be in [0, 1]"),
            ("max_new_tokens = 10".to_owned(), "from 1 to rollout.max_new_tokens = 9"),
            ("temperature = 0.5\ngreedy = true".to_owned(), "eval.temperature says otherwise"),
            ("temperature = 0.0\nsamples = 2".to_owned(), "all samples of a problem would be equal"),
            ("best_by = 'pass@4'".to_owned(), "no evaluation of this run has it; it is one of pass@1"),
            ("best_by = 'a/pass@1'".to_owned(), "it is one of pass@1"),
            ("problems = 0\npatience = 2".to_owned(), "nothing is evaluated"),
            (format!("{set}{set}"), "two sets are called \"a\""),
            (set.replace("'a'", "'a/b'"), "cannot be the name of a set"),
            (set.replace("'parity'", "'mixture', sources = []"), "is a mixture"),
        ] {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        for best_by in ["pass@2", "pass@3", "maj@3", "a/pass@1", "a/maj@3"] {
            read(&format!("samples = 3\nbest_by = '{best_by}'\n{set}")).unwrap();
        }
    }
}
