//! An answer that has been read: its text, its values under the possible rules for commas, and the verdict on a pair.

use std::collections::BTreeSet;

use super::clean::clean;
use super::compare::Comparison;
use super::expr::Expr;
use super::fuel::Fuel;
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
}

impl Answer {
    pub(crate) fn read(text: &str, fuel: &Fuel) -> Self {
        let cleaned = clean(text);
        let parsed = if cleaned.len() <= MAX_BYTES { parser::parse(&cleaned, Commas::Grouping, fuel) } else { None };
        let value = parsed.unwrap_or_else(|| Value::Text(cleaned.clone()));
        Self { plain: text::plain(&cleaned), value, cleaned }
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

/// Symbols keep their case; words do not.
fn same_case(reference: &Answer, answer: &Answer) -> bool {
    !(reference.is_math() && answer.is_math()) || reference.cleaned.trim() == answer.cleaned.trim()
}

fn is_list(value: &Value) -> bool {
    matches!(value, Value::Collection(brackets, _) if *brackets != Brackets::Either)
}
