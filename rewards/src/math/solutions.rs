//! Solutions in several unknowns, in all the ways to write them: `p = 5, q = 2; p = 7, q = 2`,
//! `(p, q) = (5, 2), (7, 2)` and `(5, 2), (7, 2)`. Leaves the equality of their values to [`super::compare`].

use super::compare::Comparison;
use super::expr::Expr;
use super::value::{Brackets, Chain, Relation, Value};

/// Unknowns that stand in a tuple in the order of the alphabet, however they are written.
const COORDINATES: [&str; 3] = ["x", "y", "z"];

/// Rows of values, one for each unknown.
struct Solutions<'a> {
    /// The unknowns, in the order of the values; none where only tuples are given.
    names: Vec<&'a str>,
    rows: Vec<Vec<&'a Value>>,
}

impl Comparison<'_> {
    /// Whether both sides are the same solutions, in any order; `None` where neither names its unknowns, or where one
    /// solution meets what is none.
    pub(super) fn solutions(&self, reference: &Value, answer: &Value) -> Option<bool> {
        let (a, b) = match (Solutions::named(reference), Solutions::named(answer)) {
            (None, None) => return None,
            (Some(a), Some(b)) => (Some(a), Some(b)),
            (Some(a), None) => {
                let row = || if a.rows.len() == 1 && !a.indexed() { Solutions::listed(answer) } else { None };
                let b = Solutions::tuples(answer).or_else(row);
                (Some(a), b)
            }
            (None, Some(b)) => (Solutions::tuples(reference), Some(b)),
        };
        match (a, b) {
            (Some(a), Some(b)) => {
                let a = a.ordered(&COORDINATES);
                let b = b.ordered(&COORDINATES).ordered(&a.names);
                Some(self.same_solutions(&a, &b))
            }
            (a, b) if a.iter().chain(&b).any(|solutions| solutions.rows.len() > 1) => Some(false),
            _ => None,
        }
    }

    fn same_solutions(&self, a: &Solutions, b: &Solutions) -> bool {
        let alike = |x: &[&Value], y: &[&Value]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| self.same(x, y));
        let names = a.names.is_empty() || b.names.is_empty() || a.names == b.names;
        names
            && a.rows.iter().all(|x| b.rows.iter().any(|y| alike(x, y)))
            && b.rows.iter().all(|y| a.rows.iter().any(|x| alike(x, y)))
    }
}

impl<'a> Solutions<'a> {
    /// Solutions that name two unknowns or more.
    fn named(value: &'a Value) -> Option<Self> {
        let items = value.items();
        let pairs: Option<Vec<(&str, &Value)>> = items.iter().map(assignment).collect();
        let solutions = match pairs {
            Some(pairs) => Self::grouped(&pairs)?,
            None => Self::of_tuples(items)?,
        };
        (solutions.names.len() > 1).then_some(solutions)
    }

    /// `p = 5, q = 2; p = 7, q = 2`: a new solution begins where the unknown of the first comes again.
    fn grouped(pairs: &[(&'a str, &'a Value)]) -> Option<Self> {
        let (first, _) = *pairs.first()?;
        let width = pairs.iter().skip(1).position(|(name, _)| *name == first).map_or(pairs.len(), |at| at + 1);
        let sorted = |group: &[(&'a str, &'a Value)]| {
            let mut group = group.to_vec();
            group.sort_by_key(|(name, _)| pairs[..width].iter().position(|(other, _)| other == name));
            group
        };
        let names: Vec<&str> = pairs[..width].iter().map(|(name, _)| *name).collect();
        let groups: Vec<_> = pairs.chunks(width).map(sorted).collect();
        let whole = groups.iter().all(|group| group.iter().map(|(name, _)| *name).eq(names.iter().copied()));
        let rows = groups.iter().map(|group| group.iter().map(|(_, value)| *value).collect()).collect();
        whole.then_some(Self { names, rows })
    }

    /// `(p, q) = (5, 2), (7, 2)`, where the unknowns may be named again, and `(p, q) \in \{(5, 2), (7, 2)\}`.
    fn of_tuples(items: &'a [Value]) -> Option<Self> {
        if let [Value::Relation(Chain { terms, relations })] = items
            && let ([unknowns, set @ Value::Collection(Brackets::Set, _)], [Relation::In]) =
                (&terms[..], &relations[..])
        {
            let names = tuple(unknowns)?.into_iter().map(name).collect::<Option<_>>()?;
            return Self { names, ..Self::tuples(set)? }.whole();
        }
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate() {
            let Some((left, right)) = equation(item) else {
                rows.push(tuple(item)?);
                continue;
            };
            let unknowns: Vec<&str> = tuple(left)?.into_iter().map(name).collect::<Option<_>>()?;
            if at > 0 && unknowns != names {
                return None;
            }
            names = unknowns;
            rows.push(tuple(right)?);
        }
        Self { names, rows }.whole()
    }

    /// Itself, where every row has a value for each unknown.
    fn whole(self) -> Option<Self> {
        self.rows.iter().all(|row| row.len() == self.names.len()).then_some(self)
    }

    /// Tuples alone, in a list or a set.
    fn tuples(value: &'a Value) -> Option<Self> {
        let items = if let Value::Collection(Brackets::Set, items) = value { items } else { value.items() };
        Some(Self { names: Vec::new(), rows: items.iter().map(tuple).collect::<Option<_>>()? })
    }

    /// A bare list, as one solution.
    fn listed(value: &'a Value) -> Option<Self> {
        let Value::Collection(Brackets::List, items) = value else { return None };
        let bare = items.iter().all(|item| !matches!(item, Value::Relation(_)));
        bare.then(|| Self { names: Vec::new(), rows: vec![items.iter().collect()] })
    }

    /// Whether the unknowns are one letter with indices, as `x_1` and `x_2` are: most often the roots of an equation.
    fn indexed(&self) -> bool {
        let base = |name: &&'a str| name.split_once('_').map(|(base, _)| base);
        self.names.first().and_then(base).is_some_and(|first| self.names.iter().all(|name| base(name) == Some(first)))
    }

    /// With the unknowns in this order, if these are all of them.
    fn ordered(self, order: &[&str]) -> Self {
        let places: Option<Vec<usize>> =
            self.names.iter().map(|name| order.iter().position(|other| other == name)).collect();
        let Some(places) = places else { return self };
        let mut by_place: Vec<(usize, usize)> = places.into_iter().zip(0..).collect();
        by_place.sort_unstable();
        let names = by_place.iter().map(|(_, at)| self.names[*at]).collect();
        let sorted = |row: &Vec<&'a Value>| by_place.iter().map(|(_, at)| row[*at]).collect();
        let rows = if self.names.is_empty() { self.rows } else { self.rows.iter().map(sorted).collect() };
        Self { names, rows }
    }
}

/// Both sides of `left = right`.
fn equation(item: &Value) -> Option<(&Value, &Value)> {
    let Value::Relation(Chain { terms, relations }) = item else { return None };
    match (terms.as_slice(), relations.as_slice()) {
        ([left, right], [Relation::Equal]) => Some((left, right)),
        _ => None,
    }
}

fn assignment(item: &Value) -> Option<(&str, &Value)> {
    let (left, right) = equation(item)?;
    Some((name(left)?, right))
}

fn name(value: &Value) -> Option<&str> {
    if let Value::Scalar(Expr::Symbol(name)) = value { Some(name) } else { None }
}

fn tuple(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Collection(Brackets::Round | Brackets::Angle, items) => Some(items.iter().collect()),
        _ => None,
    }
}
