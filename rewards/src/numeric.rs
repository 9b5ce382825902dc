//! The answer is the reference's number: exact rationals, not strings and not floats. The whole answer must be one
//! number; text around it is not searched, because "the last number" rewards listing guesses.

use reckon_datasets::Example;
use serde::{Deserialize, Serialize};

use crate::{ExtractOptions, Extractor, Outcome, Rational, Reference, Verdict, Verifier, VerifierError};

/// Largest power of ten: `10^38` is the last that fits in 128 bits.
const MAX_EXPONENT: i32 = 38;
const CURRENCIES: [char; 5] = ['$', '€', '£', '¥', '₹'];
const SIGNS: [char; 3] = ['+', '-', '−'];
const MINUS: [char; 2] = ['-', '−'];

/// What `50%` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percent {
    /// 1/2.
    #[default]
    Fraction,
    /// 50.
    Number,
}

/// Options of kind `numeric`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NumericOptions {
    /// Largest difference from the reference that passes; exact when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// What `50%` is.
    pub percent: Percent,
    /// Units that may follow the number. They are dropped, not converted, so name only those the question fixes.
    pub units: Vec<String>,
    /// Where the answer is.
    pub extract: ExtractOptions,
}

/// Passes an answer of the reference's value, or of one of them, all read by the same rules.
///
/// ```
/// use reckon_datasets::Example;
/// use reckon_rewards::{Numeric, NumericOptions, Verifier};
/// let verifier = Numeric::new("sum", &NumericOptions::default())?;
/// let (question, answer) = ("?".into(), "so #### 1,250".into());
/// let example = Example { id: "1".into(), question, answer, ..Example::default() };
/// for right in ["1250", "$1,250.00", "1.25e3", "2500/2", "+1250."] {
///     assert!(verifier.verify(&example, &format!("<answer>{right}</answer>"))?.passed());
/// }
/// assert!(!verifier.verify(&example, "<answer>1249 or 1250</answer>")?.passed());
/// # Ok::<(), reckon_rewards::VerifierError>(())
/// ```
#[derive(Debug)]
pub struct Numeric {
    name: String,
    options: NumericOptions,
    extractor: Extractor,
}

impl Numeric {
    /// A verifier called `name`.
    pub fn new(name: &str, options: &NumericOptions) -> Result<Self, VerifierError> {
        if let Some(tolerance) = options.tolerance.filter(|t| !(t.is_finite() && *t >= 0.0)) {
            return Err(VerifierError::config(
                name,
                format!("`tolerance = {tolerance}` must be finite and at least 0"),
            ));
        }
        if options.units.iter().any(|unit| unit.trim().is_empty()) {
            return Err(VerifierError::config(name, "`units` holds an empty unit; remove it"));
        }
        let extractor = Extractor::new(name, &options.extract)?;
        Ok(Self { name: name.into(), options: options.clone(), extractor })
    }

    /// The number that `text` is, after `####` if it starts so.
    fn parse(&self, text: &str) -> Option<Rational> {
        let text = text.trim();
        let text = text.strip_prefix("####").unwrap_or(text).trim_start();
        // One final stop, unless another mark stands before it.
        let stopped = text.strip_suffix(['.', '。']).filter(|rest| !rest.ends_with(['.', ',', '。']));
        let text = stopped.unwrap_or(text);
        let text =
            self.options.units.iter().find_map(|unit| text.strip_suffix(unit.as_str())).unwrap_or(text).trim_end();
        let (text, percent) = text.strip_suffix('%').map_or((text, false), |rest| (rest.trim_end(), true));
        let (text, negative) = sign_and_currency(text)?;
        let value = fraction(text)?;
        let value = if negative { value.neg()? } else { value };
        if percent && self.options.percent == Percent::Fraction { value.div(Rational::from(100)) } else { Some(value) }
    }

    fn equal(&self, a: Rational, b: Rational) -> bool {
        match self.options.tolerance {
            None => a == b,
            Some(tolerance) => a.sub(b).map_or(a.to_f64() - b.to_f64(), Rational::to_f64).abs() <= tolerance,
        }
    }
}

impl Verifier for Numeric {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, example: &Example) -> Result<(), VerifierError> {
        self.verify(example, "").map(drop)
    }

    fn verify(&self, example: &Example, completion: &str) -> Result<Verdict, VerifierError> {
        let references: Vec<Rational> = example.answer.each().filter_map(|right| self.parse(stated(right))).collect();
        if references.is_empty() {
            let answer = example.answer.as_str();
            let problem = format!("its `answer` {answer:?} is not a number; correct it or drop the row");
            return Err(VerifierError::example(&self.name, example, problem));
        }
        Ok(self.extractor.judge(completion, |answer| match self.parse(answer) {
            None => Verdict::zero(Outcome::Unparsed, "the answer is not one number that fits 128 bits"),
            Some(value) if references.iter().any(|reference| self.equal(value, *reference)) => {
                Verdict::pass(value.to_string(), "equal")
            }
            Some(value) => Verdict::fail(value.to_string(), "another number"),
        }))
    }

    fn reference(&self, example: &Example) -> Option<Reference> {
        let mut readable = example.answer.each().map(stated).filter(|right| self.parse(right).is_some());
        readable.find_map(Reference::value)
    }

    fn lay_out(&self, draft: &str) -> String {
        self.extractor.lay_out(draft)
    }
}

/// The number of a reference: GSM8K's are worked solutions that end in `#### 42`.
fn stated(reference: &str) -> &str {
    reference.rsplit("####").next().unwrap_or_default()
}

/// Takes one sign and one currency symbol off, in either order before the number, or the symbol after it.
fn sign_and_currency(text: &str) -> Option<(&str, bool)> {
    let (mut negative, mut money) = (text.starts_with(MINUS), false);
    let mut rest = text.strip_prefix(SIGNS).unwrap_or(text);
    if let Some(after) = rest.strip_prefix('\\').unwrap_or(rest).strip_prefix(CURRENCIES) {
        (rest, money) = (after.trim_start(), true);
        if !text.starts_with(SIGNS) {
            negative = rest.starts_with(MINUS);
            rest = rest.strip_prefix(SIGNS).unwrap_or(rest);
        }
    }
    match rest.strip_suffix(CURRENCIES) {
        Some(_) if money => None,
        Some(before) => Some((before.trim_end(), negative)),
        None => Some((rest, negative)),
    }
}

/// `integer / integer`, or a decimal.
fn fraction(text: &str) -> Option<Rational> {
    match text.split_once('/') {
        None => decimal(text),
        Some((above, below)) => {
            Rational::new(whole(above.trim_end().as_bytes())?, whole(below.trim_start().as_bytes())?)
        }
    }
}

/// `digits [. digits] [e [sign] digits]`, with a digit on one side of the point at least.
fn decimal(text: &str) -> Option<Rational> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => (mantissa, small_exponent(exponent)?),
    };
    let (above, below) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if (above.is_empty() && below.is_empty()) || !below.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut digits = if above.is_empty() { 0 } else { whole(above.as_bytes())? };
    // Zeros at the end of a fraction carry no value and must not overflow.
    let below = below.trim_end_matches('0');
    for digit in below.bytes() {
        digits = digits.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let shift = exponent - i32::try_from(below.len()).ok()?;
    let power = 10i128.checked_pow(shift.unsigned_abs())?;
    if shift < 0 { Rational::new(digits, power) } else { Rational::new(digits.checked_mul(power)?, 1) }
}

fn small_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(SIGNS).unwrap_or(text);
    if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size: i32 = digits.parse().ok().filter(|size| *size <= MAX_EXPONENT)?;
    Some(if text.starts_with(MINUS) { -size } else { size })
}

/// Digits, or groups of three of them behind commas: `1,234,567` and not `1,23`.
fn whole(text: &[u8]) -> Option<i128> {
    let first = text.iter().position(|b| *b == b',').unwrap_or(text.len());
    let grouped = first < text.len();
    if first == 0 || (grouped && (first > 3 || !(text.len() - first).is_multiple_of(4))) {
        return None;
    }
    let mut value = 0i128;
    for (index, byte) in text.iter().enumerate() {
        let comma_due = index >= first && (index - first).is_multiple_of(4);
        match byte {
            b'0'..=b'9' if !comma_due => value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?,
            b',' if comma_due => {}
            _ => return None,
        }
    }
    Some(value)
}
