//! Reads tokens into a typed value, by recursive descent:
//!
//! ```text
//! list    = item {("," | ";" | "and" | "or") item}        item    = chain, once for each sign of ±
//! chain   = element {relation element}                    element = region [unit | "%" | ":" element ...]
//! region  = sum {(∪ | ∩ | ∖) sum}                         sum     = product {("+" | "-") product}
//! ```
//!
//! What fits no rule is `None`, and the answer is then text.

mod bracket;
mod call;
mod choices;
mod name;
mod scalar;

use super::expr::{Constant, Expr, Function};
use super::fuel::Fuel;
use super::lexer::{self, Commas, Lexeme};
use super::region::{self, Region};
use super::token::{Bracket, Token};
use super::units::Unit;
use super::value::{Brackets, Chain, Relation, Value};

/// Deepest nesting; the parser and everything behind it recurse once a level.
const MAX_DEPTH: usize = 48;

/// The value of a cleaned answer.
pub(crate) fn parse(text: &str, commas: Commas, fuel: &Fuel) -> Option<Value> {
    let lexemes = lexer::lex(text, commas)?;
    fuel.spend(lexemes.len() as u64)?;
    let mut parser = Parser {
        lexemes: &lexemes,
        at: 0,
        depth: 0,
        bars: 0,
        builder: false,
        inner: false,
        sign: None,
        signed: false,
        fuel,
    };
    // `= 5` and `\approx 5` are the end of something that was left out.
    while let Some(Token::Relation(Relation::Equal | Relation::About)) = parser.peek() {
        parser.at += 1;
    }
    let value = parser.group()?;
    (parser.at == lexemes.len()).then_some(value)
}

struct Parser<'a> {
    lexemes: &'a [Lexeme],
    at: usize,
    depth: usize,
    /// Open bars of absolute values.
    bars: usize,
    /// Inside `\{x | ...\}`, where a bar behind an element starts the condition.
    builder: bool,
    /// Inside any other bracket, where `±` is part of what stands around it.
    inner: bool,
    /// What `±` stands for now.
    sign: Option<bool>,
    /// Whether a `±` was read.
    signed: bool,
    fuel: &'a Fuel,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.peek_at(0)
    }

    fn peek_at(&self, offset: usize) -> Option<&'a Token> {
        self.lexemes.get(self.at + offset).map(|lexeme| &lexeme.token)
    }

    /// Whether white space stands before the next token.
    fn spaced(&self) -> bool {
        self.lexemes.get(self.at).is_some_and(|lexeme| lexeme.spaced)
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    /// Consumes `token` if it comes next.
    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Option<()> {
        self.take(token).then_some(())
    }

    /// What `read` finds; where it finds nothing, nothing is consumed.
    fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let (start, bars) = (self.at, self.bars);
        let found = self.nested(read);
        if found.is_none() {
            (self.at, self.bars) = (start, bars);
        }
        found
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.fuel.spend(2)?;
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// A list, or two of them on either side of `\over` or `\choose`.
    fn group(&mut self) -> Option<Value> {
        let content = self.list()?;
        let binomial = self.take(&Token::Choose);
        if !binomial && !self.take(&Token::Stacked) {
            return Some(content);
        }
        let (Value::Scalar(above), Value::Scalar(below)) = (content, self.list()?) else { return None };
        Some(Value::Scalar(match binomial {
            true => Expr::Call(Function::Binomial, vec![above, below]),
            false => above.over(below),
        }))
    }

    fn list(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        let mut brackets = Brackets::List;
        loop {
            self.item(&mut items, &mut brackets)?;
            let mut separated = false;
            while let Some(token) = self.peek().filter(|token| is_separator(token)) {
                self.at += 1;
                separated = true;
                if *token == Token::Or {
                    brackets = Brackets::Either;
                }
            }
            if !separated || self.ends() {
                break;
            }
        }
        if items.len() == 1 { items.pop() } else { Some(Value::Collection(brackets, items)) }
    }

    /// Whether nothing of a list can come next.
    fn ends(&self) -> bool {
        matches!(self.peek(), None | Some(Token::Close(_)))
    }

    /// One chain, or two where it holds `±`.
    fn item(&mut self, items: &mut Vec<Value>, brackets: &mut Brackets) -> Option<()> {
        if self.inner {
            items.push(self.chain()?);
            return Some(());
        }
        let (start, outer) = (self.at, (self.sign, self.signed));
        (self.sign, self.signed) = (Some(true), false);
        items.push(self.chain()?);
        if self.signed {
            (self.at, self.sign) = (start, Some(false));
            items.push(self.chain()?);
            *brackets = Brackets::Either;
        }
        (self.sign, self.signed) = outer;
        Some(())
    }

    fn chain(&mut self) -> Option<Value> {
        self.fuel.spend(4)?;
        let mut terms = vec![self.element()?];
        let mut relations = Vec::new();
        while let Some(Token::Relation(relation)) = self.peek() {
            self.at += 1;
            relations.push(*relation);
            terms.push(self.element()?);
        }
        if let (Some(modulus), Some(Value::Scalar(expr))) = (self.modulus(), terms.last()) {
            let number = Value::Quantity(expr.clone(), modulus);
            terms.pop();
            terms.push(number);
        }
        if relations.is_empty() { terms.pop() } else { Some(Value::Relation(Chain { terms, relations })) }
    }

    /// `\pmod{7}` and `(mod 7)` behind a number, as its unit.
    fn modulus(&mut self) -> Option<Unit> {
        let bracketed = self.peek() == Some(&Token::Open(Bracket::Round)) && self.peek_at(1) == Some(&Token::Modulus);
        if !bracketed && self.peek() != Some(&Token::Modulus) {
            return None;
        }
        self.at += 1 + usize::from(bracketed);
        let mut name = String::from("mod ");
        loop {
            name.push_str(&self.spelled()?);
            if !bracketed || self.take(&Token::Close(Bracket::Round)) {
                return Some(Unit::Other(name));
            }
        }
    }

    fn element(&mut self) -> Option<Value> {
        let money = self.currency();
        let value = self.region()?;
        let Value::Scalar(expr) = value else { return Some(value) };
        let prefixed = money.is_some();
        let unit = money.or_else(|| self.unit());
        if self.peek() == Some(&Token::Colon) && !self.builder && unit.is_none() {
            return self.ratio(expr);
        }
        let (expr, unit) = match unit {
            Some(unit) => (expr, unit),
            None => match without_degree(expr) {
                Value::Quantity(expr, unit) => (expr, unit),
                other => return Some(other),
            },
        };
        match self.peek() {
            // `3 hours 20 minutes`.
            Some(Token::Number(_)) if !prefixed => match self.nested(Self::element)? {
                Value::Quantity(more, other) => {
                    let more = more.times(Expr::number(other.conversion(&unit)?));
                    Some(Value::Quantity(expr.plus(more), unit))
                }
                _ => None,
            },
            _ => Some(Value::Quantity(expr, unit)),
        }
    }

    fn ratio(&mut self, first: Expr) -> Option<Value> {
        let mut parts = vec![first];
        while self.take(&Token::Colon) {
            match self.sum()? {
                Value::Scalar(part) => parts.push(part),
                _ => return None,
            }
        }
        Some(Value::Ratio(parts))
    }

    fn currency(&mut self) -> Option<Unit> {
        let Some(Token::Currency(name)) = self.peek() else { return None };
        self.at += 1;
        Some(Unit::currency(name))
    }

    /// Consumes what a percentage is of: `\text{ of the total}`.
    fn percent_of(&mut self) {
        while let Some(Token::Text(words) | Token::Word(words)) = self.peek()
            && matches!(Unit::read(words), Some(Unit::Other(_)))
        {
            self.at += 1;
        }
    }

    /// The unit behind a number: words, with powers and quotients of words.
    fn unit(&mut self) -> Option<Unit> {
        match self.peek()? {
            Token::Percent => {
                self.at += 1;
                self.percent_of();
                return Some(Unit::Percent);
            }
            Token::Currency(_) => return self.currency(),
            Token::Text(_) | Token::Word(_) => {}
            _ => return None,
        }
        let (start, mut text) = (self.at, String::new());
        loop {
            match (self.peek(), self.peek_at(1)) {
                (Some(Token::Text(word) | Token::Word(word)), _) => {
                    text.push(' ');
                    text.push_str(word);
                }
                (Some(Token::Over), Some(Token::Text(_) | Token::Word(_) | Token::Symbol(_))) => text.push('/'),
                (Some(Token::Symbol(word)), _) if text.ends_with('/') => text.push_str(word),
                (Some(Token::Power), Some(Token::Number(_) | Token::Open(Bracket::Group))) => {
                    self.at += 1;
                    let exponent = super::exact::value(&self.argument()?, self.fuel)?;
                    text.push_str(&format!("^{exponent}"));
                    continue;
                }
                _ => break,
            }
            self.at += 1;
        }
        if let (" base", Some(Token::Number(base))) = (text.as_str(), self.peek()) {
            self.at += 1;
            return Some(Unit::Base(base.value.to_string()));
        }
        let unit = Unit::read(&text);
        if unit.is_none() {
            // What is not read keeps the whole from being read.
            self.at = start;
        }
        unit
    }

    fn region(&mut self) -> Option<Value> {
        let first = self.sum()?;
        let mut union: Option<Region> = None;
        while let Some(operation @ (Token::Union | Token::Intersection | Token::Without)) = self.peek() {
            self.at += 1;
            let left = match union.take() {
                Some(region) => region,
                None => region::of(&first, self.fuel)?,
            };
            let right = region::of(&self.sum()?, self.fuel)?;
            union = Some(match operation {
                Token::Union => left.union(&right, self.fuel)?,
                Token::Intersection => left.intersection(&right, self.fuel)?,
                _ => left.intersection(&right.complement(), self.fuel)?,
            });
        }
        Some(union.map_or(first, Value::Region))
    }
}

fn is_separator(token: &Token) -> bool {
    matches!(token, Token::Comma | Token::Semicolon | Token::And | Token::Or | Token::Row)
}

/// `90^\circ` as a quantity in degrees.
fn without_degree(expr: Expr) -> Value {
    match expr {
        Expr::Product(mut factors) if factors.last() == Some(&Expr::Constant(Constant::Degree)) => {
            factors.pop();
            let rest = if factors.len() == 1 { factors.remove(0) } else { Expr::Product(factors) };
            Value::Quantity(rest, Unit::degree())
        }
        other => Value::Scalar(other),
    }
}
