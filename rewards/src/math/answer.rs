//! An answer that has been read: its text, its values under the possible rules for commas, and the verdict on a pair.

use std::collections::BTreeSet;

use super::clean::clean;
use super::clock;
use super::compare::Comparison;
use super::expr::Expr;
use super::fuel::Fuel;
use super::label;
use super::lexer::Commas;
use super::parser;
use super::text;
use super::value::{Brackets, Value};

/// Longest answer that is parsed, in bytes; a longer one is text.
const MAX_BYTES: usize = 4096;

/// An answer and the ways to read it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// In the spelling that is parsed.
    cleaned: String,
    plain: String,
    pub(crate) value: Value,
    /// Where it is a choice written out, its letter and what this stands for.
    choice: Option<(char, Box<Self>)>,
}

impl Answer {
    pub(crate) fn read(text: &str, fuel: &Fuel) -> Self {
        let cleaned = clean(text);
        let choice =
            label::split(&cleaned).map(|(letter, rest)| (letter, Box::new(Self::read_cleaned(rest.into(), fuel))));
        Self { choice, ..Self::read_cleaned(cleaned, fuel) }
    }

    fn read_cleaned(cleaned: String, fuel: &Fuel) -> Self {
        let parsed = if cleaned.len() <= MAX_BYTES { parser::parse(&cleaned, Commas::Grouping, fuel) } else { None };
        let value = parsed.unwrap_or_else(|| Value::Text(cleaned.clone()));
        Self { plain: text::plain(&cleaned), value, cleaned, choice: None }
    }

    /// Whether nothing is left once punctuation and layout are gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.cleaned.trim().is_empty()
    }

    /// Whether this is mathematics, not words.
    pub(crate) fn is_math(&self) -> bool {
        !matches!(self.value, Value::Text(_))
    }

    /// The other values that its commas allow.
    fn other_readings<'a>(&'a self, fuel: &'a Fuel) -> impl Iterator<Item = Value> + 'a {
        let ambiguous = self.cleaned.contains(',');
        let rules = if ambiguous { [Commas::Separating, Commas::Decimal].as_slice() } else { &[] };
        rules.iter().filter_map(|rule| parser::parse(&self.cleaned, *rule, fuel)).filter(|value| *value != self.value)
    }

    /// The operations that it leaves pending.
    fn pending(&self) -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        let mut see = |expr: &Expr| names.extend(expr.pending());
        match self.value.result() {
            Some(result) => result.visit(&mut see),
            None => self.value.visit(&mut see),
        }
        names
    }
}

/// Whether `answer` equals `reference`, and why or why not.
pub(crate) fn judge(
    reference: &Answer,
    answer: &Answer,
    places: u32,
    fuel: &Fuel,
) -> Result<&'static str, &'static str> {
    if reference.cleaned == answer.cleaned {
        return Ok("identical");
    }
    if let Some(verdict) = judge_choices(reference, answer, places, fuel) {
        return verdict;
    }
    match clock::same(&reference.plain, &answer.plain) {
        Some(true) => return Ok("the same time"),
        Some(false) => return Err("another time"),
        None => {}
    }
    let words = !(reference.is_math() && answer.is_math());
    let short = |answer: &Answer| answer.plain.len() <= 1 || matches!(answer.value, Value::Text(_));
    if (words || short(reference)) && text::same(&reference.plain, &answer.plain) && same_case(reference, answer) {
        return Ok("the same words");
    }
    if !answer.pending().is_subset(&reference.pending()) {
        return Err("restates the question");
    }
    let comparison = Comparison { fuel, places };
    if comparison.same(&reference.value, &answer.value) {
        return Ok("equal");
    }
    // Commas that separate on one side may group digits or stand for the point on the other.
    let pairs = |reference: &Value, answer: &Value| is_list(reference) != is_list(answer);
    if pairs(&reference.value, &answer.value) {
        let reread = answer.other_readings(fuel).any(|value| comparison.same(&reference.value, &value))
            || reference.other_readings(fuel).any(|value| comparison.same(&value, &answer.value));
        if reread {
            return Ok("equal");
        }
    }
    if fuel.is_empty() { Err("not equal within the bounds on work") } else { Err("not equal") }
}

/// The verdict where a side is a choice written out: a letter alone is compared with its letter, all else with what
/// this stands for.
fn judge_choices(
    reference: &Answer,
    answer: &Answer,
    places: u32,
    fuel: &Fuel,
) -> Option<Result<&'static str, &'static str>> {
    let alone = |side: &Answer| side.plain.len() == 1 && side.plain.starts_with(|c: char| c.is_ascii_alphabetic());
    let is = |side: &Answer, letter: &char| side.plain.starts_with(letter.to_ascii_lowercase());
    let (same, what) = match (&reference.choice, &answer.choice) {
        (None, None) => return None,
        (Some((a, x)), Some((b, y))) => (a == b, Some((&**x, &**y))),
        (Some((letter, _)), None) if alone(answer) => (is(answer, letter), None),
        (None, Some((letter, _))) if alone(reference) => (is(reference, letter), None),
        (Some((_, what)), None) => (true, Some((&**what, answer))),
        (None, Some((_, what))) => (true, Some((reference, &**what))),
    };
    Some(match what {
        _ if !same => Err("another choice"),
        None => Ok("the same choice"),
        Some((reference, answer)) => judge(reference, answer, places, fuel),
    })
}

/// Symbols keep their case; words do not.
fn same_case(reference: &Answer, answer: &Answer) -> bool {
    !(reference.is_math() && answer.is_math()) || reference.cleaned.trim() == answer.cleaned.trim()
}

fn is_list(value: &Value) -> bool {
    matches!(value, Value::Collection(brackets, _) if *brackets != Brackets::Either)
}
