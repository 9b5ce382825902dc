//! Countdown: combine all the numbers, each exactly once, into the target. Solvable by construction; train and held-out
//! problems are told apart by a hash of the problem, so that no held-out problem is ever trained on.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Counted, Dataset, Error, Example};

/// Which problems to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CountdownConfig {
    /// Fewest numbers of a problem, at least 2.
    pub numbers_min: usize,
    /// Most numbers of a problem, at most 6.
    pub numbers_max: usize,
    /// Smallest number, at least 0.
    pub value_min: i64,
    /// Largest number.
    pub value_max: i64,
    /// Which of `+ - * /` may be used.
    pub operations: String,
    /// Smallest target.
    pub target_min: i64,
    /// Largest target.
    pub target_max: i64,
    /// Largest result on the way; none is negative.
    pub intermediate_max: i64,
    /// Whether a number may stand twice.
    pub duplicates: bool,
    /// Share of the problems held out.
    pub held_out: f64,
}

impl Default for CountdownConfig {
    fn default() -> Self {
        Self {
            numbers_min: 3,
            numbers_max: 3,
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

impl CountdownConfig {
    fn validate(&self) -> Result<(), Error> {
        let fail = |text: String| Err(Error::Config(text));
        if self.numbers_min < 2 || self.numbers_max > 6 || self.numbers_min > self.numbers_max {
            return fail(format!("numbers {}..={}: between 2 and 6 can be combined", self.numbers_min, self.numbers_max));
        }
        if self.value_min < 0 || self.value_min > self.value_max || self.value_max > 1_000_000 {
            return fail(format!("values {}..={}: a range within 0..=1000000 is needed", self.value_min, self.value_max));
        }
        if self.target_min > self.target_max {
            return fail(format!("targets {}..={}: the range is empty", self.target_min, self.target_max));
        }
        if let Some(c) = self.operations.chars().find(|c| !"+-*/".contains(*c)) {
            return fail(format!("operations = \"{}\": '{c}' is none of + - * /", self.operations));
        }
        if self.operations.is_empty() {
            return fail("operations is empty: name some of + - * /".into());
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return fail(format!("held_out = {}: a share in [0, 1) is needed", self.held_out));
        }
        let distinct = (self.value_max - self.value_min + 1) as usize;
        if !self.duplicates && distinct < self.numbers_max {
            return fail(format!("duplicates = false: there are {distinct} values for {} numbers", self.numbers_max));
        }
        Ok(())
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

/// One step of a chain: `left operation right = result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) left: i64,
    pub(crate) operation: char,
    pub(crate) right: i64,
    pub(crate) result: i64,
    /// Whether the result so far stands on the left (else on the right; for the first step, always).
    pub(crate) running_left: bool,
}

/// A left-to-right chain that uses every number once.
pub(crate) type Chain = Vec<Step>;

/// The chain as an expression without outer brackets.
pub(crate) fn expression(chain: &[Step]) -> String {
    let mut text = String::new();
    for (i, step) in chain.iter().enumerate() {
        text = match (i, step.running_left) {
            (0, _) => format!("{}{}{}", step.left, step.operation, step.right),
            (_, true) => format!("({text}){}{}", step.operation, step.right),
            (_, false) => format!("{}{}({text})", step.left, step.operation),
        };
    }
    text
}

/// A seeded source of problems: problem `i` is a function of (seed, split, i).
#[derive(Debug, Clone)]
pub struct Countdown {
    pub(crate) config: CountdownConfig,
    seed: u64,
    split: Split,
    len: usize,
}

/// Draws before a configuration counts as one that no problem satisfies.
const TRIES: usize = 20_000;

impl Countdown {
    /// A source of problems.
    ///
    /// # Errors
    /// A value out of range, or a configuration for which no solvable problem is found.
    pub fn new(config: CountdownConfig, seed: u64, split: Split) -> Result<Self, Error> {
        config.validate()?;
        let source = Self { config, seed, split, len: 1 << 30 };
        if source.config.held_out == 0.0 && split == Split::HeldOut {
            return Err(Error::Config("held_out = 0: no problem is held out, so none can be evaluated on".into()));
        }
        match source.draw(0) {
            Some(_) => Ok(source),
            None => Err(Error::Config(format!(
                "no problem with targets {}..={} was found in {TRIES} draws: widen the targets or intermediate_max = {}",
                source.config.target_min, source.config.target_max, source.config.intermediate_max
            ))),
        }
    }

    /// The same source with another length.
    #[must_use]
    pub fn with_len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// Numbers and a chain that solves them.
    fn draw(&self, index: u64) -> Option<(Vec<i64>, Chain)> {
        let side = u64::from(self.split == Split::HeldOut);
        let mut random = Counted::new(&[self.seed, 0xc0de, side, index]);
        (0..TRIES).find_map(|_| {
            let numbers = self.numbers(&mut random);
            let chain = self.random_chain(&numbers, &mut random)?;
            let target = chain.last()?.result;
            let fits = (self.config.target_min..=self.config.target_max).contains(&target);
            (fits && self.side(&numbers, target) == self.split).then_some((numbers, chain))
        })
    }

    fn numbers(&self, random: &mut Counted) -> Vec<i64> {
        let c = &self.config;
        let count = c.numbers_min + random.below(c.numbers_max - c.numbers_min + 1);
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

    /// A uniformly drawn chain, or `None` where a step is not legal.
    pub(crate) fn random_chain(&self, numbers: &[i64], random: &mut Counted) -> Option<Chain> {
        let mut order = numbers.to_vec();
        random.shuffle(&mut order);
        let operations = self.config.operations.as_bytes();
        let mut running = order[0];
        let mut chain = Chain::with_capacity(order.len() - 1);
        for (i, &next) in order[1..].iter().enumerate() {
            let operation = operations[random.below(operations.len())] as char;
            let flip = i > 0 && "-/".contains(operation) && random.below(2) == 1;
            let (left, right) = if flip { (next, running) } else { (running, next) };
            running = self.apply(left, operation, right)?;
            chain.push(Step { left, operation, right, result: running, running_left: !flip });
        }
        Some(chain)
    }

    /// The result of a legal step.
    fn apply(&self, left: i64, operation: char, right: i64) -> Option<i64> {
        let result = match operation {
            '+' => left + right,
            '-' => left - right,
            '*' => left.checked_mul(right)?,
            _ if right != 0 && left % right == 0 => left / right,
            _ => return None,
        };
        (0..=self.config.intermediate_max).contains(&result).then_some(result)
    }
}

impl Dataset for Countdown {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Example {
        // The constructor found a problem, so further draws do; an unlucky index takes its neighbour's.
        let drawn = (index as u64..).find_map(|i| self.draw(i));
        let (numbers, chain) = drawn.unwrap_or_default();
        let target = chain.last().map_or(0, |step| step.result);
        let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let side = if self.split == Split::Train { "train" } else { "held-out" };
        let info = json!({ "numbers": numbers, "target": target });
        Example {
            id: format!("countdown-{side}-{index}"),
            question: format!("{list}:{target}"),
            answer: expression(&chain),
            info: info.as_object().cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn canonical(example: &Example) -> String {
        let mut numbers: Vec<i64> = example.info["numbers"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        numbers.sort_unstable();
        format!("{numbers:?}:{}", example.info["target"])
    }

    #[test]
    fn no_held_out_problem_is_trained_on_whatever_the_seeds() {
        let held: HashSet<String> = {
            let source = Countdown::new(CountdownConfig::default(), 0, Split::HeldOut).unwrap();
            (0..2000).map(|i| canonical(&source.get(i))).collect()
        };
        for seed in 0..3 {
            let train = Countdown::new(CountdownConfig::default(), seed, Split::Train).unwrap();
            assert!((0..3000).all(|i| !held.contains(&canonical(&train.get(i)))));
        }
    }

    #[test]
    fn problems_are_a_function_of_seed_and_index() {
        let make = |seed| Countdown::new(CountdownConfig::default(), seed, Split::Train).unwrap();
        assert_eq!(make(1).get(5), make(1).get(5));
        assert_ne!(make(1).get(5), make(2).get(5));
    }

    #[test]
    fn configurations_that_cannot_work_are_refused_by_value() {
        let base = CountdownConfig::default;
        for (config, expected) in [
            (CountdownConfig { numbers_min: 1, ..base() }, "numbers 1..=3"),
            (CountdownConfig { operations: "+^".into(), ..base() }, "'^'"),
            (CountdownConfig { target_min: 5000, target_max: 6000, ..base() }, "5000..=6000"),
            (CountdownConfig { held_out: 1.5, ..base() }, "held_out = 1.5"),
            (CountdownConfig { value_max: 2, duplicates: false, ..base() }, "2 values for 3"),
        ] {
            let message = Countdown::new(config, 0, Split::Train).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
