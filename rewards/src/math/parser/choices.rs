//! Combinations and arrangements in the notations that have no command: `C(10, 3)`, `C_{10}^3`, `{}_{10}C_3`, `10C3`,
//! and the same with `P` or `A`.

use super::super::exact;
use super::super::expr::{Expr, Function, Number};
use super::super::token::{Bracket, Token};
use super::Parser;

/// What a letter between two numbers counts.
#[derive(Debug, Clone, Copy)]
enum Choices {
    /// Subsets of k of n things.
    Combinations,
    /// Sequences of k of n things.
    Arrangements,
}

impl Choices {
    fn of(letter: &str) -> Option<Self> {
        match letter {
            "C" => Some(Self::Combinations),
            "P" | "A" => Some(Self::Arrangements),
            _ => None,
        }
    }

    fn count(self, n: Expr, k: Expr) -> Expr {
        let factorial = |n: Expr| Expr::Call(Function::Factorial, vec![n]);
        match self {
            Self::Combinations => Expr::Call(Function::Binomial, vec![n, k]),
            Self::Arrangements => factorial(n.clone()).over(factorial(n.minus(k))),
        }
    }
}

impl Parser<'_> {
    /// `10C3`, after its first number.
    pub(super) fn chosen_from(&mut self, n: &Number) -> Option<Expr> {
        let Some(Token::Symbol(letter)) = self.peek() else { return None };
        let choices = Choices::of(letter).filter(|_| !self.spaced() && n.places.is_none())?;
        let Some(Token::Number(k @ Number { places: None, .. })) = self.peek_at(1) else { return None };
        self.at += 2;
        Some(choices.count(Expr::Number(n.clone()), Expr::Number(k.clone())))
    }

    /// `{}_{10}C_3` and `^{10}C_3`, after the first sign.
    pub(super) fn prefixed(&mut self) -> Option<Expr> {
        let n = self.argument()?;
        let Token::Symbol(letter) = self.next()? else { return None };
        let choices = Choices::of(letter)?;
        match self.next()? {
            Token::Subscript | Token::Power => Some(choices.count(n, self.argument()?)),
            _ => None,
        }
    }

    /// `(10, 3)` behind a letter, in whole numbers if the letter may be a function's too.
    pub(super) fn chosen(&mut self, letter: &str) -> Option<Expr> {
        let choices = Choices::of(letter)?;
        if self.peek() != Some(&Token::Open(Bracket::Round)) || self.spaced() {
            return None;
        }
        let found = self.attempt(|parser| {
            <[Expr; 2]>::try_from(parser.arguments()?).ok().filter(|[n, k]| match choices {
                Choices::Combinations => true,
                Choices::Arrangements => parser.countable(n, k),
            })
        });
        found.map(|[n, k]| choices.count(n, k))
    }

    /// `_{10}^3` or `^3_{10}` behind a letter. `C_1^2` is the square of a constant, as no 2 can be chosen from 1.
    pub(super) fn indexed_choices(&mut self, letter: &str) -> Option<Expr> {
        let choices = Choices::of(letter)?;
        let (first, second) = match self.peek()? {
            Token::Subscript => (Token::Subscript, Token::Power),
            Token::Power => (Token::Power, Token::Subscript),
            _ => return None,
        };
        let below_first = first == Token::Subscript;
        let found = self.attempt(|parser| {
            parser.expect(&first)?;
            let one = parser.argument()?;
            parser.expect(&second)?;
            let other = parser.argument()?;
            let (n, k) = if below_first { (one, other) } else { (other, one) };
            let symbolic = matches!(n, Expr::Symbol(_)) && !n.symbols().is_empty();
            (symbolic || parser.countable(&n, &k)).then_some((n, k))
        });
        found.map(|(n, k)| choices.count(n, k))
    }

    /// Whether k things can be chosen from n.
    fn countable(&self, n: &Expr, k: &Expr) -> bool {
        let whole = |expr: &Expr| exact::value(expr, self.fuel).and_then(|value| exact::integer(&value));
        matches!((whole(n), whole(k)), (Some(n), Some(k)) if n >= k && k >= 0.into())
    }
}
