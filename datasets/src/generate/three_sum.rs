//! 3-SUM: which three of the numbers `a` to `f` sum to the target, modulo a given number? Exactly one triple does, so
//! that a blind guess is right once in as many times as there are triples.

use serde_json::json;

use super::traces::{Attempt, Attempts, Traced, Words};
use super::{Generated, Task};
use crate::{Counted, Error, Example, table};

/// 3-SUM problems, seeded.
pub type ThreeSum = Generated<ThreeSumConfig>;

table! {
    /// Which sums to ask for.
    pub struct ThreeSumConfig {
        /// How many numbers there are to choose from, 3 to 26; all are different.
        pub numbers: usize = 6,
        /// Numbers lie in `0..modulus`, and sums count modulo it.
        pub modulus: u64 = 50,
        /// Share of all problems that are held out.
        pub held_out: f64 = 0.1,
    }
}

/// Numbers and the places of the triple that sums to the target.
#[derive(Debug, Clone)]
pub struct Triple {
    numbers: Vec<u64>,
    places: [usize; 3],
    target: u64,
}

impl ThreeSumConfig {
    /// Every triple of places whose numbers sum to `target`.
    fn solutions(&self, numbers: &[u64], target: u64) -> Vec<[usize; 3]> {
        let n = numbers.len();
        let triples = (0..n).flat_map(|i| (i + 1..n).flat_map(move |j| (j + 1..n).map(move |k| [i, j, k])));
        triples.filter(|places| self.sum(numbers, places) == target).collect()
    }

    fn sum(&self, numbers: &[u64], places: &[usize; 3]) -> u64 {
        places.iter().map(|&place| numbers[place]).sum::<u64>() % self.modulus
    }

    /// The triple with its numbers and the sums of two and of three.
    fn steps(&self, numbers: &[u64], places: &[usize; 3]) -> String {
        let [(a, x), (b, y), (c, z)] = places.map(|place| (letter(place), numbers[place]));
        let two = (x + y) % self.modulus;
        format!(" {a} {x} {b} {y} = {two} {c} {z} = {}", (two + z) % self.modulus)
    }
}

impl Task for ThreeSumConfig {
    type Problem = Triple;
    const NAME: &'static str = "three-sum";
    const STREAM: u64 = 0x35a1;

    fn validate(&self) -> Result<(), Error> {
        let Self { numbers, modulus, .. } = *self;
        if !(3..=26).contains(&numbers) {
            return Err(Error::Config(format!("numbers = {numbers}: 3 to 26 are needed, a letter for each")));
        }
        if modulus < numbers as u64 || modulus > 1_000_000_000 {
            return Err(Error::Config(format!(
                "modulus = {modulus}: a number in {numbers}..=1000000000 is needed, or the numbers cannot differ"
            )));
        }
        Ok(())
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        format!("{} numbers modulo {} with one triple that fits", self.numbers, self.modulus)
    }

    fn draw(&self, random: &mut Counted) -> Option<Triple> {
        let mut numbers = Vec::with_capacity(self.numbers);
        while numbers.len() < self.numbers {
            let number = random.below(self.modulus as usize) as u64;
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let mut places: Vec<usize> = (0..self.numbers).collect();
        random.shuffle(&mut places);
        let target = self.sum(&numbers, &[places[0], places[1], places[2]]);
        match self.solutions(&numbers, target).as_slice() {
            &[places] => Some(Triple { numbers, places, target }),
            _ => None,
        }
    }

    /// Numbers in any order make the same problem.
    fn key(&self, problem: &Triple) -> Vec<u64> {
        let mut key = problem.numbers.clone();
        key.sort_unstable();
        key.extend([Self::STREAM, problem.target, self.modulus]);
        key
    }

    fn example(&self, id: String, problem: &Triple) -> Example {
        let list = problem.numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let info =
            [("numbers", json!(problem.numbers)), ("sum", json!(problem.target)), ("modulus", json!(self.modulus))];
        Example {
            id,
            question: format!("{list} ? {}", problem.target),
            answer: letters(&problem.places).into(),
            messages: Vec::new(),
            info: super::info(info),
        }
    }
}

/// Triples such as `a 12 b 7 = 19 d 41 = 10`, each number read off its place and added to the sum so far, with `x` after a
/// miss and `y` after a hit. Written as `a b d = 10`, a tiny model never learned to add: it would have had to find three
/// numbers and add them at once.
impl Traced for ThreeSumConfig {
    const WORDS: Words = Words {
        open: "<think>",
        wait: " x",
        give_up: " x",
        ok: " y",
        dot: " .",
        close: " </think> <answer> ",
        end: " </answer>",
    };

    fn attempts<'a>(&'a self, problem: &'a Triple) -> Attempts<'a> {
        Box::new(move |solve, random| {
            let mut places: Vec<usize> = (0..problem.numbers.len()).collect();
            random.shuffle(&mut places);
            let mut places = if solve { problem.places } else { [places[0], places[1], places[2]] };
            places.sort_unstable();
            let (answer, sum) = (letters(&places), self.sum(&problem.numbers, &places));
            Attempt { text: self.steps(&problem.numbers, &places), answer, correct: sum == problem.target }
        })
    }
}

/// Places as the letters of an answer, such as `b d e`.
fn letters(places: &[usize; 3]) -> String {
    places.map(|place| letter(place).to_string()).join(" ")
}

fn letter(place: usize) -> char {
    char::from(b'a' + place as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Split};

    #[test]
    fn exactly_the_answer_sums_to_the_target() {
        let source = ThreeSum::new(ThreeSumConfig::default(), 1, Split::HeldOut).unwrap();
        for example in (0..200).map(|i| source.get(i)) {
            let (numbers, target) = example.question.split_once(" ? ").unwrap();
            let numbers: Vec<u64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            let place = |letter: &str| usize::from(letter.as_bytes()[0] - b'a');
            let answer: Vec<usize> = example.answer.split(' ').map(place).collect();
            assert!(answer.is_sorted() && answer.len() == 3, "{}", example.answer);
            let mut fitting = 0;
            for mask in (0u32..64).filter(|mask| mask.count_ones() == 3) {
                let sum: u64 = (0..6).filter(|i| mask >> i & 1 == 1).map(|i| numbers[i]).sum();
                let fits = (sum % 50).to_string() == target;
                fitting += u32::from(fits);
                assert_eq!(fits, answer.iter().all(|i| mask >> i & 1 == 1), "{}", example.question);
            }
            assert_eq!(fitting, 1);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_value() {
        for (numbers, modulus, expected) in [(2, 50, "numbers = 2"), (6, 5, "modulus = 5")] {
            let config = ThreeSumConfig { numbers, modulus, held_out: 0.1 };
            let message = ThreeSum::new(config, 0, Split::Train).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
