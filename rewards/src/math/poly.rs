//! Normal forms: an expression as a quotient of polynomials with exact coefficients, so that equality of rational
//! functions is decided, not probed.

use std::collections::BTreeMap;

use dashu_ratio::RBig;

use super::exact;
use super::expr::{Constant, Expr};
use super::fuel::Fuel;

/// Most terms of a polynomial.
const MAX_TERMS: usize = 256;
/// Largest exponent.
const MAX_DEGREE: u32 = 64;

/// Powers by symbol.
type Monomial<'a> = BTreeMap<&'a str, u32>;

/// A sum of coefficients times monomials; none is 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Poly<'a>(BTreeMap<Monomial<'a>, RBig>);

impl<'a> Poly<'a> {
    fn constant(value: RBig) -> Self {
        let terms = (!value.is_zero()).then(|| (Monomial::new(), value));
        Self(terms.into_iter().collect())
    }

    fn symbol(name: &'a str) -> Self {
        Self(BTreeMap::from([(Monomial::from([(name, 1)]), RBig::ONE)]))
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            sum.add_term(monomial.clone(), coefficient, fuel)?;
        }
        Some(sum)
    }

    fn add_term(&mut self, monomial: Monomial<'a>, coefficient: &RBig, fuel: &Fuel) -> Option<()> {
        fuel.spend(20)?;
        let sum = match self.0.get(&monomial) {
            None => coefficient.clone(),
            Some(old) => exact::add(old, coefficient, fuel)?,
        };
        if sum.is_zero() {
            self.0.remove(&monomial);
        } else {
            self.0.insert(monomial, sum);
        }
        (self.0.len() <= MAX_TERMS).then_some(())
    }

    pub(crate) fn mul(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        let mut product = Self(BTreeMap::new());
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let mut monomial = a.clone();
                for (name, power) in b {
                    let power = monomial.entry(name).and_modify(|sum| *sum += power).or_insert(*power);
                    (*power <= MAX_DEGREE).then_some(())?;
                }
                product.add_term(monomial, &exact::mul(x, y, fuel)?, fuel)?;
            }
        }
        Some(product)
    }

    fn power(&self, exponent: u32, fuel: &Fuel) -> Option<Self> {
        (0..exponent).try_fold(Self::constant(RBig::ONE), |product, _| product.mul(self, fuel))
    }

    /// `c` with `self = c * other`, where there is such a number and neither side is 0.
    pub(crate) fn multiple_of(&self, other: &Self, fuel: &Fuel) -> Option<RBig> {
        let ((_, first), (_, second)) = (self.0.first_key_value()?, other.0.first_key_value()?);
        let factor = exact::mul(first, &exact::power(second, &RBig::from(-1), fuel)?, fuel)?;
        (*self == other.mul(&Self::constant(factor.clone()), fuel)?).then_some(factor)
    }

    /// For a polynomial `slope * x + offset` in one symbol.
    pub(crate) fn linear(&self) -> Option<(&'a str, RBig, RBig)> {
        let (mut found, mut offset) = (None, RBig::ZERO);
        for (monomial, coefficient) in &self.0 {
            match monomial.iter().next() {
                None => offset = coefficient.clone(),
                Some((name, 1)) if monomial.len() == 1 && found.is_none() => found = Some((*name, coefficient.clone())),
                Some(_) => return None,
            }
        }
        found.map(|(name, slope)| (name, slope, offset))
    }
}

/// `numerator / denominator`, without common factors taken out.
#[derive(Debug, Clone)]
pub(crate) struct Fraction<'a> {
    pub(crate) numerator: Poly<'a>,
    pub(crate) denominator: Poly<'a>,
}

impl<'a> Fraction<'a> {
    fn whole(numerator: Poly<'a>) -> Self {
        Self { numerator, denominator: Poly::constant(RBig::ONE) }
    }

    /// The normal form of `expr`, where it is a rational function and fuel suffices.
    pub(crate) fn of(expr: &'a Expr, fuel: &Fuel) -> Option<Self> {
        fuel.spend(10)?;
        match expr {
            Expr::Symbol(name) => Some(Self::whole(Poly::symbol(name))),
            Expr::Sum(terms) => terms
                .iter()
                .try_fold(Self::whole(Poly::constant(RBig::ZERO)), |sum, term| sum.add(&Self::of(term, fuel)?, fuel)),
            Expr::Product(factors) => {
                factors.iter().try_fold(Self::whole(Poly::constant(RBig::ONE)), |product, factor| {
                    product.mul(&Self::of(factor, fuel)?, fuel)
                })
            }
            Expr::Power(pair) => Self::power(pair, fuel),
            Expr::Constant(Constant::I | Constant::Pi | Constant::E | Constant::Infinity | Constant::Degree) => None,
            Expr::Number(_) | Expr::Root(_) | Expr::Call(..) => {
                exact::value(expr, fuel).map(|value| Self::whole(Poly::constant(value)))
            }
        }
    }

    fn power(pair: &'a (Expr, Expr), fuel: &Fuel) -> Option<Self> {
        if let Some(value) = exact::value(&pair.0, fuel) {
            let value = exact::power(&value, &exact::value(&pair.1, fuel)?, fuel)?;
            return Some(Self::whole(Poly::constant(value)));
        }
        let exponent = i32::try_from(exact::integer(&exact::value(&pair.1, fuel)?)?).ok()?;
        let size = Some(exponent.unsigned_abs()).filter(|size| *size <= MAX_DEGREE)?;
        let base = Self::of(&pair.0, fuel)?;
        let (above, below) = (base.numerator.power(size, fuel)?, base.denominator.power(size, fuel)?);
        let (numerator, denominator) = if exponent < 0 { (below, above) } else { (above, below) };
        (!denominator.is_zero()).then_some(Self { numerator, denominator })
    }

    fn mul(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        let numerator = self.numerator.mul(&other.numerator, fuel)?;
        Some(Self { numerator, denominator: self.denominator.mul(&other.denominator, fuel)? })
    }

    fn add(&self, other: &Self, fuel: &Fuel) -> Option<Self> {
        if self.denominator == other.denominator {
            let numerator = self.numerator.add(&other.numerator, fuel)?;
            return Some(Self { numerator, denominator: self.denominator.clone() });
        }
        let left = self.numerator.mul(&other.denominator, fuel)?;
        let right = other.numerator.mul(&self.denominator, fuel)?;
        let denominator = self.denominator.mul(&other.denominator, fuel)?;
        Some(Self { numerator: left.add(&right, fuel)?, denominator })
    }

    /// Whether both are the same function, by cross multiplication.
    pub(crate) fn equals(&self, other: &Self, fuel: &Fuel) -> Option<bool> {
        Some(self.numerator.mul(&other.denominator, fuel)? == other.numerator.mul(&self.denominator, fuel)?)
    }
}
