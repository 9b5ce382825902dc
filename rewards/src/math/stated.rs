//! The number that prose states: behind `is`, `are`, `=` or `:`, or as the only number of its last sentence.

use std::sync::LazyLock;

use regex::Regex;

use super::units::Unit;

/// Most words of a unit: `kilometers per square hour`.
const MAX_UNIT_WORDS: usize = 4;

/// A number in prose: a time of day, a mixed number, or digits with a sign, a currency and a fraction.
macro_rules! number {
    () => {
        concat!(
            r"(?:\d{1,2}:\d{2}\b|[-−+]?\d+(?:\s+\d+\s?/\s?\d+|\s?[½⅓⅔¼¾⅕⅙⅛])",
            r"|[-−+]?\s?\\?[$€£]?\s?(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:[.,]\d+)?(?:\s?/\s?\d+)?|[-−+]?\.\d+)"
        )
    };
}

static STATED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(r"(?:^|\bis\b|\bare\b|\bequals\b|\bapproximately\b|\best\b|=|(?:^|\D):)[\s*]*(", number!(), ")"))
});
static ANY: LazyLock<Regex> = LazyLock::new(|| pattern(concat!(r"(?:^|[\s(*~])(", number!(), ")")));
/// Further numbers of a list.
static LISTED: LazyLock<Regex> =
    LazyLock::new(|| pattern(concat!(r"^(?:\s*(?:,\s*(?:and\b)?|and\b)\s*", number!(), r"\b)+")));
static HALF_DAY: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^[ap]\.?m\b"));
static PERCENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:%|\\%|percent\b|pct\b)"));
static HEDGE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:or|either|maybe|perhaps|but|unsure|not sure|guess|do(?: not|n.t) know)\b"));
static DENIAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:not|cannot|unable|\w+n['’]t)\b"));
/// Words that number what follows, and no amount.
static LABEL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:step|problem|question|part|case|section|chapter|figure|table|equation|page|number|no\.?)\s*$")
});

/// A pattern of this folder, which its tests compile.
#[allow(clippy::expect_used)] // A constant that does not compile is a bug, and a bug is a panic.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is well formed")
}

/// The last number that a text states, with its unit, where its sentence states no alternative.
pub(crate) fn stated_number(text: &str) -> Option<String> {
    let introduced = STATED.captures_iter(text).last().and_then(|found| found.get(1));
    let number = introduced.or_else(|| only_number(text))?;
    let start = text[..number.start()].rfind(". ").unwrap_or(0);
    let end = text[number.end()..].find(". ").map_or(text.len(), |at| number.end() + at);
    if HEDGE.is_match(&text[start..end]) {
        return None;
    }
    let rest = &text[number.end()..];
    let number = number.as_str().trim().trim_end_matches([',', '.']);
    if PERCENT.is_match(rest) {
        return Some(format!("{number}\\%"));
    }
    if let Some(more) = LISTED.find(rest) {
        return Some(format!("{number}{}", more.as_str()));
    }
    Some(match unit(rest)? {
        "" => number.to_string(),
        unit => format!("{number} \\text{{{unit}}}"),
    })
}

/// The number of the last sentence, where it is whole and has no other: `She has 72 apples left.`
fn only_number(text: &str) -> Option<regex::Match<'_>> {
    let text = text.trim_end().trim_end_matches('*');
    let ended = text.ends_with(['.', '!', '%']) || text.ends_with("percent");
    let start = text.trim_end_matches('.').rfind(". ").map_or(0, |at| at + 1);
    let sentence = &text[start..];
    if !ended || DENIAL.is_match(sentence) {
        return None;
    }
    let found = ANY.captures_iter(sentence).next()?.get(1)?;
    let others = sentence[..found.start()].contains(|c: char| c.is_ascii_digit())
        || sentence[found.end()..].contains(|c: char| c.is_ascii_digit());
    let labels = LABEL.is_match(&sentence[..found.start()]);
    (!others && !labels).then(|| ANY.captures_at(text, start).and_then(|found| found.get(1)))?
}

fn is_known(words: &str) -> bool {
    Unit::read(words).is_some_and(|unit| unit.is_known())
}

/// The unit of the table right behind a number, or nothing; `None` where the number goes on as a formula.
fn unit(rest: &str) -> Option<&str> {
    let bare = rest.trim_start_matches([' ', '*', '~']);
    let attached = bare.len() == rest.len();
    let ends = bare.match_indices(|c: char| !(c.is_alphanumeric() || "/²³^".contains(c))).map(|(at, _)| at);
    let mut words =
        ends.chain([bare.len()]).take(MAX_UNIT_WORDS).map(|end| &bare[..end]).collect::<Vec<_>>().into_iter();
    let word = words.clone().next().unwrap_or_default();
    // `72 in total` are no inches.
    let known = |words: &&str| !words.split(' ').any(|word| word == "in") && is_known(words);
    if let Some(unit) = words.rfind(known) {
        return Some(unit);
    }
    if let Some(half) = HALF_DAY.find(bare) {
        return Some(half.as_str());
    }
    let ordinal = ["st", "nd", "rd", "th"].contains(&word);
    let mut behind = bare.chars();
    let goes_on = match behind.next() {
        None => false,
        Some('\\') => behind.next().is_some_and(|c| c.is_alphabetic()) && !bare.starts_with("\\text"),
        Some('-' | '−' | '–') => behind.as_str().trim_start().starts_with(|c: char| c.is_ascii_digit()),
        Some('(') => attached,
        Some(c) if c.is_alphabetic() => attached && !ordinal,
        Some(c) => "^_+*/=<>{[°º'!|×·√π".contains(c),
    };
    (!goes_on).then_some("")
}
