//! Numbers as they are written: grouped digits, decimals, repeating decimals, powers of ten.

use dashu_int::IBig;
use dashu_ratio::RBig;

use super::expr::Number;

/// Most digits of a literal.
const MAX_DIGITS: usize = 1000;
/// Largest power of ten behind an `e`.
const MAX_EXPONENT: i32 = 400;
/// Most digits that repeat.
const MAX_PERIOD: usize = 64;
/// What may stand between groups of three digits, besides a comma.
const SEPARATORS: [&str; 9] = ["{,}\\!", "{,}", ",\\!", "\\,", "\\ ", "{\\,}", "~", " ", "'"];

/// The number at the start of `text` and its length in bytes. `grouping` allows commas between groups of three digits;
/// `decimal_comma` makes a comma the point.
pub(crate) fn number(text: &str, grouping: bool, decimal_comma: bool) -> Option<(Number, usize)> {
    let (mut digits, mut at) = whole(text, grouping && !decimal_comma);
    let mut places = None;
    let mut repeating = None;
    if let Some(point) = point(&text[at..], decimal_comma) {
        let rest = &text[at + point..];
        let fraction = leading_digits(rest);
        repeating = period(&rest[..fraction], &rest[fraction..]);
        if fraction > 0 || repeating.is_some() {
            digits.push_str(&rest[..fraction]);
            places = Some(u32::try_from(fraction).ok()?);
            at += point + fraction;
        } else if !digits.is_empty() {
            // `7.` is 7.
            at += point;
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

/// The length of the decimal point at the start of `text`. A comma in braces, `3{,}14`, is one; so is a bare comma
/// where that is asked for, unless one digit follows, as `5,6` is 5 and 6, or the three of a group.
fn point(text: &str, decimal_comma: bool) -> Option<usize> {
    const BRACED: &str = "{,}";
    let behind = |length: usize| leading_digits(&text[length..]);
    if text.starts_with('.') {
        Some(1)
    } else if text.starts_with(BRACED) {
        (behind(BRACED.len()) > 0).then_some(BRACED.len())
    } else {
        (decimal_comma && text.starts_with(',') && !matches!(behind(1), 0 | 1 | 3)).then_some(1)
    }
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

/// The digits that repeat behind `fraction`, and the length of what says so at the start of `text`: `\overline{3}`,
/// `(3)`, `\dot{1}4285\dot{7}`, or dots where the fraction has begun to repeat itself.
fn period(fraction: &str, text: &str) -> Option<(String, usize)> {
    let barred = ["\\overline", "\\bar"].into_iter().find_map(|command| under(text, command));
    if let Some((digits, length)) = barred.or_else(|| enclosed(text, '(', ')')) {
        return Some((digits.to_string(), length));
    }
    if let Some((first, length)) = under(text, "\\dot") {
        let middle = leading_digits(&text[length..]).min(MAX_PERIOD);
        let between = &text[length..length + middle];
        return Some(match under(&text[length + middle..], "\\dot") {
            Some((last, more)) => (format!("{first}{between}{last}"), length + middle + more),
            None => (first.to_string(), length),
        });
    }
    let dots = ["\\ldots", "\\dots", "\\cdots", "..."].into_iter().find(|dots| text.starts_with(dots))?;
    // A digit has to come three times, more of them twice; four that come twice are the beginning of e.
    let repeats = |&(length, times): &(usize, usize)| {
        let tail = fraction.len().checked_sub(length * times).map(|start| &fraction[start..]);
        tail.is_some_and(|tail| tail == tail[..length].repeat(times))
    };
    let (length, _) = [(1, 3), (2, 2), (3, 2), (6, 2)].into_iter().find(repeats)?;
    Some((fraction[fraction.len() - length..].to_string(), dots.len()))
}

/// The digits that a mark stands over, in braces or one alone, and the length of it all.
fn under<'a>(text: &'a str, command: &str) -> Option<(&'a str, usize)> {
    let rest = text.strip_prefix(command)?;
    let bare = rest.trim_start_matches(' ');
    let one = || (leading_digits(bare) > 0).then(|| (&bare[..1], rest.len() - bare.len() + 1));
    let (digits, length) = enclosed(rest, '{', '}').or_else(one)?;
    Some((digits, command.len() + length))
}

/// The digits between two brackets at the start of `text`, and the length of it all.
fn enclosed(text: &str, open: char, close: char) -> Option<(&str, usize)> {
    let rest = text.strip_prefix(open)?;
    let digits = leading_digits(rest);
    let whole = rest[digits..].starts_with(close) && (1..=MAX_PERIOD).contains(&digits);
    whole.then(|| (&rest[..digits], digits + 2))
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
