//! Traces of 3-SUM: triples with their sums, `x` after a miss and `y` after a hit.

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
        let read = read(attempt).map(|(places, stated)| {
            let all = places.map(|place| numbers.get(place).copied());
            let sum = all.into_iter().sum::<Option<u64>>().map(|sum| sum % modulus.max(1));
            let right = sum.is_some() && sum == stated;
            let distinct = places[0] != places[1] && places[1] != places[2] && places[0] != places[2];
            let solves = right && distinct && sum == Some(target);
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

/// The places of `a b d = 10` and the number that it states.
fn read(attempt: &str) -> Option<([usize; 3], Option<u64>)> {
    let (letters, sum) = attempt.split_once('=')?;
    let mut places = letters.split_whitespace().map(|letter| match letter.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
        _ => None,
    });
    let triple = [places.next()??, places.next()??, places.next()??];
    places.next().is_none().then_some((triple, sum.trim().parse().ok()))
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
            ("<think> a b d = 10 x b d e = 3 y </think> <answer> b d e </answer>", [2, 1, 2, 1, 0, 0, 0, 0, 1, 0, 1]),
            ("<think> a b d = 10 x </think> <answer> a b d </answer>", [1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0]),
            ("<think> a b d = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> b d e = 3 x b d e = 3 x a b", [2, 1, 2, 2, 0, 1, 0, 0, 0, 2, 2]),
            // An attempt that names one number twice, one without its place, or too many is none that solves.
            ("<think> a a z = 3 y </think>", [1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]),
            ("<think> a b c d = 3 y </think>", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("", [0; 11]),
        ] {
            assert_eq!(counts(&example, text).unwrap(), expected, "{text}");
        }
    }
}
