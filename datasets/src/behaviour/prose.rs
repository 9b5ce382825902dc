//! Countdown in a language model's own words. What can be read without a judge are its equations, such as
//! `44 + 19 + 35 = 98`, and whether a word on the outcome follows them; words of doubt are left to lists of key words.

use super::search::{countdown, thinking};
use super::{Fold, Measure};
use crate::Example;

pub(super) const MEASURES: &[Measure] = &[
    Measure { name: "equations", meaning: "formulas with a stated value in the thinking", fold: Fold::Mean(0) },
    Measure {
        name: "checked_equations",
        meaning: "equations followed, before the next, by a word on the outcome, such as `too high` or `works`",
        fold: Fold::Mean(1),
    },
    Measure {
        name: "solving_equations",
        meaning: "equations that use every number once and reach the target",
        fold: Fold::Mean(2),
    },
    Measure { name: "repeats", meaning: "equations whose formula stood before in the completion", fold: Fold::Mean(3) },
    Measure { name: "repeat_share", meaning: "repeats / equations", fold: Fold::Share(3, 0) },
    Measure { name: "slips", meaning: "equations with a wrong value", fold: Fold::Mean(4) },
];

/// Words on the outcome of an equation; those of mini-R1's traces and their opposites.
const OUTCOMES: [&str; 13] = [
    "not ",
    "too high",
    "too low",
    "too big",
    "too small",
    "too large",
    "works",
    "correct",
    "wrong",
    "equals the target",
    "≠",
    "!=",
    "n't",
];

/// In the order of [`MEASURES`].
pub(super) fn counts(example: &Example, completion: &str) -> Option<Vec<usize>> {
    let (mut numbers, target) = countdown(example)?;
    numbers.sort_unstable();
    let thought = thinking(completion).0.to_lowercase();
    let found = equations(&thought);
    let (mut checked, mut solving, mut repeats, mut slips) = (0, 0, 0, 0);
    for (place, equation) in found.iter().enumerate() {
        let end = found.get(place + 1).map_or(thought.len(), |next| next.start);
        let after = thought.get(equation.end..end).unwrap_or_default();
        let mut used = equation.numbers.clone();
        used.sort_unstable();
        checked += usize::from(OUTCOMES.iter().any(|word| after.contains(word)));
        solving += usize::from(equation.right && used == numbers && equation.stated == target as f64);
        repeats += usize::from(found[..place].iter().any(|earlier| earlier.formula == equation.formula));
        slips += usize::from(!equation.right);
    }
    Some(vec![found.len(), checked, solving, repeats, slips])
}

/// A formula with a stated value.
struct Equation {
    /// Where it stands, in bytes.
    start: usize,
    end: usize,
    /// Without spaces.
    formula: String,
    numbers: Vec<i64>,
    stated: f64,
    right: bool,
}

/// The longest formulas of this many signs are read.
const LONGEST: usize = 200;

fn equations(text: &str) -> Vec<Equation> {
    text.match_indices('=').filter_map(|(at, _)| equation(text, at)).collect()
}

/// The equation whose sign stands at `at`.
fn equation(text: &str, at: usize) -> Option<Equation> {
    let part = |c: &char| c.is_ascii_digit() || " +-*/×÷().".contains(*c);
    let length = text[..at].chars().rev().take(LONGEST).take_while(part).map(char::len_utf8).sum::<usize>();
    let run = &text[at - length..at];
    // What precedes the formula may end in signs of its own, such as a list's dash or the end of a sentence.
    let formula = run.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '(').trim();
    let formula = formula.rsplit(". ").next()?;
    let start = at - (run.len() - run.rfind(formula)?);
    let mut reader = Reader { rest: formula, numbers: Vec::new(), depth: 0 };
    let value = reader.sum()?;
    if !reader.rest.trim().is_empty() || reader.numbers.len() < 2 {
        return None;
    }
    let tail = text[at + 1..].trim_start();
    let digits = tail.char_indices().find(|(i, c)| !(c.is_ascii_digit() || *c == '-' && *i == 0 || *c == '.'));
    let stated_text = tail[..digits.map_or(tail.len(), |(i, _)| i)].trim_end_matches('.');
    let stated: f64 = stated_text.parse().ok()?;
    let end = text.len() - tail.len() + stated_text.len();
    let formula = formula.replace(' ', "");
    let right = (value - stated).abs() < 1e-6;
    Some(Equation { start, end, formula, numbers: reader.numbers, stated, right })
}

/// Reads sums of products of numbers and brackets.
struct Reader<'a> {
    rest: &'a str,
    numbers: Vec<i64>,
    depth: usize,
}

impl Reader<'_> {
    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        while let Some(sign) = self.sign(&['+', '-']) {
            let next = self.product()?;
            value += if sign == '+' { next } else { -next };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.factor()?;
        while let Some(sign) = self.sign(&['*', '/', '×', '÷']) {
            let next = self.factor()?;
            value = if matches!(sign, '*' | '×') { value * next } else { value / next };
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<f64> {
        if self.sign(&['(']).is_some() {
            self.depth += 1;
            let value = if self.depth > 32 { None } else { self.sum() };
            self.depth -= 1;
            return value.filter(|_| self.sign(&[')']).is_some());
        }
        let rest = self.rest.trim_start();
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..length].parse().ok()?;
        self.rest = &rest[length..];
        self.numbers.push(number);
        Some(number as f64)
    }

    fn sign(&mut self, signs: &[char]) -> Option<char> {
        let rest = self.rest.trim_start();
        let sign = rest.chars().next().filter(|c| signs.contains(c))?;
        self.rest = &rest[sign.len_utf8()..];
        Some(sign)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equations_are_found_in_prose() {
        let info = [("numbers", json!([44, 19, 35])), ("target", json!(98))];
        let info = info.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let example = Example { info, ..Example::default() };
        // Equations, checked, solving, repeats, slips.
        for (text, expected) in [
            ("Let me see: 44 + 19 = 63 (too low), 44 + 19 + 35 = 98. This works.</think>", [2, 2, 1, 0, 0]),
            ("- 44+19=63\n- 44 + 19 = 64, which is not 98", [2, 1, 0, 1, 1]),
            ("(44 - 19) * 35 = 875; that is too high", [1, 1, 0, 0, 0]),
            ("I try 44 / 19 = 2. 3 + 35 = 38.", [2, 0, 0, 0, 1]),
            ("44 + (19 + 35) = 98 = 98", [1, 0, 1, 0, 0]),
            ("x = 5, 98 = 98, = =, 44 + = 3", [0, 0, 0, 0, 0]),
            ("<think>none</think> 44 + 19 = 63", [0, 0, 0, 0, 0]),
        ] {
            assert_eq!(counts(&example, text).unwrap(), expected, "{text}");
        }
    }
}
