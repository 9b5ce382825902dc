//! Multiplication of whole numbers with a given count of digits: `347*82`.

use serde_json::json;

use super::{Generated, Task, check_range, info};
use crate::{Counted, Error, Example, table};

/// Products, seeded.
pub type Multiplication = Generated<MultiplicationConfig>;

table! {
    /// Which products to ask for.
    pub struct MultiplicationConfig {
        /// Fewest digits of a factor, at least 1.
        pub digits_min: usize = 2,
        /// Most digits, at most 18.
        pub digits_max: usize = 3,
        /// Share of all products that are held out.
        pub held_out: f64 = 0.1,
    }
}

impl Task for MultiplicationConfig {
    type Problem = [u64; 2];
    const NAME: &'static str = "multiplication";
    const STREAM: u64 = 0x3217;

    fn validate(&self) -> Result<(), Error> {
        check_range("digits", self.digits_min, self.digits_max, 1..=18)
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        format!("factors of {} to {} digits", self.digits_min, self.digits_max)
    }

    fn draw(&self, random: &mut Counted) -> Option<[u64; 2]> {
        let mut factor = || {
            let digits = self.digits_min + random.below(self.digits_max - self.digits_min + 1);
            let low = if digits == 1 { 0 } else { 10u64.pow(digits as u32 - 1) };
            low + random.below((10u64.pow(digits as u32) - low) as usize) as u64
        };
        Some([factor(), factor()])
    }

    /// Factors in either order make the same problem.
    fn key(&self, problem: &[u64; 2]) -> Vec<u64> {
        let [a, b] = *problem;
        vec![Self::STREAM, a.min(b), a.max(b)]
    }

    fn example(&self, id: String, &[a, b]: &[u64; 2]) -> Example {
        let answer = (u128::from(a) * u128::from(b)).to_string().into();
        Example {
            id,
            question: format!("{a}*{b}"),
            answer,
            messages: Vec::new(),
            info: info([("factors", json!([a, b]))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Split};

    #[test]
    fn factors_have_the_digits_asked_for_and_their_product_is_exact() {
        for (digits_min, digits_max) in [(1, 1), (2, 3), (18, 18)] {
            let config = MultiplicationConfig { digits_min, digits_max, held_out: 0.5 };
            let source = Multiplication::new(config, 1, Split::Train).unwrap();
            for example in (0..200).map(|i| source.get(i)) {
                let (a, b) = example.question.split_once('*').unwrap();
                assert!([a, b].iter().all(|f| (digits_min..=digits_max).contains(&f.len())), "{}", example.question);
                let product: u128 = a.parse::<u128>().unwrap() * b.parse::<u128>().unwrap();
                assert_eq!(example.answer, *product.to_string());
            }
        }
    }

    #[test]
    fn digits_out_of_range_are_refused() {
        let config = MultiplicationConfig { digits_max: 19, ..MultiplicationConfig::default() };
        let message = Multiplication::new(config, 0, Split::Train).unwrap_err().to_string();
        assert!(message.contains("digits_min..=digits_max = 2..=19"), "{message}");
    }
}
