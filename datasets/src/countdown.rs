//! Countdown: combine all the numbers, each exactly once, into the target. Solvable by construction; train and held-out
//! problems are told apart by a hash of the problem, so that no held-out problem is ever trained on.
//! How numbers combine is the business of `chain`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chain::{Rules, Step, expression};
use crate::{Counted, Dataset, Error, Example};

/// Which problems to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CountdownConfig {
    /// How many numbers a problem has, 2 to 6.
    pub numbers: usize,
    /// Fewest numbers, where that varies; otherwise `numbers`.
    pub numbers_min: Option<usize>,
    /// Most numbers, where that varies; otherwise `numbers`.
    pub numbers_max: Option<usize>,
    /// Smallest number, at least 0.
    pub value_min: i64,
    /// Largest number.
    pub value_max: i64,
    /// Which of `+ - * /` may be used. Division is exact or not at all.
    pub operations: String,
    /// Smallest target.
    pub target_min: i64,
    /// Largest target.
    pub target_max: i64,
    /// Largest result of a step, the last included; none is negative.
    pub intermediate_max: i64,
    /// Whether a number may stand twice.
    pub duplicates: bool,
    /// Share of all problems that are held out.
    pub held_out: f64,
}

impl Default for CountdownConfig {
    fn default() -> Self {
        Self {
            numbers: 3,
            numbers_min: None,
            numbers_max: None,
            value_min: 1,
            value_max: 20,
            operations: "+-*".into(),
            target_min: 1,
            target_max: 99,
            intermediate_max: 199,
            duplicates: true,
            held_out: 0.1,
        }
    }
}

/// Largest value, target and intermediate result: arithmetic on them stays far from overflow.
const LARGEST: i64 = 1_000_000_000;

impl CountdownConfig {
    /// How many numbers a problem can have.
    fn counts(&self) -> RangeInclusive<usize> {
        self.numbers_min.unwrap_or(self.numbers)..=self.numbers_max.unwrap_or(self.numbers)
    }

    fn validate(&self) -> Result<(), Error> {
        let fail = |text: String| Err(Error::Config(text));
        let (fewest, most) = self.counts().into_inner();
        if fewest < 2 || most > 6 || fewest > most {
            return fail(format!("numbers = {fewest}..={most}: a range within 2..=6 is needed"));
        }
        for (key, least, low, high) in [
            ("value", 0, self.value_min, self.value_max),
            ("target", 0, self.target_min, self.target_max),
            ("intermediate", 0, 0, self.intermediate_max),
        ] {
            if low < least || high > LARGEST || low > high {
                return fail(format!("{key}_min..={key}_max = {low}..={high}: a range within 0..={LARGEST} is needed"));
            }
        }
        if self.target_min > self.intermediate_max {
            let (target, max) = (self.target_min, self.intermediate_max);
            return fail(format!("target_min = {target} is above intermediate_max = {max}: no step may reach it"));
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return fail(format!("held_out = {}: a share in [0, 1) is needed", self.held_out));
        }
        let distinct = (self.value_max - self.value_min + 1) as usize;
        if !self.duplicates && distinct < most {
            return fail(format!("duplicates = false: there are {distinct} values for {most} numbers"));
        }
        self.validate_operations()
    }

    fn validate_operations(&self) -> Result<(), Error> {
        let operations = &self.operations;
        let fault = operations.char_indices().find_map(|(at, c)| match c {
            '+' | '-' | '*' | '/' if operations[..at].contains(c) => Some(format!("'{c}' stands twice")),
            '+' | '-' | '*' | '/' => None,
            _ => Some(format!("'{c}' is none of + - * /")),
        });
        match fault {
            Some(fault) => Err(Error::Config(format!("operations = \"{operations}\": {fault}"))),
            None if operations.is_empty() => Err(Error::Config("operations = \"\": name some of + - * /".into())),
            None => Ok(()),
        }
    }
}

/// Which side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Problems to train on.
    Train,
    /// Problems never trained on.
    HeldOut,
}

/// Numbers, and a chain of steps that solves them: its last result is the target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    pub(crate) numbers: Vec<i64>,
    pub(crate) solution: Vec<Step>,
}

impl Problem {
    pub(crate) fn target(&self) -> i64 {
        self.solution.last().map_or(0, |step| step.result)
    }
}

/// A seeded source of problems: problem `i` is a function of (seed, split, i).
///
/// ```
/// use reckon_datasets::{Countdown, CountdownConfig, Dataset, Split};
/// let problems = Countdown::new(CountdownConfig::default(), 7, Split::Train)?.with_len(1000);
/// assert_eq!(problems.get(3), problems.get(3));
/// assert_eq!(problems.get(3).id, "countdown-train-3");
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Countdown {
    config: CountdownConfig,
    pub(crate) rules: Rules,
    seed: u64,
    split: Split,
    len: usize,
}

/// Draws before a configuration counts as one that no problem satisfies.
const TRIES: usize = 20_000;

/// Length of a source of which no other is asked. Larger than any run.
const ENDLESS: usize = 1 << 30;

impl Countdown {
    /// A source of problems.
    ///
    /// # Errors
    /// A value out of range, or a configuration for which no solvable problem is found.
    pub fn new(config: CountdownConfig, seed: u64, split: Split) -> Result<Self, Error> {
        config.validate()?;
        if config.held_out == 0.0 && split == Split::HeldOut {
            return Err(Error::Config("held_out = 0: no problem is held out, so none can be evaluated on".into()));
        }
        let rules = Rules::new(&config.operations, config.intermediate_max);
        let source = Self { config, rules, seed, split, len: ENDLESS };
        let c = &source.config;
        if source.search(0, |_| true).is_none() {
            return Err(Error::Config(format!(
                "no problem with a target in {}..={} was found in {TRIES} draws of {} to {} numbers in {}..={} with \"{}\": \
                 widen the targets or intermediate_max = {}",
                c.target_min,
                c.target_max,
                c.counts().start(),
                c.counts().end(),
                c.value_min,
                c.value_max,
                c.operations,
                c.intermediate_max
            )));
        }
        if source.draw(0).is_none() {
            let text = format!("held_out = {}: too few problems are on the {:?} side of it", c.held_out, split);
            return Err(Error::Config(text));
        }
        Ok(source)
    }

    /// The same source with another length.
    #[must_use]
    pub fn with_len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// Problem `index`.
    pub(crate) fn problem(&self, index: usize) -> Problem {
        // The constructor found a problem, so further draws do; an unlucky index takes its neighbour's.
        (index as u64..).find_map(|i| self.draw(i)).unwrap_or_default()
    }

    /// A problem as a dataset row.
    pub(crate) fn example(&self, index: usize, problem: &Problem) -> Example {
        let list = problem.numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let side = if self.split == Split::Train { "train" } else { "held-out" };
        let info = [("numbers", json!(problem.numbers)), ("target", json!(problem.target()))];
        Example {
            id: format!("countdown-{side}-{index}"),
            question: format!("{list}:{}", problem.target()),
            answer: expression(&problem.solution),
            info: info.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    fn draw(&self, index: u64) -> Option<Problem> {
        self.search(index, |problem| self.side(&problem.numbers, problem.target()) == self.split)
    }

    /// The first problem of the stream `index` whose target is in range and that `accept` takes.
    fn search(&self, index: u64, accept: impl Fn(&Problem) -> bool) -> Option<Problem> {
        let side = u64::from(self.split == Split::HeldOut);
        let mut random = Counted::new(&[self.seed, 0xc0de, side, index]);
        (0..TRIES).find_map(|_| {
            let numbers = self.numbers(&mut random);
            let solution = self.rules.draw(&numbers, &mut random)?;
            let problem = Problem { numbers, solution };
            let fits = (self.config.target_min..=self.config.target_max).contains(&problem.target());
            (fits && accept(&problem)).then_some(problem)
        })
    }

    fn numbers(&self, random: &mut Counted) -> Vec<i64> {
        let c = &self.config;
        let (fewest, most) = c.counts().into_inner();
        let count = fewest + random.below(most - fewest + 1);
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            let value = c.value_min + random.below((c.value_max - c.value_min + 1) as usize) as i64;
            if c.duplicates || !numbers.contains(&value) {
                numbers.push(value);
            }
        }
        numbers
    }

    /// The side of a problem, whatever the seed and the order of its numbers.
    fn side(&self, numbers: &[i64], target: i64) -> Split {
        let mut key: Vec<u64> = numbers.iter().map(|&n| n as u64).collect();
        key.sort_unstable();
        key.push(target as u64);
        if Counted::new(&key).unit() < self.config.held_out { Split::HeldOut } else { Split::Train }
    }
}

impl Dataset for Countdown {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Example {
        self.example(index, &self.problem(index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn source(config: CountdownConfig, seed: u64, split: Split) -> Countdown {
        Countdown::new(config, seed, split).unwrap()
    }

    fn canonical(example: &Example) -> String {
        let (mut numbers, target) = read(example);
        numbers.sort_unstable();
        format!("{numbers:?}:{target}")
    }

    fn read(example: &Example) -> (Vec<i64>, i64) {
        let numbers = example.info["numbers"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        (numbers, example.info["target"].as_i64().unwrap())
    }

    /// Value of a fully bracketed expression, and the numbers in it: a reader that shares nothing with the writer.
    fn evaluate(text: &str, used: &mut Vec<i64>) -> i64 {
        if let Ok(number) = text.parse() {
            used.push(number);
            return number;
        }
        let mut depth = 0;
        for (at, c) in text.char_indices() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 && "+-*/".contains(c) {
                let (left, right) = (evaluate(&text[..at], used), evaluate(&text[at + 1..], used));
                return match c {
                    '+' => left + right,
                    '-' => left - right,
                    '*' => left * right,
                    _ => {
                        assert_eq!(left % right, 0, "{text}");
                        left / right
                    }
                };
            }
        }
        evaluate(text.strip_prefix('(').unwrap().strip_suffix(')').unwrap(), used)
    }

    #[test]
    fn every_answer_uses_each_number_once_and_is_the_target() {
        let base = CountdownConfig::default;
        let wide = CountdownConfig { numbers_min: Some(2), numbers_max: Some(6), operations: "+-*/".into(), ..base() };
        let apart = CountdownConfig { duplicates: false, value_max: 5, numbers: 5, ..base() };
        let divide = CountdownConfig { operations: "/".into(), ..base() };
        for (config, split) in [
            (base(), Split::Train),
            (base(), Split::HeldOut),
            (wide, Split::Train),
            (apart, Split::Train),
            (divide, Split::Train),
        ] {
            let problems = source(config.clone(), 3, split);
            for example in (0..300).map(|i| problems.get(i)) {
                let ((mut numbers, target), mut used) = (read(&example), Vec::new());
                assert_eq!(evaluate(&example.answer, &mut used), target, "{example:?}");
                let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                assert_eq!(example.question, format!("{}:{target}", list.join(",")));
                numbers.sort_unstable();
                used.sort_unstable();
                assert_eq!(numbers, used, "{example:?}");
                assert!(config.counts().contains(&numbers.len()) && (1..=99).contains(&target), "{example:?}");
                assert!(config.duplicates || numbers.windows(2).all(|pair| pair[0] != pair[1]), "{example:?}");
            }
        }
    }

    #[test]
    fn no_held_out_problem_is_trained_on_whatever_the_seeds() {
        let held: HashSet<String> = {
            let problems = source(CountdownConfig::default(), 0, Split::HeldOut);
            (0..2000).map(|i| canonical(&problems.get(i))).collect()
        };
        for seed in 0..3 {
            let train = source(CountdownConfig::default(), seed, Split::Train);
            assert!((0..3000).all(|i| !held.contains(&canonical(&train.get(i)))));
        }
    }

    #[test]
    fn the_side_ignores_the_order_of_numbers_and_the_seed() {
        let (one, other) = (
            source(CountdownConfig::default(), 1, Split::Train),
            source(CountdownConfig::default(), 2, Split::HeldOut),
        );
        for target in 1..100 {
            assert_eq!(one.side(&[3, 11, 7], target), other.side(&[7, 3, 11], target));
        }
    }

    #[test]
    fn the_share_held_out_is_the_one_asked_for() {
        for held_out in [0.02, 0.1, 0.5] {
            let problems = source(CountdownConfig { held_out, ..CountdownConfig::default() }, 0, Split::Train);
            let sides = (1..=20).flat_map(|a| (a..=20).flat_map(move |b| (1..=99).map(move |target| (a, b, target))));
            let held: Vec<bool> = sides.map(|(a, b, t)| problems.side(&[a, b, 20], t) == Split::HeldOut).collect();
            let share = held.iter().filter(|&&side| side).count() as f64 / held.len() as f64;
            assert!((share - held_out).abs() < 0.015, "{share} for {held_out}");
        }
    }

    #[test]
    fn problems_are_a_function_of_seed_split_and_index() {
        let make = |seed| source(CountdownConfig::default(), seed, Split::Train);
        assert_eq!(make(1).get(5), make(1).get(5));
        assert_ne!(make(1).get(5), make(2).get(5));
        assert_ne!(make(1).get(5).question, make(1).get(6).question);
        assert_eq!(source(CountdownConfig::default(), 1, Split::HeldOut).with_len(9).get(5).id, "countdown-held-out-5");
    }

    #[test]
    fn configurations_that_cannot_work_are_refused_by_value() {
        let base = CountdownConfig::default;
        for (config, expected) in [
            (CountdownConfig { numbers: 1, ..base() }, "numbers = 1..=1"),
            (CountdownConfig { numbers_min: Some(4), ..base() }, "numbers = 4..=3"),
            (CountdownConfig { numbers_max: Some(7), ..base() }, "numbers = 3..=7"),
            (CountdownConfig { value_min: -1, ..base() }, "-1..=20"),
            (CountdownConfig { target_min: 9, target_max: 8, ..base() }, "9..=8"),
            (CountdownConfig { intermediate_max: i64::MAX, ..base() }, "9223372036854775807"),
            (CountdownConfig { operations: "+^".into(), ..base() }, "'^'"),
            (CountdownConfig { operations: "+-+".into(), ..base() }, "'+' stands twice"),
            (CountdownConfig { operations: String::new(), ..base() }, "operations = \"\""),
            (CountdownConfig { target_min: 5000, target_max: 6000, ..base() }, "target_min = 5000"),
            (CountdownConfig { operations: "+".into(), target_min: 61, ..base() }, "61..=99"),
            (CountdownConfig { held_out: 1.5, ..base() }, "held_out = 1.5"),
            (CountdownConfig { held_out: f64::NAN, ..base() }, "held_out = NaN"),
            (CountdownConfig { held_out: 1.0 - 1e-12, ..base() }, "Train side"),
            (CountdownConfig { value_max: 2, duplicates: false, ..base() }, "2 values for 3"),
        ] {
            let message = Countdown::new(config, 0, Split::Train).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let none = CountdownConfig { held_out: 0.0, ..base() };
        assert!(Countdown::new(none, 0, Split::HeldOut).unwrap_err().to_string().contains("held_out = 0"));
    }

    #[test]
    fn keys_are_read_with_defaults_and_unknown_ones_refused() {
        let read = |text: &str| serde_json::from_str::<CountdownConfig>(text);
        assert_eq!(read("{}").unwrap(), CountdownConfig::default());
        assert_eq!(read(r#"{"numbers":4}"#).unwrap().counts(), 4..=4);
        assert_eq!(read(r#"{"numbers_min":3,"numbers_max":4}"#).unwrap().counts(), 3..=4);
        assert!(read(r#"{"number":4}"#).unwrap_err().to_string().contains("`number`"));
        let written = serde_json::to_string(&CountdownConfig::default()).unwrap();
        assert_eq!(read(&written).unwrap(), CountdownConfig::default());
    }
}
