//! Brackets: groups, tuples, intervals, sets, matrices.

use super::super::expr::{Expr, Function};
use super::super::region;
use super::super::token::{Bracket, Token};
use super::super::value::{Brackets, Value};
use super::Parser;

/// Largest matrix, in entries.
const MAX_ENTRIES: usize = 400;

impl Parser<'_> {
    /// What stands in a bracket that has just been opened.
    pub(super) fn bracketed(&mut self, open: Bracket) -> Option<Value> {
        let outer = (self.bars, self.builder, self.inner);
        let braces = open == Bracket::Brace;
        (self.bars, self.builder, self.inner) = (0, braces, !braces);
        let value = self.inside(open);
        (self.bars, self.builder, self.inner) = outer;
        value
    }

    fn inside(&mut self, open: Bracket) -> Option<Value> {
        if let Some(Token::Close(Bracket::Brace | Bracket::Group)) = self.peek() {
            self.at += 1;
            return (open == Bracket::Brace).then(|| Value::Collection(Brackets::Set, Vec::new()));
        }
        let content = self.group()?;
        if open == Bracket::Brace && (self.take(&Token::Mid) || self.take(&Token::Bar) || self.take(&Token::Colon)) {
            let condition = self.list()?;
            self.expect(&Token::Close(Bracket::Brace))?;
            return region::of(&condition, self.fuel).map(Value::Region);
        }
        let close = match self.next()? {
            Token::Close(close) => *close,
            Token::Relation(super::super::value::Relation::Greater) if open == Bracket::Angle => Bracket::Angle,
            _ => return None,
        };
        match (open, close) {
            (Bracket::Floor, Bracket::Floor) => called(Function::Floor, &content),
            (Bracket::Ceil, Bracket::Ceil) => called(Function::Ceil, &content),
            (Bracket::Group, Bracket::Group) => Some(content),
            _ => collected(open, close, content),
        }
    }

    /// The rows of a matrix, after its `\begin`.
    pub(super) fn matrix(&mut self) -> Option<Value> {
        let mut rows = vec![Vec::new()];
        let mut entries = 0;
        loop {
            match self.peek()? {
                Token::End => break,
                Token::Row => rows.push(Vec::new()),
                Token::Cell => {}
                _ => {
                    let entry = self.nested(Self::chain)?;
                    rows.last_mut()?.push(entry);
                    entries += 1;
                    if entries > MAX_ENTRIES {
                        return None;
                    }
                    continue;
                }
            }
            self.at += 1;
        }
        self.at += 1;
        rows.retain(|row| !row.is_empty());
        let width = rows.first()?.len();
        rows.iter().all(|row| row.len() == width).then_some(Value::Matrix(rows))
    }
}

fn called(function: Function, content: &Value) -> Option<Value> {
    Some(Value::Scalar(Expr::Call(function, vec![content.scalar()?.clone()])))
}

fn collected(open: Bracket, close: Bracket, content: Value) -> Option<Value> {
    let listed = matches!(content, Value::Collection(Brackets::List | Brackets::Either, _));
    let brackets = match (open, close) {
        // Brackets around one value only group it; around a matrix they are its own.
        (Bracket::Round, Bracket::Round) if !listed => return Some(content),
        (Bracket::Square, Bracket::Square) if !listed => return Some(content),
        (Bracket::Round, Bracket::Round) => Brackets::Round,
        (Bracket::Square, Bracket::Square) => Brackets::Square,
        (Bracket::Angle, Bracket::Angle) => Brackets::Angle,
        (Bracket::Brace, Bracket::Brace) => Brackets::Set,
        (Bracket::Round | Bracket::Outward, Bracket::Square) => Brackets::LeftOpen,
        (Bracket::Square, Bracket::Round | Bracket::Outward) => Brackets::RightOpen,
        (Bracket::Outward, Bracket::Outward) => Brackets::Round,
        _ => return None,
    };
    let items = content.items().to_vec();
    let interval = open != close || open == Bracket::Outward;
    (!interval || items.len() == 2).then_some(Value::Collection(brackets, items))
}
