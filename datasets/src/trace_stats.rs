//! What a completion does, read by a parser of the trace: attempts, slips of arithmetic, repeats, giving up.

/// Counts over the thinking of one completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Chains of steps, right or wrong.
    pub attempts: usize,
    /// `wait`s.
    pub waits: usize,
    /// `ok`s.
    pub oks: usize,
    /// Steps whose result is wrong, or that cannot be read.
    pub slips: usize,
    /// Attempts equal to an earlier one.
    pub repeats: usize,
    /// Attempts without a slip that use every number once and reach the target.
    pub verified: usize,
    /// Whether the thinking ends without `ok`.
    pub gave_up: bool,
}

impl TraceStats {
    /// Reads any text; what is not a trace has no attempts.
    pub fn of(completion: &str, numbers: &[i64], target: i64) -> Self {
        let after = completion.split_once("<think>").map_or(completion, |(_, rest)| rest);
        let thought = after.split_once("</think>").map_or(after, |(thought, _)| thought);
        let mut stats = Self {
            waits: thought.matches("wait").count(),
            oks: thought.matches("ok").count(),
            gave_up: !thought.trim_end().ends_with("ok"),
            ..Self::default()
        };
        let mut seen: Vec<&str> = Vec::new();
        for attempt in thought.split("wait").flat_map(|part| part.split("ok")).map(str::trim) {
            if attempt.is_empty() {
                continue;
            }
            stats.attempts += 1;
            stats.repeats += usize::from(seen.contains(&attempt));
            seen.push(attempt);
            let slips = attempt.split(',').filter(|step| !step_is_right(step)).count();
            stats.slips += slips;
            stats.verified += usize::from(slips == 0 && solves(attempt, numbers, target));
        }
        stats
    }
}

/// Reads `left operation right = result`.
fn parse_step(step: &str) -> Option<(i64, char, i64, i64)> {
    let (formula, result) = step.trim().split_once('=')?;
    // A leading sign belongs to the number.
    let at = formula.char_indices().skip(1).find(|(_, c)| "+-*/".contains(*c))?;
    let (left, right) = (formula[..at.0].trim(), formula[at.0 + 1..].trim());
    Some((left.parse().ok()?, at.1, right.parse().ok()?, result.trim().parse().ok()?))
}

fn step_is_right(step: &str) -> bool {
    parse_step(step).is_some_and(|(left, operation, right, result)| {
        let value = match operation {
            '+' => left.checked_add(right),
            '-' => left.checked_sub(right),
            '*' => left.checked_mul(right),
            _ => left.checked_rem(right).filter(|rest| *rest == 0).and_then(|_| left.checked_div(right)),
        };
        value == Some(result)
    })
}

/// Whether right steps use each number once, each result once, and end at the target.
fn solves(attempt: &str, numbers: &[i64], target: i64) -> bool {
    let mut at_hand = numbers.to_vec();
    let take = |value: i64, at_hand: &mut Vec<i64>| {
        let place = at_hand.iter().position(|&n| n == value);
        place.map(|i| at_hand.swap_remove(i)).is_some()
    };
    for step in attempt.split(',') {
        let Some((left, _, right, result)) = parse_step(step) else { return false };
        if !take(left, &mut at_hand) || !take(right, &mut at_hand) {
            return false;
        }
        at_hand.push(result);
    }
    at_hand == [target]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_are_those_of_the_text() {
        let text = "<think>15-10=5,5-1=4wait15-10=5,5-1=4wait1*10=11,11+15=26wait1*10=10,10+15=25ok</think>";
        let stats = TraceStats::of(text, &[15, 10, 1], 25);
        let expected =
            TraceStats { attempts: 4, waits: 3, oks: 1, slips: 1, repeats: 1, verified: 1, gave_up: false };
        assert_eq!(stats, expected);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(<think>|wait|ok|[0-9+*/=,-]{0,9}|</think>|.){0,40}") {
            let stats = TraceStats::of(&text, &[1, 2, 3], 6);
            prop_assert!(stats.repeats <= stats.attempts);
        }
    }
}
