//! What a completion does, read by a parser of the trace: attempts, slips of arithmetic, repeats, giving up.
//! Any text can be read. What does not look like a step is passed over; an attempt that holds it verifies nothing.

use super::chain::value;

/// Counts over the thinking of one completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Stretches between `wait`, `ok` and the ends of the thinking that hold a step such as `15-10=5`.
    pub attempts: usize,
    /// `wait`s.
    pub waits: usize,
    /// `ok`s, whether deserved or not.
    pub oks: usize,
    /// Steps whose result is wrong.
    pub slips: usize,
    /// Attempts equal to an earlier one.
    pub repeats: usize,
    /// Attempts without a slip that use every number once and reach the target, whatever is claimed of them.
    pub verified: usize,
    /// Whether the thinking is closed after an attempt that is not called `ok`. A completion cut off did not give up.
    pub gave_up: bool,
}

impl TraceStats {
    /// Reads any text.
    ///
    /// ```
    /// use reckon_datasets::TraceStats;
    /// let text = "<think>15-10=5,5-1=4wait1*10=10,10+15=25ok</think><answer>(1*10)+15</answer>";
    /// let stats = TraceStats::of(text, &[15, 10, 1], 25);
    /// assert_eq!((stats.attempts, stats.waits, stats.verified, stats.gave_up), (2, 1, 1, false));
    /// ```
    pub fn of(completion: &str, numbers: &[i64], target: i64) -> Self {
        let (thought, closed) = thinking(completion);
        let mut stats = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut rest = thought;
        while !rest.is_empty() {
            let (attempt, word, after) = next_word(rest);
            rest = after;
            let steps: Vec<Option<Step>> = attempt.split(',').map(Step::read).collect();
            let tried = steps.iter().any(Option::is_some);
            if tried {
                stats.attempts += 1;
                stats.slips += steps.iter().flatten().filter(|step| !step.is_right()).count();
                stats.verified += usize::from(solves(&steps, numbers, target));
                stats.repeats += usize::from(seen.contains(&attempt.trim()));
                seen.push(attempt.trim());
            }
            stats.waits += usize::from(word == Word::Wait);
            stats.oks += usize::from(word == Word::Ok);
            stats.gave_up = match word {
                Word::Ok => false,
                _ => closed && (tried || stats.gave_up),
            };
        }
        stats
    }
}

/// What is between the tags, and whether it was closed. A completion may start inside the thinking.
fn thinking(completion: &str) -> (&str, bool) {
    let start = completion.split_once("<think>").map_or(completion, |(_, rest)| rest);
    let ends = ["</think>", "<answer>"].into_iter().filter_map(|tag| start.find(tag));
    ends.min().map_or((start, false), |end| (&start[..end], true))
}

/// What ends an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Wait,
    Ok,
    End,
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

    /// (attempts, waits, oks, slips, repeats, verified, gave up) for numbers 15, 10, 1 and target 25.
    type Row = (usize, usize, usize, usize, usize, usize, bool);

    fn check(text: &str, expected: Row) {
        let s = TraceStats::of(text, &[15, 10, 1], 25);
        let found = (s.attempts, s.waits, s.oks, s.slips, s.repeats, s.verified, s.gave_up);
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
    fn extreme_numbers_are_slips_and_no_panic() {
        let (low, high) = (i64::MIN, i64::MAX);
        check(&format!("<think>{high}+1=0,{low}-1=0,{low}/-1=0,1/0=0,{high}*2=4</think>"), (1, 0, 0, 5, 0, 0, true));
        check("<think>99999999999999999999+1=0</think>", (0, 0, 0, 0, 0, 0, false));
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(<think>|wait|ok|[0-9+*/=,-]{0,9}|</think>|.){0,40}", target: i64) {
            let stats = TraceStats::of(&text, &[1, 2, 3], target);
            prop_assert!(stats.repeats <= stats.attempts && stats.verified <= stats.attempts);
        }
    }
}
