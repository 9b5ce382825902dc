//! Chained arithmetic: what is `((4+7)*3)-5`? Every step is exact and stays in range.
//! How numbers combine is the business of `chain`.

use serde_json::json;

use super::chain::{Rules, Step, check_operations, expression};
use super::{Generated, Task, check_range, info, pick};
use crate::{Counted, Error, Example, table};

/// Chained arithmetic, seeded.
pub type Arithmetic = Generated<ArithmeticConfig>;

table! {
    /// Which calculations to ask for.
    pub struct ArithmeticConfig {
        /// Fewest numbers of a calculation, at least 2.
        pub terms_min: usize = 3,
        /// Most numbers, at most 32.
        pub terms_max: usize = 4,
        /// Smallest number, at least 0.
        pub value_min: i64 = 1,
        /// Largest number.
        pub value_max: i64 = 20,
        /// Which of `+ - * /` are used. Division is exact or not at all.
        pub operations: String = "+-*".into(),
        /// Largest result of a step, the last included; none is negative.
        pub result_max: i64 = 999,
        /// Share of all calculations that are held out.
        pub held_out: f64 = 0.1,
    }
}

impl Task for ArithmeticConfig {
    type Problem = Calculation;
    const NAME: &'static str = "arithmetic";
    const STREAM: u64 = 0xa517;

    fn validate(&self) -> Result<(), Error> {
        check_range("terms", self.terms_min, self.terms_max, 2..=32)?;
        check_range("value", self.value_min, self.value_max, 0..=1_000_000_000)?;
        check_range("result", 0, self.result_max, 0..=1_000_000_000)?;
        check_operations(&self.operations)
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        format!(
            "{} to {} numbers in {}..={} with \"{}\" and steps up to {}",
            self.terms_min, self.terms_max, self.value_min, self.value_max, self.operations, self.result_max
        )
    }

    fn draw(&self, random: &mut Counted) -> Option<Calculation> {
        let terms = pick(random, self.terms_min as i64, self.terms_max as i64);
        let numbers: Vec<i64> = (0..terms).map(|_| pick(random, self.value_min, self.value_max)).collect();
        let steps = Rules::new(&self.operations, self.result_max).draw(&numbers, random)?;
        Some(Calculation { steps })
    }

    fn key(&self, problem: &Calculation) -> Vec<u64> {
        expression(&problem.steps).bytes().map(u64::from).collect()
    }

    fn example(&self, id: String, problem: &Calculation) -> Example {
        let result = problem.steps.last().map_or(0, |step| step.result);
        let info = info([("steps", json!(problem.steps.len()))]);
        Example {
            id,
            question: expression(&problem.steps),
            answer: result.to_string().into(),
            messages: Vec::new(),
            info,
        }
    }
}

/// A calculation, step by step.
#[derive(Debug, Clone)]
pub struct Calculation {
    steps: Vec<Step>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Split};

    #[test]
    fn the_answer_is_the_value_of_the_expression() {
        let deep = ArithmeticConfig { terms_min: 6, terms_max: 6, operations: "+-*/".into(), ..Default::default() };
        for config in [ArithmeticConfig::default(), deep] {
            let source = Arithmetic::new(config, 1, Split::Train).unwrap();
            for example in (0..300).map(|i| source.get(i)) {
                let mut used = Vec::new();
                let value = crate::generate::countdown::tests::evaluate(&example.question, &mut used);
                assert_eq!(example.answer, *value.to_string(), "{}", example.question);
                assert_eq!(used.len() as u64, example.info["steps"].as_u64().unwrap() + 1);
            }
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_value() {
        let base = ArithmeticConfig::default;
        for (config, expected) in [
            (ArithmeticConfig { terms_min: 1, ..base() }, "terms_min..=terms_max = 1..=4"),
            (ArithmeticConfig { value_min: 30, ..base() }, "30..=20"),
            (ArithmeticConfig { operations: "%".into(), ..base() }, "'%'"),
            (
                ArithmeticConfig { operations: "*".into(), value_min: 15, result_max: 99, ..base() },
                "no arithmetic problem",
            ),
        ] {
            let message = Arithmetic::new(config, 0, Split::Train).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
