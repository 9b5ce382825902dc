//! The instructions, each with its arguments and its rule. Rules follow IFEval's published checks; where they do not,
//! a comment says why, and `rewards/README.md` lists it.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::sentences::count_sentences;
use super::tongue::Tongue;
use crate::json::parse_strict;
use crate::words::{is_word, words};

/// An instruction under IFEval's name, with the arguments of its `kwargs`.
#[derive(Debug, Deserialize)]
#[serde(tag = "instruction_id", deny_unknown_fields)]
pub(super) enum Instruction {
    #[serde(rename = "keywords:existence")]
    Existence { keywords: Vec<String> },
    #[serde(rename = "keywords:frequency")]
    Frequency { keyword: String, frequency: Count, relation: Relation },
    #[serde(rename = "keywords:forbidden_words")]
    ForbiddenWords { forbidden_words: Vec<String> },
    #[serde(rename = "keywords:letter_frequency")]
    LetterFrequency { letter: char, let_frequency: Count, let_relation: Relation },
    #[serde(rename = "language:response_language")]
    Language { language: Tongue },
    #[serde(rename = "length_constraints:number_sentences")]
    Sentences { num_sentences: Count, relation: Relation },
    #[serde(rename = "length_constraints:number_paragraphs")]
    Paragraphs { num_paragraphs: Count },
    #[serde(rename = "length_constraints:number_words")]
    Words { num_words: Count, relation: Relation },
    #[serde(rename = "length_constraints:nth_paragraph_first_word")]
    NthParagraph { num_paragraphs: Count, nth_paragraph: Count, first_word: String },
    #[serde(rename = "detectable_content:number_placeholders")]
    Placeholders { num_placeholders: Count },
    #[serde(rename = "detectable_content:postscript")]
    Postscript { postscript_marker: String },
    #[serde(rename = "detectable_format:number_bullet_lists")]
    Bullets { num_bullets: Count },
    #[serde(rename = "detectable_format:constrained_response")]
    ConstrainedResponse,
    #[serde(rename = "detectable_format:number_highlighted_sections")]
    Highlights { num_highlights: Count },
    #[serde(rename = "detectable_format:multiple_sections")]
    Sections { section_spliter: String, num_sections: Count },
    #[serde(rename = "detectable_format:json_format")]
    Json,
    #[serde(rename = "detectable_format:title")]
    Title,
    #[serde(rename = "combination:two_responses")]
    TwoResponses,
    #[serde(rename = "combination:repeat_prompt")]
    RepeatPrompt { prompt_to_repeat: String },
    #[serde(rename = "startend:end_checker")]
    End { end_phrase: String },
    #[serde(rename = "startend:quotation")]
    Quotation,
    #[serde(rename = "change_case:capital_word_frequency")]
    CapitalWords { capital_frequency: Count, capital_relation: Relation },
    #[serde(rename = "change_case:english_capital")]
    Capitals,
    #[serde(rename = "change_case:english_lowercase")]
    LowerCase,
    #[serde(rename = "punctuation:no_comma")]
    NoComma,
}

/// A whole number, which tables with gaps write as `3.0`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Count(usize);

impl TryFrom<f64> for Count {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        let whole = value.fract() == 0.0 && (0.0..=1e9).contains(&value);
        if whole { Ok(Self(value as usize)) } else { Err(format!("{value} is not a whole number from 0 up")) }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum Relation {
    #[serde(rename = "less than")]
    LessThan,
    #[serde(rename = "at least")]
    AtLeast,
}

impl Relation {
    fn holds(self, found: usize, bound: Count) -> bool {
        match self {
            Self::LessThan => found < bound.0,
            Self::AtLeast => found >= bound.0,
        }
    }
}

impl Instruction {
    /// Reads an instruction. Arguments that are null are absent, as in the published dataset; one that is missing is an
    /// error, where IFEval would draw it at random.
    pub(super) fn read(id: &str, kwargs: &Map<String, Value>) -> Result<Self, String> {
        let mut fields: Map<String, Value> =
            kwargs.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
        fields.insert("instruction_id".into(), id.into());
        serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
    }

    /// Whether a text that is not blank follows it.
    pub(super) fn followed_by(&self, text: &str) -> bool {
        match self {
            Self::Existence { keywords } => keywords.iter().all(|keyword| occurrences(text, keyword) > 0),
            Self::Frequency { keyword, frequency, relation } => relation.holds(occurrences(text, keyword), *frequency),
            Self::ForbiddenWords { forbidden_words } => !forbidden_words.iter().any(|word| has_word(text, word)),
            Self::LetterFrequency { letter, let_frequency, let_relation } => {
                let_relation.holds(occurrences(text, &letter.to_string()), *let_frequency)
            }
            Self::Language { language } => language.is_spoken_in(text),
            Self::Sentences { num_sentences, relation } => relation.holds(count_sentences(text), *num_sentences),
            Self::Paragraphs { num_paragraphs } => paragraphs(text) == Some(num_paragraphs.0),
            Self::Words { num_words, relation } => relation.holds(words(text).count(), *num_words),
            Self::NthParagraph { num_paragraphs, nth_paragraph, first_word } => {
                nth_paragraph_starts(text, num_paragraphs.0, nth_paragraph.0, first_word)
            }
            Self::Placeholders { num_placeholders } => PLACEHOLDER.find_iter(text).count() >= num_placeholders.0,
            Self::Postscript { postscript_marker } => has_postscript(text, postscript_marker),
            Self::Bullets { num_bullets } => {
                STAR_BULLET.find_iter(text).count() + DASH_BULLET.find_iter(text).count() == num_bullets.0
            }
            Self::ConstrainedResponse => CONSTRAINED.iter().any(|option| text.contains(option)),
            Self::Highlights { num_highlights } => highlights(text) >= num_highlights.0,
            Self::Sections { section_spliter, num_sections } => sections(text, section_spliter) >= num_sections.0,
            Self::Json => is_json(text),
            Self::Title => {
                TITLE.find_iter(text).any(|title| !title.as_str().trim_matches(['<', '>']).trim().is_empty())
            }
            Self::TwoResponses => two_responses(text),
            Self::RepeatPrompt { prompt_to_repeat } => lower(text).starts_with(&lower(prompt_to_repeat)),
            Self::End { end_phrase } => text.trim().trim_matches('"').to_lowercase().ends_with(&lower(end_phrase)),
            Self::Quotation => text.trim().len() > 1 && text.trim().starts_with('"') && text.trim().ends_with('"'),
            Self::CapitalWords { capital_frequency, capital_relation } => {
                capital_relation.holds(capital_words(text), *capital_frequency)
            }
            Self::Capitals => is_upper(text) && Tongue::english().is_spoken_in(&text.to_lowercase()),
            Self::LowerCase => is_lower(text) && Tongue::english().is_spoken_in(text),
            Self::NoComma => !text.contains(','),
        }
    }
}

const CONSTRAINED: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\[.*?\]"));
static STAR_BULLET: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*\*[^*].*$"));
static DASH_BULLET: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^\s*-.*$"));
static HIGHLIGHT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*[^\n*]*\*"));
static BOLD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\*\*[^\n*]*\*\*"));
static TITLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"<<[^\n]+>>"));
static POSTSCRIPT: LazyLock<Regex> = LazyLock::new(|| pattern(r"p\.\s?s\."));
static SECOND_POSTSCRIPT: LazyLock<Regex> = LazyLock::new(|| pattern(r"p\.\s?p\.\s?s"));

#[allow(clippy::expect_used)] // The patterns are the constants above, compiled by every test of this file.
fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is well formed")
}

fn lower(text: &str) -> String {
    text.trim().to_lowercase()
}

/// How often `keyword` stands in `text` in any case, within words too. It is taken literally, where IFEval takes it as
/// a regular expression: `c++` is a word, and no model or dataset may hand us a program.
fn occurrences(text: &str, keyword: &str) -> usize {
    let keyword = keyword.to_lowercase();
    if keyword.is_empty() { 0 } else { text.to_lowercase().matches(&keyword).count() }
}

/// Whether `word` stands in `text` in any case, with a change between word and other characters at both its ends.
fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else { return false };
    let edge = |inside: char, outside: Option<char>| is_word(inside) != outside.is_some_and(is_word);
    let mut from = 0;
    while let Some(at) = text[from..].find(&word).map(|at| from + at) {
        let after = text[at + word.len()..].chars().next();
        if edge(first, text[..at].chars().next_back()) && edge(last, after) {
            return true;
        }
        from = at + first.len_utf8();
    }
    false
}

/// Paragraphs between lines of `***`; none where one in the middle is blank.
fn paragraphs(text: &str) -> Option<usize> {
    let parts: Vec<&str> = text.split("***").collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    let blank = |part: &&str| part.trim().is_empty();
    (!inner.iter().any(blank)).then(|| parts.iter().filter(|part| !blank(part)).count())
}

/// Paragraphs are parted by blank lines here. The nth is counted with blank ones, as IFEval does.
fn nth_paragraph_starts(text: &str, count: usize, nth: usize, first_word: &str) -> bool {
    let parts: Vec<&str> = text.split("\n\n").collect();
    let filled = parts.iter().filter(|part| !part.trim().is_empty()).count();
    let part = nth.checked_sub(1).and_then(|index| parts.get(index)).filter(|_| nth <= filled);
    let word = part.and_then(|part| part.split_whitespace().next()).unwrap_or_default();
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let word = word.split(['.', ',', '?', '!', '\'', '"']).next().unwrap_or_default();
    filled == count && !word.is_empty() && word.to_lowercase() == first_word.to_lowercase()
}

fn has_postscript(text: &str, marker: &str) -> bool {
    let text = text.to_lowercase();
    match marker {
        "P.S." => POSTSCRIPT.is_match(&text),
        "P.P.S" => SECOND_POSTSCRIPT.is_match(&text),
        _ => text.contains(&marker.to_lowercase()),
    }
}

/// `*text*` on one line; `**text**` counts too, as itself and as what an odd asterisk makes of it.
fn highlights(text: &str) -> usize {
    let filled = |found: &regex::Match| !found.as_str().trim_matches('*').trim().is_empty();
    HIGHLIGHT.find_iter(text).filter(filled).count() + BOLD.find_iter(text).filter(filled).count()
}

/// Places where a number follows the splitter, such as `Section 2`.
fn sections(text: &str, splitter: &str) -> usize {
    let numbered = |(at, found): &(usize, &str)| {
        let mut rest = text[at + found.len()..].chars().peekable();
        rest.next_if(|c| c.is_whitespace());
        rest.peek().is_some_and(|c| c.is_numeric())
    };
    if splitter.is_empty() { 0 } else { text.match_indices(splitter).filter(numbered).count() }
}

/// Strict JSON, in a code block or bare. IFEval's reader also takes `NaN` and keys that stand twice.
fn is_json(text: &str) -> bool {
    let mut text = text.trim();
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    parse_strict(text.strip_suffix("```").unwrap_or(text).trim(), 100).is_ok()
}

/// Two texts that differ, around one line of six asterisks.
fn two_responses(text: &str) -> bool {
    let parts: Vec<&str> = text.split("******").map(str::trim).collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    let filled: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    !inner.iter().any(|part| part.is_empty()) && filled.len() == 2 && filled[0] != filled[1]
}

/// Words whose letters are all capitals, cut where NLTK's word tokenizer cuts; hyphens join.
fn capital_words(text: &str) -> usize {
    let cut = |c: char| c.is_whitespace() || ",:;?!()[]{}<>\"'’“”&$%#@".contains(c);
    text.replace("--", " ").split(cut).filter(|word| is_upper(word)).count()
}

fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}
