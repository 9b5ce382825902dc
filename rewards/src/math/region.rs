//! Sets of real numbers: unions of intervals, read from intervals, finite sets, and solved inequalities.

use super::expr::{Constant, Expr, Function};
use super::fuel::Fuel;
use super::poly::Fraction;
use super::probe;
use super::value::{self, Brackets, Chain, Relation, Value};

/// Ends nearer than this, relative to their size, are one for the order of intervals; equality is decided exactly.
const NEAR: f64 = 1e-12;
/// Most intervals of a set.
const MAX_SPANS: usize = 64;

/// Disjoint intervals in order, none touching the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Region(pub(crate) Vec<Span>);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) low: End,
    pub(crate) high: End,
}

/// An end of an interval: its place, what was written, and whether it belongs to the interval.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    at: f64,
    pub(crate) expr: Expr,
    pub(crate) closed: bool,
}

impl End {
    fn new(expr: Expr, closed: bool, fuel: &Fuel) -> Option<Self> {
        let at = match value::infinite(&expr) {
            Some(sign) => f64::from(sign) * f64::INFINITY,
            None => probe::constant::<f64>(&expr, fuel).filter(super::ball::Ball::is_real)?.to_f64(),
        };
        Some(Self { at, expr, closed: closed && at.is_finite() })
    }

    fn infinite(negative: bool) -> Self {
        let infinity = Expr::Constant(Constant::Infinity);
        let (at, expr) = if negative { (f64::NEG_INFINITY, infinity.negated()) } else { (f64::INFINITY, infinity) };
        Self { at, expr, closed: false }
    }

    fn near(&self, other: &Self) -> bool {
        let finite = self.at.is_finite() && other.at.is_finite();
        self.at == other.at || (finite && (self.at - other.at).abs() <= NEAR * self.at.abs().max(other.at.abs()))
    }

    /// The same place, seen from the other side.
    fn opposite(&self) -> Self {
        Self { closed: !self.closed && self.at.is_finite(), ..self.clone() }
    }
}

impl Region {
    pub(crate) fn all() -> Self {
        Self(vec![Span { low: End::infinite(true), high: End::infinite(false) }])
    }

    fn interval(low: End, high: End) -> Self {
        let point = low.near(&high);
        let empty = if point { !(low.closed && high.closed) } else { low.at > high.at };
        Self(if empty { Vec::new() } else { vec![Span { low, high }] })
    }

    fn point(expr: &Expr, fuel: &Fuel) -> Option<Self> {
        Some(Self::interval(End::new(expr.clone(), true, fuel)?, End::new(expr.clone(), true, fuel)?))
    }

    pub(crate) fn union(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        let mut spans: Vec<Span> = self.0.iter().chain(&other.0).cloned().collect();
        fuel.spend(20 * spans.len() as u64)?;
        spans.sort_by(|a, b| a.low.at.total_cmp(&b.low.at).then(b.low.closed.cmp(&a.low.closed)));
        let mut merged: Vec<Span> = Vec::new();
        for span in spans {
            match merged.last_mut() {
                Some(last) if touch(&last.high, &span.low) => last.high = further(&last.high, &span.high),
                _ => merged.push(span),
            }
        }
        (merged.len() <= MAX_SPANS).then_some(Self(merged))
    }

    pub(crate) fn complement(&self) -> Self {
        let mut low = End::infinite(true);
        let mut gaps = Vec::new();
        for span in &self.0 {
            gaps.extend(Self::interval(low, span.low.opposite()).0);
            low = span.high.opposite();
        }
        gaps.extend(Self::interval(low, End::infinite(false)).0);
        Self(gaps)
    }

    pub(crate) fn intersection(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        Some(self.complement().union(&other.complement(), fuel)?.complement())
    }
}

/// Whether an interval that ends at `high` leaves no gap before one that starts at `low`.
fn touch(high: &End, low: &End) -> bool {
    if high.near(low) { high.closed || low.closed } else { high.at > low.at }
}

fn further(a: &End, b: &End) -> End {
    let mut end = if a.at >= b.at { a.clone() } else { b.clone() };
    end.closed = if a.near(b) { a.closed || b.closed } else { end.closed };
    end
}

/// The set that `value` denotes: an interval, a finite set, or the solutions of inequalities in one symbol.
pub(crate) fn of(value: &Value, fuel: &Fuel) -> Option<Region> {
    match value {
        Value::Region(region) => Some(region.clone()),
        Value::Collection(Brackets::Set, items) => items
            .iter()
            .try_fold(Region(Vec::new()), |set, item| set.union(&Region::point(item.scalar()?, fuel)?, fuel)),
        Value::Collection(Brackets::Either, items) => {
            items.iter().try_fold(Region(Vec::new()), |set, item| set.union(&of_part(item, fuel)?, fuel))
        }
        Value::Collection(Brackets::List, items) if items.iter().all(|item| matches!(item, Value::Collection(..))) => {
            items.iter().try_fold(Region(Vec::new()), |set, item| set.union(&of_part(item, fuel)?, fuel))
        }
        Value::Collection(Brackets::List, items) => {
            let both =
                items.iter().try_fold(Region::all(), |set, item| set.intersection(&of_relation(item, fuel)?, fuel))?;
            (!both.0.is_empty()).then_some(both)
        }
        Value::Collection(brackets, items) => {
            let (left, right) = match brackets {
                Brackets::Round => (false, false),
                Brackets::Square => (true, true),
                Brackets::LeftOpen => (false, true),
                Brackets::RightOpen => (true, false),
                Brackets::Angle | Brackets::Set | Brackets::Either | Brackets::List => return None,
            };
            let [low, high] = items.as_slice() else { return None };
            let (low, high) = (low.scalar()?.clone(), high.scalar()?.clone());
            Some(Region::interval(End::new(low, left, fuel)?, End::new(high, right, fuel)?))
        }
        Value::Relation(_) => of_relation(value, fuel),
        _ => None,
    }
}

/// A part of a union: an interval, or an inequality.
fn of_part(value: &Value, fuel: &Fuel) -> Option<Region> {
    match value {
        Value::Collection(Brackets::List | Brackets::Either, _) => None,
        Value::Collection(..) => of(value, fuel),
        _ => of_relation(value, fuel),
    }
}

fn of_relation(value: &Value, fuel: &Fuel) -> Option<Region> {
    let Value::Relation(Chain { terms, relations }) = value else { return None };
    let pairs = terms.iter().zip(&terms[1..]).zip(relations);
    pairs.into_iter().try_fold(Region::all(), |set, ((left, right), relation)| {
        if *relation == Relation::In {
            return set.intersection(&of(right, fuel)?, fuel);
        }
        set.intersection(&solved(left.scalar()?, *relation, right.scalar()?, fuel)?, fuel)
    })
}

/// The solutions of `left relation right`: a name or its absolute value against a constant, or linear in one symbol.
fn solved(left: &Expr, relation: Relation, right: &Expr, fuel: &Fuel) -> Option<Region> {
    match (left, right) {
        (name, bound) if stands_for_one(name) && bound.symbols().is_empty() => against(relation, bound, fuel),
        (bound, name) if stands_for_one(name) && bound.symbols().is_empty() => {
            against(relation.flipped()?, bound, fuel)
        }
        (Expr::Call(Function::Abs, inside), bound) if bound.symbols().is_empty() => {
            within_bars(&inside[0], relation, bound, fuel)
        }
        (bound, Expr::Call(Function::Abs, inside)) if bound.symbols().is_empty() => {
            within_bars(&inside[0], relation.flipped()?, bound, fuel)
        }
        _ => {
            let difference = left.clone().minus(right.clone());
            let form = Fraction::of(&difference, fuel)?;
            if form.denominator.linear().is_some() {
                return None;
            }
            let (_, slope, offset) = form.numerator.linear()?;
            let relation = if slope < dashu_ratio::RBig::ZERO { relation.flipped()? } else { relation };
            against(relation, &Expr::number(-offset / slope), fuel)
        }
    }
}

/// Whether `expr` is one unknown: a symbol, or a function's value.
fn stands_for_one(expr: &Expr) -> bool {
    matches!(expr, Expr::Symbol(_) | Expr::Call(Function::Named(_), _))
}

/// `|inside| < bound` is `-bound < inside < bound`; `|z|` is that of a complex number, whose set is no interval.
fn within_bars(inside: &Expr, relation: Relation, bound: &Expr, fuel: &Fuel) -> Option<Region> {
    if inside.symbols().contains("z") {
        return None;
    }
    let above = solved(inside, relation, bound, fuel)?;
    let below = solved(inside, relation.flipped()?, &bound.clone().negated(), fuel)?;
    match relation {
        Relation::Less | Relation::LessEqual | Relation::NotEqual => above.intersection(&below, fuel),
        Relation::Greater | Relation::GreaterEqual => above.union(&below, fuel),
        Relation::Equal | Relation::About | Relation::In | Relation::Other(_) => None,
    }
}

/// The numbers that stand in `relation` to `bound`.
fn against(relation: Relation, bound: &Expr, fuel: &Fuel) -> Option<Region> {
    let end = |closed| End::new(bound.clone(), closed, fuel);
    Some(match relation {
        Relation::Less => Region::interval(End::infinite(true), end(false)?),
        Relation::LessEqual => Region::interval(End::infinite(true), end(true)?),
        Relation::Greater => Region::interval(end(false)?, End::infinite(false)),
        Relation::GreaterEqual => Region::interval(end(true)?, End::infinite(false)),
        Relation::Equal => Region::point(bound, fuel)?,
        Relation::NotEqual => Region::point(bound, fuel)?.complement(),
        Relation::About | Relation::In | Relation::Other(_) => return None,
    })
}
