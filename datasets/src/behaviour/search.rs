//! What a search does, read by a parser of its trace: attempts, checks, turns back, slips of arithmetic, repeats, giving up.
//! Any text can be read. What does not look like a step is passed over; an attempt that holds it solves nothing.

use serde_json::Value;

use super::{Fold, Measure};
use crate::Example;
use crate::generate::chain::value;

/// Counts over the thinking of one completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Stretches between the words of a check and the ends of the thinking that hold a step such as `15-10=5`.
    pub attempts: usize,
    /// Words that send the search on: `wait`.
    pub waits: usize,
    /// Words that call an attempt right, whether deserved or not: `ok`.
    pub oks: usize,
    /// Steps whose result is wrong.
    pub slips: usize,
    /// Attempts equal to an earlier one.
    pub repeats: usize,
    /// Attempts without a slip that solve the problem, whatever is claimed of them.
    pub solved: usize,
    /// Attempts that a word judges: the model has compared them with the target.
    pub checked: usize,
    /// Of these, those that solve.
    pub checked_solved: usize,
    /// Attempts begun after a word that sends the search on.
    pub backtracks: usize,
    /// Attempts that are called right and do not solve.
    pub false_oks: usize,
    /// Attempts that solve and are turned away.
    pub false_waits: usize,
    /// Whether the thinking is closed after an attempt that is not called right. A completion cut off did not give up.
    pub gave_up: bool,
}

/// What is reported of a search, of the counts in the order of [`TraceStats::counts`].
pub(super) const MEASURES: &[Measure] = &[
    Measure { name: "attempts", meaning: "answers tried in the thinking", fold: Fold::Mean(0) },
    Measure { name: "backtracks", meaning: "attempts begun after a check that failed", fold: Fold::Mean(1) },
    Measure { name: "attempts_max", meaning: "most attempts of a completion", fold: Fold::Max(0) },
    Measure {
        name: "verified_attempts",
        meaning: "attempts followed by the model's own word on whether they fit, right or not",
        fold: Fold::Mean(2),
    },
    Measure { name: "waits", meaning: "words that send the search on, such as `wait`", fold: Fold::Mean(3) },
    Measure {
        name: "gave_up",
        meaning: "whether the thinking is closed after an attempt that is not called right",
        fold: Fold::Mean(4),
    },
    Measure { name: "repeats", meaning: "attempts equal to an earlier one of the completion", fold: Fold::Mean(5) },
    Measure { name: "repeat_share", meaning: "repeats / attempts", fold: Fold::Share(5, 0) },
    Measure { name: "slips", meaning: "steps of arithmetic with a wrong result", fold: Fold::Mean(6) },
    Measure {
        name: "false_ok_share",
        meaning: "the checker's false positives: attempts called right / checked attempts that do not solve",
        fold: Fold::Share(7, 8),
    },
    Measure {
        name: "false_wait_share",
        meaning: "the checker's false negatives: attempts turned away / checked attempts that solve",
        fold: Fold::Share(9, 10),
    },
];

/// What one attempt was.
pub(super) struct Tried<'a> {
    pub(super) text: &'a str,
    pub(super) slips: usize,
    pub(super) solves: bool,
}

/// What ends an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It does not fit; on to the next.
    Wait,
    /// It fits.
    Ok,
    /// Nothing is said of it.
    End,
}

impl TraceStats {
    /// Reads any text.
    ///
    /// ```
    /// use reckon_datasets::TraceStats;
    /// let text = "<think>15-10=5,5-1=4wait1*10=10,10+15=25ok</think><answer>(1*10)+15</answer>";
    /// let stats = TraceStats::of(text, &[15, 10, 1], 25);
    /// assert_eq!((stats.attempts, stats.backtracks, stats.solved, stats.gave_up), (2, 1, 1, false));
    /// ```
    pub fn of(completion: &str, numbers: &[i64], target: i64) -> Self {
        let (thought, closed) = thinking(completion);
        let (mut parts, mut rest) = (Vec::new(), thought);
        while !rest.is_empty() {
            let (attempt, word, after) = next_word(rest);
            rest = after;
            let steps: Vec<Option<Step>> = attempt.split(',').map(Step::read).collect();
            let tried = steps.iter().any(Option::is_some).then(|| Tried {
                text: attempt.trim(),
                slips: steps.iter().flatten().filter(|step| !step.is_right()).count(),
                solves: solves(&steps, numbers, target),
            });
            parts.push((tried, word));
        }
        Self::sum(&parts, closed)
    }

    /// The counts of a thinking cut at its words; between two of them may be no attempt.
    pub(super) fn sum(parts: &[(Option<Tried>, Word)], closed: bool) -> Self {
        let mut stats = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut sent_on = false;
        for (tried, word) in parts {
            stats.waits += usize::from(*word == Word::Wait);
            stats.oks += usize::from(*word == Word::Ok);
            stats.gave_up = *word != Word::Ok && closed && (tried.is_some() || stats.gave_up);
            let Some(Tried { text, slips, solves }) = tried else {
                sent_on |= *word == Word::Wait;
                continue;
            };
            stats.attempts += 1;
            stats.slips += slips;
            stats.solved += usize::from(*solves);
            stats.repeats += usize::from(seen.contains(text));
            stats.backtracks += usize::from(sent_on);
            stats.checked += usize::from(*word != Word::End);
            stats.checked_solved += usize::from(*word != Word::End && *solves);
            stats.false_oks += usize::from(*word == Word::Ok && !solves);
            stats.false_waits += usize::from(*word == Word::Wait && *solves);
            seen.push(text);
            sent_on = *word == Word::Wait;
        }
        stats
    }

    /// The counts of a countdown trace, in the order that [`MEASURES`] name; `None` for other examples.
    pub(super) fn countdown(example: &Example, completion: &str) -> Option<Vec<usize>> {
        let (numbers, target) = countdown(example)?;
        Some(Self::of(completion, &numbers, target).counts())
    }

    /// In the order that [`MEASURES`] name.
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.attempts,
            self.backtracks,
            self.checked,
            self.waits,
            self.gave_up.into(),
            self.repeats,
            self.slips,
            self.false_oks,
            self.checked - self.checked_solved,
            self.false_waits,
            self.checked_solved,
        ]
    }
}

/// Numbers and target of an example of countdown.
pub(super) fn countdown(example: &Example) -> Option<(Vec<i64>, i64)> {
    let numbers = example.info.get("numbers")?.as_array()?.iter().filter_map(Value::as_i64).collect();
    Some((numbers, example.info.get("target")?.as_i64()?))
}

/// What is between the tags, and whether it was closed. A completion may start inside the thinking.
pub(super) fn thinking(completion: &str) -> (&str, bool) {
    let start = completion.split_once("<think>").map_or(completion, |(_, rest)| rest);
    let ends = ["</think>", "<answer>"].into_iter().filter_map(|tag| start.find(tag));
    ends.min().map_or((start, false), |end| (&start[..end], true))
}

/// The text up to the first word, the word, and the text after it.
fn next_word(text: &str) -> (&str, Word, &str) {
    let places = [("wait", Word::Wait), ("ok", Word::Ok)];
    let found = places.into_iter().filter_map(|(letters, word)| Some((text.find(letters)?, letters.len(), word)));
    match found.min_by_key(|&(at, ..)| at) {
        Some((at, length, word)) => (&text[..at], word, &text[at + length..]),
        None => (text, Word::End, ""),
    }
}

/// A step as it stands in the text, right or wrong.
#[derive(Debug, Clone, Copy)]
struct Step {
    left: i64,
    operation: char,
    right: i64,
    result: i64,
}

impl Step {
    /// Reads `left operation right = result`.
    fn read(text: &str) -> Option<Self> {
        let (formula, result) = text.split_once('=')?;
        let formula = formula.trim();
        // A sign in front belongs to the number.
        let (at, operation) = formula.char_indices().skip(1).find(|(_, c)| "+-*/".contains(*c))?;
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let (left, right) = (number(&formula[..at])?, number(&formula[at + 1..])?);
        Some(Self { left, operation, right, result: number(result)? })
    }

    fn is_right(&self) -> bool {
        value(self.left, self.operation, self.right) == Some(self.result)
    }
}

/// Whether the steps are right, use each number and each earlier result once, and end at the target.
fn solves(steps: &[Option<Step>], numbers: &[i64], target: i64) -> bool {
    let mut at_hand = numbers.to_vec();
    for step in steps {
        let Some(step) = step.filter(Step::is_right) else { return false };
        for operand in [step.left, step.right] {
            let Some(place) = at_hand.iter().position(|&n| n == operand) else { return false };
            at_hand.swap_remove(place);
        }
        at_hand.push(step.result);
    }
    at_hand == [target]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// (attempts, waits, oks, slips, repeats, solved, gave up) for numbers 15, 10, 1 and target 25.
    type Row = (usize, usize, usize, usize, usize, usize, bool);

    fn check(text: &str, expected: Row) {
        let s = TraceStats::of(text, &[15, 10, 1], 25);
        let found = (s.attempts, s.waits, s.oks, s.slips, s.repeats, s.solved, s.gave_up);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn counts_are_those_of_the_text() {
        const MISS: &str = "15-10=5,5-1=4";
        const HIT: &str = "1*10=10,10+15=25";
        let rows: [(String, Row); 16] = [
            (String::new(), (0, 0, 0, 0, 0, 0, false)),
            ("<think></think><answer>(1*10)+15</answer>".into(), (0, 0, 0, 0, 0, 0, false)),
            ("let me think: it is = 25, wait".into(), (0, 1, 0, 0, 0, 0, false)),
            (format!("<think>{HIT}ok</think>"), (1, 0, 1, 0, 0, 1, false)),
            (format!("{HIT}ok</think>"), (1, 0, 1, 0, 0, 1, false)),
            (format!("<think>{MISS}</think>"), (1, 0, 0, 0, 0, 0, true)),
            // Without a closing tag the completion was cut off.
            (format!("<think>{MISS}wait15-"), (1, 1, 0, 0, 0, 0, false)),
            (format!("<think>{MISS}wait</think>"), (1, 1, 0, 0, 0, 0, true)),
            (format!("<think>{MISS}wait{HIT}ok</think>"), (2, 1, 1, 0, 0, 1, false)),
            (format!("<think>{MISS}wait{MISS}wait {MISS} </think>"), (3, 2, 0, 0, 2, 0, true)),
            // A claim does not make it so, and a hit counts without one.
            (format!("<think>{MISS}ok</think>"), (1, 0, 1, 0, 0, 0, false)),
            (format!("<think>{HIT}</think>"), (1, 0, 0, 0, 0, 1, true)),
            ("<think>1*10=11,11+15=26wait1*10=10,10+15=24</think>".into(), (2, 1, 0, 2, 0, 0, true)),
            // Right arithmetic on numbers that are not there, or that are left over.
            ("<think>5*5=25ok</think>".into(), (1, 0, 1, 0, 0, 0, false)),
            ("<think>15+10=25ok</think>".into(), (1, 0, 1, 0, 0, 0, false)),
            // A step that cannot be read is no slip, but the attempt is void.
            (format!("<think>{HIT},so ok</think>"), (1, 0, 1, 0, 0, 0, false)),
        ];
        rows.iter().for_each(|(text, expected)| check(text, *expected));
    }

    #[test]
    fn the_checker_is_judged_by_what_it_says_of_each_attempt() {
        const MISS: &str = "15-10=5,5-1=4";
        const HIT: &str = "1*10=10,10+15=25";
        // (checked, backtracks, false oks, checked misses, false waits, checked hits)
        for (text, expected) in [
            (format!("<think>{MISS}wait{HIT}ok</think>"), [2, 1, 0, 1, 0, 1]),
            (format!("<think>{MISS}ok</think>"), [1, 0, 1, 1, 0, 0]),
            (format!("<think>{HIT}wait{MISS}</think>"), [1, 1, 0, 0, 1, 1]),
            (format!("<think>wait{MISS}wait wait{HIT}</think>"), [1, 2, 0, 1, 0, 0]),
            (format!("<think>{MISS}</think>wait"), [0, 0, 0, 0, 0, 0]),
        ] {
            let s = TraceStats::of(&text, &[15, 10, 1], 25);
            let misses = s.checked - s.checked_solved;
            let found = [s.checked, s.backtracks, s.false_oks, misses, s.false_waits, s.checked_solved];
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn extreme_numbers_are_slips_and_no_panic() {
        let (low, high) = (i64::MIN, i64::MAX);
        check(&format!("<think>{high}+1=0,{low}-1=0,{low}/-1=0,1/0=0,{high}*2=4</think>"), (1, 0, 0, 5, 0, 0, true));
        check("<think>99999999999999999999+1=0</think>", (0, 0, 0, 0, 0, 0, false));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(<think>|wait|ok|[0-9+*/=,-]{0,9}|</think>|.){0,40}", target: i64) {
            let stats = TraceStats::of(&text, &[1, 2, 3], target);
            prop_assert!(stats.repeats <= stats.attempts && stats.solved <= stats.attempts && stats.checked <= stats.attempts);
        }
    }
}
