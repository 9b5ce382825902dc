//! Real arithmetic in two precisions behind one trait: doubles, which reject most wrong answers in nanoseconds, and
//! floats of 384 bits, which confirm a right one.

use std::cell::RefCell;
use std::f64::consts::PI;
use std::ops::{Add, Div, Mul, Neg, Sub};

use dashu_base::{Abs, EstimatedLog2};
use dashu_float::{ConstCache, Context, FBig, FpResult, round::mode::HalfEven};
use dashu_ratio::RBig;

/// A real number. Results may be meaningless outside what [`super::ball`] checks before it calls.
pub(crate) trait Real:
    Clone
    + Neg<Output = Self>
    + for<'a> Add<&'a Self, Output = Self>
    + for<'a> Sub<&'a Self, Output = Self>
    + for<'a> Mul<&'a Self, Output = Self>
    + for<'a> Div<&'a Self, Output = Self>
{
    /// Bits of the significand.
    const BITS: f64;
    /// Relative price in fuel.
    const COST: u64;
    /// Beyond this power of two, numbers count as undefined.
    const MAX_LOG2: f64;

    fn of(value: &RBig) -> Self;
    fn pi() -> Self;
    /// Of a number from 0 up.
    fn sqrt(&self) -> Self;
    fn exp(&self) -> Option<Self>;
    /// Of a number above 0.
    fn ln(&self) -> Option<Self>;
    fn sin_cos(&self) -> Option<(Self, Self)>;
    /// The angle of (x, y), not the origin, where `self` is y.
    fn atan2(&self, x: &Self) -> Option<Self>;
    fn floor(&self) -> Self;
    fn is_negative(&self) -> bool;
    /// The binary logarithm of the magnitude; minus infinity for 0, infinity or NaN for what is not finite.
    fn log2(&self) -> f64;
}

impl Real for f64 {
    const BITS: f64 = 52.0;
    const COST: u64 = 1;
    const MAX_LOG2: f64 = 900.0;

    fn of(value: &RBig) -> Self {
        value.to_f64().value()
    }
    fn pi() -> Self {
        PI
    }
    fn sqrt(&self) -> Self {
        Self::sqrt(*self)
    }
    fn exp(&self) -> Option<Self> {
        Some(Self::exp(*self))
    }
    fn ln(&self) -> Option<Self> {
        Some(Self::ln(*self))
    }
    fn sin_cos(&self) -> Option<(Self, Self)> {
        Some(Self::sin_cos(*self))
    }
    fn atan2(&self, x: &Self) -> Option<Self> {
        Some(Self::atan2(*self, *x))
    }
    fn floor(&self) -> Self {
        Self::floor(*self)
    }
    fn is_negative(&self) -> bool {
        *self < 0.0
    }
    fn log2(&self) -> f64 {
        self.abs().log2()
    }
}

/// Bits of a [`Long`]: 115 decimal digits.
const PRECISION: usize = 384;

/// A float of 384 bits.
pub(crate) type Long = FBig<HalfEven, 2>;

const CONTEXT: Context<HalfEven> = Context::new(PRECISION);

thread_local! {
    /// The digits of pi and ln 2, which every function needs and which do not depend on what was computed before.
    static CONSTANTS: RefCell<ConstCache> = const { RefCell::new(ConstCache::new()) };
}

fn with_constants(compute: impl FnOnce(&Context<HalfEven>, &mut ConstCache) -> FpResult<Long>) -> Option<Long> {
    CONSTANTS.with_borrow_mut(|cache| compute(&CONTEXT, cache)).ok().map(dashu_base::Approximation::value)
}

impl Real for Long {
    const BITS: f64 = PRECISION as f64;
    const COST: u64 = 100;
    const MAX_LOG2: f64 = 200_000.0;

    fn of(value: &RBig) -> Self {
        value.to_float(PRECISION).value().with_precision(PRECISION).value()
    }
    fn pi() -> Self {
        CONSTANTS.with_borrow_mut(|cache| CONTEXT.pi(Some(cache)).value())
    }
    fn sqrt(&self) -> Self {
        if self.repr().significand().is_zero() { self.clone() } else { Self::sqrt(self) }
    }
    fn exp(&self) -> Option<Self> {
        with_constants(|context, cache| context.exp(self.repr(), Some(cache)))
    }
    fn ln(&self) -> Option<Self> {
        with_constants(|context, cache| context.ln(self.repr(), Some(cache)))
    }
    fn sin_cos(&self) -> Option<(Self, Self)> {
        CONSTANTS.with_borrow_mut(|cache| {
            let (sin, cos) = CONTEXT.sin_cos(self.repr(), Some(cache));
            Some((sin.ok()?.value(), cos.ok()?.value()))
        })
    }
    fn atan2(&self, x: &Self) -> Option<Self> {
        with_constants(|context, cache| context.atan2(self.repr(), x.repr(), Some(cache)))
    }
    fn floor(&self) -> Self {
        Self::floor(self).with_precision(PRECISION).value()
    }
    fn is_negative(&self) -> bool {
        !self.repr().significand().is_zero() && self.sign() == dashu_base::Sign::Negative
    }
    fn log2(&self) -> f64 {
        if self.repr().significand().is_zero() { f64::NEG_INFINITY } else { f64::from(self.clone().abs().log2_est()) }
    }
}
