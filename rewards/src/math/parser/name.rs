//! Names: symbols with primes and indices, functions of which only the name is known, digits with a base.

use super::super::exact;
use super::super::expr::{Expr, Function, Number};
use super::super::text;
use super::super::token::{Bracket, Token};
use super::super::units::Unit;
use super::super::value::Value;
use super::Parser;

/// Letters that a bracket behind them applies rather than multiplies.
const FUNCTIONS: [&str; 10] = ["f", "g", "h", "F", "G", "H", "P", "Q", "W", "T"];

impl Parser<'_> {
    /// A symbol with its primes and index; applied, if it is a function's.
    pub(super) fn symbol(&mut self, name: &str) -> Option<Expr> {
        if let Some(choices) = self.indexed_choices(name) {
            return Some(choices);
        }
        let mut name = name.to_string();
        loop {
            if self.take(&Token::Prime) {
                name.push('\'');
            } else if self.take(&Token::Subscript) {
                name.push('_');
                name.push_str(&self.spelled()?);
            } else {
                break;
            }
        }
        if let Some(choices) = self.chosen(&name) {
            return Some(choices);
        }
        let applies = FUNCTIONS
            .iter()
            .any(|function| name.trim_end_matches('\'') == *function || name.starts_with(&format!("{function}_")));
        if !applies {
            return Some(Expr::Symbol(name));
        }
        if self.inverse_follows() {
            name.push_str("^-1");
        }
        if self.peek() != Some(&Token::Open(Bracket::Round)) || self.spaced() {
            return Some(Expr::Symbol(name));
        }
        match self.attempt(Self::arguments) {
            Some(arguments) => Some(Expr::Call(Function::Named(name), arguments)),
            None => self.event(&name),
        }
    }

    /// Consumes the `^{-1}` of an inverse function that is applied.
    fn inverse_follows(&mut self) -> bool {
        let minus_one = [Token::Power, Token::Open(Bracket::Group), Token::Minus, Token::Number(Number::exact(1))];
        let applied = [Token::Close(Bracket::Group), Token::Open(Bracket::Round)];
        let inverse = minus_one.iter().chain(&applied).enumerate().all(|(at, token)| self.peek_at(at) == Some(token));
        self.at += if inverse { minus_one.len() + 1 } else { 0 };
        inverse
    }

    /// `P(X = 2)`, `P(A \mid B)`: a name with all that stands in its brackets.
    fn event(&mut self, name: &str) -> Option<Expr> {
        let mut name = format!("{name}(");
        self.expect(&Token::Open(Bracket::Round))?;
        let mut depth = 1;
        while depth > 0 {
            let token = self.next()?;
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth -= 1,
                _ => {}
            }
            name.push_str(&spell(token));
        }
        Some(Expr::Symbol(name))
    }

    /// The next group or token as part of a name.
    pub(super) fn spelled(&mut self) -> Option<String> {
        let mut name = String::new();
        if !self.take(&Token::Open(Bracket::Group)) {
            return Some(spell(self.next()?));
        }
        let mut depth = 1;
        loop {
            let token = self.next()?;
            match token {
                Token::Open(Bracket::Group) => depth += 1,
                Token::Close(Bracket::Group) => depth -= 1,
                _ => name.push_str(&spell(token)),
            }
            if depth == 0 {
                return Some(name);
            }
        }
    }

    /// `1011_2`: digits, with their base as a unit.
    pub(super) fn in_base(&mut self, digits: &str) -> Option<Value> {
        let base = self.base()?;
        let number = match digits.parse::<dashu_int::IBig>() {
            Ok(value) => Expr::number(value),
            // Digits from ten on are letters.
            Err(_) => Expr::symbol(format!("digits {digits}")),
        };
        Some(Value::Quantity(number, Unit::Base(base)))
    }

    /// `(1011)_2`, after the bracket.
    pub(super) fn in_base_behind(&mut self, value: Value) -> Option<Value> {
        match value {
            Value::Scalar(number @ Expr::Number(Number { places: None, .. })) => {
                Some(Value::Quantity(number, Unit::Base(self.base()?)))
            }
            _ => None,
        }
    }

    /// `_2`, `_{two}`, `_{(2)}` or `_{\text{base } 2}`.
    fn base(&mut self) -> Option<String> {
        self.expect(&Token::Subscript)?;
        let base = self.attempt(|parser| exact::value(&parser.argument()?, parser.fuel));
        if let Some(base) = base {
            return Some(base.to_string());
        }
        let words = self.spelled()?;
        let word = text::plain(&words);
        let word = word.strip_prefix("base").unwrap_or(&word);
        text::number_word(word).or_else(|| word.parse().ok()).map(|base| base.to_string())
    }
}

fn spell(token: &Token) -> String {
    match token {
        Token::Symbol(name) | Token::Text(name) | Token::Word(name) | Token::Digits(name) => name.clone(),
        Token::Number(number) => number.value.to_string(),
        other => format!("{other:?}"),
    }
}
