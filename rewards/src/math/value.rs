//! What an answer is: a typed value. Leaves reading to [`super::parser`] and equality to [`super::compare`].

use super::expr::{Constant, Expr};
use super::region::Region;
use super::units::Unit;

/// A typed answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Expr),
    /// A scalar with its unit.
    Quantity(Expr, Unit),
    /// Words; compared without regard to case and spaces.
    Text(String),
    Collection(Brackets, Vec<Self>),
    /// Rows of equal length.
    Matrix(Vec<Vec<Self>>),
    /// A set of real numbers.
    Region(Region),
    Relation(Chain),
    /// `a : b : c`.
    Ratio(Vec<Expr>),
}

/// What holds the items of a collection together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brackets {
    /// `a, b`: commas, `and`; in any order.
    List,
    /// `a or b`, and the two values of `a \pm b`.
    Either,
    /// `(a, b)`: a tuple, or an open interval.
    Round,
    /// `[a, b]`: a tuple, or a closed interval.
    Square,
    /// `\langle a, b \rangle`.
    Angle,
    /// `\{a, b\}`.
    Set,
    /// `(a, b]`.
    LeftOpen,
    /// `[a, b)`.
    RightOpen,
}

/// `a < b \le c`: one relation fewer than terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chain {
    pub(crate) terms: Vec<Value>,
    pub(crate) relations: Vec<Relation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    About,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    /// Congruence, subset, divisibility and others of which only the name is known.
    Other(&'static str),
}

impl Relation {
    /// The relation with its sides exchanged.
    pub(crate) fn flipped(self) -> Option<Self> {
        Some(match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            Self::Equal | Self::About | Self::NotEqual => self,
            Self::In | Self::Other(_) => return None,
        })
    }
}

impl Value {
    /// Calls `see` on every scalar in it.
    pub(crate) fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Expr)) {
        match self {
            Self::Scalar(expr) | Self::Quantity(expr, _) => see(expr),
            Self::Text(_) | Self::Region(_) => {}
            Self::Collection(_, items) => items.iter().for_each(|item| item.visit(see)),
            Self::Matrix(rows) => rows.iter().flatten().for_each(|item| item.visit(see)),
            Self::Relation(chain) => chain.terms.iter().for_each(|term| term.visit(see)),
            Self::Ratio(parts) => parts.iter().for_each(see),
        }
    }

    /// The items of a list, or the value itself as the only one.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Collection(Brackets::List | Brackets::Either, items) => items,
            other => std::slice::from_ref(other),
        }
    }

    /// Whether it says that something is more, less or other than something else.
    pub(crate) fn is_inequality(&self) -> bool {
        use Relation::{Greater, GreaterEqual, Less, LessEqual, NotEqual};
        let unequal = |relation: &Relation| matches!(relation, NotEqual | Less | LessEqual | Greater | GreaterEqual);
        matches!(self, Self::Relation(chain) if chain.relations.iter().any(unequal))
    }

    /// The end of a chain of equations, where it is more than a name for its start: `3` of `\sum_{k=1}^2 k = 3`.
    pub(crate) fn result(&self) -> Option<&Self> {
        let Self::Relation(chain) = self else { return None };
        let equations = chain.relations.iter().all(|relation| matches!(relation, Relation::Equal | Relation::About));
        chain.terms.last().filter(|last| equations && !matches!(last, Self::Scalar(Expr::Symbol(_))))
    }

    /// The scalar without its unit.
    pub(crate) fn scalar(&self) -> Option<&Expr> {
        match self {
            Self::Scalar(expr) | Self::Quantity(expr, _) => Some(expr),
            _ => None,
        }
    }
}

/// 1 or -1 for plus or minus infinity, possibly times numbers.
pub(crate) fn infinite(expr: &Expr) -> Option<i8> {
    match expr {
        Expr::Constant(Constant::Infinity) => Some(1),
        Expr::Product(factors) if factors.contains(&Expr::Constant(Constant::Infinity)) => {
            factors.iter().try_fold(1, |sign, factor| match factor {
                Expr::Number(number) if !number.value.is_zero() => {
                    Some(if number.value < dashu_ratio::RBig::ZERO { -sign } else { sign })
                }
                Expr::Constant(Constant::Infinity) => Some(sign),
                _ => None,
            })
        }
        _ => None,
    }
}
