//! Chains: calculations from left to right that use every number once, such as `1*10=10,10+15=25`.
//! Which steps are legal, all chains of a few numbers, and single chains drawn at random. Knows nothing of targets.

use std::fmt::Write;

use crate::{Counted, Error};

/// One step of a chain: `left operation right = result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) left: i64,
    pub(crate) operation: char,
    pub(crate) right: i64,
    pub(crate) result: i64,
    /// Whether the result so far stands on the left. Always so in the first step.
    pub(crate) running_left: bool,
}

/// Which steps are legal.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Operation, and whether the result so far stands on its left.
    moves: Vec<(char, bool)>,
    /// How many of `moves`, from the front, a first step may use: it takes its pair in either order as it is.
    first: usize,
    intermediate_max: i64,
}

impl Rules {
    pub(crate) fn new(operations: &str, intermediate_max: i64) -> Self {
        let mut moves: Vec<(char, bool)> = operations.chars().map(|operation| (operation, true)).collect();
        let first = moves.len();
        if operations.contains('-') {
            moves.push(('-', false));
        }
        Self { moves, first, intermediate_max }
    }

    /// A chain drawn uniformly among the legal ones if this is repeated until it is `Some`.
    pub(crate) fn draw(&self, numbers: &[i64], random: &mut Counted) -> Option<Vec<Step>> {
        let mut order = numbers.to_vec();
        random.shuffle(&mut order);
        let (&start, rest) = order.split_first()?;
        let mut running = start;
        let mut chain = Vec::with_capacity(rest.len());
        for &next in rest {
            let bound = if chain.is_empty() { self.first } else { self.moves.len() };
            let step = self.step(running, next, self.moves[random.below(bound)])?;
            running = step.result;
            chain.push(step);
        }
        Some(chain)
    }

    /// Every legal chain once, one after the other: `numbers.len() - 1` steps each.
    pub(crate) fn all(&self, numbers: &[i64]) -> Vec<Step> {
        let mut found = Vec::new();
        self.extend(None, &mut numbers.to_vec(), &mut Vec::with_capacity(numbers.len()), &mut found);
        found
    }

    /// Goes on from `path`, whose result is `running`, with the numbers that are left.
    fn extend(&self, running: Option<i64>, left: &mut Vec<i64>, path: &mut Vec<Step>, found: &mut Vec<Step>) {
        if left.is_empty() {
            found.extend_from_slice(path);
        }
        for i in 0..left.len() {
            // A number that stands twice is taken once at each place, else its chains would count twice.
            if left[..i].contains(&left[i]) {
                continue;
            }
            let next = left.remove(i);
            let Some(running) = running else {
                self.extend(Some(next), left, path, found);
                left.insert(i, next);
                continue;
            };
            let bound = if path.is_empty() { self.first } else { self.moves.len() };
            for step in self.moves[..bound].iter().filter_map(|&m| self.step(running, next, m)) {
                path.push(step);
                self.extend(Some(step.result), left, path, found);
                path.pop();
            }
            left.insert(i, next);
        }
    }

    fn step(&self, running: i64, next: i64, (operation, running_left): (char, bool)) -> Option<Step> {
        let (left, right) = if running_left { (running, next) } else { (next, running) };
        // Between equal numbers both orders read the same; one of them counts.
        let twin = !running_left && left == right;
        let result = value(left, operation, right).filter(|_| !twin)?;
        let legal = (0..=self.intermediate_max).contains(&result);
        legal.then_some(Step { left, operation, right, result, running_left })
    }
}

/// Refuses operations that there are not, or none at all.
pub(crate) fn check_operations(operations: &str) -> Result<(), Error> {
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

/// The value of one operation; `None` for a division that leaves a rest, an overflow, or an unknown operation.
pub(crate) fn value(left: i64, operation: char, right: i64) -> Option<i64> {
    match operation {
        '+' => left.checked_add(right),
        '-' => left.checked_sub(right),
        '*' => left.checked_mul(right),
        '/' => left.checked_rem(right).filter(|&rest| rest == 0).and_then(|_| left.checked_div(right)),
        _ => None,
    }
}

/// The chain as an expression without outer brackets, such as `15-(1*10)`.
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

/// Appends the chain step by step, such as `15-10=5,5-1=4`.
pub(crate) fn write_steps(chain: &[Step], text: &mut String) {
    for (i, step) in chain.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{comma}{}{}{}={}", step.left, step.operation, step.right, step.result);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn text(chain: &[Step]) -> String {
        let mut text = String::new();
        write_steps(chain, &mut text);
        text
    }

    fn texts(rules: &Rules, numbers: &[i64]) -> Vec<String> {
        rules.all(numbers).chunks(numbers.len() - 1).map(text).collect()
    }

    #[test]
    fn all_chains_are_those_counted_by_hand() {
        for (operations, numbers, expected) in [
            ("+", vec![2, 3], vec!["2+3=5", "3+2=5"]),
            ("-", vec![2, 3], vec!["3-2=1"]),
            ("/", vec![6, 3], vec!["6/3=2"]),
            ("/", vec![0, 3], vec!["0/3=0"]),
            ("+", vec![4, 4], vec!["4+4=8"]),
            ("*", vec![20, 10], vec![]),
            ("-", vec![9, 5, 4], vec!["9-5=4,4-4=0", "9-4=5,5-5=0", "5-4=1,9-1=8"]),
        ] {
            let found = texts(&Rules::new(operations, 199), &numbers);
            let sorted = |texts: &[String]| texts.iter().cloned().collect::<HashSet<_>>();
            let expected: Vec<String> = expected.into_iter().map(String::from).collect();
            assert_eq!(sorted(&found), sorted(&expected), "{operations} on {numbers:?}");
            assert_eq!(found.len(), expected.len(), "{operations} on {numbers:?} repeats a chain");
        }
    }

    #[test]
    fn random_chains_are_uniform_over_all_of_them() {
        let rules = Rules::new("+-*/", 199);
        for numbers in [[15, 10, 1], [7, 7, 2], [9, 5, 4]] {
            let all = texts(&rules, &numbers);
            let mut random = Counted::new(&[5]);
            let mut seen: HashMap<String, usize> = HashMap::new();
            let draws = 400 * all.len();
            for chain in std::iter::repeat_with(|| rules.draw(&numbers, &mut random)).flatten().take(draws) {
                *seen.entry(text(&chain)).or_default() += 1;
            }
            assert_eq!(seen.len(), all.len());
            // Expected 400 each, standard deviation 20.
            assert!(seen.values().all(|count| (300..500).contains(count)), "{numbers:?}: {seen:?}");
        }
    }

    #[test]
    fn expressions_mirror_the_steps() {
        let rules = Rules::new("+-*", 199);
        let all = rules.all(&[15, 10, 1]);
        let pairs: HashMap<String, String> = all.chunks(2).map(|chain| (text(chain), expression(chain))).collect();
        for (steps, expected) in
            [("1*10=10,10+15=25", "(1*10)+15"), ("1*10=10,15-10=5", "15-(1*10)"), ("15-10=5,5-1=4", "(15-10)-1")]
        {
            assert_eq!(pairs[steps], expected);
        }
    }
}
