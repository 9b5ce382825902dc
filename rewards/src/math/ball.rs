//! Complex numbers with a running bound on their error. The bound is what makes "equal" mean something after
//! cancellation: two balls differ for sure when their distance exceeds both errors by far.

use dashu_ratio::RBig;

use super::real::Real;

/// Trigonometric arguments beyond this power of two have no digits left.
const MAX_ANGLE: f64 = 40.0;
/// Balls this many bits closer than their errors count as touching.
const SLACK: f64 = 8.0;

/// A complex number `re + i im`; `error` is the binary logarithm of a bound on its absolute error.
#[derive(Debug, Clone)]
pub(crate) struct Ball<R> {
    re: R,
    im: R,
    error: f64,
}

/// `log2(2^a + 2^b)`.
fn join(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp2().ln_1p() / std::f64::consts::LN_2 }
}

fn real<R: Real>(value: f64) -> R {
    // Every finite double is a fraction; only constants of this file come here.
    R::of(&RBig::try_from(value).unwrap_or_default())
}

impl<R: Real> Ball<R> {
    /// `None` for what overflows. An imaginary part below the error is noise and is dropped.
    fn new(re: R, im: R, error: f64) -> Option<Self> {
        let size = re.log2().max(im.log2());
        // The comparisons are false for NaN.
        if !(size < R::MAX_LOG2 && (size > -R::MAX_LOG2 || size == f64::NEG_INFINITY) && error < R::MAX_LOG2) {
            return None;
        }
        let error = join(error, size - R::BITS);
        let im = if im.log2() <= error { real(0.0) } else { im };
        Some(Self { re, im, error })
    }

    pub(crate) fn of(value: &RBig) -> Option<Self> {
        Self::new(R::of(value), real(0.0), f64::NEG_INFINITY)
    }

    pub(crate) fn pi() -> Self {
        Self { re: R::pi(), im: real(0.0), error: 2.0 - R::BITS }
    }

    pub(crate) fn i() -> Self {
        Self { re: real(0.0), im: real(1.0), error: f64::NEG_INFINITY }
    }

    pub(crate) fn is_real(&self) -> bool {
        self.im.log2() == f64::NEG_INFINITY
    }

    /// Whether 0 lies in the ball, or too near to tell.
    pub(crate) fn may_be_zero(&self) -> bool {
        self.log2() <= self.error + SLACK
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.is_real() && self.re.is_negative()
    }

    /// The binary logarithm of the modulus, to within one.
    fn log2(&self) -> f64 {
        self.re.log2().max(self.im.log2())
    }

    /// Whether both may be the same number.
    pub(crate) fn touches(&self, other: &Self) -> bool {
        let (re, im) = (self.re.clone() - &other.re, self.im.clone() - &other.im);
        re.log2().max(im.log2()) <= self.error.max(other.error) + SLACK
    }

    pub(crate) fn re(&self) -> Option<Self> {
        Self::new(self.re.clone(), real(0.0), self.error)
    }

    pub(crate) fn im(&self) -> Option<Self> {
        Self::new(self.im.clone(), real(0.0), self.error)
    }

    pub(crate) fn neg(&self) -> Self {
        Self { re: -self.re.clone(), im: -self.im.clone(), error: self.error }
    }

    pub(crate) fn add(&self, other: &Self) -> Option<Self> {
        Self::new(self.re.clone() + &other.re, self.im.clone() + &other.im, join(self.error, other.error))
    }

    pub(crate) fn mul(&self, other: &Self) -> Option<Self> {
        let error = join(self.error + other.log2(), other.error + self.log2());
        if self.is_real() && other.is_real() {
            return Self::new(self.re.clone() * &other.re, real(0.0), error);
        }
        let re = self.re.clone() * &other.re - &(self.im.clone() * &other.im);
        let im = self.re.clone() * &other.im + &(self.im.clone() * &other.re);
        Self::new(re, im, join(error, self.log2() + other.log2() - R::BITS))
    }

    /// `1 / self`.
    pub(crate) fn inverse(&self) -> Option<Self> {
        if self.may_be_zero() {
            return None;
        }
        let error = self.error - 2.0 * self.log2();
        if self.is_real() {
            return Self::new(real::<R>(1.0) / &self.re, real(0.0), error);
        }
        let square = self.square();
        Self::new(self.re.clone() / &square, -self.im.clone() / &square, error)
    }

    /// The square of the modulus.
    fn square(&self) -> R {
        self.re.clone() * &self.re + &(self.im.clone() * &self.im)
    }

    /// `self ^ exponent`, by squaring.
    pub(crate) fn powi(&self, exponent: i32) -> Option<Self> {
        let (mut power, mut square) = (Self::of(&RBig::ONE)?, self.clone());
        let mut left = exponent.unsigned_abs();
        loop {
            if left & 1 == 1 {
                power = power.mul(&square)?;
            }
            left >>= 1;
            if left == 0 {
                break;
            }
            square = square.mul(&square)?;
        }
        if exponent < 0 { power.inverse() } else { Some(power) }
    }

    pub(crate) fn abs(&self) -> Option<Self> {
        if self.is_real() {
            return Some(if self.re.is_negative() { self.neg() } else { self.clone() });
        }
        Self::new(self.square().sqrt(), real(0.0), self.error)
    }

    /// The principal root: real part from 0 up.
    pub(crate) fn sqrt(&self) -> Option<Self> {
        if self.may_be_zero() {
            return Self::new(real(0.0), real(0.0), self.error.max(self.log2()) / 2.0);
        }
        let error = self.error - self.log2() / 2.0;
        if self.is_real() {
            let (root, zero) = (self.abs()?.re.sqrt(), real(0.0));
            return if self.re.is_negative() { Self::new(zero, root, error) } else { Self::new(root, zero, error) };
        }
        let (size, two) = (self.abs()?.re, real::<R>(2.0));
        let magnitude = |part: &R| if part.is_negative() { -part.clone() } else { part.clone() };
        let root = ((size + &magnitude(&self.re)) / &two).sqrt();
        let other = self.im.clone() / &(two * &root);
        if !self.re.is_negative() {
            return Self::new(root, other, error);
        }
        let im = if self.im.is_negative() { -root } else { root };
        Self::new(magnitude(&other), im, error)
    }

    pub(crate) fn exp(&self) -> Option<Self> {
        if self.re.log2() > R::MAX_LOG2.log2() || self.im.log2() > MAX_ANGLE {
            return None;
        }
        let size = self.re.exp()?;
        let error = self.error + size.log2() + 1.0;
        if self.is_real() {
            return Self::new(size, real(0.0), error);
        }
        let (sin, cos) = self.im.sin_cos()?;
        Self::new(size.clone() * &cos, size.clone() * &sin, join(error, size.log2() - R::BITS))
    }

    /// The principal logarithm.
    pub(crate) fn ln(&self) -> Option<Self> {
        if self.may_be_zero() {
            return None;
        }
        let error = join(self.error - self.log2(), -R::BITS);
        let re = self.abs()?.re.ln()?;
        let im = match (self.is_real(), self.re.is_negative()) {
            (true, false) => real(0.0),
            (true, true) => R::pi(),
            (false, _) => self.im.atan2(&self.re)?,
        };
        Self::new(re, im, error)
    }

    /// Sine and cosine.
    pub(crate) fn sin_cos(&self) -> Option<(Self, Self)> {
        if self.re.log2() > MAX_ANGLE || self.im.log2() > 8.0 {
            return None;
        }
        let (sin, cos) = self.re.sin_cos()?;
        let error = join(self.error, -R::BITS);
        if self.is_real() {
            return Some((Self::new(sin, real(0.0), error)?, Self::new(cos, real(0.0), error)?));
        }
        let (up, down, two) = (self.im.exp()?, (-self.im.clone()).exp()?, real::<R>(2.0));
        let (cosh, sinh) = ((up.clone() + &down) / &two, (up - &down) / &two);
        let error = error + cosh.log2() + 1.0;
        let sine = Self::new(sin.clone() * &cosh, cos.clone() * &sinh, error)?;
        Some((sine, Self::new(cos * &cosh, -sin * &sinh, error)?))
    }

    /// The angle of the point (`x`, `self`) of the real plane.
    pub(crate) fn atan2(&self, x: &Self) -> Option<Self> {
        if !(self.is_real() && x.is_real()) || (self.may_be_zero() && x.may_be_zero()) {
            return None;
        }
        if self.may_be_zero() {
            let angle = if x.re.is_negative() { R::pi() } else { real(0.0) };
            return Self::new(angle, real(0.0), join(self.error - x.log2(), -R::BITS));
        }
        let error = join(self.error, x.error) - self.log2().max(x.log2());
        Self::new(self.re.atan2(&x.re)?, real(0.0), join(error, -R::BITS))
    }

    /// The largest integer up to a real number; a number within its error of an integer is that integer.
    pub(crate) fn floor(&self) -> Option<Self> {
        if !self.is_real() || self.log2() > R::BITS - SLACK {
            return None;
        }
        let nearest = (self.re.clone() + &real(0.5)).floor();
        let on_it = (self.re.clone() - &nearest).log2() <= self.error + SLACK;
        Self::new(if on_it { nearest } else { self.re.floor() }, real(0.0), f64::NEG_INFINITY)
    }
}

impl Ball<f64> {
    /// The real part.
    pub(crate) fn to_f64(&self) -> f64 {
        self.re
    }
}
