//! Whether what a program printed or returned is what was expected. Runs in the judging process only.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// How printed text is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Line by line, as many lines; white space at the end of a line and blank lines at the end do not count.
    #[default]
    Lines,
    /// Word by word; white space between words does not count.
    Words,
}

/// How far a number may be off: `|got - expected| <= max(abs, rel * |expected|)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// Absolute.
    pub abs: f64,
    /// Relative to what is expected.
    pub rel: f64,
}

impl Tolerance {
    /// What a row says: one number for both, or `{abs, rel}`.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let read = match value.as_f64() {
            Some(both) => Some(Self { abs: both, rel: both }),
            None => Self::deserialize(value).ok(),
        };
        let bad = || format!("`tolerance` {value} must be a number or {{abs, rel}}, finite and not negative");
        read.filter(Self::is_sound).ok_or_else(bad)
    }

    pub(super) fn is_sound(&self) -> bool {
        [self.abs, self.rel].iter().all(|bound| bound.is_finite() && *bound >= 0.0)
    }

    fn admits(&self, expected: f64, got: f64) -> bool {
        let bound = self.abs.max(self.rel * expected.abs());
        expected.is_finite() && got.is_finite() && (got - expected).abs() <= bound
    }
}

/// Without a tolerance text is compared as text.
pub(super) fn text(compare: Compare, tolerance: Option<Tolerance>, expected: &str, got: &str) -> bool {
    let words = |expected: &str, got: &str| {
        all_equal(expected.split_whitespace(), got.split_whitespace(), |expected, got| word(tolerance, expected, got))
    };
    match compare {
        Compare::Words => words(expected, got),
        Compare::Lines => all_equal(expected.trim_end().lines(), got.trim_end().lines(), |expected, got| {
            expected.trim_end() == got.trim_end() || (tolerance.is_some() && words(expected, got))
        }),
    }
}

fn word(tolerance: Option<Tolerance>, expected: &str, got: &str) -> bool {
    let near = |tolerance: Tolerance| Some(tolerance.admits(expected.parse().ok()?, got.parse().ok()?));
    expected == got || tolerance.and_then(near).unwrap_or(false)
}

/// JSON values by structure: 1 equals 1.0, `true` does not equal 1, the order of an object's keys does not count.
/// Integers are compared as such, however long.
pub(super) fn value(tolerance: Option<Tolerance>, expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Number(expected), Value::Number(got)) => number(tolerance, expected, got),
        (Value::Array(expected), Value::Array(got)) => all_equal(expected, got, |e, g| value(tolerance, e, g)),
        (Value::Object(expected), Value::Object(got)) => {
            let same = |(key, e)| got.get(key).is_some_and(|g| value(tolerance, e, g));
            expected.len() == got.len() && expected.iter().all(same)
        }
        _ => expected == got,
    }
}

fn number(tolerance: Option<Tolerance>, expected: &Number, got: &Number) -> bool {
    let (written, printed) = (expected.to_string(), got.to_string());
    if let (Some(expected), Some(got)) = (integer(&written), integer(&printed))
        && (tolerance.is_none() || expected == got)
    {
        return expected == got;
    }
    let (Some(expected), Some(got)) = (expected.as_f64(), got.as_f64()) else { return false };
    expected == got || tolerance.is_some_and(|tolerance| tolerance.admits(expected, got))
}

/// The digits of an integer with their sign, which JSON writes in one way alone, but for zero.
fn integer(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then_some(if digits == "0" { digits } else { text })
}

/// As many, and equal in pairs.
fn all_equal<A, B>(
    expected: impl IntoIterator<Item = A>,
    got: impl IntoIterator<Item = B>,
    equal: impl Fn(A, B) -> bool,
) -> bool {
    let (mut expected, mut got) = (expected.into_iter(), got.into_iter());
    loop {
        match (expected.next(), got.next()) {
            (None, None) => return true,
            (Some(e), Some(g)) => {
                if !equal(e, g) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEAR: Option<Tolerance> = Some(Tolerance { abs: 0.0, rel: 1e-6 });

    #[test]
    fn text_is_compared_whole() {
        let check = |compare, tolerance, expected, got, equal| {
            assert_eq!(text(compare, tolerance, expected, got), equal, "{expected:?} {got:?}");
        };
        for (expected, got, lines, words) in [
            ("1\n2\n", "1  \n2\r\n\n", true, true),
            ("1\n2\n", "1\n", false, false),
            ("1\n2\n", "1\n2\n3\n", false, false),
            ("1 2", "1  2", false, true),
            ("1\n2", "1 2", false, true),
            ("1", " 1", false, true),
            ("1", "\n1", false, true),
            ("yes", "Yes", false, false),
            ("1", "1.0", false, false),
            ("", " \n", true, true),
        ] {
            check(Compare::Lines, None, expected, got, lines);
            check(Compare::Words, None, expected, got, words);
        }
        check(Compare::Lines, NEAR, "0.3333333\nx", "0.33333331\nx", true);
        check(Compare::Lines, NEAR, "0.3 x", "0.4 x", false);
        check(Compare::Lines, NEAR, "1 2", "1\n2", false);
        check(Compare::Lines, NEAR, "nan", "NaN", false);
        check(Compare::Words, NEAR, "1", "1e0", true);
        check(Compare::Words, NEAR, "inf", "1", false);
    }

    #[test]
    fn values_are_compared_by_structure() {
        let check = |tolerance, expected: Value, got: Value, equal| {
            assert_eq!(value(tolerance, &expected, &got), equal, "{expected} {got}");
        };
        check(None, json!([1, "a", null]), json!([1, "a", null]), true);
        check(None, json!([1, 2]), json!([1]), false);
        check(None, json!([1]), json!([1, 2]), false);
        check(None, json!(1), json!(1.0), true);
        check(None, json!(1), json!(true), false);
        check(None, json!(1), json!("1"), false);
        check(None, json!(9007199254740993u64), json!(9007199254740992u64), false);
        let power = |digits: usize| serde_json::from_str(&format!("1{}", "0".repeat(digits))).unwrap();
        check(None, power(30), power(30), true);
        check(None, power(30), power(31), false);
        check(None, power(5000), power(5000), true);
        check(NEAR, power(5000), power(5001), false);
        check(None, serde_json::from_str("-0").unwrap(), json!(0), true);
        check(None, json!({"a": 1, "b": [2]}), json!({"b": [2], "a": 1}), true);
        check(None, json!({"a": 1}), json!({"a": 1, "b": 1}), false);
        check(None, json!(0.3), json!(0.1 + 0.2), false);
        check(NEAR, json!([0.3]), json!([0.1 + 0.2]), true);
        check(NEAR, json!(3), json!(3.1), false);
    }
}
