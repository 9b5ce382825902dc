//! The tree of a scalar. It is what was written, not simplified: [`super::poly`] and [`super::probe`] give it meaning.

use std::collections::BTreeSet;

use dashu_ratio::RBig;

/// A scalar expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Number(Number),
    Constant(Constant),
    Symbol(String),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    /// Base and exponent.
    Power(Box<(Self, Self)>),
    /// Degree and radicand; the real root where there is one.
    Root(Box<(Self, Self)>),
    Call(Function, Vec<Self>),
}

/// A literal: its exact value, and the digits behind the point where it was written as a decimal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    pub(crate) value: RBig,
    pub(crate) places: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Constant {
    Pi,
    E,
    I,
    Infinity,
    /// pi / 180.
    Degree,
}

/// What a call applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    Ln,
    /// Base, then argument.
    Log,
    Abs,
    Floor,
    Ceil,
    Re,
    Im,
    Factorial,
    Binomial,
    /// A function of which only the name is known.
    Named(String),
    /// An operation that an answer must carry out, not restate: a sum, an integral, a maximum.
    Pending(&'static str),
}

impl Number {
    /// A number that was not written as a decimal.
    pub(crate) fn exact(value: impl Into<RBig>) -> Self {
        Self { value: value.into(), places: None }
    }
}

impl Expr {
    pub(crate) fn integer(value: i64) -> Self {
        Self::number(value)
    }

    pub(crate) fn number(value: impl Into<RBig>) -> Self {
        Self::Number(Number::exact(value))
    }

    pub(crate) fn symbol(name: impl Into<String>) -> Self {
        Self::Symbol(name.into())
    }

    pub(crate) fn power(base: Self, exponent: Self) -> Self {
        Self::Power(Box::new((base, exponent)))
    }

    pub(crate) fn root(degree: Self, radicand: Self) -> Self {
        Self::Root(Box::new((degree, radicand)))
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let mut terms = if let Self::Sum(terms) = self { terms } else { vec![self] };
        terms.push(other);
        Self::Sum(terms)
    }

    pub(crate) fn times(self, other: Self) -> Self {
        let mut factors = if let Self::Product(factors) = self { factors } else { vec![self] };
        factors.push(other);
        Self::Product(factors)
    }

    pub(crate) fn over(self, other: Self) -> Self {
        self.times(Self::power(other, Self::integer(-1)))
    }

    /// `-self`; of a literal, the literal of the other sign.
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Number(Number { value, places }) => Self::Number(Number { value: -value, places }),
            Self::Product(mut factors) => {
                factors.insert(0, Self::integer(-1));
                Self::Product(factors)
            }
            other => Self::Product(vec![Self::integer(-1), other]),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    /// Calls `see` on this expression and all below it.
    pub(crate) fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        match self {
            Self::Number(_) | Self::Constant(_) | Self::Symbol(_) => {}
            Self::Sum(parts) | Self::Product(parts) | Self::Call(_, parts) => {
                parts.iter().for_each(|part| part.visit(see));
            }
            Self::Power(pair) | Self::Root(pair) => {
                pair.0.visit(see);
                pair.1.visit(see);
            }
        }
    }

    /// The names of its symbols.
    pub(crate) fn symbols(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.visit(&mut |expr| {
            if let Self::Symbol(name) = expr {
                names.insert(name.as_str());
            }
        });
        names
    }

    /// The names of its symbols, and of the functions of which only the name is known.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let mut names = self.symbols();
        self.visit(&mut |expr| {
            if let Self::Call(Function::Named(name), _) = expr {
                names.insert(name.as_str());
            }
        });
        names
    }

    /// The operations that it leaves pending.
    pub(crate) fn pending(&self) -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        self.visit(&mut |expr| {
            if let Self::Call(Function::Pending(name), _) = expr {
                names.insert(*name);
            }
        });
        names
    }

    /// With what `instead` has for a symbol in its place.
    pub(crate) fn with_symbols(&self, instead: &impl Fn(&str) -> Option<Self>) -> Self {
        let each = |parts: &[Self]| parts.iter().map(|part| part.with_symbols(instead)).collect();
        match self {
            Self::Symbol(name) => instead(name).unwrap_or_else(|| self.clone()),
            Self::Number(_) | Self::Constant(_) => self.clone(),
            Self::Sum(parts) => Self::Sum(each(parts)),
            Self::Product(parts) => Self::Product(each(parts)),
            Self::Call(function, parts) => Self::Call(function.clone(), each(parts)),
            Self::Power(pair) => Self::power(pair.0.with_symbols(instead), pair.1.with_symbols(instead)),
            Self::Root(pair) => Self::root(pair.0.with_symbols(instead), pair.1.with_symbols(instead)),
        }
    }
}
