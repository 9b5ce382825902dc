//! What a completion does, as its task says it: a parser of the task's traces. A parser is total: any text has counts.
//! What is made of the counts of many completions, each [`Measure`] says; how they were judged, nobody here knows.

mod parity;
mod prose;
pub(crate) mod search;
mod three_sum;

use crate::Example;

/// A number that is reported of many completions.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name, such as `attempts`.
    pub name: &'static str,
    /// What is counted, or what is divided by what.
    pub meaning: &'static str,
    /// What is made of the counts of the completions.
    pub fold: Fold,
}

/// What is made of counts, by their places in what [`TraceReader::counts`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// The mean over completions; of what happens or does not, the share of completions.
    Mean(usize),
    /// The largest of any completion.
    Max(usize),
    /// The sum of the first over all completions / the sum of the second.
    Share(usize, usize),
}

/// Who reads the traces of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceReader {
    /// Traces of countdown as priming makes them, such as `15-10=5,5-1=4wait`.
    CountdownTraces,
    /// Countdown in a language model's own words: equations anywhere in its thinking.
    CountdownProse,
    /// Triples with their numbers and sums, such as `a 12 b 7 = 19 d 41 = 10 x`.
    ThreeSum,
    /// Parities carried along.
    Parity,
}

impl TraceReader {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::CountdownTraces, Self::CountdownProse, Self::ThreeSum, Self::Parity];

    /// What a config calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CountdownTraces => "countdown-traces",
            Self::CountdownProse => "countdown-prose",
            Self::ThreeSum => "three-sum-traces",
            Self::Parity => "parity-traces",
        }
    }

    /// What is reported of what it reads, what matters first in front.
    pub fn measures(self) -> &'static [Measure] {
        match self {
            Self::CountdownTraces | Self::ThreeSum => search::MEASURES,
            Self::CountdownProse => prose::MEASURES,
            Self::Parity => parity::MEASURES,
        }
    }

    /// Counts over one completion; `None` where the example is not of the reader's task.
    pub fn counts(self, example: &Example, completion: &str) -> Option<Vec<usize>> {
        match self {
            Self::CountdownTraces => search::TraceStats::countdown(example, completion),
            Self::CountdownProse => prose::counts(example, completion),
            Self::ThreeSum => three_sum::counts(example, completion),
            Self::Parity => parity::counts(example, completion),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Countdown, CountdownConfig, Dataset, Parity, ParityConfig, Split, ThreeSum, ThreeSumConfig};

    fn examples() -> [Example; 3] {
        [
            Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap().get(0),
            ThreeSum::new(ThreeSumConfig::default(), 1, Split::Train).unwrap().get(0),
            Parity::new(ParityConfig::default(), 1, Split::Train).unwrap().get(0),
        ]
    }

    #[test]
    fn a_reader_reads_its_own_task_and_has_every_count_that_its_measures_name() {
        for (reader, task) in TraceReader::ALL.into_iter().zip([0, 0, 1, 2]) {
            for (place, example) in examples().iter().enumerate() {
                let counts = reader.counts(example, "<think>1+2=3</think>");
                assert_eq!(counts.is_some(), place == task, "{} on {}", reader.name(), example.id);
                for measure in reader.measures().iter().filter(|_| counts.is_some()) {
                    let places = match measure.fold {
                        Fold::Mean(place) | Fold::Max(place) => [place, place],
                        Fold::Share(part, whole) => [part, whole],
                    };
                    assert!(places.iter().all(|&place| place < counts.as_ref().unwrap().len()), "{}", measure.name);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_has_counts_and_no_share_is_above_one(
            text in "(<think>|</think>|wait|ok| [a-f] [a-f] [a-f] = [0-9]{1,2} [xy]|[0-9 ()+*/=,-]{0,9}|.){0,40}"
        ) {
            for reader in TraceReader::ALL {
                for counts in examples().iter().filter_map(|example| reader.counts(example, &text)) {
                    for measure in reader.measures() {
                        if let Fold::Share(part, whole) = measure.fold {
                            prop_assert!(counts[part] <= counts[whole], "{}", measure.name);
                        }
                    }
                }
            }
        }
    }
}
