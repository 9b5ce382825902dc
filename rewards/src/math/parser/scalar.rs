//! Arithmetic: sums, products with and without sign, powers, and what they are made of.

use super::super::expr::{Constant, Expr, Function, Number};
use super::super::region::Region;
use super::super::text::{self, Phrase};
use super::super::token::{Bracket, Token};
use super::super::value::{Brackets, Value};
use super::Parser;

impl Parser<'_> {
    pub(super) fn sum(&mut self) -> Option<Value> {
        let mut sum = self.term()?;
        while let Some(Token::Plus | Token::Minus | Token::PlusMinus | Token::MinusPlus) = self.peek() {
            let term = self.term()?;
            sum = add(sum, term)?;
        }
        Some(sum)
    }

    /// A product with its signs.
    fn term(&mut self) -> Option<Value> {
        let mut negative = false;
        loop {
            match self.peek() {
                Some(Token::Plus) => {}
                Some(Token::Minus) => negative = !negative,
                Some(Token::PlusMinus) => {
                    self.signed = true;
                    negative ^= self.sign == Some(false);
                }
                Some(Token::MinusPlus) => {
                    self.signed = true;
                    negative ^= self.sign == Some(true);
                }
                _ => break,
            }
            self.at += 1;
        }
        let product = self.product()?;
        if negative { scale(product, |expr| expr.negated()) } else { Some(product) }
    }

    pub(super) fn product(&mut self) -> Option<Value> {
        if let Some(mixed) = self.mixed_number() {
            return Some(Value::Scalar(mixed));
        }
        let mut product = self.power()?;
        loop {
            match self.peek() {
                Some(Token::Times) => {
                    self.at += 1;
                    product = multiply(product, self.signed_power()?)?;
                }
                Some(Token::Over) if !self.unit_follows() => {
                    self.at += 1;
                    let Value::Scalar(divisor) = self.signed_power()? else { return None };
                    product = scale(product, |expr| expr.over(divisor))?;
                }
                // `3 x 10^8`.
                Some(Token::Symbol(x)) if x == "x" && self.ten_follows() => {
                    self.at += 1;
                    product = multiply(product, self.power()?)?;
                }
                Some(token) if self.multiplies(token) => product = multiply(product, self.power()?)?,
                _ => return Some(product),
            }
        }
    }

    fn signed_power(&mut self) -> Option<Value> {
        let negative = self.take(&Token::Minus);
        let power = self.power()?;
        if negative { scale(power, |expr| expr.negated()) } else { Some(power) }
    }

    /// Whether a quotient sign belongs to a unit, as in `5 / second`.
    fn unit_follows(&self) -> bool {
        matches!(self.peek_at(1), Some(Token::Text(_) | Token::Word(_)))
    }

    fn ten_follows(&self) -> bool {
        let ten = |token: &Token| matches!(token, Token::Number(number) if number.value == 10.into());
        self.at > 0
            && matches!(self.lexemes[self.at - 1].token, Token::Number(_))
            && self.peek_at(1).is_some_and(ten)
            && self.peek_at(2) == Some(&Token::Power)
    }

    /// Whether `token` continues a product without a sign between.
    fn multiplies(&self, token: &Token) -> bool {
        match token {
            Token::Symbol(_)
            | Token::Constant(_)
            | Token::Function(_)
            | Token::Log
            | Token::Frac
            | Token::Binomial
            | Token::Root
            | Token::Accent(_)
            | Token::Magnitude(_)
            | Token::Begin => true,
            Token::Open(Bracket::Round) => self.peek_at(1) != Some(&Token::Modulus),
            Token::Open(bracket) => !matches!(bracket, Bracket::Brace | Bracket::Angle | Bracket::Outward),
            Token::Bar => self.bars == 0 && !self.builder,
            // Two numbers side by side are no product, but `(2)3^x` and `3!7!` are.
            Token::Number(_) => {
                let behind = &self.lexemes[self.at.saturating_sub(2)..self.at];
                let tokens: Vec<&Token> = behind.iter().map(|lexeme| &lexeme.token).collect();
                // `30^{\circ}15'` adds.
                matches!(tokens.as_slice(), [.., Token::Close(_) | Token::Factorial])
                    && !matches!(tokens.as_slice(), [Token::Degree, _])
            }
            _ => false,
        }
    }

    /// `2\frac12` and `2 1/2`.
    fn mixed_number(&mut self) -> Option<Expr> {
        let whole = |token: Option<&Token>| match token {
            Some(Token::Number(Number { value, places: None })) if value.denominator().is_one() => Some(value.clone()),
            _ => None,
        };
        let integer = whole(self.peek())?;
        let fraction = match self.peek_at(1)? {
            Token::Frac => {
                let start = self.at;
                self.at += 2;
                let fraction = self.fraction();
                let proper = fraction.as_ref().is_some_and(proper) && self.peek() != Some(&Token::Power);
                if !proper {
                    self.at = start;
                    return None;
                }
                fraction?
            }
            Token::Number(_) if self.peek_at(2) == Some(&Token::Over) && self.lexemes[self.at + 1].spaced => {
                let (above, below) = (whole(self.peek_at(1))?, whole(self.peek_at(3))?);
                self.at += 4;
                Expr::number(above).over(Expr::number(below))
            }
            _ => return None,
        };
        Some(Expr::number(integer).plus(fraction))
    }

    pub(super) fn power(&mut self) -> Option<Value> {
        let mut value = self.nested(Self::primary)?;
        let mut marks = 0;
        loop {
            match self.peek() {
                Some(Token::Power) if self.degree_follows() => {
                    value = scale(value, |expr| expr.times(Expr::Constant(Constant::Degree)))?;
                }
                Some(Token::Degree) => {
                    self.at += 1;
                    value = scale(value, |expr| expr.times(Expr::Constant(Constant::Degree)))?;
                }
                Some(Token::Power) => {
                    self.at += 1;
                    let exponent = self.exponent()?;
                    value = scale(value, |expr| Expr::power(expr, exponent))?;
                }
                Some(Token::Prime) if matches!(value, Value::Scalar(Expr::Number(_))) => {
                    let seconds = self.peek_at(1) == Some(&Token::Prime);
                    self.at += if seconds { 2 } else { 1 };
                    let part = Expr::integer(if seconds { 3600 } else { 60 });
                    value = scale(value, |expr| expr.over(part).times(Expr::Constant(Constant::Degree)))?;
                }
                Some(Token::Subscript) => value = self.in_base_behind(value)?,
                Some(Token::Factorial) => {
                    self.at += 1;
                    value = scale(value, |expr| Expr::Call(Function::Factorial, vec![expr]))?;
                }
                _ => return Some(value),
            }
            // Every mark is one more level of the tree.
            marks += 1;
            if marks > 8 {
                return None;
            }
        }
    }

    /// Consumes `^\circ` or `^{\circ}`.
    fn degree_follows(&mut self) -> bool {
        // An `o` is what a keyboard has for a degree.
        let degree =
            |at| self.peek_at(at).is_some_and(|token| *token == Token::Degree || *token == Token::Symbol("o".into()));
        let grouped = self.peek_at(1) == Some(&Token::Open(Bracket::Group)) && degree(2);
        let bare = degree(1);
        self.at += if grouped { 4 } else { 2 * usize::from(bare) };
        self.at = self.at.min(self.lexemes.len());
        grouped || bare
    }

    pub(super) fn exponent(&mut self) -> Option<Expr> {
        let negative = self.take(&Token::Minus);
        let exponent = self.argument()?;
        // `2^3^2` is 2^(3^2).
        let exponent =
            if self.take(&Token::Power) { Expr::power(exponent, self.nested(Self::exponent)?) } else { exponent };
        Some(if negative { exponent.negated() } else { exponent })
    }

    /// The argument of a command or exponent: a group, or one token.
    pub(super) fn argument(&mut self) -> Option<Expr> {
        match self.nested(Self::primary)? {
            Value::Scalar(expr) => Some(expr),
            _ => None,
        }
    }

    fn primary(&mut self) -> Option<Value> {
        let token = self.next()?;
        let scalar = match token {
            Token::Number(number) => match self.chosen_from(number) {
                Some(choices) => choices,
                None => Expr::Number(number.clone()),
            },
            Token::Constant(constant) => Expr::Constant(*constant),
            Token::Symbol(name) => self.symbol(name)?,
            Token::Accent(mark) => {
                let of = self.spelled()?;
                Expr::symbol(format!("{mark} {of}"))
            }
            Token::Frac => self.fraction()?,
            Token::Binomial => Expr::Call(Function::Binomial, vec![self.argument()?, self.argument()?]),
            Token::Root => self.radical()?,
            Token::Function(function) => self.call(function)?,
            Token::Log => self.logarithm()?,
            Token::Bar => {
                self.bars += 1;
                let inside = self.sum()?;
                self.bars -= 1;
                self.expect(&Token::Bar)?;
                Expr::Call(Function::Abs, vec![inside.scalar()?.clone()])
            }
            Token::Magnitude(power) => Expr::power(Expr::integer(10), Expr::integer(*power)),
            Token::Digits(digits) => return self.in_base(digits),
            Token::Text(_) | Token::Word(_) => return Some(self.words(token)),
            Token::Empty => return Some(Value::Collection(Brackets::Set, Vec::new())),
            Token::Reals => return Some(Value::Region(Region::all())),
            Token::Subscript | Token::Power => self.prefixed()?,
            Token::Open(Bracket::Group) if self.take(&Token::Close(Bracket::Group)) => {
                self.next().filter(|token| matches!(token, Token::Subscript | Token::Power))?;
                self.prefixed()?
            }
            Token::Open(bracket) => return self.bracketed(*bracket),
            Token::Begin => return self.matrix(),
            _ => return None,
        };
        Some(Value::Scalar(scalar))
    }

    fn words(&mut self, first: &Token) -> Value {
        let mut text = String::new();
        let mut next = Some(first);
        while let Some(Token::Text(word) | Token::Word(word)) = next {
            text.push_str(word);
            next = self.peek().filter(|token| matches!(token, Token::Text(_) | Token::Word(_)));
            self.at += usize::from(next.is_some());
        }
        match text::phrase(&text::plain(&text)) {
            Some(Phrase::Infinity) => Value::Scalar(Expr::Constant(Constant::Infinity)),
            Some(Phrase::Reals) => Value::Region(Region::all()),
            Some(Phrase::Nothing) => Value::Collection(Brackets::Set, Vec::new()),
            None => Value::Text(text),
        }
    }
}

/// Whether a fraction is one of whole numbers, as in a mixed number.
fn proper(fraction: &Expr) -> bool {
    let Expr::Product(factors) = fraction else { return false };
    let whole = |expr: &Expr| matches!(expr, Expr::Number(number) if number.places.is_none());
    match factors.as_slice() {
        [above, Expr::Power(below)] => whole(above) && whole(&below.0),
        _ => false,
    }
}

fn add(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Scalar(a), Value::Scalar(b)) => Some(Value::Scalar(a.plus(b))),
        (Value::Collection(brackets, a), Value::Collection(other, b)) if brackets == other && a.len() == b.len() => {
            let items: Option<Vec<Value>> = a.into_iter().zip(b).map(|(a, b)| add(a, b)).collect();
            Some(Value::Collection(brackets, items?))
        }
        (Value::Matrix(a), Value::Matrix(b)) if a.len() == b.len() => {
            let row = |(a, b): (Vec<Value>, Vec<Value>)| a.into_iter().zip(b).map(|(a, b)| add(a, b)).collect();
            let rows: Option<Vec<Vec<Value>>> = a.into_iter().zip(b).map(row).collect();
            Some(Value::Matrix(rows?))
        }
        _ => None,
    }
}

fn multiply(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Scalar(a), Value::Scalar(b)) => Some(Value::Scalar(a.times(b))),
        (Value::Scalar(factor), vector) | (vector, Value::Scalar(factor)) => {
            scale(vector, |expr| factor.clone().times(expr))
        }
        _ => None,
    }
}

/// `change` on a scalar, or on every component of a vector or matrix.
pub(super) fn scale(value: Value, change: impl FnOnce(Expr) -> Expr + Clone) -> Option<Value> {
    match value {
        Value::Scalar(expr) => Some(Value::Scalar(change(expr))),
        Value::Quantity(expr, unit) => Some(Value::Quantity(change(expr), unit)),
        Value::Collection(brackets @ (Brackets::Round | Brackets::Square | Brackets::Angle), items) => {
            let items: Option<Vec<Value>> = items.into_iter().map(|item| scale_leaf(item, change.clone())).collect();
            Some(Value::Collection(brackets, items?))
        }
        Value::Matrix(rows) => {
            let row = |row: Vec<Value>| row.into_iter().map(|item| scale_leaf(item, change.clone())).collect();
            let rows: Option<Vec<Vec<Value>>> = rows.into_iter().map(row).collect();
            Some(Value::Matrix(rows?))
        }
        _ => None,
    }
}

fn scale_leaf(value: Value, change: impl FnOnce(Expr) -> Expr) -> Option<Value> {
    match value {
        Value::Scalar(expr) => Some(Value::Scalar(change(expr))),
        _ => None,
    }
}
