//! Equality of typed values. Relations have a file of their own, [`super::relation`].

use dashu_ratio::RBig;

use super::exact;
use super::expr::{Constant, Expr, Number};
use super::fuel::Fuel;
use super::poly::Fraction;
use super::probe;
use super::region::{self, Region};
use super::text;
use super::units::Unit;
use super::value::{self, Brackets, Value};

/// How two values are compared: the fuel they share, and what a user may choose.
pub(crate) struct Comparison<'a> {
    pub(crate) fuel: &'a Fuel,
    /// A decimal with at least this many places stands for what rounds to it.
    pub(crate) places: u32,
}

impl Comparison<'_> {
    /// Whether `answer` is as good as `reference`. Not symmetric: an answer may name what it gives (`x = 3` for `3`),
    /// and must not restate the question (`x > 2` for an interval).
    pub(crate) fn same(&self, reference: &Value, answer: &Value) -> bool {
        if self.fuel.spend(4).is_none() {
            return false;
        }
        if let Some(equal) = self.solutions(reference, answer) {
            return equal;
        }
        match (reference, answer) {
            (Value::Relation(a), Value::Relation(b)) => self.relations(a, b),
            (Value::Relation(chain), _) => self.named_by_reference(chain, answer),
            (_, Value::Relation(chain)) => self.named_by_answer(reference, chain),
            (Value::Text(a), Value::Text(b)) => text::same(&text::plain(a), &text::plain(b)),
            (Value::Matrix(a), Value::Matrix(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.in_order(a, b))
            }
            (Value::Matrix(rows), Value::Collection(brackets, items))
            | (Value::Collection(brackets, items), Value::Matrix(rows)) => self.vector(rows, *brackets, items),
            (Value::Collection(..), Value::Collection(..)) => self.collections(reference, answer),
            (Value::Region(set), other) | (other, Value::Region(set)) => {
                region::of(other, self.fuel).is_some_and(|other| self.regions(set, &other))
            }
            // A set of one solution is that solution.
            (Value::Collection(Brackets::Set, items), other) if items.len() == 1 => self.same(&items[0], other),
            (other, Value::Collection(Brackets::Set, items)) if items.len() == 1 => self.same(other, &items[0]),
            (Value::Ratio(a), Value::Ratio(b)) => self.ratios(a, b),
            (Value::Ratio(parts), other) | (other, Value::Ratio(parts)) => match (parts.as_slice(), other.scalar()) {
                ([above, below], Some(scalar)) => self.scalars(&above.clone().over(below.clone()), scalar),
                _ => false,
            },
            _ => self.quantities(reference, answer),
        }
    }

    fn in_order(&self, a: &[Value], b: &[Value]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
    }

    /// In any order, and how often does not count.
    fn in_any_order(&self, a: &[Value], b: &[Value]) -> bool {
        let all = |a: &[Value], b: &[Value], flip: bool| {
            a.iter().all(|x| b.iter().any(|y| if flip { self.same(y, x) } else { self.same(x, y) }))
        };
        all(a, b, false) && all(b, a, true)
    }

    /// A matrix of one column or row against a tuple, any against a list of its rows.
    fn vector(&self, rows: &[Vec<Value>], brackets: Brackets, items: &[Value]) -> bool {
        let of_rows = items.iter().map(|item| match item {
            Value::Collection(Brackets::Square | Brackets::Round, row) => Some(row),
            _ => None,
        });
        if let (Brackets::Square, Some(others)) = (brackets, of_rows.collect::<Option<Vec<_>>>()) {
            return rows.len() == others.len() && rows.iter().zip(others).all(|(a, b)| self.in_order(a, b));
        }
        let tuple = matches!(brackets, Brackets::Round | Brackets::Square | Brackets::Angle | Brackets::List);
        let column = rows.iter().all(|row| row.len() == 1);
        let flat: Vec<Value> = rows.iter().flatten().cloned().collect();
        tuple && (column || rows.len() == 1) && self.in_order(&flat, items)
    }

    fn collections(&self, reference: &Value, answer: &Value) -> bool {
        use Brackets::{Angle, Either, List, Round, Set, Square};
        let (Value::Collection(a, x), Value::Collection(b, y)) = (reference, answer) else { return false };
        match (a, b) {
            (List | Either, _) if x.iter().any(Value::is_inequality) => match (a, b) {
                (List | Either, List | Either) if a == b => {
                    self.regions_of(reference, answer) || self.in_any_order(x, y)
                }
                _ => self.regions_of(reference, answer),
            },
            (List | Either | Set, List | Either | Set) => self.in_any_order(x, y),
            // Two numbers in square brackets are an interval, and no list.
            (Square, List) if x.len() == 2 => false,
            (Round | Square | Angle, List) | (List, Round | Square | Angle) => self.in_order(x, y),
            (Round | Angle, Round | Angle) | (Square, Square) => self.in_order(x, y),
            // Two numbers in other brackets are another interval; of three, the brackets do not matter.
            (Round | Square | Angle, Round | Square | Angle) => x.len() > 2 && self.in_order(x, y),
            _ if a == b => self.in_order(x, y),
            // `x < 1 or x > 2` for a union is handled where the union is a region.
            _ => false,
        }
    }

    /// Inequalities joined by `and` or `or`, and intervals, as the sets that they describe.
    pub(super) fn regions_of(&self, a: &Value, b: &Value) -> bool {
        let sets = (region::of(a, self.fuel), region::of(b, self.fuel));
        matches!(sets, (Some(a), Some(b)) if self.regions(&a, &b))
    }

    pub(super) fn regions(&self, a: &Region, b: &Region) -> bool {
        a.0.len() == b.0.len()
            && a.0.iter().zip(&b.0).all(|(a, b)| {
                a.low.closed == b.low.closed
                    && a.high.closed == b.high.closed
                    && self.scalars(&a.low.expr, &b.low.expr)
                    && self.scalars(&a.high.expr, &b.high.expr)
            })
    }

    /// Part by part, or in proportion; times of day such as `12:30` only part by part.
    fn ratios(&self, a: &[Expr], b: &[Expr]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        if a.iter().zip(b).all(|(a, b)| self.scalars(a, b)) {
            return true;
        }
        let zero = Expr::integer(0);
        let proportional =
            |i: usize| self.scalars(&a[0].clone().times(b[i].clone()), &b[0].clone().times(a[i].clone()));
        !a.iter().chain(b).any(|part| self.scalars(part, &zero)) && (1..a.len()).all(proportional)
    }

    /// Numbers with or without units. A unit may be left out; a different one is wrong.
    fn quantities(&self, reference: &Value, answer: &Value) -> bool {
        let (Some(a), Some(b)) = (reference.scalar(), answer.scalar()) else { return false };
        match (unit(reference), unit(answer)) {
            (Some(from), Some(to)) => match from.conversion(to) {
                Some(factor) if factor == RBig::ONE => self.scalars(a, b),
                Some(factor) => self.scalars(&a.clone().times(Expr::number(factor)), b),
                None => false,
            },
            // `12_3` is not 12.
            (None, Some(unit)) if unit.is_base() => false,
            // The sign may be left out of 28%, but 0.28% is not 0.28.
            (Some(Unit::Percent), None) => (!self.below_one(a) && self.scalars(a, b)) || self.scalars(&hundredth(a), b),
            (None, Some(Unit::Percent)) => (!self.below_one(b) && self.scalars(a, b)) || self.scalars(a, &hundredth(b)),
            (Some(unit), None) if unit.is_known() && spelled(b).is_some() => {
                spelled(b).is_some_and(|answer| self.quantities(reference, &answer))
            }
            (Some(unit), None) if *unit == Unit::degree() => self.scalars(a, b) || self.scalars(&radians(a), b),
            (None, Some(unit)) if *unit == Unit::degree() => self.scalars(a, b) || self.scalars(a, &radians(b)),
            _ => self.scalars(a, b),
        }
    }

    fn below_one(&self, expr: &Expr) -> bool {
        exact::value(expr, self.fuel).is_some_and(|value| value < RBig::ONE && value > -RBig::ONE)
    }

    pub(super) fn scalars(&self, reference: &Expr, answer: &Expr) -> bool {
        if reference == answer {
            return true;
        }
        match (value::infinite(reference), value::infinite(answer)) {
            (None, None) => {}
            (a, b) => return a == b,
        }
        // An answer may not bring symbols of its own: `\sin^2 x + \cos^2 x` is no way to write 1.
        if !answer.symbols().is_subset(&reference.symbols()) {
            return false;
        }
        if let (Some(a), Some(b)) = (Fraction::of(reference, self.fuel), Fraction::of(answer, self.fuel))
            && let Some(equal) = a.equals(&b, self.fuel)
        {
            return equal || self.rounds(reference, answer) || self.rounds(answer, reference);
        }
        probe::equal(reference, answer, self.fuel) || self.rounds(reference, answer) || self.rounds(answer, reference)
    }

    /// Whether `decimal` is a decimal of enough places to which `exact` rounds.
    fn rounds(&self, decimal: &Expr, exact: &Expr) -> bool {
        let enough = matches!(decimal, Expr::Number(Number { places: Some(places), .. }) if *places >= self.places);
        enough && self.rounds_to(exact, decimal)
    }

    /// Whether `exact` rounds to `decimal` at the places that this has.
    pub(super) fn rounds_to(&self, exact: &Expr, decimal: &Expr) -> bool {
        let Expr::Number(Number { value, places: Some(places @ 0..=60) }) = decimal else { return false };
        let ten = RBig::from(10u8);
        let unit = exact::power(&ten, &RBig::from(-i64::from(*places)), self.fuel);
        let Some(unit) = unit else { return false };
        match exact::value(exact, self.fuel) {
            // A terminating decimal that fits the places must be written exactly.
            Some(exact) if (&exact / &unit).denominator().is_one() => false,
            Some(exact) => {
                let twice = (exact - value) * RBig::from(2u8);
                twice <= unit && -twice <= unit
            }
            None => probe::within(exact, value, &(unit / RBig::from(2u8)), self.fuel),
        }
    }
}

fn unit(value: &Value) -> Option<&Unit> {
    if let Value::Quantity(_, unit) = value { Some(unit) } else { None }
}

/// `5m^2`, whose letters are read as a unit where the reference has one.
fn spelled(expr: &Expr) -> Option<Value> {
    let Expr::Product(factors) = expr else { return None };
    let letters = factors.iter().position(|factor| !factor.symbols().is_empty()).filter(|at| *at > 0)?;
    let (numbers, letters) = factors.split_at(letters);
    Some(Value::Quantity(Expr::Product(numbers.to_vec()), Unit::spelled(letters)?))
}

fn radians(degrees: &Expr) -> Expr {
    degrees.clone().times(Expr::Constant(Constant::Degree))
}

fn hundredth(expr: &Expr) -> Expr {
    Expr::number(RBig::from_parts(1.into(), 100u8.into())).times(expr.clone())
}
