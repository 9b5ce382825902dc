//! Parity: is the number of ones in `1011` even (0) or odd (1)? Easy bit by bit, and a coin flip in one guess.

use serde_json::json;

use super::traces::{Attempt, Attempts, Traced, Words};
use super::{Generated, Task, check_range, info, pick};
use crate::{Counted, Error, Example, table};

/// Parities, seeded.
pub type Parity = Generated<ParityConfig>;

table! {
    /// Which parities to ask for.
    pub struct ParityConfig {
        /// Fewest bits, at least 1.
        pub bits_min: usize = 16,
        /// Most bits, at most 1024.
        pub bits_max: usize = 20,
        /// Share of all bit strings that are held out.
        pub held_out: f64 = 0.1,
    }
}

impl Task for ParityConfig {
    /// The bits.
    type Problem = Vec<u8>;
    const NAME: &'static str = "parity";
    const STREAM: u64 = 0x9a41;

    fn validate(&self) -> Result<(), Error> {
        check_range("bits", self.bits_min, self.bits_max, 1..=1024)
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        format!("{} to {} bits", self.bits_min, self.bits_max)
    }

    fn draw(&self, random: &mut Counted) -> Option<Vec<u8>> {
        let count = pick(random, self.bits_min as i64, self.bits_max as i64);
        Some((0..count).map(|_| random.below(2) as u8).collect())
    }

    fn key(&self, problem: &Vec<u8>) -> Vec<u64> {
        std::iter::once(Self::STREAM).chain(problem.iter().map(|&bit| bit.into())).collect()
    }

    fn example(&self, id: String, problem: &Vec<u8>) -> Example {
        let question = problem.iter().map(ToString::to_string).collect();
        let ones = problem.iter().filter(|&&bit| bit == 1).count();
        Example {
            id,
            question,
            answer: (ones % 2).to_string().into(),
            messages: Vec::new(),
            info: info([("ones", json!(ones))]),
        }
    }
}

/// One attempt: the parity of the bits so far, after each bit, as the chain of thought of Tsilivis et al.
/// (arXiv:2510.11495). It is always right, and so is the answer of a trace that does not think.
impl Traced for ParityConfig {
    const WORDS: Words =
        Words { open: "<think>", wait: "", give_up: "", ok: "", dot: ".", close: "</think><answer>", end: "</answer>" };

    fn attempts<'a>(&'a self, problem: &'a Vec<u8>) -> Attempts<'a> {
        Box::new(move |_, _| {
            let mut odd = 0;
            let so_far = problem.iter().map(|bit| {
                odd ^= bit;
                odd.to_string()
            });
            let text = so_far.collect();
            Attempt { text, answer: odd.to_string(), correct: true }
        })
    }

    /// Each bit is a token by itself.
    fn tokens(thought: &str) -> usize {
        thought.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Split};

    #[test]
    fn the_answer_is_one_where_the_ones_are_odd() {
        let source = Parity::new(ParityConfig::default(), 1, Split::Train).unwrap();
        let mut odd = 0;
        for example in (0..400).map(|i| source.get(i)) {
            let one = example.question.bytes().fold(false, |odd, bit| odd ^ (bit == b'1'));
            assert_eq!(example.answer, if one { "1" } else { "0" }, "{}", example.question);
            assert!((16..=20).contains(&example.question.len()));
            odd += usize::from(one);
        }
        assert!((160..240).contains(&odd), "{odd} of 400");
    }
}
