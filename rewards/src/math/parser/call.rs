//! Fractions, roots, logarithms, named functions, and operations that are left pending.

use super::super::expr::{Expr, Function};
use super::super::token::{Bracket, Token};
use super::super::value::Value;
use super::Parser;

impl Parser<'_> {
    /// What follows `\frac`; `\frac{d}{dx}` is a derivative left pending.
    pub(super) fn fraction(&mut self) -> Option<Expr> {
        let (above, below) = (self.argument()?, self.argument()?);
        if starts_with_d(&above) && starts_with_d(&below) && matches!(below, Expr::Product(_)) {
            return Some(Expr::Call(Function::Pending("derivative"), vec![above, below]));
        }
        Some(above.over(below))
    }

    pub(super) fn radical(&mut self) -> Option<Expr> {
        let degree = if self.take(&Token::Open(Bracket::Square)) {
            let degree = self.sum()?.scalar()?.clone();
            self.expect(&Token::Close(Bracket::Square))?;
            degree
        } else {
            Expr::integer(2)
        };
        Some(Expr::root(degree, self.argument()?))
    }

    pub(super) fn logarithm(&mut self) -> Option<Expr> {
        let base = if self.take(&Token::Subscript) { self.argument()? } else { Expr::integer(10) };
        let power = if self.take(&Token::Power) { Some(self.exponent()?) } else { None };
        let logarithm = Expr::Call(Function::Log, vec![base, self.operand()?]);
        Some(power.map_or(logarithm.clone(), |power| Expr::power(logarithm, power)))
    }

    pub(super) fn call(&mut self, function: &Function) -> Option<Expr> {
        if let Function::Pending(_) = function {
            return self.pending(function);
        }
        let power = if self.take(&Token::Power) { Some(self.exponent()?) } else { None };
        let argument = self.operand()?;
        Some(match power {
            None => Expr::Call(function.clone(), vec![argument]),
            Some(power) if power == Expr::integer(-1) => Expr::Call(inverse(function)?, vec![argument]),
            Some(power) => Expr::power(Expr::Call(function.clone(), vec![argument]), power),
        })
    }

    /// The argument of a function: one in brackets, or factors up to the next sign or function: `\sin 2x \cos y`.
    fn operand(&mut self) -> Option<Expr> {
        let bracketed = matches!(self.peek(), Some(Token::Open(_) | Token::Bar));
        let negative = self.take(&Token::Minus);
        let scalar = |value: Value| if let Value::Scalar(expr) = value { Some(expr) } else { None };
        let mut operand = scalar(self.power_of_operand(bracketed)?)?;
        if !bracketed {
            let continues = |token: &Token| {
                matches!(token, Token::Symbol(_) | Token::Constant(_) | Token::Frac | Token::Root | Token::Accent(_))
            };
            while self.peek().is_some_and(continues) {
                operand = operand.times(scalar(self.power()?)?);
            }
        }
        Some(if negative { operand.negated() } else { operand })
    }

    /// `\sin(x)^2` squares the sine, `\sin x^2` the argument.
    fn power_of_operand(&mut self, bracketed: bool) -> Option<Value> {
        if bracketed { self.argument().map(Value::Scalar) } else { self.power() }
    }

    /// A sum, integral, limit or the like: its bounds and what it applies to, not carried out.
    fn pending(&mut self, function: &Function) -> Option<Expr> {
        let mut arguments = Vec::new();
        while let Some(Token::Subscript | Token::Power) = self.peek() {
            self.at += 1;
            let bound = self.nested(Self::bound)?;
            bound.visit(&mut |expr| arguments.push(expr.clone()));
        }
        let body = self.nested(Self::product)?;
        body.visit(&mut |expr| arguments.push(expr.clone()));
        Some(Expr::Call(function.clone(), arguments))
    }

    fn bound(&mut self) -> Option<Value> {
        if self.take(&Token::Open(Bracket::Group)) {
            let bound = self.list()?;
            self.expect(&Token::Close(Bracket::Group))?;
            return Some(bound);
        }
        Some(Value::Scalar(self.argument()?))
    }

    /// `(a, b)` behind the name of a function.
    pub(super) fn arguments(&mut self) -> Option<Vec<Expr>> {
        self.expect(&Token::Open(Bracket::Round))?;
        let list = self.nested(Self::list)?;
        self.expect(&Token::Close(Bracket::Round))?;
        list.items().iter().map(|item| item.scalar().cloned()).collect()
    }
}

fn inverse(function: &Function) -> Option<Function> {
    Some(match function {
        Function::Sin => Function::Asin,
        Function::Cos => Function::Acos,
        Function::Tan => Function::Atan,
        _ => return None,
    })
}

/// Whether an expression starts with the d of a derivative.
fn starts_with_d(expr: &Expr) -> bool {
    match expr {
        Expr::Symbol(name) => name == "d" || name == "partial",
        Expr::Product(factors) => factors.first().is_some_and(starts_with_d),
        Expr::Power(pair) => starts_with_d(&pair.0),
        _ => false,
    }
}
