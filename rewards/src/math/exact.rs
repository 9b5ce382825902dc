//! Exact arithmetic on fractions of any size, within fuel.

use dashu_base::{Abs, BitTest, Gcd, Signed, UnsignedAbs};
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

use super::expr::{Expr, Function};
use super::fuel::Fuel;

/// Longest numerator or denominator, in bits: 2006! has 19,100.
const MAX_BITS: usize = 1 << 15;
/// Largest n of n! and of the binomial (n, k).
const MAX_FACTORIAL: usize = 3000;

/// The length of a fraction.
fn bits(value: &RBig) -> usize {
    value.numerator().bit_len() + value.denominator().bit_len()
}

/// Pays for one product or sum of operands as long as these.
fn pay(fuel: &Fuel, a: &RBig, b: &RBig) -> Option<()> {
    let words = |value| bits(value) as u64 / 64 + 1;
    // Reducing to lowest terms is the dear part: Lehmer's algorithm, quadratic in the words.
    fuel.spend(4 + words(a) * words(b) / 4)?;
    (bits(a).max(bits(b)) <= 2 * MAX_BITS).then_some(())
}

pub(crate) fn add(a: &RBig, b: &RBig, fuel: &Fuel) -> Option<RBig> {
    pay(fuel, a, b)?;
    Some(a + b)
}

pub(crate) fn mul(a: &RBig, b: &RBig, fuel: &Fuel) -> Option<RBig> {
    pay(fuel, a, b)?;
    Some(a * b)
}

/// `base ^ exponent`; `None` for 0 to a negative power and for what is too long.
pub(crate) fn power(base: &RBig, exponent: &RBig, fuel: &Fuel) -> Option<RBig> {
    let exponent = i32::try_from(integer(exponent)?).ok()?;
    let size = exponent.unsigned_abs() as usize;
    if base.is_zero() {
        return if exponent < 0 { None } else { Some(if exponent == 0 { RBig::ONE } else { RBig::ZERO }) };
    }
    if bits(base) > 2 && bits(base).checked_mul(size)? > 2 * MAX_BITS {
        return None;
    }
    let words = (bits(base) * size.min(MAX_BITS)) as u64 / 64 + 1;
    fuel.spend(8 + words * words / 8)?;
    Some(base.pow(isize::try_from(exponent).ok()?))
}

/// The integer that `value` is.
pub(crate) fn integer(value: &RBig) -> Option<IBig> {
    value.denominator().is_one().then(|| value.numerator().clone())
}

/// `n! / (n - k)!`.
fn falling(n: usize, k: usize, fuel: &Fuel) -> Option<UBig> {
    let mut product = UBig::ONE;
    for factor in n - k + 1..=n {
        fuel.spend(2 + product.bit_len() as u64 / 256)?;
        product *= factor;
    }
    Some(product)
}

/// The value of an expression without symbols, where it is a fraction that exact arithmetic reaches.
pub(crate) fn value(expr: &Expr, fuel: &Fuel) -> Option<RBig> {
    match expr {
        Expr::Number(number) => Some(number.value.clone()),
        Expr::Constant(_) | Expr::Symbol(_) => None,
        Expr::Sum(terms) => terms.iter().try_fold(RBig::ZERO, |sum, term| add(&sum, &value(term, fuel)?, fuel)),
        Expr::Product(factors) => {
            factors.iter().try_fold(RBig::ONE, |product, factor| mul(&product, &value(factor, fuel)?, fuel))
        }
        Expr::Power(pair) => power(&value(&pair.0, fuel)?, &value(&pair.1, fuel)?, fuel),
        Expr::Root(pair) => root(&value(&pair.0, fuel)?, &value(&pair.1, fuel)?, fuel),
        Expr::Call(function, arguments) => {
            let arguments: Option<Vec<RBig>> = arguments.iter().map(|argument| value(argument, fuel)).collect();
            call(function, &arguments?, fuel)
        }
    }
}

/// The root of a fraction whose numerator and denominator are perfect powers.
fn root(degree: &RBig, radicand: &RBig, fuel: &Fuel) -> Option<RBig> {
    let degree = usize::try_from(integer(degree)?).ok().filter(|degree| (1..=64).contains(degree))?;
    if radicand.is_negative() && degree % 2 == 0 {
        return None;
    }
    let words = bits(radicand) as u64 / 64 + 1;
    fuel.spend(64 + words * words)?;
    let perfect = |value: UBig| {
        let root = value.nth_root(degree);
        (root.pow(degree) == value).then_some(root)
    };
    let numerator = perfect(radicand.numerator().clone().unsigned_abs())?;
    let denominator = perfect(radicand.denominator().clone())?;
    Some(RBig::from_parts(IBig::from_parts(radicand.sign(), numerator), denominator))
}

fn call(function: &Function, arguments: &[RBig], fuel: &Fuel) -> Option<RBig> {
    let small = |value: &RBig| usize::try_from(integer(value)?).ok().filter(|value| *value <= MAX_FACTORIAL);
    match (function, arguments) {
        (Function::Abs, [x]) => Some(x.clone().abs()),
        (Function::Re, [x]) => Some(x.clone()),
        (Function::Im, [_]) => Some(RBig::ZERO),
        (Function::Floor, [x]) => Some(x.floor().into()),
        (Function::Ceil, [x]) => Some(x.ceil().into()),
        (Function::Factorial, [n]) => {
            let n = small(n)?;
            Some(falling(n, n, fuel)?.into())
        }
        (Function::Binomial, [n, k]) => {
            let (n, k) = (small(n)?, small(k)?);
            if k > n {
                return Some(RBig::ZERO);
            }
            let k = k.min(n - k);
            Some((falling(n, k, fuel)? / falling(k, k, fuel)?).into())
        }
        (Function::Pending("max"), [first, rest @ ..]) => Some(rest.iter().fold(first, |a, b| a.max(b)).clone()),
        (Function::Pending("min"), [first, rest @ ..]) => Some(rest.iter().fold(first, |a, b| a.min(b)).clone()),
        (Function::Pending(name @ ("gcd" | "lcm")), [first, rest @ ..]) => {
            rest.iter().try_fold(first.clone(), |a, b| divisor_or_multiple(name, &a, b, fuel))
        }
        _ => None,
    }
}

fn divisor_or_multiple(name: &str, a: &RBig, b: &RBig, fuel: &Fuel) -> Option<RBig> {
    pay(fuel, a, b)?;
    let (a, b) = (integer(a)?.unsigned_abs(), integer(b)?.unsigned_abs());
    if a.is_zero() || b.is_zero() {
        return None;
    }
    let divisor = (&a).gcd(&b);
    Some(if name == "gcd" { divisor.into() } else { (a / divisor * b).into() })
}
