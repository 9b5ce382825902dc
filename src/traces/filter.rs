//! What a completion must not be to be learned from: thoughtless, repetitive, of two languages, a copy. Pure functions of
//! its text.

use std::collections::{HashMap, HashSet};

use crate::config::FilterConfig;

/// Letters of a stretch that counts as repeated when it stands there again.
const STRETCH: usize = 32;
/// Letters of the stretches by which two texts are compared.
const SHINGLE: usize = 5;
/// Tags that thoughts stand in.
const THOUGHTS: [&str; 4] = ["think", "thinking", "thought", "reasoning"];

/// Why a completion is dropped that a rubric passes, if it is.
pub fn fault(text: &str, filter: &FilterConfig) -> Option<&'static str> {
    match () {
        () if filter.thought && !has_thought(text) => Some("without thought"),
        () if filter.repetition < 1.0 && repetition(text) > filter.repetition => Some("repetitive"),
        () if filter.mixed < 1.0 && mixed(text) > filter.mixed => Some("mixed languages"),
        () => None,
    }
}

/// Whether there are words between tags of thinking.
pub fn has_thought(text: &str) -> bool {
    THOUGHTS.iter().any(|tag| {
        let behind = text.split_once(&format!("<{tag}>")).map(|(_, behind)| behind);
        let inner = behind.and_then(|behind| behind.split_once(&format!("</{tag}>"))).map(|(inner, _)| inner);
        inner.is_some_and(|inner| inner.chars().any(char::is_alphanumeric))
    })
}

/// The share of a text's stretches of 32 letters that stood in it before; 0 of a text that is shorter than two of them.
pub fn repetition(text: &str) -> f64 {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() < 2 * STRETCH {
        return 0.0;
    }
    let (mut seen, mut again) = (HashSet::new(), 0);
    for stretch in letters.windows(STRETCH) {
        again += usize::from(!seen.insert(stretch));
    }
    again as f64 / (letters.len() - STRETCH + 1) as f64
}

/// The share of a text's letters that are not of the script that most of them are of. Greek ones are taken for
/// mathematics and are of none; those of Japanese and Chinese are of one.
pub fn mixed(text: &str) -> f64 {
    let mut counts: HashMap<u8, usize> = HashMap::new();
    spoken(text).chars().filter_map(script).for_each(|script| *counts.entry(script).or_default() += 1);
    let all: usize = counts.values().sum();
    let most = counts.values().max().copied().unwrap_or(0);
    (all - most) as f64 / all.max(1) as f64
}

/// A text without its tags and without LaTeX's commands, which are Latin in any language.
fn spoken(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '\\']) {
        kept.push_str(&rest[..at]);
        let (opens, behind) = (&rest[at..=at], &rest[at + 1..]);
        let end = behind.find(|c: char| !c.is_ascii_alphabetic() && c != '/').unwrap_or(behind.len());
        // A sign of comparison opens no tag.
        let is_name = opens == "\\" || behind[end..].starts_with('>');
        rest = if is_name { &behind[end..] } else { behind };
    }
    kept + rest
}

/// A number for the script of a letter; none for what is of no script, and for Greek.
fn script(letter: char) -> Option<u8> {
    if !letter.is_alphabetic() {
        return None;
    }
    match u32::from(letter) {
        // Letters for mathematics stand among symbols.
        0x370..=0x3ff | 0x1f00..=0x1fff | 0x2100..=0x214f | 0x1d400..=0x1d7ff => None,
        0x400..=0x52f => Some(1),
        0x530..=0x58f => Some(2),
        0x590..=0x5ff => Some(3),
        0x600..=0x77f | 0x8a0..=0x8ff | 0xfb50..=0xfdff | 0xfe70..=0xfeff => Some(4),
        0x900..=0xdff => Some(5),
        0xe00..=0xeff => Some(6),
        0x10a0..=0x10ff => Some(7),
        0x1100..=0x11ff | 0x3130..=0x318f | 0xac00..=0xd7ff => Some(8),
        0x2e80..=0x312f | 0x3190..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff => Some(9),
        _ => Some(0),
    }
}

/// How much of two texts is alike: of the stretches of five letters that stand in either, the share that stands in both.
pub fn likeness(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let (a, b) = (shingles(a), shingles(b));
    let both = a.intersection(&b).count();
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

fn shingles(text: &str) -> HashSet<Vec<char>> {
    let letters: Vec<char> = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    letters.windows(SHINGLE.min(letters.len().max(1))).map(<[char]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named_and_a_good_text_has_none() {
        let filter = FilterConfig { thought: true, ..FilterConfig::default() };
        let good = "<think>3 + 4 = 7, and seven times three is twenty-one, which is α.</think> 21";
        let again = format!("<think>{}</think>", "wait, let me see. ".repeat(20));
        for (text, expected) in [
            (good.to_owned(), None),
            ("21".to_owned(), Some("without thought")),
            ("<think>\n\n</think> 21".to_owned(), Some("without thought")),
            ("<think>21".to_owned(), Some("without thought")),
            (again, Some("repetitive")),
            ("<think>我们 let us see what 三 is</think>".to_owned(), Some("mixed languages")),
            ("<think>Итак, three</think>".to_owned(), Some("mixed languages")),
            ("<think>Итак, \\frac{3}{1} < 4, три</think><answer>3</answer>".to_owned(), None),
            ("<reasoning>x=3</reasoning>".to_owned(), None),
        ] {
            assert_eq!(fault(&text, &filter), expected, "{text}");
        }
        let lenient = FilterConfig { repetition: 1.0, mixed: 1.0, thought: false, ..filter };
        assert_eq!(fault(&"我 a".repeat(99), &lenient), None);
    }

    #[test]
    fn likeness_is_of_what_is_written_not_of_spaces() {
        for (a, b, low, high) in [
            ("one two three", "one two three", 1.0, 1.0),
            ("one two three four", "one  two three\nfour", 1.0, 1.0),
            ("3+4=7,7*3=21 so 21", "3+4=7,7*3=21 so 22", 0.7, 0.95),
            ("abcdefgh", "stuvwxyz", 0.0, 0.0),
            ("", "", 1.0, 1.0),
            ("", "a", 0.0, 0.0),
        ] {
            let found = likeness(a, b);
            assert!((low..=high).contains(&found), "{a} {b}: {found}");
        }
    }
}
