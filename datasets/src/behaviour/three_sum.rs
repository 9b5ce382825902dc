//! Traces of 3-SUM: triples with their numbers and sums, `x` after a miss and `y` after a hit.

use serde_json::Value;

use super::search::{TraceStats, Tried, Word, thinking};
use crate::Example;

/// In the order of [`search::MEASURES`](super::search::MEASURES).
pub(super) fn counts(example: &Example, completion: &str) -> Option<Vec<usize>> {
    let number = |key: &str| example.info.get(key)?.as_u64();
    let (target, modulus) = (number("sum")?, number("modulus")?);
    let numbers: Vec<u64> = example.info.get("numbers")?.as_array()?.iter().filter_map(Value::as_u64).collect();
    let (thought, closed) = thinking(completion);
    let (mut parts, mut rest) = (Vec::new(), thought);
    while !rest.is_empty() {
        let (attempt, word, after) = next_word(rest);
        rest = after;
        let read = Steps::read(attempt).map(|steps| {
            let right = steps.right(&numbers, modulus.max(1));
            let solves = right && steps.distinct() && steps.sums[1] == target;
            Tried { text: attempt.trim(), slips: usize::from(!right), solves }
        });
        parts.push((read, word));
    }
    Some(TraceStats::sum(&parts, closed).counts())
}

/// The text up to the first `x` or `y` that stands alone, which of them it is, and the text after it.
fn next_word(text: &str) -> (&str, Word, &str) {
    let alone = |at: usize| {
        let before = text[..at].chars().next_back().is_none_or(char::is_whitespace);
        before && text[at + 1..].chars().next().is_none_or(char::is_whitespace)
    };
    match text.match_indices(['x', 'y']).find(|(at, _)| alone(*at)) {
        Some((at, "x")) => (&text[..at], Word::Wait, &text[at + 1..]),
        Some((at, _)) => (&text[..at], Word::Ok, &text[at + 1..]),
        None => (text, Word::End, ""),
    }
}

/// What `a 12 b 7 = 19 d 41 = 10` states.
struct Steps {
    places: [usize; 3],
    /// At those places.
    numbers: [u64; 3],
    /// Of two numbers, and of all.
    sums: [u64; 2],
}

impl Steps {
    fn read(attempt: &str) -> Option<Self> {
        let place = |word: &str| match word.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
            _ => None,
        };
        let words: Vec<&str> = attempt.split_whitespace().collect();
        let &[a, x, b, y, "=", two, c, z, "=", all] = words.as_slice() else { return None };
        Some(Self {
            places: [place(a)?, place(b)?, place(c)?],
            numbers: [x.parse().ok()?, y.parse().ok()?, z.parse().ok()?],
            sums: [two.parse().ok()?, all.parse().ok()?],
        })
    }

    /// Whether each number is the one at its place, and each sum that of what stands before it.
    fn right(&self, numbers: &[u64], modulus: u64) -> bool {
        let Self { places, numbers: [x, y, z], sums: [two, all] } = *self;
        let read = places.iter().zip([x, y, z]).all(|(&place, number)| numbers.get(place) == Some(&number));
        // Numbers that were read are those of the problem, far from the end of their type.
        read && (x + y) % modulus == two && (two + z) % modulus == all
    }

    fn distinct(&self) -> bool {
        let [a, b, c] = self.places;
        a != b && b != c && a != c
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attempts_and_checks_are_those_of_the_text() {
        let numbers = json!([12, 7, 33, 41, 5, 20]);
        let info = [("numbers", numbers), ("sum", json!(3)), ("modulus", json!(50))];
        let info = info.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let example = Example { info, ..Example::default() };
        // Attempts, backtracks, checked, waits, gave up, repeats, slips, false oks, misses, false waits, hits.
        for (text, expected) in [
            (
                "<think> a 12 b 7 = 19 d 41 = 10 x b 7 d 41 = 48 e 5 = 3 y </think> <answer> b d e </answer>",
                [2, 1, 2, 1, 0, 0, 0, 0, 1, 0, 1],
            ),
            ("<think> a 12 b 7 = 19 d 41 = 10 x </think> <answer> a b d </answer>", [1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0]),
            // A sum that is wrong in its first half, in its second, and a number that is not at its place.
            ("<think> a 12 b 7 = 12 d 41 = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> a 12 b 7 = 19 d 41 = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> a 12 b 7 = 19 d 34 = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> b 7 d 41 = 48 e 5 = 3 x b 7 d 41 = 48 e 5 = 3 x a 12 b", [2, 1, 2, 2, 0, 1, 0, 0, 0, 2, 2]),
            // A letter without a place is a slip, a number named twice solves nothing; what has other words is no attempt.
            ("<think> a 12 b 7 = 19 z 34 = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> a 12 a 12 = 24 f 20 = 44 x </think>", [1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0]),
            ("<think> a b d = 3 y </think>", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("", [0; 11]),
        ] {
            assert_eq!(counts(&example, text).unwrap(), expected, "{text}");
        }
    }
}
