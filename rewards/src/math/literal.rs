//! Numbers as they are written: grouped digits, decimals, repeating decimals, powers of ten.

use dashu_int::IBig;
use dashu_ratio::RBig;

use super::expr::Number;

/// Most digits of a literal.
const MAX_DIGITS: usize = 1000;
/// Largest power of ten behind an `e`.
const MAX_EXPONENT: i32 = 400;
/// What may stand between groups of three digits, besides a comma.
const SEPARATORS: [&str; 9] = ["{,}\\!", "{,}", ",\\!", "\\,", "\\ ", "{\\,}", "~", " ", "'"];

/// The number at the start of `text` and its length in bytes. `grouping` allows commas between groups of three digits;
/// `decimal_comma` makes a comma the point.
pub(crate) fn number(text: &str, grouping: bool, decimal_comma: bool) -> Option<(Number, usize)> {
    let (mut digits, mut at) = whole(text, grouping && !decimal_comma);
    let mut places = None;
    let point = if decimal_comma { [".", ","].as_slice() } else { &["."] };
    let mut repeating = None;
    if let Some(rest) = point.iter().find_map(|point| text[at..].strip_prefix(point)) {
        let fraction = leading_digits(rest);
        repeating = period(&rest[fraction..]);
        if fraction > 0 || repeating.is_some() {
            digits.push_str(&rest[..fraction]);
            places = Some(u32::try_from(fraction).ok()?);
            at += 1 + fraction;
        } else if !digits.is_empty() {
            // `7.` is 7.
            at += 1;
        }
    }
    if (digits.is_empty() && repeating.is_none()) || digits.len() > MAX_DIGITS {
        return None;
    }
    let mut value = scaled(&digits, -i32::try_from(places.unwrap_or(0)).ok()?)?;
    if let Some((period, length)) = repeating {
        let nines = scaled("1", i32::try_from(period.len()).ok()?)? - RBig::ONE;
        let shift = scaled("1", -i32::try_from(places.unwrap_or(0)).ok()?)?;
        value += scaled(&period, 0)? / nines * shift;
        (places, at) = (None, at + length);
    } else if let Some((exponent, length)) = exponent(&text[at..]) {
        value *= scaled("1", exponent)?;
        (places, at) = (None, at + length);
    }
    Some((Number { value, places }, at))
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// The digits before the point, without separators, and how long they are with them.
fn whole(text: &str, grouping: bool) -> (String, usize) {
    let mut at = leading_digits(text);
    let mut digits = text[..at].to_string();
    if !(1..=3).contains(&at) || digits.starts_with('0') {
        return (digits, at);
    }
    let commas = if grouping { Some(",") } else { None };
    let separator = SEPARATORS.into_iter().chain(commas).find(|separator| group(&text[at..], separator).is_some());
    while let Some((three, length)) = separator.and_then(|separator| group(&text[at..], separator)) {
        digits.push_str(three);
        at += length;
    }
    (digits, at)
}

/// Exactly three digits behind `separator`, and the length of both. Behind a command there may be a space.
fn group<'a>(text: &'a str, separator: &str) -> Option<(&'a str, usize)> {
    let rest = text.strip_prefix(separator)?;
    let rest = if separator.ends_with("\\!") { rest.trim_start() } else { rest };
    (leading_digits(rest) == 3).then(|| (&rest[..3], text.len() - rest.len() + 3))
}

/// `\overline{3}` or `(3)`: the digits that repeat, and the length of it all.
fn period(text: &str) -> Option<(String, usize)> {
    for (open, close) in [("\\overline{", '}'), ("\\bar{", '}'), ("\\dot{", '}'), ("(", ')')] {
        if let Some(rest) = text.strip_prefix(open) {
            let digits = leading_digits(rest);
            let closed = rest[digits..].starts_with(close) && (1..=64).contains(&digits);
            return closed.then(|| (rest[..digits].to_string(), open.len() + digits + 1));
        }
    }
    None
}

/// `e8`, `E-3`: a power of ten, not followed by a letter.
fn exponent(text: &str) -> Option<(i32, usize)> {
    let rest = text.strip_prefix(['e', 'E'])?;
    let (sign, rest) = match rest.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, rest.strip_prefix('+').unwrap_or(rest)),
    };
    let digits = leading_digits(rest);
    let ends = !rest[digits..].starts_with(|c: char| c.is_ascii_alphabetic());
    let size: i32 = rest[..digits].parse().ok().filter(|size| ends && *size <= MAX_EXPONENT)?;
    Some((sign * size, text.len() - rest.len() + digits))
}

/// `digits * 10^exponent`.
fn scaled(digits: &str, exponent: i32) -> Option<RBig> {
    let digits = if digits.is_empty() { "0" } else { digits };
    let value = IBig::from_str_radix(digits, 10).ok()?;
    let power = IBig::from(10).pow(exponent.unsigned_abs() as usize);
    Some(if exponent < 0 { RBig::from_parts(value, power.try_into().ok()?) } else { RBig::from(value * power) })
}
