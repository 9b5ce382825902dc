//! A calculator: exact arithmetic on whole numbers and decimals. The parser below is the whole language.
//!
//! ```text
//! sum     = product {("+" | "-") product}          factor = {"-" | "+"} primary
//! product = factor {("*" | "/") factor}            primary = number | "(" sum ")"
//! ```

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use super::{Said, State, Tool};
use crate::Rational;

/// Longest expression that is read, in bytes.
const MAX_BYTES: usize = 1024;
/// Deepest nesting; the parser recurses once a level.
const MAX_DEPTH: usize = 64;
/// Most digits behind the point that a config may ask for: more would not fit the fractions that are computed with.
const MOST_PLACES: u32 = 18;

/// Options of kind `calculator`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalculatorOptions {
    /// What calls name it by; the kind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Most digits behind the point of an answer; the last is rounded.
    pub places: u32,
}

impl Default for CalculatorOptions {
    fn default() -> Self {
        Self { name: None, places: 10 }
    }
}

/// Answers an expression by its value.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Calculator, CalculatorOptions, Tool};
/// let calculator = Calculator::new(&CalculatorOptions::default())?;
/// let mut ask = |input: &str| calculator.call(&Example::default(), &mut Default::default(), input);
/// assert_eq!(ask("1234 * 5678")?.text, Ok("7006652".into()));
/// assert_eq!(ask("(0.1 + 0.2) / 3")?.text, Ok("0.1".into()));
/// assert_eq!(ask("1 / 0")?.text, Err("division by zero".into()));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Calculator {
    places: u32,
}

impl Calculator {
    /// A calculator.
    ///
    /// # Errors
    /// More places than there are.
    pub fn new(options: &CalculatorOptions) -> Result<Self, String> {
        if options.places > MOST_PLACES {
            return Err(format!("`places = {}` must be at most {MOST_PLACES}", options.places));
        }
        Ok(Self { places: options.places })
    }
}

impl Tool for Calculator {
    fn call(&self, _: &Example, _: &mut State, input: &str) -> Result<Said, String> {
        let text = value(input).and_then(|value| decimal(value, self.places).ok_or_else(too_large));
        Ok(Said { text, reward: None })
    }
}

fn too_large() -> String {
    "the numbers are too large".into()
}

/// The value of an expression.
fn value(text: &str) -> Result<Rational, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the expression is longer than {MAX_BYTES} bytes"));
    }
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(c) => Err(format!("`{c}` is not expected there")),
    }
}

/// A value as a decimal with at most `places` digits behind the point; `None` where it does not fit.
fn decimal(value: Rational, places: u32) -> Option<String> {
    let (n, d, unit) = (value.numerator().unsigned_abs(), value.denominator().unsigned_abs(), 10u128.pow(places));
    let (whole, rest) = (n / d, n % d);
    // Half up, of the magnitude.
    let digits = (rest.checked_mul(unit)?.checked_mul(2)?.checked_add(d)?) / (2 * d);
    let (whole, digits) = (whole + digits / unit, digits % unit);
    let mut text =
        if places == 0 { whole.to_string() } else { format!("{whole}.{digits:0width$}", width = places as usize) };
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    Some(if value.numerator() < 0 && text != "0" { format!("-{text}") } else { text })
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    /// Takes the next character if it is one of `among`.
    fn take(&mut self, among: &[char]) -> Option<char> {
        let next = self.peek().filter(|c| among.contains(c))?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn sum(&mut self) -> Result<Rational, String> {
        let mut value = self.product()?;
        while let Some(sign) = self.take(&['+', '-', '−']) {
            let next = self.product()?;
            value = if sign == '+' { value.add(next) } else { value.sub(next) }.ok_or_else(too_large)?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Rational, String> {
        let mut value = self.factor()?;
        while let Some(sign) = self.take(&['*', '/', '×', '·', '÷']) {
            let next = self.factor()?;
            value = match sign {
                '/' | '÷' if next == Rational::ZERO => return Err("division by zero".into()),
                '/' | '÷' => value.div(next),
                _ => value.mul(next),
            }
            .ok_or_else(too_large)?;
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<Rational, String> {
        let mut negative = false;
        while let Some(sign) = self.take(&['-', '−', '+']) {
            negative ^= sign != '+';
        }
        let value = self.primary()?;
        if negative { value.neg().ok_or_else(too_large) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Rational, String> {
        if self.take(&['(']).is_none() {
            return self.number();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("brackets are nested deeper than {MAX_DEPTH}"));
        }
        let value = self.sum()?;
        self.depth -= 1;
        self.take(&[')']).map(|_| value).ok_or_else(|| "a bracket is not closed".into())
    }

    fn number(&mut self) -> Result<Rational, String> {
        let problem = |next: Option<char>| match next {
            None => "a number is missing at the end".to_owned(),
            Some(c) => format!("`{c}` stands where a number is expected"),
        };
        let next = self.peek();
        let length = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(length);
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        if part.contains('.') || whole.is_empty() && part.is_empty() {
            return Err(problem(next));
        }
        self.rest = rest;
        let digits = [whole, part].concat();
        let value = digits.parse().ok().zip(10i128.checked_pow(part.len() as u32));
        value.and_then(|(digits, unit)| Rational::new(digits, unit)).ok_or_else(too_large)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_their_exact_value_or_a_reason() {
        for (text, expected) in [
            ("9999*9999", Ok("99980001")),
            (" 2 + 3 * (4 - 1) ", Ok("11")),
            ("-(2)--3", Ok("1")),
            ("1/3", Ok("0.3333333333")),
            ("2/3", Ok("0.6666666667")),
            ("0.1+0.2", Ok("0.3")),
            ("-1/8", Ok("-0.125")),
            ("0.00000000001", Ok("0")),
            ("-0.00000000001", Ok("0")),
            ("9.99999999999", Ok("10")),
            (".5", Ok("0.5")),
            ("7 × 6 ÷ 2 − 1", Ok("20")),
            ("1/0", Err("division by zero")),
            ("", Err("a number is missing at the end")),
            ("2*", Err("a number is missing at the end")),
            ("2 3", Err("`3` is not expected there")),
            ("x+1", Err("`x` stands where a number is expected")),
            (".", Err("`.` stands where a number is expected")),
            ("1.2.3", Err("`1` stands where a number is expected")),
            ("(1", Err("a bracket is not closed")),
            ("99999999999999999999*99999999999999999999", Err("the numbers are too large")),
            ("1e5", Err("`e` is not expected there")),
        ] {
            let found = value(text).and_then(|value| decimal(value, 10).ok_or_else(too_large));
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        }
        let deep = "(".repeat(100_000);
        assert!(value(&deep).is_err() && value(&deep[..MAX_BYTES]).unwrap_err().contains("deeper"));
    }
}
