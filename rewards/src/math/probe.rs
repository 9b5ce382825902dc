//! Numeric equality: both sides at seeded points. Doubles reject; floats of 384 bits confirm, so that nothing passes
//! on the strength of 16 digits.

use dashu_ratio::RBig;

use super::ball::Ball;
use super::exact;
use super::expr::{Constant, Expr, Function};
use super::fuel::Fuel;
use super::real::{Long, Real};

/// Points tried where there are symbols.
const POINTS: u64 = 24;
/// Points at which both sides must be defined, and agree, for two functions to be equal.
const ENOUGH: usize = 3;
/// Largest number that a symbol stands for under a factorial: its value still is exact at any precision.
const MAX_NATURAL: i64 = 12;
/// Price of one node in doubles.
const NODE: u64 = 8;

/// Which numbers a function of symbols may take. In `Real`, a root or logarithm of a negative number is undefined, so
/// that identities of real functions hold; constants are always complex.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Domain {
    Real,
    Complex,
}

/// Whether both expressions are the same function of their symbols, as far as seeded points can tell.
pub(crate) fn equal(a: &Expr, b: &Expr, fuel: &Fuel) -> bool {
    let constant = a.symbols().is_empty() && b.symbols().is_empty();
    if constant {
        let points = [Point { index: 0, domain: Domain::Complex, fuel }];
        return !differ(a, b, &points[0]) && confirmed(a, b, &points);
    }
    if counts(a) || counts(b) {
        return equal_at_naturals(a, b, fuel);
    }
    for domain in [Domain::Real, Domain::Complex] {
        let points: Vec<Point> = (0..POINTS).map(|index| Point { index, domain, fuel }).collect();
        let defined: Vec<Point> =
            points.into_iter().filter(|point| point.at::<f64>(a).is_some() && point.at::<f64>(b).is_some()).collect();
        if defined.iter().any(|point| differ(a, b, point)) {
            return false;
        }
        if defined.len() >= ENOUGH {
            return confirmed(a, b, &defined[..ENOUGH - 1]);
        }
    }
    false
}

/// Whether an expression has factorials or binomials of symbols, which stand for natural numbers then.
fn counts(expr: &Expr) -> bool {
    let mut found = false;
    expr.visit(&mut |part| {
        let combinatorial = matches!(part, Expr::Call(Function::Factorial | Function::Binomial, _));
        found |= combinatorial && !part.symbols().is_empty();
    });
    found
}

/// Whether the factorials and binomials in a constant expression are defined.
fn countable(expr: &Expr, fuel: &Fuel) -> bool {
    let mut defined = true;
    expr.visit(&mut |part| {
        if let Expr::Call(Function::Factorial | Function::Binomial, _) = part {
            defined &= exact::value(part, fuel).is_some();
        }
    });
    defined
}

/// As [`equal`], at natural numbers.
fn equal_at_naturals(a: &Expr, b: &Expr, fuel: &Fuel) -> bool {
    let mut defined = 0;
    for index in 0..POINTS {
        let natural = |name: &str| Some(Expr::integer(1 + (hash(name, index) >> 8) as i64 % MAX_NATURAL));
        let (a, b) = (a.with_symbols(&natural), b.with_symbols(&natural));
        if !(countable(&a, fuel) && countable(&b, fuel)) {
            continue;
        }
        let equal = match (exact::value(&a, fuel), exact::value(&b, fuel)) {
            (Some(a), Some(b)) => Some(a == b),
            _ => constant::<Long>(&a, fuel).zip(constant::<Long>(&b, fuel)).map(|(a, b)| a.touches(&b)),
        };
        if equal == Some(false) {
            return false;
        }
        defined += usize::from(equal.is_some());
    }
    defined >= 2 * ENOUGH
}

/// Whether doubles prove both sides different.
fn differ(a: &Expr, b: &Expr, point: &Point) -> bool {
    matches!((point.at::<f64>(a), point.at::<f64>(b)), (Some(a), Some(b)) if !a.touches(&b))
}

/// Whether both sides agree to as many digits as 384 bits leave.
fn confirmed(a: &Expr, b: &Expr, points: &[Point]) -> bool {
    points.iter().all(|point| matches!((point.at::<Long>(a), point.at::<Long>(b)), (Some(a), Some(b)) if a.touches(&b)))
}

/// The value of a constant expression.
pub(crate) fn constant<R: Real>(expr: &Expr, fuel: &Fuel) -> Option<Ball<R>> {
    if expr.symbols().is_empty() { Point { index: 0, domain: Domain::Complex, fuel }.at(expr) } else { None }
}

/// Whether a constant expression is real and lies within `distance` of `centre`.
pub(crate) fn within(expr: &Expr, centre: &RBig, distance: &RBig, fuel: &Fuel) -> bool {
    let check = || {
        let away = constant::<Long>(expr, fuel)?.add(&Ball::of(centre)?.neg())?;
        let room = Ball::of(distance)?.add(&away.abs()?.neg())?;
        Some(away.is_real() && !room.is_negative())
    };
    check().unwrap_or(false)
}

/// The sign of `c` where `a = c * b` for a number `c`, as far as seeded points can tell.
pub(crate) fn proportional(a: &Expr, b: &Expr, fuel: &Fuel) -> Option<bool> {
    // Doubles at all points, positive and negative ones, before the dear confirmation at a few.
    constant_factor::<f64>(a, b, POINTS as usize, fuel)?;
    constant_factor::<Long>(a, b, ENOUGH, fuel)
}

/// As [`proportional`], at the first `enough` points where both are defined.
fn constant_factor<R: Real>(a: &Expr, b: &Expr, enough: usize, fuel: &Fuel) -> Option<bool> {
    let factor = |index| {
        let point = Point { index, domain: Domain::Real, fuel };
        point.at::<R>(a)?.mul(&point.at::<R>(b)?.inverse()?)
    };
    let factors: Vec<Ball<R>> = (0..POINTS).filter_map(factor).take(enough).collect();
    let first = factors.first().filter(|_| factors.len() >= ENOUGH)?;
    let constant = factors.iter().all(|factor| first.touches(factor) && !factor.may_be_zero());
    constant.then(|| !first.is_negative())
}

/// FNV-1a: the same on every machine.
fn hash(name: &str, salt: u64) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.bytes().chain(salt.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step);
    hash ^ (hash >> 29)
}

/// A number from `low` to `low + span`, fixed by a name and a salt.
fn drawn(name: &str, salt: u64, low: i64, span: i64) -> RBig {
    let unit = RBig::from_parts(((hash(name, salt) >> 16) as u16).into(), (1u32 << 16).into());
    RBig::from(low) + RBig::from(span) * unit
}

/// Where expressions are evaluated: a number for every symbol.
struct Point<'a> {
    index: u64,
    domain: Domain,
    fuel: &'a Fuel,
}

impl Point<'_> {
    /// Even points are positive, odd ones of either sign; below 1 and up to 20.
    fn symbol(&self, name: &str) -> RBig {
        let (low, span) = [(0, 1), (1, 3), (0, 1), (3, 17)][(self.index / 2 % 4) as usize];
        let size = drawn(name, self.index, low, span);
        let negative = self.index % 2 == 1 && hash(name, !self.index) & 64 == 0;
        if negative { -size } else { size }
    }

    /// The value of `expr`; `None` where it is undefined, out of range, or fuel is short.
    fn at<R: Real>(&self, expr: &Expr) -> Option<Ball<R>> {
        self.fuel.spend(NODE * R::COST)?;
        let value = match expr {
            Expr::Number(number) => Ball::of(&number.value),
            Expr::Symbol(name) => Ball::of(&self.symbol(name)),
            Expr::Constant(constant) => constant_of(*constant),
            Expr::Sum(terms) => {
                terms.iter().try_fold(Ball::of(&RBig::ZERO)?, |sum: Ball<R>, term| sum.add(&self.at(term)?))
            }
            Expr::Product(factors) => {
                factors.iter().try_fold(Ball::of(&RBig::ONE)?, |product: Ball<R>, x| product.mul(&self.at(x)?))
            }
            Expr::Power(pair) => self.power(&pair.0, &pair.1),
            Expr::Root(pair) => self.root(&pair.0, &pair.1),
            Expr::Call(function, arguments) => self.call(expr, function, arguments),
        }?;
        (self.domain == Domain::Complex || value.is_real()).then_some(value)
    }

    fn power<R: Real>(&self, base: &Expr, exponent: &Expr) -> Option<Ball<R>> {
        if *base == Expr::Constant(Constant::E) {
            // A third of the price of other powers, which take a logarithm too.
            self.fuel.spend(7 * NODE * R::COST)?;
            return self.at::<R>(exponent)?.exp();
        }
        let value = self.at(base)?;
        if let Some(exponent) = exact::value(exponent, self.fuel).as_ref().and_then(exact::integer) {
            self.fuel.spend(64 * R::COST)?;
            return value.powi(i32::try_from(exponent).ok()?);
        }
        let exponent = self.at::<R>(exponent)?;
        if value.may_be_zero() {
            return if exponent.is_negative() || exponent.may_be_zero() { None } else { Some(value) };
        }
        self.fuel.spend(20 * NODE * R::COST)?;
        exponent.mul(&value.ln()?)?.exp()
    }

    fn root<R: Real>(&self, degree: &Expr, radicand: &Expr) -> Option<Ball<R>> {
        let value = self.at::<R>(radicand)?;
        let whole = exact::value(degree, self.fuel).as_ref().and_then(exact::integer);
        let whole = whole.and_then(|degree| i32::try_from(degree).ok());
        if whole == Some(2) {
            return value.sqrt();
        }
        if value.may_be_zero() {
            return value.sqrt();
        }
        self.fuel.spend(20 * NODE * R::COST)?;
        let inverse = self.at::<R>(degree)?.inverse()?;
        let principal = |value: &Ball<R>| value.ln()?.mul(&inverse)?.exp();
        // An odd root of a negative number is negative.
        let odd = whole.is_some_and(|degree| degree % 2 != 0);
        if odd && value.is_negative() { Some(principal(&value.neg())?.neg()) } else { principal(&value) }
    }

    fn call<R: Real>(&self, expr: &Expr, function: &Function, arguments: &[Expr]) -> Option<Ball<R>> {
        self.fuel.spend(20 * NODE * R::COST)?;
        if let Function::Named(name) = function {
            return self.opaque(name, arguments);
        }
        if let Function::Factorial | Function::Binomial | Function::Pending(_) = function {
            if let Some(value) = exact::value(expr, self.fuel) {
                return Ball::of(&value);
            }
            return self.opaque(&format!("{function:?}"), arguments);
        }
        let first = self.at::<R>(arguments.first()?)?;
        match (function, arguments.get(1)) {
            (Function::Log, Some(argument)) => self.at::<R>(argument)?.ln()?.mul(&first.ln()?.inverse()?),
            _ => apply(function, &first),
        }
    }

    /// A smooth function of which only the name is known: fixed by its name, generic otherwise, so that equal arguments
    /// give equal values and no identity holds by chance.
    fn opaque<R: Real>(&self, name: &str, arguments: &[Expr]) -> Option<Ball<R>> {
        let coefficient = |salt| Ball::<R>::of(&drawn(name, salt, 1, 2));
        let mut value = coefficient(0)?;
        for (index, argument) in arguments.iter().enumerate() {
            let (argument, salt) = (self.at::<R>(argument)?, 4 * index as u64);
            let angle = argument.mul(&coefficient(salt + 1)?)?.add(&coefficient(salt + 2)?)?;
            let wave = angle.sin_cos()?.0.mul(&coefficient(salt + 3)?)?;
            value = value.add(&wave)?.add(&argument.mul(&coefficient(salt + 4)?)?)?;
        }
        Some(value)
    }
}

fn constant_of<R: Real>(constant: Constant) -> Option<Ball<R>> {
    match constant {
        Constant::Pi => Some(Ball::pi()),
        Constant::E => Ball::of(&RBig::ONE)?.exp(),
        Constant::I => Some(Ball::i()),
        Constant::Degree => Ball::pi().mul(&Ball::of(&RBig::from_parts(1.into(), 180u8.into()))?),
        Constant::Infinity => None,
    }
}

/// A function of one argument.
fn apply<R: Real>(function: &Function, x: &Ball<R>) -> Option<Ball<R>> {
    let one = Ball::<R>::of(&RBig::ONE)?;
    let half = Ball::<R>::of(&RBig::from_parts(1.into(), 2u8.into()))?;
    // sqrt(1 - x^2) on [-1, 1].
    let other_leg = || one.add(&x.mul(x)?.neg())?.sqrt().filter(Ball::is_real);
    match function {
        Function::Sin => Some(x.sin_cos()?.0),
        Function::Cos => Some(x.sin_cos()?.1),
        Function::Tan | Function::Cot => {
            let (sin, cos) = x.sin_cos()?;
            if *function == Function::Tan { sin.mul(&cos.inverse()?) } else { cos.mul(&sin.inverse()?) }
        }
        Function::Sec => x.sin_cos()?.1.inverse(),
        Function::Csc => x.sin_cos()?.0.inverse(),
        Function::Asin => x.atan2(&other_leg()?),
        Function::Acos => other_leg()?.atan2(x),
        Function::Atan => x.atan2(&one),
        Function::Sinh => x.exp()?.add(&x.neg().exp()?.neg())?.mul(&half),
        Function::Cosh => x.exp()?.add(&x.neg().exp()?)?.mul(&half),
        Function::Tanh => {
            let (up, down) = (x.exp()?, x.neg().exp()?);
            up.add(&down.neg())?.mul(&up.add(&down)?.inverse()?)
        }
        Function::Exp => x.exp(),
        Function::Ln => x.ln(),
        Function::Abs => x.abs(),
        Function::Floor => x.floor(),
        Function::Ceil => Some(x.neg().floor()?.neg()),
        Function::Re => x.re(),
        Function::Im => x.im(),
        Function::Log | Function::Factorial | Function::Binomial | Function::Named(_) | Function::Pending(_) => None,
    }
}
