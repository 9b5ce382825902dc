//! The answer is arithmetic that makes a target of given numbers, each used exactly once. The parser below is the
//! whole language; nothing evaluates model text. Problems come from `reckon-datasets`.
//!
//! ```text
//! answer = sum ["=" target]                 sum     = product {("+" | "-") product}
//! factor = ["-"] primary                    product = factor {("*" | "/") factor}
//! primary = integer | "(" sum ")"           integer = "0" | nonzero {digit}
//! ```

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ExtractOptions, Extractor, Outcome, Rational, Reference, Verdict, Verifier, VerifierError};

/// Numbers of one problem: as many as there are bits to tick them off.
const MAX_NUMBERS: usize = 64;
/// Deepest nesting that a config may ask for; the parser recurses once a level.
const DEEPEST: usize = 256;

/// Options of kind `countdown`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CountdownOptions {
    /// Longest answer that is read, in bytes.
    pub max_bytes: usize,
    /// Deepest nesting of brackets.
    pub max_depth: usize,
    /// Accept one minus sign before a number or bracket.
    pub unary_minus: bool,
    /// Accept `= target` at the end.
    pub equals_target: bool,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

impl Default for CountdownOptions {
    fn default() -> Self {
        let extract = ExtractOptions::default();
        Self { max_bytes: 256, max_depth: 32, unary_minus: false, equals_target: false, extract }
    }
}

/// Passes an expression over `info.numbers` (or `info.nums`), each used exactly once, whose value is `info.target`.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Countdown, CountdownOptions, Verifier};
/// let verifier = Countdown::new("countdown", &CountdownOptions::default())?;
/// let example: Example = serde_json::from_str(
///     r#"{"id": "1", "question": "?", "answer": "", "info": {"numbers": [3, 4, 7], "target": 49}}"#)?;
/// assert!(verifier.verify(&example, "<answer>(3 + 4) × 7</answer>")?.passed());
/// assert!(!verifier.verify(&example, "<answer>7 * 7</answer>")?.passed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Countdown {
    name: String,
    options: CountdownOptions,
    extractor: Extractor,
}

impl Countdown {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &CountdownOptions) -> Result<Self, VerifierError> {
        if options.max_bytes == 0 || options.max_depth > DEEPEST {
            let problem = format!(
                "`max_bytes = {}` must be above 0, and `max_depth = {}` at most {DEEPEST}",
                options.max_bytes, options.max_depth
            );
            return Err(VerifierError::config(name, problem));
        }
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    fn problem<'a>(&self, example: &'a Example) -> Result<(&'a [Value], i64), VerifierError> {
        let broken = |problem: String| VerifierError::example(&self.name, example, problem);
        let numbers = example.info.get("numbers").or_else(|| example.info.get("nums"));
        let numbers = numbers.and_then(Value::as_array).ok_or_else(|| broken("`info.numbers` is not a list".into()))?;
        if numbers.is_empty() || numbers.len() > MAX_NUMBERS {
            return Err(broken(format!("`info.numbers` holds {}, not 1 to {MAX_NUMBERS}", numbers.len())));
        }
        if let Some(bad) = numbers.iter().find(|n| n.as_i64().is_none_or(|n| n < 0)) {
            return Err(broken(format!("`info.numbers` holds {bad}, which is not an integer from 0 up")));
        }
        let target = example.info.get("target").and_then(Value::as_i64);
        Ok((numbers, target.ok_or_else(|| broken("`info.target` is not an integer".into()))?))
    }

    /// Whether `answer` solves the problem: the outcome and why.
    fn judge(&self, numbers: &[Value], target: i64, answer: &str) -> (Outcome, &'static str) {
        if answer.len() > self.options.max_bytes {
            return (Outcome::Unparsed, "the answer is longer than `max_bytes`");
        }
        let mut parser =
            Parser { rest: answer, options: &self.options, depth: 0, numbers, used: 0, misused: false, fault: None };
        let value = match parser.whole(target) {
            Err(reason) => return (Outcome::Unparsed, reason),
            Ok(value) => value,
        };
        // The shift is at least 1 long, so 64 numbers fill the word exactly.
        let all = u64::MAX >> (MAX_NUMBERS - numbers.len());
        match parser.fault {
            Some(fault) => (Outcome::Fail, fault),
            None if parser.misused => (Outcome::Fail, "uses a number that is not given, or uses one too often"),
            None if parser.used != all => (Outcome::Fail, "leaves a given number unused"),
            None if value != Rational::from(target) => (Outcome::Fail, "makes another number than the target"),
            None => (Outcome::Pass, "makes the target"),
        }
    }
}

impl Verifier for Countdown {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let (numbers, target) = self.problem(example)?;
        Ok(self.extractor.judge(completion, |answer| match self.judge(numbers, target, answer) {
            (Outcome::Pass, reason) => Verdict::pass(answer, reason),
            (Outcome::Fail, reason) => Verdict::fail(answer, reason),
            (outcome, reason) => Verdict::zero(outcome, reason),
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        // The rule does not read `answer`; a dataset may put a bare target there, which is no solution.
        let solves = example.answer.trim_start_matches(['-', '−']).contains(['+', '-', '−', '*', '×', '/', '÷']);
        Reference::value(&example.answer).filter(|_| solves)
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

/// Computes while it parses. A malformed answer is an `Err` at once; a wrong number or a division by zero is noted and
/// parsing goes on, so that "wrong" and "no arithmetic at all" stay apart in the counts.
struct Parser<'a> {
    rest: &'a str,
    options: &'a CountdownOptions,
    depth: usize,
    numbers: &'a [Value],
    /// Bit `i` is set once `numbers[i]` is used.
    used: u64,
    misused: bool,
    fault: Option<&'static str>,
}

type Parsed<T> = Result<T, &'static str>;

impl Parser<'_> {
    fn whole(&mut self, target: i64) -> Parsed<Rational> {
        let value = self.sum()?;
        if self.options.equals_target && self.take(&["="]) {
            let negative = self.take(&["-", "−"]);
            let stated = self.integer()?;
            if (if negative { -stated } else { stated }) != target {
                self.fault = Some("states another target");
            }
        }
        if self.peek().is_some() { Err("the answer is not one arithmetic expression") } else { Ok(value) }
    }

    fn sum(&mut self) -> Parsed<Rational> {
        let mut value = self.product()?;
        loop {
            if self.take(&["+"]) {
                let right = self.product()?;
                value = self.checked(value.add(right));
            } else if self.take(&["-", "−"]) {
                let right = self.product()?;
                value = self.checked(value.sub(right));
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Parsed<Rational> {
        let mut value = self.factor()?;
        loop {
            if self.take(&["*", "×", "·", "⋅"]) {
                let right = self.factor()?;
                value = self.checked(value.mul(right));
            } else if self.take(&["/", "÷"]) {
                let right = self.factor()?;
                if right == Rational::ZERO {
                    self.fault.get_or_insert("divides by zero");
                }
                value = self.checked(value.div(right));
            } else {
                return Ok(value);
            }
        }
    }

    fn factor(&mut self) -> Parsed<Rational> {
        if self.options.unary_minus && self.take(&["-", "−"]) {
            let value = self.primary()?;
            return Ok(self.checked(value.neg()));
        }
        self.primary()
    }

    fn primary(&mut self) -> Parsed<Rational> {
        if !self.take(&["("]) {
            let number = self.integer()?;
            self.tick_off(number);
            return Ok(Rational::from(number));
        }
        if self.depth == self.options.max_depth {
            return Err("brackets are nested deeper than `max_depth`");
        }
        self.depth += 1;
        let value = self.sum()?;
        self.depth -= 1;
        if self.take(&[")"]) { Ok(value) } else { Err("a bracket is not closed") }
    }

    fn integer(&mut self) -> Parsed<i64> {
        self.peek();
        let end = self.rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if digits.len() > 1 && digits.starts_with('0') {
            return Err("a number has a leading zero");
        }
        self.rest = rest;
        // Fails on no digits at all, and on more than 64 bits.
        digits.parse().map_err(|_| "a number or bracket is missing, or a number is too large")
    }

    fn tick_off(&mut self, number: i64) {
        let free = |(i, n): &(usize, &Value)| self.used >> i & 1 == 0 && n.as_i64() == Some(number);
        match self.numbers.iter().enumerate().find(free) {
            Some((index, _)) => self.used |= 1 << index,
            None => self.misused = true,
        }
    }

    fn checked(&mut self, value: Option<Rational>) -> Rational {
        value.unwrap_or_else(|| {
            self.fault.get_or_insert("leaves the range of 128-bit fractions");
            Rational::ZERO
        })
    }

    /// The next byte after white space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.bytes().next()
    }

    /// Consumes any one of `tokens`.
    fn take(&mut self, tokens: &[&str]) -> bool {
        self.peek();
        match tokens.iter().find_map(|token| self.rest.strip_prefix(token)) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}
