//! A reader of JSON as data files have it, which is what Python writes: numbers keep their digits and objects the order
//! of their keys; `NaN` and `Infinity`, which JSON does not have, are null; half of a surrogate pair is U+FFFD.
//!
//! What the values mean is left to `lines` and `shape`.

use serde_json::{Map, Number, Value};

/// How deep lists and objects may stand in one another.
const MAX_DEPTH: usize = 128;

/// What is wrong, and at which byte of the text. At the end of the text, something is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) problem: String,
}

/// The value that starts at byte `at` of `text`, white space apart, and where it ends.
pub(super) fn value(text: &str, at: usize) -> Result<(Value, usize), Fault> {
    let mut parser = Parser { text, at, depth: 0 };
    let value = parser.value()?;
    Ok((value, parser.at))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Value, Fault> {
        match self.next() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => self.word(),
            Some(_) => Err(self.fault("expected a value")),
            None => Err(self.fault("the text ends where a value is expected")),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(&format!("lists and objects stand more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        self.at += 1;
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let mut object = Map::new();
        if !self.takes(b'}') {
            loop {
                if self.next() != Some(b'"') {
                    return Err(self.fault("expected a key in double quotes"));
                }
                let key = self.string()?;
                self.expect(b':')?;
                object.insert(key, self.value()?);
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        Ok(Value::Object(object))
    }

    fn array(&mut self) -> Result<Value, Fault> {
        let mut items = Vec::new();
        if !self.takes(b']') {
            loop {
                items.push(self.value()?);
                if !self.goes_on(b']')? {
                    break;
                }
            }
        }
        Ok(Value::Array(items))
    }

    /// A text from its opening quote on.
    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = rest.find(|c: char| matches!(c, '"' | '\\') || c < ' ') else {
                self.at = self.text.len();
                return Err(self.fault("the text ends amid a string"));
            };
            text.push_str(&rest[..length]);
            self.at += length;
            match rest.as_bytes()[length] {
                b'"' => {
                    self.at += 1;
                    return Ok(text);
                }
                b'\\' => text.push(self.escape()?),
                _ => return Err(self.fault("a control character in a string: write it as \\n, \\t or \\u0000")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let Some(&letter) = self.text.as_bytes().get(self.at + 1) else {
            self.at = self.text.len();
            return Err(self.fault("the text ends amid a string"));
        };
        let c = match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(self.fault("an unknown escape in a string: write a backslash as \\\\")),
        };
        self.at += 2;
        Ok(c)
    }

    /// `\u00e4`, or two such that are a surrogate pair; half of one stands for no letter.
    fn unicode(&mut self) -> Result<char, Fault> {
        let first = self.unit().ok_or_else(|| self.fault("expected four hexadecimal digits after \\u"))?;
        self.at += 6;
        let second = if (0xd800..0xdc00).contains(&first) { self.unit() } else { None };
        if let Some(low) = second.filter(|low| (0xdc00..0xe000).contains(low)) {
            self.at += 6;
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The number behind a `\u` that stands here.
    fn unit(&self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }

    /// A number, or one of the words that are values.
    fn word(&mut self) -> Result<Value, Fault> {
        let rest = &self.text[self.at..];
        let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_');
        let word = &rest[..rest.bytes().position(|b| !part(b)).unwrap_or(rest.len())];
        let value = match word {
            "null" | "NaN" | "Infinity" | "-Infinity" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ if is_number(word) => Value::Number(Number::from_string_unchecked(word.to_owned())),
            _ => {
                let word: String = word.chars().take(40).collect();
                return Err(self.fault(&format!("{word} is no value: put a text into double quotes")));
            }
        };
        self.at += word.len();
        Ok(value)
    }

    /// The byte behind white space, which is passed over.
    fn next(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let space = rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at += space;
        rest.get(space).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.next() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.takes(byte) { Ok(()) } else { Err(self.fault(&format!("expected `{}`", char::from(byte)))) }
    }

    /// Whether a comma follows, and not the end of the list or object.
    fn goes_on(&mut self, end: u8) -> Result<bool, Fault> {
        if self.takes(end) {
            return Ok(false);
        }
        let expected = format!("expected `,` or `{}`", char::from(end));
        if self.takes(b',') { Ok(true) } else { Err(self.fault(&expected)) }
    }

    fn fault(&self, problem: &str) -> Fault {
        Fault { at: self.at, problem: problem.into() }
    }
}

/// `[-] digits [. digits] [e [+-] digits]`, without zeros before other digits.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = word.split_once(['e', 'E']).map_or((word, None), |(m, e)| (m, Some(e)));
    let (whole, places) = mantissa.split_once('.').map_or((mantissa, None), |(w, p)| (w, Some(p)));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && places.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<String, Fault> {
        let (value, end) = value(text, 0)?;
        assert!(text[end..].trim().is_empty(), "{text}");
        Ok(value.to_string())
    }

    #[test]
    fn numbers_keep_their_digits_and_objects_their_order_however_deep() {
        for text in [
            r#"{"z":[{"b":1.50,"a":123456789012345678901234567890}],"a":-0.10}"#,
            r#"[1e2,-1E+5,0,-0,0.5,1.000]"#,
            r#"{"":"","\"":[[],{}],"t":true,"n":null}"#,
        ] {
            assert_eq!(read(text).unwrap(), text);
        }
    }

    #[test]
    fn what_python_writes_beside_json_is_read() {
        for (text, expected) in [
            ("[NaN, Infinity, -Infinity]", "[null,null,null]"),
            (r#""\ud83d\ude00""#, "\"😀\""),
            (r#""a\ud800b\udc00""#, "\"a\u{fffd}b\u{fffd}\""),
            (r#""\ud800\ud83d\ude00""#, "\"\u{fffd}😀\""),
            (r#""\ud800\u0041""#, "\"\u{fffd}A\""),
        ] {
            assert_eq!(read(text).unwrap(), expected);
        }
    }

    #[test]
    fn a_fault_names_its_place() {
        for (text, at, problem) in [
            ("", 0, "ends where a value"),
            ("{\"a\": tru}", 6, "tru is no value"),
            ("{\"a\" 1}", 5, "expected `:`"),
            ("{a: 1}", 1, "a key in double quotes"),
            ("[1 2]", 3, "expected `,` or `]`"),
            ("[1,]", 3, "expected a value"),
            ("\"a", 2, "amid a string"),
            ("\"a\\", 3, "amid a string"),
            ("\"a\nb\"", 2, "control character"),
            ("\"\\x\"", 1, "unknown escape"),
            ("\"\\u12\"", 1, "four hexadecimal"),
            ("01", 0, "01 is no value"),
            ("+1", 0, "expected a value"),
            (&"[".repeat(200), MAX_DEPTH, "128 deep"),
        ] {
            let fault = value(text, 0).unwrap_err();
            assert!(fault.at == at && fault.problem.contains(problem), "{text}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_read_alike(text in r#"[\[\]{}",:0-9eE.+\-\\uabtrfnls \n]{0,24}"#) {
            if let Ok(expected) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(value(&text, 0).unwrap().0.to_string().to_lowercase(),
                    expected.to_string().to_lowercase());
            } else {
                let _ = value(&text, 0);
            }
        }
    }
}
