//! Cuts a cleaned answer into tokens. Commas are ambiguous in answers, so numbers are read under a [`Commas`] rule.

use super::brackets::OpenBrackets;
use super::expr::{Constant, Function, Number};
use super::layout;
use super::literal;
use super::token::{self, Bracket, Token};
use super::units::Unit;
use super::value::Relation;

/// Most tokens of an answer.
const MAX_TOKENS: usize = 2048;

/// What a comma between digits is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commas {
    /// `1,234` is one number, unless a comma of the same brackets has a space behind it.
    Grouping,
    /// Every comma separates.
    Separating,
    /// `2,74` is 2.74.
    Decimal,
}

/// A token, where it starts, and whether white space stands before it.
#[derive(Debug, Clone)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    pub(crate) spaced: bool,
}

/// The tokens of `text`; `None` for more than [`MAX_TOKENS`].
pub(crate) fn lex(text: &str, commas: Commas) -> Option<Vec<Lexeme>> {
    let mut lexer = Lexer { rest: text, commas, out: Vec::new(), spaced: false, brackets: OpenBrackets::default() };
    while lexer.step() {
        if lexer.out.len() > MAX_TOKENS {
            return None;
        }
    }
    Some(lexer.out)
}

struct Lexer<'a> {
    rest: &'a str,
    commas: Commas,
    out: Vec<Lexeme>,
    spaced: bool,
    brackets: OpenBrackets,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, token: Token) {
        self.out.push(Lexeme { token, spaced: self.spaced });
        self.spaced = false;
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// Reads one token; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else { return false };
        match c {
            _ if c.is_whitespace() || c == '~' => {
                self.take(c.len_utf8());
                self.spaced = true;
            }
            '\\' => self.command(),
            '0'..='9' | '.' => self.number(),
            'a'..='z' | 'A'..='Z' => self.letters(),
            _ => self.sign(c),
        }
        true
    }

    fn number(&mut self) {
        let grouping = self.commas == Commas::Grouping && !self.brackets.separate();
        let decimal = self.commas == Commas::Decimal && self.brackets.are_closed();
        if let Some(end) = self.digits_of_a_base() {
            let digits = self.take(end).to_string();
            return self.push(Token::Digits(digits));
        }
        // TeX's arguments without braces are single digits: `\frac12`.
        if self.wants_digit() && self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let digit = self.take(1).as_bytes()[0] - b'0';
            return self.push(Token::Number(Number::exact(digit)));
        }
        match literal::number(self.rest, grouping, decimal) {
            Some((number, length)) => {
                self.take(length);
                self.push(Token::Number(number));
            }
            // A full stop that belongs to no number means nothing.
            None => {
                self.take(1);
                self.spaced = true;
            }
        }
    }

    /// The length of digits with a base behind them: `101_2`, `2A_{16}`. In `2A_1` the letter is a symbol.
    fn digits_of_a_base(&self) -> Option<usize> {
        if matches!(self.out.last(), Some(Lexeme { token: Token::Power | Token::Subscript, .. })) {
            // `C^3_8`.
            return None;
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric())?;
        let base = self.rest[end..].strip_prefix('_')?.trim_start_matches(['{', '(']);
        let above_ten = || {
            let number = literal::number(base, false, false);
            base.starts_with("sixteen") || number.is_some_and(|(number, _)| number.value > 10.into())
        };
        let plain = self.rest[..end].bytes().all(|byte| byte.is_ascii_digit());
        let letters = || {
            above_ten() && self.rest[..end].bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
        };
        (plain || letters()).then_some(end)
    }

    /// Whether the next digit is an argument of `\frac` or `\binom`.
    fn wants_digit(&self) -> bool {
        let pair = |token: &Token| matches!(token, Token::Frac | Token::Binomial);
        match self.out.as_slice() {
            [.., last] if pair(&last.token) => true,
            [.., command, Lexeme { token: Token::Number(_), .. }] => pair(&command.token),
            _ => false,
        }
    }

    fn command(&mut self) {
        let letters = self.rest[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let one = self.rest[1..].chars().next().map_or(0, char::len_utf8);
        let name = &self.take(1 + if letters == 0 { one } else { letters })[1..];
        if token::is_text(name) && self.rest.trim_start().starts_with('{') {
            let content = self.braced();
            self.text(name, content.trim());
        } else if name == "begin" || name == "end" {
            self.environment(name);
        } else if matches!(name, "mathbb" | "Bbb") {
            let content = self.letter();
            self.push(if content == "R" { Token::Reals } else { Token::Symbol(content.into()) });
        } else if name == "partial" {
            self.push(Token::Symbol("partial".into()));
        } else if token::is_layout(name) {
            self.spaced |= !token::is_size(name);
        } else {
            let token = token::command(name).unwrap_or_else(|| Token::Symbol(canonical(name).into()));
            self.take(if token == Token::Row { layout::row_space(self.rest) } else { 0 });
            self.bracket(token);
        }
    }

    /// The content of the `{}` that comes next, which is consumed; braces inside must match.
    fn braced(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        if !self.rest.starts_with('{') {
            return "";
        }
        let mut depth = 0usize;
        let end = self.rest.bytes().position(|byte| {
            depth = if byte == b'{' {
                depth + 1
            } else if byte == b'}' {
                depth - 1
            } else {
                depth
            };
            depth == 0
        });
        let end = end.unwrap_or(self.rest.len() - 1);
        let taken = self.take(end + 1);
        taken.get(1..end).unwrap_or_default()
    }

    /// The argument of `\mathbb`: a group, or one letter.
    fn letter(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(|c: char| c.is_ascii_alphabetic()) { self.take(1) } else { self.braced() }
    }

    /// Words in `\text{}`: a connective, a name of a function or constant, or text.
    fn text(&mut self, name: &str, content: &str) {
        if let Some((number, length)) = literal::number(content, true, false).filter(|(_, l)| *l < content.len()) {
            // `\text{3 hours}` is `3 \text{hours}`.
            self.push(Token::Number(number));
            return self.text(name, content[length..].trim());
        }
        let (first, rest) = content.split_once(' ').unwrap_or((content, ""));
        if let Some(power) = token::magnitude(first) {
            self.push(Token::Magnitude(power));
            return self.text(name, rest);
        }
        let mathematical = matches!(name, "mathrm" | "operatorname" | "operatorname*" | "rm" | "text")
            && !(self.behind_number() && Unit::is_word(content) && !name.starts_with("operatorname"));
        let token = match content {
            "" => return,
            "and" | ", and" | "and " => Token::And,
            "or" | ", or" => Token::Or,
            "," => Token::Comma,
            "e" if mathematical => Token::Constant(Constant::E),
            "i" if mathematical => Token::Constant(Constant::I),
            "d" if name == "mathrm" => Token::Symbol("d".into()),
            "C" | "P" | "A" if self.rest.starts_with(['(', '_', '^']) => Token::Symbol(content.into()),
            "cis" => Token::Symbol("cis".into()),
            _ if mathematical && token::function(content).is_some_and(|_| content != "Re" && content != "inf") => {
                token::command(content).unwrap_or_else(|| Token::Text(content.into()))
            }
            "%" | "\\%" => Token::Percent,
            _ => Token::Text(content.replace("\\ ", " ").replace('~', " ")),
        };
        self.push(token);
    }

    fn environment(&mut self, name: &str) {
        let kind = self.braced();
        let matrix = kind.trim_end_matches('*').ends_with("matrix") || kind == "array" || kind == "cases";
        if name == "begin" && kind == "array" && self.rest.trim_start().starts_with('{') {
            self.braced();
        }
        match (matrix, name) {
            (true, "begin") => {
                if kind == "vmatrix" {
                    self.push(Token::Function(Function::Pending("determinant")));
                }
                self.push(Token::Begin);
            }
            (true, _) => self.push(Token::End),
            (false, _) => self.spaced = true,
        }
    }

    fn letters(&mut self) {
        let length = self.rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let run = &self.rest[..length];
        // `1orW(x)`, `(11,7)or(7,11)`: a connective glued to its neighbours.
        for (connective, token) in [("or", Token::Or), ("and", Token::And)] {
            if let Some(rest) = run.strip_prefix(connective)
                && rest.starts_with(|c: char| c.is_ascii_uppercase())
            {
                self.take(connective.len());
                return self.push(token);
            }
        }
        if run == "U" && self.joins_brackets() {
            self.take(length);
            return self.push(Token::Union);
        }
        if let Some(token) = token::word(run).filter(|_| !self.is_unit(run)) {
            self.take(length);
            return self.push(token);
        }
        let lower = run.to_ascii_lowercase();
        let behind_word = matches!(self.out.last(), Some(Lexeme { token: Token::Word(_), .. }));
        if Unit::is_word(run) && (self.behind_number() || behind_word) {
            let words = self.take(length).to_string();
            return self.push(if lower.starts_with("perc") || lower == "pct" {
                Token::Percent
            } else {
                Token::Word(words)
            });
        }
        let shouting = run.bytes().all(|byte| byte.is_ascii_uppercase());
        if (length >= 4 || token::is_word(&lower)) && !shouting {
            let word = self.take(length);
            return self.push(token::magnitude(word).map_or_else(|| Token::Word(word.into()), Token::Magnitude));
        }
        // A short run is a product of symbols, whatever word it spells.
        for letter in run.chars() {
            self.take(1);
            self.push(match letter {
                'e' => Token::Constant(Constant::E),
                'i' => Token::Constant(Constant::I),
                _ => Token::Symbol(letter.into()),
            });
        }
    }

    /// Whether the next letter stands between two brackets: `(0,1) U (2,3)`.
    fn joins_brackets(&self) -> bool {
        let closed = matches!(self.out.last(), Some(Lexeme { token: Token::Close(_), .. }));
        closed && self.rest[1..].trim_start().starts_with(['(', '[', ']'])
    }

    /// Whether a number, or a bracket, has just ended.
    fn behind_number(&self) -> bool {
        matches!(
            self.out.last().map(|last| &last.token),
            Some(Token::Number(_) | Token::Close(_) | Token::Magnitude(_))
        )
    }

    /// Whether a run that also names a function, `min` or `sec`, is a unit: a number before it, no argument behind.
    fn is_unit(&self, run: &str) -> bool {
        let applied = |c: char| c.is_ascii_alphabetic() || "\\({^_".contains(c);
        self.behind_number() && Unit::is_word(run) && !self.rest[run.len()..].trim_start().starts_with(applied)
    }

    fn sign(&mut self, c: char) {
        let two = |sign: &str| self.rest.starts_with(sign);
        let (token, length) = match c {
            '*' if two("**") => (Token::Power, 2),
            '<' if two("<=") => (Token::Relation(Relation::LessEqual), 2),
            '>' if two(">=") => (Token::Relation(Relation::GreaterEqual), 2),
            '=' if two("=>") => (Token::Relation(Relation::Other("implies")), 2),
            '!' if two("!=") => (Token::Relation(Relation::NotEqual), 2),
            '=' if two("==") => (Token::Relation(Relation::Equal), 2),
            ':' if two(":=") => (Token::Relation(Relation::Equal), 2),
            '-' if two("->") => (Token::Relation(Relation::Other("to")), 2),
            _ => (single(c), c.len_utf8()),
        };
        self.take(length);
        self.bracket(token);
    }

    /// Pushes a token that may be a bracket or a comma.
    fn bracket(&mut self, token: Token) {
        let token = self.brackets.turned(token, self.out.last().map(|last| &last.token));
        self.brackets.follow(&token, self.rest);
        self.push(token);
    }
}

fn single(c: char) -> Token {
    match c {
        '+' => Token::Plus,
        '-' => Token::Minus,
        '*' => Token::Times,
        '/' => Token::Over,
        '^' => Token::Power,
        '_' => Token::Subscript,
        '!' => Token::Factorial,
        '\'' => Token::Prime,
        '|' => Token::Bar,
        ',' => Token::Comma,
        ';' => Token::Semicolon,
        ':' => Token::Colon,
        '%' => Token::Percent,
        '$' => Token::Currency("dollar"),
        '€' => Token::Currency("euro"),
        '£' => Token::Currency("pound sterling"),
        '¥' => Token::Currency("yen"),
        '₹' => Token::Currency("rupee"),
        '(' => Token::Open(Bracket::Round),
        ')' => Token::Close(Bracket::Round),
        '[' => Token::Open(Bracket::Square),
        ']' => Token::Close(Bracket::Square),
        '{' => Token::Open(Bracket::Group),
        '}' => Token::Close(Bracket::Group),
        '=' => Token::Relation(Relation::Equal),
        '<' => Token::Relation(Relation::Less),
        '>' => Token::Relation(Relation::Greater),
        '&' => Token::Cell,
        _ => Token::Word(c.to_string()),
    }
}

/// One name for letters with two commands.
fn canonical(name: &str) -> &str {
    name.strip_prefix("var").filter(|rest| !rest.is_empty()).unwrap_or(name)
}
