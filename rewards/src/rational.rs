//! Exact fractions of 128-bit integers. Every operation is checked: what does not fit is `None`, never a wrong number.

use std::fmt;

/// `num / den` in lowest terms, with `den > 0`; so equal values are equal structs.
///
/// ```
/// use reckon_rewards::Rational;
/// let third = Rational::new(1, 3).unwrap();
/// assert_eq!(third.add(third).and_then(|x| x.add(third)), Some(Rational::from(1)));
/// assert_eq!(Rational::new(1, 0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rational {
    num: i128,
    den: i128,
}

impl Rational {
    /// Zero.
    pub const ZERO: Self = Self { num: 0, den: 1 };

    /// `num / den`; `None` for a denominator of 0 or a sign that does not fit.
    pub fn new(num: i128, den: i128) -> Option<Self> {
        if den == 1 {
            return Some(Self { num, den });
        }
        if den == 0 {
            return None;
        }
        // Reducing magnitudes first keeps `i128::MIN` out of every division and negation.
        let common = gcd(num.unsigned_abs(), den.unsigned_abs());
        let (n, d) = (num.unsigned_abs() / common, den.unsigned_abs() / common);
        let n = i128::try_from(n).ok()?;
        Some(Self { num: if (num < 0) == (den < 0) { n } else { -n }, den: i128::try_from(d).ok()? })
    }

    /// The numerator.
    pub fn numerator(self) -> i128 {
        self.num
    }

    /// The denominator, above 0.
    pub fn denominator(self) -> i128 {
        self.den
    }

    /// `self + other`.
    #[allow(clippy::should_implement_trait)] // Checked, so not the operator.
    pub fn add(self, other: Self) -> Option<Self> {
        if self.den == other.den {
            return Self::new(self.num.checked_add(other.num)?, self.den);
        }
        let left = self.num.checked_mul(other.den)?;
        let right = other.num.checked_mul(self.den)?;
        Self::new(left.checked_add(right)?, self.den.checked_mul(other.den)?)
    }

    /// `self - other`.
    #[allow(clippy::should_implement_trait)]
    pub fn sub(self, other: Self) -> Option<Self> {
        self.add(other.neg()?)
    }

    /// `self * other`.
    #[allow(clippy::should_implement_trait)]
    pub fn mul(self, other: Self) -> Option<Self> {
        Self::new(self.num.checked_mul(other.num)?, self.den.checked_mul(other.den)?)
    }

    /// `self / other`; `None` also when `other` is 0.
    #[allow(clippy::should_implement_trait)]
    pub fn div(self, other: Self) -> Option<Self> {
        Self::new(self.num.checked_mul(other.den)?, self.den.checked_mul(other.num)?)
    }

    /// `-self`.
    #[allow(clippy::should_implement_trait)]
    pub fn neg(self) -> Option<Self> {
        Some(Self { num: self.num.checked_neg()?, den: self.den })
    }

    /// The nearest double, near enough for a tolerance.
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }
}

impl From<i64> for Rational {
    fn from(value: i64) -> Self {
        Self { num: i128::from(value), den: 1 }
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.den == 1 { write!(f, "{}", self.num) } else { write!(f, "{}/{}", self.num, self.den) }
    }
}

/// Euclid's algorithm, dropping to machine words as soon as both fit: 128-bit division is ten times slower.
fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        if let (Ok(small_a), Ok(small_b)) = (u64::try_from(a), u64::try_from(b)) {
            return u128::from(gcd_word(small_a, small_b));
        }
        (a, b) = (b, a % b);
    }
    a
}

fn gcd_word(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_none() {
        let huge = Rational::new(i128::MAX, 1).unwrap();
        let lowest = Rational::new(i128::MIN, 1).unwrap();
        assert_eq!(huge.add(Rational::from(1)), None);
        assert_eq!(huge.mul(huge), None);
        assert_eq!(lowest.neg(), None);
        assert_eq!(Rational::new(i128::MIN, -1), None);
        assert_eq!(Rational::from(1).div(Rational::ZERO), None);
    }

    #[test]
    fn values_are_in_lowest_terms_with_the_sign_above() {
        for (num, den, expected) in [(6, -4, "-3/2"), (-6, -4, "3/2"), (0, -7, "0"), (8, 4, "2")] {
            assert_eq!(Rational::new(num, den).unwrap().to_string(), expected);
        }
    }
}
