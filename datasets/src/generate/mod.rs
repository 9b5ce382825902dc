//! Problems that are made, not read: a seeded source over any [`Task`], with train and held-out problems told apart by
//! a hash of the problem, so that no held-out problem is ever trained on. What a problem is, each task says.

pub(crate) mod arithmetic;
pub(crate) mod chain;
pub(crate) mod countdown;
pub(crate) mod countdown_traces;
pub(crate) mod formula;
pub(crate) mod knights;
pub(crate) mod multiplication;
pub(crate) mod parity;
pub(crate) mod three_sum;
pub(crate) mod traces;

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::{Counted, Dataset, Error, Example};

/// Which side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Problems to train on.
    Train,
    /// Problems never trained on.
    HeldOut,
}

impl Split {
    /// The side of whatever `names` stand for, when `share` of all is held out. The same for every seed.
    pub(crate) fn of(names: &[u64], share: f64) -> Self {
        if Counted::new(names).unit() < share { Self::HeldOut } else { Self::Train }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::HeldOut => "held-out",
        }
    }
}

/// A kind of problem that can be drawn at random and has an exact answer: its settings, as they stand in a config.
pub trait Task: Send + Sync {
    /// One problem, its answer included.
    type Problem;

    /// Names the task in the ids of its examples.
    const NAME: &'static str;

    /// Names the task's stream of random numbers.
    const STREAM: u64;

    /// Refuses settings out of range, by value.
    ///
    /// # Errors
    /// The first setting that cannot work.
    fn validate(&self) -> Result<(), Error>;

    /// Share of all problems that are held out, in `0..1`.
    fn held_out(&self) -> f64;

    /// What is drawn from what, for messages.
    fn describe(&self) -> String;

    /// A problem, or none where this draw led to none that is allowed.
    fn draw(&self, random: &mut Counted) -> Option<Self::Problem>;

    /// What makes two problems the same, whatever the order in which they tell it.
    fn key(&self, problem: &Self::Problem) -> Vec<u64>;

    /// The problem as a dataset row called `id`.
    fn example(&self, id: String, problem: &Self::Problem) -> Example;
}

/// A seeded source of problems: problem `i` is a function of (seed, split, i).
///
/// ```
/// use reckon_datasets::{Countdown, CountdownConfig, Dataset, Split};
/// let problems = Countdown::new(CountdownConfig::default(), 7, Split::Train)?;
/// assert_eq!(problems.get(3), problems.get(3));
/// assert_eq!(problems.get(3).id, "countdown-train-3");
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Generated<T> {
    pub(crate) task: T,
    seed: u64,
    split: Split,
}

/// Draws before a task counts as one that no problem satisfies.
const TRIES: usize = 20_000;

/// The length of every source of problems. Larger than any run.
const ENDLESS: usize = 1 << 30;

impl<T: Task> Generated<T> {
    /// A source of problems.
    ///
    /// # Errors
    /// A setting out of range, or a task for which no problem is found on this side of the split.
    pub fn new(task: T, seed: u64, split: Split) -> Result<Self, Error> {
        task.validate()?;
        let share = task.held_out();
        if !(0.0..1.0).contains(&share) {
            return Err(Error::Config(format!("held_out = {share}: a share in [0, 1) is needed")));
        }
        if share == 0.0 && split == Split::HeldOut {
            return Err(Error::Config("held_out = 0: no problem is held out, so none can be evaluated on".into()));
        }
        let source = Self { task, seed, split };
        if source.search(0, |_| true).is_none() {
            let (name, what) = (T::NAME, source.task.describe());
            return Err(Error::Config(format!(
                "no {name} problem was found in {TRIES} draws of {what}: widen its ranges"
            )));
        }
        if source.draw(0).is_none() {
            let text = format!("held_out = {share}: too few problems are on the {} side of it", split.name());
            return Err(Error::Config(text));
        }
        Ok(source)
    }

    /// Problem `index`.
    pub(crate) fn problem(&self, index: usize) -> T::Problem {
        // The constructor found a problem, so further draws do; an unlucky index takes its neighbour's.
        let mut index = index as u64;
        loop {
            if let Some(problem) = self.draw(index) {
                return problem;
            }
            index += 1;
        }
    }

    /// A problem as a dataset row.
    pub(crate) fn example(&self, index: usize, problem: &T::Problem) -> Example {
        self.task.example(format!("{}-{}-{index}", T::NAME, self.split.name()), problem)
    }

    /// The side of a problem, whatever the seed.
    pub(crate) fn side(&self, problem: &T::Problem) -> Split {
        Split::of(&self.task.key(problem), self.task.held_out())
    }

    fn draw(&self, index: u64) -> Option<T::Problem> {
        self.search(index, |problem| self.side(problem) == self.split)
    }

    /// The first problem of the stream `index` that `accept` takes.
    fn search(&self, index: u64, accept: impl Fn(&T::Problem) -> bool) -> Option<T::Problem> {
        let side = u64::from(self.split == Split::HeldOut);
        let mut random = Counted::new(&[self.seed, T::STREAM, side, index]);
        (0..TRIES).find_map(|_| self.task.draw(&mut random).filter(|problem| accept(problem)))
    }
}

impl<T: Task> Dataset for Generated<T> {
    fn len(&self) -> usize {
        ENDLESS
    }

    fn get(&self, index: usize) -> Example {
        self.example(index, &self.problem(index))
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint_of(64)
    }
}

/// Refuses a range that is empty or leaves `within`. `key` stands before `_min` and `_max` in a config.
fn check_range<N: PartialOrd + Display>(key: &str, low: N, high: N, within: RangeInclusive<N>) -> Result<(), Error> {
    if within.contains(&low) && within.contains(&high) && low <= high {
        return Ok(());
    }
    let (least, most) = within.into_inner();
    Err(Error::Config(format!("{key}_min..={key}_max = {low}..={high}: a range within {least}..={most} is needed")))
}

/// A whole number drawn uniformly from `low..=high`.
fn pick(random: &mut Counted, low: i64, high: i64) -> i64 {
    low + random.below((high - low + 1) as usize) as i64
}

/// Columns of an example from pairs.
fn info<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{ArithmeticConfig, CountdownConfig, KnightsConfig, MultiplicationConfig, ParityConfig, ThreeSumConfig};

    /// What holds of every task: seeds name problems, sides share none, and the share held out is the one asked for.
    fn check<T: Task + Clone>(task: T) {
        let source = |seed, split| Generated::new(task.clone(), seed, split).unwrap();
        let train = source(1, Split::Train);
        assert_eq!(train.get(5), train.get(5));
        assert!((0..20).any(|i| train.get(i).question != source(2, Split::Train).get(i).question), "{}", T::NAME);
        assert_eq!(train.get(6).id, format!("{}-train-6", T::NAME));
        let keys = |seed, split| -> HashSet<Vec<u64>> {
            let source = source(seed, split);
            (0..1000).map(|i| source.task.key(&source.problem(i))).collect()
        };
        let held = keys(0, Split::HeldOut);
        assert!(keys(1, Split::Train).union(&keys(2, Split::Train)).all(|key| !held.contains(key)), "{}", T::NAME);
        let mut random = Counted::new(&[9]);
        let all: Vec<T::Problem> = std::iter::repeat_with(|| task.draw(&mut random)).flatten().take(4000).collect();
        let share = all.iter().filter(|problem| train.side(problem) == Split::HeldOut).count() as f64 / 4000.0;
        assert!((share - task.held_out()).abs() < 0.02, "{}: {share}", T::NAME);
    }

    #[test]
    fn every_task_is_seeded_and_split_by_a_hash_of_the_problem() {
        check(CountdownConfig::default());
        check(ArithmeticConfig::default());
        check(KnightsConfig::default());
        check(MultiplicationConfig::default());
        check(ParityConfig::default());
        check(ThreeSumConfig::default());
    }
}
