//! Countdown: combine all the numbers, each exactly once, into the target. Solvable by construction.
//! How numbers combine is the business of `chain`.

use std::ops::RangeInclusive;

use serde_json::json;

use super::chain::{Rules, Step, check_operations, expression};
use super::{Generated, Task, check_range, info, pick};
use crate::{Counted, Error, Example, table};

/// Countdown problems, seeded.
pub type Countdown = Generated<CountdownConfig>;

table! {
    /// Which problems to make.
    pub struct CountdownConfig {
        /// How many numbers a problem has, 2 to 6.
        pub numbers: usize = 3,
        /// Fewest numbers, where that varies; otherwise `numbers`.
        pub numbers_min: Option<usize> = None,
        /// Most numbers, where that varies; otherwise `numbers`.
        pub numbers_max: Option<usize> = None,
        /// Smallest number, at least 0.
        pub value_min: i64 = 1,
        /// Largest number.
        pub value_max: i64 = 20,
        /// Which of `+ - * /` may be used. Division is exact or not at all.
        pub operations: String = "+-*".into(),
        /// Smallest target.
        pub target_min: i64 = 1,
        /// Largest target.
        pub target_max: i64 = 99,
        /// Largest result of a step, the last included; none is negative.
        pub intermediate_max: i64 = 199,
        /// Whether a number may stand twice.
        pub duplicates: bool = true,
        /// Share of all problems that are held out.
        pub held_out: f64 = 0.1,
    }
}

/// Largest value, target and intermediate result: arithmetic on them stays far from overflow.
const LARGEST: i64 = 1_000_000_000;

impl CountdownConfig {
    /// How many numbers a problem can have.
    fn counts(&self) -> RangeInclusive<usize> {
        self.numbers_min.unwrap_or(self.numbers)..=self.numbers_max.unwrap_or(self.numbers)
    }

    /// Which steps are legal.
    pub(crate) fn rules(&self) -> Rules {
        Rules::new(&self.operations, self.intermediate_max)
    }

    fn numbers(&self, random: &mut Counted) -> Vec<i64> {
        let (fewest, most) = self.counts().into_inner();
        let count = fewest + random.below(most - fewest + 1);
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            let value = pick(random, self.value_min, self.value_max);
            if self.duplicates || !numbers.contains(&value) {
                numbers.push(value);
            }
        }
        numbers
    }
}

/// Numbers, and a chain of steps that solves them: its last result is the target.
#[derive(Debug, Clone, Default)]
pub struct CountdownProblem {
    pub(crate) numbers: Vec<i64>,
    pub(crate) solution: Vec<Step>,
}

impl CountdownProblem {
    pub(crate) fn target(&self) -> i64 {
        self.solution.last().map_or(0, |step| step.result)
    }
}

impl Task for CountdownConfig {
    type Problem = CountdownProblem;
    const NAME: &'static str = "countdown";
    const STREAM: u64 = 0xc0de;

    fn validate(&self) -> Result<(), Error> {
        let fail = |text: String| Err(Error::Config(text));
        let (fewest, most) = self.counts().into_inner();
        if fewest < 2 || most > 6 || fewest > most {
            return fail(format!("numbers = {fewest}..={most}: a range within 2..=6 is needed"));
        }
        check_range("value", self.value_min, self.value_max, 0..=LARGEST)?;
        check_range("target", self.target_min, self.target_max, 0..=LARGEST)?;
        check_range("intermediate", 0, self.intermediate_max, 0..=LARGEST)?;
        if self.target_min > self.intermediate_max {
            let (target, max) = (self.target_min, self.intermediate_max);
            return fail(format!("target_min = {target} is above intermediate_max = {max}: no step may reach it"));
        }
        let distinct = (self.value_max - self.value_min + 1) as usize;
        if !self.duplicates && distinct < most {
            return fail(format!("duplicates = false: there are {distinct} values for {most} numbers"));
        }
        check_operations(&self.operations)
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        let (fewest, most) = self.counts().into_inner();
        format!(
            "targets in {}..={} from {fewest} to {most} numbers in {}..={} with \"{}\" and steps up to {}",
            self.target_min, self.target_max, self.value_min, self.value_max, self.operations, self.intermediate_max
        )
    }

    fn draw(&self, random: &mut Counted) -> Option<CountdownProblem> {
        let numbers = self.numbers(random);
        let solution = self.rules().draw(&numbers, random)?;
        let problem = CountdownProblem { numbers, solution };
        (self.target_min..=self.target_max).contains(&problem.target()).then_some(problem)
    }

    /// Numbers in any order make the same problem.
    fn key(&self, problem: &CountdownProblem) -> Vec<u64> {
        let mut key: Vec<u64> = problem.numbers.iter().map(|&n| n as u64).collect();
        key.sort_unstable();
        key.push(problem.target() as u64);
        key
    }

    fn example(&self, id: String, problem: &CountdownProblem) -> Example {
        let list = problem.numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Example {
            id,
            question: format!("{list}:{}", problem.target()),
            answer: expression(&problem.solution).into(),
            messages: Vec::new(),
            info: info([("numbers", json!(problem.numbers)), ("target", json!(problem.target()))]),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Dataset, Split};

    fn source(config: CountdownConfig, seed: u64, split: Split) -> Countdown {
        Countdown::new(config, seed, split).unwrap()
    }

    fn read(example: &Example) -> (Vec<i64>, i64) {
        let numbers = example.info["numbers"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        (numbers, example.info["target"].as_i64().unwrap())
    }

    /// Value of a fully bracketed expression, and the numbers in it: a reader that shares nothing with the writer.
    pub(crate) fn evaluate(text: &str, used: &mut Vec<i64>) -> i64 {
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
    fn the_order_of_numbers_does_not_change_the_side() {
        let config = CountdownConfig::default();
        let rules = config.rules();
        let mut random = Counted::new(&[1]);
        let mut solve = |numbers: &[i64]| std::iter::repeat_with(|| rules.draw(numbers, &mut random)).flatten().next();
        for numbers in [[3, 11, 7], [5, 5, 2], [20, 1, 9]] {
            let solution = solve(&numbers).unwrap();
            let one = CountdownProblem { numbers: numbers.to_vec(), solution };
            let other = CountdownProblem { numbers: numbers.iter().rev().copied().collect(), ..one.clone() };
            assert_eq!(config.key(&one), config.key(&other));
        }
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
            (CountdownConfig { held_out: 1.0 - 1e-12, ..base() }, "train side"),
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
