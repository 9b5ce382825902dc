//! Numbers and texts in few bytes, for a page that is one file. `assets/data.js` unpacks them.

use serde::{Serialize, Serializer};

/// A number with five digits that count; what is not finite is null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Short(pub(super) f64);

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_finite() {
            return serializer.serialize_none();
        }
        let rounded: f64 = format!("{:.4e}", self.0).parse().unwrap_or(self.0);
        // Whole numbers without their point.
        if rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            serializer.serialize_i64(rounded as i64)
        } else {
            serializer.serialize_f64(rounded)
        }
    }
}

/// A curve: its values, or the one that all of them are.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Curve {
    /// All values are this one.
    Constant { c: Short },
    /// One for each step.
    Values(Vec<Short>),
}

impl Curve {
    pub(super) fn of(values: &[f64]) -> Self {
        match values.first() {
            Some(first) if first.is_finite() && values.iter().all(|value| value == first) => {
                Self::Constant { c: Short(*first) }
            }
            _ => Self::Values(values.iter().copied().map(Short).collect()),
        }
    }
}

/// Values of a digit.
const BASE: usize = 90;
/// The greatest value of two digits, and what it stands for, in nats.
const LEVELS: f64 = (BASE * BASE - 1) as f64;
const MOST: f64 = 25.0;

/// A digit as a character of JSON that needs no escape, also within a page.
fn digit(value: usize) -> char {
    let mut code = 35 + value as u8;
    for skipped in [b'<', b'\\'] {
        code += u8::from(code >= skipped);
    }
    char::from(code)
}

/// Nats from 0 to [`MOST`], two digits each, finer near 0: `25 (level / 8099)²`.
pub(super) fn nats(values: impl IntoIterator<Item = f64>) -> String {
    let level = |value: f64| (LEVELS * (value.clamp(0.0, MOST) / MOST).sqrt()).round() as usize;
    values.into_iter().flat_map(|value| [digit(level(value) / BASE), digit(level(value) % BASE)]).collect()
}

/// Lengths below 90, one digit each; `None` where one is longer.
pub(super) fn lengths(values: impl IntoIterator<Item = usize>) -> Option<String> {
    values.into_iter().map(|value| (value < BASE).then(|| digit(value))).collect()
}

/// JSON that may stand in a page's script: no `<` of it opens or ends anything.
pub(super) fn for_page(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// The places of as many as `budget` takes of things of these sizes: the first, the last, and evenly between.
pub(super) fn evenly(sizes: &[usize], budget: usize) -> Vec<usize> {
    let choice = |count: usize| -> Vec<usize> {
        let last = sizes.len().saturating_sub(1);
        (0..count).map(|i| if count == 1 { last } else { (i * last + (count - 1) / 2) / (count - 1) }).collect()
    };
    let fits = |places: &[usize]| places.iter().map(|&place| sizes[place]).sum::<usize>() <= budget;
    (0..=sizes.len()).rev().map(choice).find(|places| fits(places)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_five_digits() {
        let text = |value: f64| serde_json::to_string(&Short(value)).unwrap();
        for (value, expected) in [
            (0.123456789, "0.12346"),
            (3.0, "3"),
            (1e-7, "1e-7"),
            (f64::NAN, "null"),
            (123456.7, "123460"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(text(value), expected);
        }
        assert_eq!(serde_json::to_string(&Curve::of(&[2.0, 2.0])).unwrap(), r#"{"c":2}"#);
        assert_eq!(serde_json::to_string(&Curve::of(&[2.0, f64::NAN])).unwrap(), "[2,null]");
    }

    #[test]
    fn digits_need_no_escape_and_are_told_apart() {
        let digits: String = (0..BASE).map(digit).collect();
        assert_eq!(serde_json::to_string(&digits).unwrap().len(), BASE + 2);
        assert!(!digits.contains('<') && digits.is_ascii());
        let mut each: Vec<char> = digits.chars().collect();
        each.dedup();
        assert_eq!(each.len(), BASE);
        assert_eq!(lengths([0, 89]).unwrap(), "#~");
        assert_eq!(lengths([90]), None);
        assert_eq!(nats([0.0, 25.0, 99.0]), "##~~~~");
    }

    #[test]
    fn what_is_kept_is_spread_evenly_and_fits() {
        assert_eq!(evenly(&[1; 5], 9), [0, 1, 2, 3, 4]);
        assert_eq!(evenly(&[1; 5], 3), [0, 2, 4]);
        assert_eq!(evenly(&[1; 50], 4), [0, 16, 33, 49]);
        assert_eq!(evenly(&[1; 5], 1), [4]);
        assert_eq!(evenly(&[5, 1, 1], 2), [2]);
        assert_eq!(evenly(&[9; 5], 3), [0usize; 0]);
        assert_eq!(evenly(&[], 3), [0usize; 0]);
    }
}
