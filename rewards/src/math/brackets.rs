//! The brackets that are open while an answer is cut into tokens: what commas inside them mean, and which way square
//! ones look. Leaves what brackets hold to [`super::parser`].

use super::token::{Bracket, Token};

/// The open brackets around lists, the innermost last.
#[derive(Debug, Default)]
pub(crate) struct OpenBrackets(Vec<Open>);

#[derive(Debug)]
struct Open {
    bracket: Bracket,
    /// Whether its commas separate whatever stands around them.
    separates: bool,
    /// Whether one of them was read.
    listed: bool,
}

impl OpenBrackets {
    pub(crate) fn are_closed(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether commas here separate whatever stands around them.
    pub(crate) fn separate(&self) -> bool {
        self.0.last().is_some_and(|open| open.separates)
    }

    /// Follows a token; `rest` is the text behind it.
    pub(crate) fn follow(&mut self, token: &Token, rest: &str) {
        match token {
            Token::Open(bracket) if holds_lists(*bracket) => {
                self.0.push(Open { bracket: *bracket, separates: separates(rest), listed: false });
            }
            Token::Close(bracket) if holds_lists(*bracket) => {
                self.0.pop();
            }
            Token::Comma | Token::Semicolon => {
                if let Some(open) = self.0.last_mut() {
                    open.listed = true;
                }
            }
            _ => {}
        }
    }

    /// A square bracket that looks away from an interval, behind the token `last`: `]` where none is open, `[` behind
    /// two ends.
    pub(crate) fn turned(&self, token: Token, last: Option<&Token>) -> Token {
        let operand = matches!(last, Some(Token::Number(_) | Token::Symbol(_) | Token::Constant(_) | Token::Close(_)));
        match (token, self.0.last()) {
            (Token::Close(Bracket::Square), None) => Token::Open(Bracket::Outward),
            (
                Token::Open(Bracket::Square),
                Some(Open { bracket: Bracket::Square | Bracket::Outward, listed: true, .. }),
            ) if operand => Token::Close(Bracket::Outward),
            (token, _) => token,
        }
    }
}

/// Not groups and rounded numbers.
fn holds_lists(bracket: Bracket) -> bool {
    !matches!(bracket, Bracket::Group | Bracket::Floor | Bracket::Ceil)
}

/// Whether every comma of a bracket separates; `rest` is its inside and what follows. Once a comma has a space behind
/// it, those without one group digits: `(1,234, 5)`.
fn separates(rest: &str) -> bool {
    let mut depth = 0usize;
    // Brackets in answers are short; looking further would cost quadratic time in nested ones.
    for (at, byte) in rest.bytes().enumerate().take(256) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' if depth == 0 => break,
            b')' | b']' => depth -= 1,
            b',' if depth == 0 && rest[at + 1..].starts_with([' ', '\\']) => return false,
            _ => {}
        }
    }
    true
}
