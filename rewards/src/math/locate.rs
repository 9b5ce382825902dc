//! Finds the answer in a text that follows the thoughts: marked answers first, then what the text ends with. Exactly
//! one candidate comes out, so that listing guesses does not help.

use std::sync::LazyLock;

use regex::Regex;

use super::answer::Answer;
use super::boxes::last_boxes;
use super::fuel::Fuel;
use super::stated::{pattern, stated_number};

/// Longest text that may be an answer as a whole, in bytes.
const MAX_WHOLE: usize = 400;

static PHRASE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"(?i)final\s+answer\b|\banswer\s*(?:is\b|:|=)",
        r"|\b(?:option|choice)\s+is\b|\b(?:answers|solutions|roots)\s+are\b"
    ))
});
static CONCLUSION: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)final\s+answer\s+is\b"));
/// Words that short runs of letters, each a symbol, could be taken for.
static PROSE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:is|are|the|that|we|so|of)\b"));
static SPECIAL: LazyLock<Regex> = LazyLock::new(|| pattern(r"<\|[a-zA-Z_]+\|>"));
static CONNECTED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:,|,?\s*(?:and|or)\b|;)\s*$"));

/// The marked answer: the last box, or what follows the last `####` on its line.
pub(crate) fn marked(text: &str) -> Option<String> {
    last_boxes(text).or_else(|| {
        let (_, rest) = text.rsplit_once("####")?;
        rest.trim_start().lines().next().map(|line| line.trim().to_string())
    })
}

/// What `the final answer is` introduces behind the last box.
pub(crate) fn concluded(text: &str, fuel: &Fuel) -> Option<String> {
    let behind = &text[text.rfind("\\boxed")?..];
    let phrase = CONCLUSION.find_iter(behind).last()?;
    after_phrase(&behind[phrase.end()..], fuel)
}

/// The answer of a text without marks: all of it where it is mathematics, or what it says its answer is, or the last
/// formula or number that it states, or, where it is short, its words.
pub(crate) fn unmarked(text: &str, fuel: &Fuel) -> Option<String> {
    let text = SPECIAL.find(text).map_or(text, |special| &text[..special.start()]).trim();
    if !PROSE.is_match(text) && is_math(text, fuel) {
        return Some(text.to_string());
    }
    let introduced = PHRASE.find_iter(text).last().and_then(|phrase| after_phrase(&text[phrase.end()..], fuel));
    let short = || (text.len() <= MAX_WHOLE && !text.is_empty()).then(|| text.to_string());
    introduced.or_else(|| last_stated(text)).or_else(|| words_after_phrase(text)).or_else(short)
}

fn is_math(text: &str, fuel: &Fuel) -> bool {
    text.len() <= MAX_WHOLE && Answer::read(text, fuel).is_math()
}

/// What a phrase such as `the final answer is` introduces, up to the end of its paragraph.
fn after_phrase(rest: &str, fuel: &Fuel) -> Option<String> {
    let end = rest.find("\n\n").unwrap_or(rest.len());
    let sentence = rest[..end].split(" I hope").next().unwrap_or_default();
    let bare = sentence.trim_start_matches(|c: char| c.is_whitespace() || ":*=".contains(c));
    let bare = bare.strip_prefix("is").unwrap_or(bare);
    let bare = bare.trim_start_matches(|c: char| c.is_whitespace() || ":*\"\\".contains(c));
    let bare = bare.trim_end_matches(|c: char| c.is_whitespace() || ":*\"\\.".contains(c));
    if is_math(bare, fuel) { Some(bare.to_string()) } else { last_stated(sentence) }
}

/// The words that a phrase such as `the answer is` introduces, up to the end of their line.
fn words_after_phrase(text: &str) -> Option<String> {
    let phrase = PHRASE.find_iter(text).last()?;
    let line = text[phrase.end()..].lines().next()?;
    let line = line.trim_start_matches(|c: char| c.is_whitespace() || ":*=".contains(c));
    (!line.is_empty() && line.len() <= MAX_WHOLE).then(|| line.to_string())
}

/// The last formula, or the last number that the last line states, whichever comes later.
fn last_stated(text: &str) -> Option<String> {
    let formulas = formulas(text);
    let end = formulas.last().map_or(0, |(_, end)| *end);
    let line = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    stated_number(&text[end.max(line)..]).or_else(|| last_formulas(text, &formulas))
}

/// The last formula of a text; the last several where only connectives stand between them.
fn last_formulas(text: &str, formulas: &[(usize, usize)]) -> Option<String> {
    let (mut start, end) = *formulas.last()?;
    let mut parts = vec![inside(&text[start..end]).to_string()];
    for (earlier, close) in formulas.iter().rev().skip(1) {
        let between = &text[*close..start];
        if !CONNECTED.is_match(between) {
            break;
        }
        parts.push(inside(&text[*earlier..*close]).to_string());
        start = *earlier;
    }
    parts.reverse();
    let percent = text[end..].trim_start();
    let percent = ["%", "\\%", "percent", "pct"].iter().any(|sign| percent.starts_with(sign)) && parts.len() == 1;
    Some(parts.join(" , ") + if percent { "\\%" } else { "" })
}

fn inside(formula: &str) -> &str {
    let width = if formula.starts_with("$$") || formula.starts_with('\\') { 2 } else { 1 };
    &formula[width..formula.len() - width]
}

/// Where formulas lie, with their delimiters: `$$`, `\[ \]` over lines, `$` and `\( \)` on one.
fn formulas(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // Up to where `\(` and `\[` are known not to be closed, so that none is looked for twice.
    let (mut at, mut no_round, mut no_square) = (0, 0, 0);
    while let Some(step) = text[at..].find(['$', '\\']) {
        at += step;
        let (open, close, one_line) = match &text[at..] {
            rest if rest.starts_with("$$") => ("$$", "$$", false),
            rest if rest.starts_with("\\[") && at >= no_square => ("\\[", "\\]", false),
            rest if rest.starts_with("\\(") && at >= no_round => ("\\(", "\\)", true),
            rest if rest.starts_with('$') => ("$", "$", true),
            rest => {
                // Any other command: the character behind the backslash is not a delimiter.
                at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                continue;
            }
        };
        let rest = &text[at + open.len()..];
        let scope = if one_line { rest.split('\n').next().unwrap_or(rest) } else { rest };
        match closing(scope, close) {
            Some(length) => {
                let end = at + open.len() + length + close.len();
                if length > 0 {
                    found.push((at, end));
                }
                at = end;
            }
            None => {
                let end = at + open.len() + scope.len();
                match open {
                    "\\[" => no_square = end,
                    "\\(" => no_round = end,
                    _ => {}
                }
                at += open.len();
            }
        }
    }
    found
}

/// Where `close` stands in `text`, not behind a backslash of its own.
fn closing(text: &str, close: &str) -> Option<usize> {
    let escaped = |at: usize| close.starts_with('$') && text[..at].ends_with('\\');
    text.match_indices(close).map(|(at, _)| at).find(|at| !escaped(*at))
}
