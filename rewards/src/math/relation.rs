//! Equality of equations, inequalities and memberships, with each other and with the values that they name.

use dashu_ratio::RBig;

use super::compare::Comparison;
use super::expr::{Constant, Expr, Function};
use super::poly::Fraction;
use super::probe;
use super::region;
use super::value::{Chain, Relation, Value};

/// What a defined function's argument is renamed to.
const ARGUMENT: &str = "the argument";

impl Comparison<'_> {
    pub(super) fn relations(&self, reference: &Chain, answer: &Chain) -> bool {
        if let (Some(a), Some(b)) = (equation(reference), equation(answer)) {
            return self.equations(a, b);
        }
        let alike = |answer: &Chain| {
            reference.relations == answer.relations
                && reference.terms.iter().zip(&answer.terms).all(|(a, b)| self.same(a, b))
        };
        if alike(answer) || reversed(answer).is_some_and(|answer| alike(&answer)) {
            return true;
        }
        if membership(reference).is_some() && membership(answer).is_none() {
            // An inequality where a set was asked for may restate the question.
            return false;
        }
        self.inequality_chains(reference, answer) || self.solved_alike(reference, answer)
    }

    /// Both sides alike, or the difference of the sides a multiple of the other difference.
    fn equations(&self, (left, right): (&Value, &Value), (other_left, other_right): (&Value, &Value)) -> bool {
        if let (Some((name, symbol, body)), Some((other, other_symbol, other_body))) =
            (definition(left, right), definition(other_left, other_right))
        {
            let renamed = |body: &Expr, from: &str| {
                body.with_symbols(&|name: &str| (name == from).then(|| Expr::symbol(ARGUMENT)))
            };
            return name == other && self.scalars(&renamed(body, symbol), &renamed(other_body, other_symbol));
        }
        if self.same(left, other_left) && self.same(right, other_right) {
            return true;
        }
        // The graph of a function is `y = body`.
        let graph = |left: &Value| matches!(left, Value::Scalar(Expr::Symbol(y)) if y == "y");
        if (definition(left, right).is_some() && graph(other_left))
            || (graph(left) && definition(other_left, other_right).is_some())
        {
            return self.same(right, other_right);
        }
        let difference = |a: &Value, b: &Value| Some(a.scalar()?.clone().minus(b.scalar()?.clone()));
        let (Some(a), Some(b)) = (difference(left, right), difference(other_left, other_right)) else { return false };
        if a.symbols() != b.symbols() || a.symbols().is_empty() {
            return false;
        }
        if let (Some(a), Some(b)) = (Fraction::of(&a, self.fuel), Fraction::of(&b, self.fuel)) {
            return a.numerator.multiple_of(&b.numerator, self.fuel).is_some();
        }
        probe::proportional(&a, &b, self.fuel).is_some()
    }

    /// Every link of one chain is a link of the other, up to a positive factor.
    fn inequality_chains(&self, a: &Chain, b: &Chain) -> bool {
        let (Some(a), Some(b)) = (links(a), links(b)) else { return false };
        let matched = |link: &(Expr, Relation), others: &[(Expr, Relation)]| {
            others.iter().any(|other| link.1 == other.1 && self.positive_multiple(&link.0, &other.0, link.1))
        };
        a.len() == b.len() && a.iter().all(|link| matched(link, &b)) && b.iter().all(|link| matched(link, &a))
    }

    fn positive_multiple(&self, a: &Expr, b: &Expr, relation: Relation) -> bool {
        if a.symbols() != b.symbols() {
            return false;
        }
        let any_sign = relation == Relation::NotEqual;
        if let (Some(a), Some(b)) = (Fraction::of(a, self.fuel), Fraction::of(b, self.fuel)) {
            let left = a.numerator.mul(&b.denominator, self.fuel);
            let right = b.numerator.mul(&a.denominator, self.fuel);
            let (Some(left), Some(right)) = (left, right) else { return false };
            return left.multiple_of(&right, self.fuel).is_some_and(|factor| any_sign || factor > RBig::ZERO);
        }
        probe::proportional(a, b, self.fuel).is_some_and(|positive| any_sign || positive)
    }

    /// Both describe the same numbers, by the same names. Bars that the reference lacks may restate the question.
    fn solved_alike(&self, a: &Chain, b: &Chain) -> bool {
        if has_bars(b) && !has_bars(a) {
            return false;
        }
        let all_names = |chain: &Chain| {
            let mut names = std::collections::BTreeSet::new();
            let mut see = |expr: &Expr| names.extend(expr.names().into_iter().map(String::from));
            chain.terms.iter().for_each(|term| term.visit(&mut see));
            names
        };
        let set = |chain: &Chain| region::of(&Value::Relation(chain.clone()), self.fuel);
        all_names(a) == all_names(b) && matches!((set(a), set(b)), (Some(a), Some(b)) if self.regions(&a, &b))
    }

    /// The reference is a relation and the answer is not: the right side of `x = 3`, or the set of an inequality.
    pub(super) fn named_by_reference(&self, chain: &Chain, answer: &Value) -> bool {
        if let Some((left, right)) = equation(chain) {
            // The end of a longer chain is a result, whatever it starts with.
            let named = names(left, right) || chain.terms.len() > 2;
            return named && self.same(right, answer);
        }
        if let Some((_, set)) = membership(chain) {
            return self.same(set, answer);
        }
        let asked = region::of(&Value::Relation(chain.clone()), self.fuel);
        matches!((asked, region::of(answer, self.fuel)), (Some(a), Some(b)) if self.regions(&a, &b))
    }

    /// The answer is a relation and the reference is not: what it says of a name, or the result of its arithmetic.
    pub(super) fn named_by_answer(&self, reference: &Value, chain: &Chain) -> bool {
        match (equation(chain), membership(chain)) {
            // `5 = x` gives 5 as `x = 5` does.
            (Some((left, Value::Scalar(Expr::Symbol(_)))), _) if is_constant(left) => self.same(reference, left),
            // The end of a longer chain is a result, whatever it starts with.
            (Some((left, right)), _) if names(left, right) || chain.terms.len() > 2 => self.same(reference, right),
            (Some((left, right)), _) if is_constant(left) => {
                let holds = match chain.relations.as_slice() {
                    [Relation::About] => self.roughly(left, right),
                    _ => self.same(left, right),
                };
                holds && (self.same(reference, left) || self.same(reference, right))
            }
            (None, Some((_, set))) => self.same(reference, set),
            // `1 < x < 3` for `x > 1 and x < 3`.
            (None, None) if reference.items().iter().any(Value::is_inequality) => {
                self.regions_of(reference, &Value::Relation(chain.clone()))
            }
            _ => false,
        }
    }

    /// Whether `right`, a decimal, is `left` rounded to its places.
    fn roughly(&self, left: &Value, right: &Value) -> bool {
        let (Some(exact), Some(decimal)) = (left.scalar(), right.scalar()) else { return false };
        self.scalars(exact, decimal) || self.rounds_to(exact, decimal)
    }
}

/// The first and the last side of a chain of equations; what is only approximate at its end is dropped.
fn equation(chain: &Chain) -> Option<(&Value, &Value)> {
    if !chain.relations.iter().all(|relation| matches!(relation, Relation::Equal | Relation::About)) {
        return None;
    }
    let about = chain.relations.iter().skip(1).position(|relation| *relation == Relation::About);
    Some((chain.terms.first()?, chain.terms.get(about.map_or(chain.terms.len() - 1, |at| at + 1))?))
}

fn membership(chain: &Chain) -> Option<(&Value, &Value)> {
    match (chain.relations.as_slice(), chain.terms.as_slice()) {
        ([Relation::In], [element, set]) => Some((element, set)),
        _ => None,
    }
}

/// For `f(x) = body`: the name of the function, its symbol and the body.
fn definition<'a>(left: &'a Value, right: &'a Value) -> Option<(&'a str, &'a str, &'a Expr)> {
    match (left.scalar()?, right.scalar()?) {
        (Expr::Call(Function::Named(name), arguments), body) => match arguments.as_slice() {
            [Expr::Symbol(symbol)] => Some((name, symbol, body)),
            _ => None,
        },
        _ => None,
    }
}

fn is_constant(value: &Value) -> bool {
    value.scalar().is_some_and(|expr| expr.symbols().is_empty())
}

/// Whether the left side of an equation only names what its right side is: `x`, `f(2)`, `\angle A`, `AB^2`, `a : b`, a
/// quantity in another unit, or an operation that has been carried out; no other sum and no number. A power or product
/// of coordinates names no function of them: `y^2 = 4x` is a curve.
fn names(left: &Value, right: &Value) -> bool {
    match left {
        Value::Text(_) => true,
        Value::Ratio(parts) => parts.iter().all(is_name),
        Value::Collection(_, items) => items.iter().all(|item| names(item, right)),
        // `50 cm = 0.5 m` converts.
        Value::Quantity(_, unit) => !matches!(right, Value::Quantity(_, other) if other == unit),
        Value::Scalar(Expr::Product(_) | Expr::Power(_)) if !is_constant(right) => false,
        Value::Scalar(Expr::Product(factors)) => {
            factors.iter().all(is_name) && (is_quotient(factors) || !on_axes(left))
        }
        Value::Scalar(expr @ Expr::Power(_)) => is_name(expr) && !on_axes(left),
        Value::Scalar(expr) => is_name(expr),
        _ => false,
    }
}

fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(_) | Expr::Call(Function::Named(_) | Function::Pending(_), _) => true,
        // Letters that may be used for other things.
        Expr::Constant(constant) => matches!(constant, Constant::E | Constant::I),
        Expr::Call(_, parts) | Expr::Product(parts) => parts.iter().all(is_name),
        // A quotient of names, and powers such as `AB^2`.
        Expr::Power(pair) => is_name(&pair.0),
        Expr::Number(_) | Expr::Sum(_) | Expr::Root(_) => false,
    }
}

/// `a / b`.
fn is_quotient(factors: &[Expr]) -> bool {
    matches!(factors, [.., Expr::Power(pair)] if pair.1 == Expr::integer(-1))
}

/// Whether a side holds coordinates, which stand for any number.
fn on_axes(side: &Value) -> bool {
    side.scalar().is_some_and(|expr| expr.symbols().iter().any(|name| ["x", "y", "z"].contains(name)))
}

fn has_bars(chain: &Chain) -> bool {
    let mut found = false;
    let mut see = |part: &Expr| found |= matches!(part, Expr::Call(Function::Abs, _));
    chain.terms.iter().for_each(|term| term.visit(&mut |expr| expr.visit(&mut see)));
    found
}

/// The chain read from its other end.
fn reversed(chain: &Chain) -> Option<Chain> {
    let relations = chain.relations.iter().rev().map(|relation| relation.flipped()).collect::<Option<_>>()?;
    Some(Chain { terms: chain.terms.iter().rev().cloned().collect(), relations })
}

/// The links of a chain of inequalities as `difference relation 0`, written with less than.
fn links(chain: &Chain) -> Option<Vec<(Expr, Relation)>> {
    let pairs = chain.terms.iter().zip(&chain.terms[1..]).zip(&chain.relations);
    pairs
        .map(|((left, right), relation)| {
            let (left, right) = (left.scalar()?.clone(), right.scalar()?.clone());
            match relation {
                Relation::Less | Relation::LessEqual | Relation::NotEqual | Relation::Equal => {
                    Some((left.minus(right), *relation))
                }
                Relation::Greater | Relation::GreaterEqual => Some((right.minus(left), relation.flipped()?)),
                Relation::About | Relation::In | Relation::Other(_) => None,
            }
        })
        .collect()
}
