//! What the completions of a run do: the readers of its tasks' traces and the lists of key words that its config names, and
//! what they make of many completions. How a trace is read, [`reckon_datasets`] knows; how words are counted,
//! [`reckon_lab::words`].

use anyhow::{Result, bail};
use reckon_datasets::{Example, Fold, TraceReader};
use reckon_lab::words::{WORD_LISTS, WordList};

use crate::config::{DataConfig, TrainConfig};
use crate::judge::Group;
use crate::strict::nearest;

/// Who reads the completions of a run.
#[derive(Debug, Clone, Default)]
pub struct Behaviours {
    /// Of each source's completions.
    readers: Vec<Vec<TraceReader>>,
    /// Of all completions.
    words: Vec<&'static WordList>,
}

/// A completion to read.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Which of the run's sources it comes from.
    pub source: usize,
    /// What was asked.
    pub example: &'a Example,
    /// What was sampled.
    pub text: &'a str,
    /// Sampled tokens.
    pub tokens: usize,
}

impl Behaviours {
    /// What `config` names, or what its tasks name where it names nothing.
    ///
    /// # Errors
    /// A name that nobody has.
    pub fn of(config: &TrainConfig) -> Result<Self> {
        let sources = config.sources()?;
        let Some(names) = &config.behaviours else {
            let readers = sources.iter().map(|source| own(source.from).into_iter().collect());
            return Ok(Self { readers: readers.collect(), words: Vec::new() });
        };
        let (mut readers, mut words) = (Vec::new(), Vec::new());
        for name in names {
            match (TraceReader::ALL.into_iter().find(|reader| reader.name() == name), WordList::named(name)) {
                (Some(reader), _) => readers.push(reader),
                (None, Some(list)) => words.push(list),
                (None, None) => bail!("behaviours = [{name:?}]: {}", unknown(name)),
            }
        }
        Ok(Self { readers: vec![readers; sources.len()], words })
    }

    /// Numbers over `completions`, by name and in order: what traces show, as `behaviour/attempts`, and how often key words
    /// occur, as `words/aha-r1/mean`. A share whose whole is 0 is left out.
    pub fn measure<'a>(&self, completions: impl Iterator<Item = Read<'a>> + Clone) -> Vec<(String, f64)> {
        let mut folded: Vec<Folded> = Vec::new();
        for completion in completions.clone() {
            for reader in self.readers.get(completion.source).into_iter().flatten() {
                let Some(counts) = reader.counts(completion.example, completion.text) else { continue };
                for measure in reader.measures() {
                    let place = folded.iter().position(|folded| folded.name == measure.name).unwrap_or_else(|| {
                        folded.push(Folded { name: measure.name, over: 0, under: 0, mean: true });
                        folded.len() - 1
                    });
                    folded[place].add(measure.fold, &counts);
                }
            }
        }
        let traces = folded.iter().filter_map(|folded| Some((format!("behaviour/{}", folded.name), folded.value()?)));
        traces.chain(self.words.iter().flat_map(|list| rates(list, completions.clone()))).collect()
    }

    /// Whether the completion turns back or doubts: a backtrack where a reader knows, or a key word of a list; `None` where
    /// nobody reads it.
    pub fn reflects(&self, completion: Read) -> Option<bool> {
        let readers = self.readers.get(completion.source).into_iter().flatten();
        let turns = readers.filter_map(|reader| {
            let measure =
                reader.measures().iter().find(|m| matches!(m.name, "backtracks" | "checked_equations" | "thinks"));
            let Fold::Mean(place) = measure?.fold else { return None };
            Some(reader.counts(completion.example, completion.text)?[place] > 0)
        });
        let words = self.words.iter().map(|list| list.count(completion.text) > 0);
        turns.chain(words).reduce(|any, next| any || next)
    }
}

/// The completions of groups, to be read.
pub fn completions(groups: &[Group]) -> impl Iterator<Item = Read<'_>> + Clone {
    groups.iter().flat_map(|group| {
        group.rollouts.iter().map(|rollout| Read {
            source: group.prompt.source,
            example: &group.prompt.example,
            text: &rollout.completion.text,
            tokens: rollout.completion.sampled_len(),
        })
    })
}

/// The reader that a dataset names.
fn own(data: &DataConfig) -> Option<TraceReader> {
    match data {
        DataConfig::Countdown { .. } => Some(TraceReader::CountdownTraces),
        DataConfig::ThreeSum { .. } => Some(TraceReader::ThreeSum),
        DataConfig::Parity { .. } => Some(TraceReader::Parity),
        // Rows without numbers and a target have no counts.
        DataConfig::File(_) => Some(TraceReader::CountdownProse),
        _ => None,
    }
}

/// What `behaviour/<name>` and `words/<list>` stand for, as tables of Markdown.
pub fn table() -> String {
    let mut text = String::from("| reader of traces | `behaviour/<name>` | counts |\n|---|---|---|\n");
    for reader in TraceReader::ALL {
        for measure in reader.measures() {
            text += &format!("| `{}` | `{}` | {} |\n", reader.name(), measure.name, measure.meaning);
        }
    }
    text += "\n| list of key words | whose it is |\n|---|---|\n";
    WORD_LISTS.iter().fold(text, |text, list| text + &format!("| `{}` | {} |\n", list.name, list.source))
}

fn unknown(name: &str) -> String {
    let known = TraceReader::ALL.into_iter().map(TraceReader::name).chain(WORD_LISTS.iter().map(|list| list.name));
    let all = known.clone().collect::<Vec<_>>().join(", ");
    nearest(name, known).map_or(format!("there are {all}"), |near| format!("did you mean {near:?}? There are {all}"))
}

/// Sums of one measure over completions.
struct Folded {
    name: &'static str,
    over: usize,
    under: usize,
    /// Whether `over` is to be divided.
    mean: bool,
}

impl Folded {
    fn add(&mut self, fold: Fold, counts: &[usize]) {
        match fold {
            Fold::Mean(place) => (self.over, self.under) = (self.over + counts[place], self.under + 1),
            Fold::Share(part, whole) => {
                (self.over, self.under) = (self.over + counts[part], self.under + counts[whole]);
            }
            Fold::Max(place) => (self.over, self.under, self.mean) = (self.over.max(counts[place]), 1, false),
        }
    }

    fn value(&self) -> Option<f64> {
        let value = self.over as f64 / if self.mean { self.under as f64 } else { 1.0 };
        (self.under > 0).then_some(value)
    }
}

/// How often the words of a list occur.
fn rates<'a>(list: &WordList, completions: impl Iterator<Item = Read<'a>>) -> Vec<(String, f64)> {
    let (mut words, mut any, mut all, mut tokens) = (0, 0, 0, 0);
    for completion in completions {
        let count = list.count(completion.text);
        words += count;
        any += usize::from(count > 0);
        all += 1;
        tokens += completion.tokens;
    }
    let rate = |name: &str, over: usize, under: usize| {
        (format!("words/{}/{name}", list.name), over as f64 / under.max(1) as f64)
    };
    vec![rate("mean", words, all), rate("per_1k", 1000 * words, tokens), rate("any", any, all)]
}

#[cfg(test)]
mod tests {
    use reckon_datasets::{Countdown, CountdownConfig, Dataset, Split};

    use super::*;
    use crate::strict;

    fn behaviours(data: &str, named: &str) -> Result<Behaviours> {
        let text = format!(
            "steps = 1\n{named}\nmodel = {{path = 'm'}}\ndata = {{dataset = '{data}'}}\nrubric = {{verifiers = []}}\n"
        );
        Behaviours::of(&strict::load(&text, "config.toml", &[])?)
    }

    /// The names and numbers of two completions of a countdown problem.
    fn measured(behaviours: &Behaviours) -> Vec<(String, f64)> {
        let example = Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap().get(0);
        let read = |text, tokens| Read { source: 0, example: &example, text, tokens };
        let texts = ["<think>0+1=1,1+1=3wait0+1=1,1+1=3</think> wait", "But wait, I check. Wait!"];
        behaviours.measure([read(texts[0], 30), read(texts[1], 20)].into_iter())
    }

    #[test]
    fn a_task_names_its_behaviours_and_a_config_others() {
        let names = |data, named| -> Vec<String> {
            measured(&behaviours(data, named).unwrap()).into_iter().map(|(name, _)| name).collect()
        };
        let own = names("countdown", "");
        assert_eq!(own[..3], ["behaviour/attempts", "behaviour/backtracks", "behaviour/attempts_max"]);
        assert!(names("arithmetic", "").is_empty() && names("three_sum", "").is_empty());
        assert_eq!(
            names("countdown", "behaviours = ['wait']"),
            ["words/wait/mean", "words/wait/per_1k", "words/wait/any"]
        );
        let both = names("arithmetic", "behaviours = ['aha-r1', 'countdown-traces']");
        assert!(both.contains(&"words/aha-r1/mean".into()) && both.contains(&"behaviour/slips".into()), "{both:?}");
        assert!(names("countdown", "behaviours = []").is_empty());
    }

    #[test]
    fn numbers_are_means_largest_ones_and_shares_of_sums() {
        let found = measured(&behaviours("countdown", "behaviours = ['countdown-traces', 'aha-r1']").unwrap());
        for (name, expected) in [
            ("behaviour/attempts", 1.0),
            ("behaviour/attempts_max", 2.0),
            ("behaviour/repeat_share", 0.5),
            ("behaviour/gave_up", 0.5),
            // "wait" of the first in its trace and after it; but, wait, check, wait of the second.
            ("words/aha-r1/mean", 3.0),
            ("words/aha-r1/per_1k", 120.0),
            ("words/aha-r1/any", 1.0),
        ] {
            let value = found.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
            assert_eq!(value, Some(expected), "{name}");
        }
        // No attempt that solves was checked: there is no share of them.
        assert!(found.iter().all(|(name, _)| name != "behaviour/false_wait_share"));
    }

    #[test]
    fn the_documents_have_the_tables_as_they_are() {
        let document = include_str!("../docs/metrics.md");
        assert!(document.contains(&table()), "put the output of `reckon metrics --markdown` into docs/metrics.md");
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_with_those_that_there_are() {
        let message = behaviours("parity", "behaviours = ['aha-r2']").unwrap_err().to_string();
        assert!(
            message.contains("[\"aha-r2\"]: did you mean \"aha-r1\"") && message.contains("parity-traces"),
            "{message}"
        );
    }
}
