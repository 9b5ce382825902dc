//! What a run changed, for a person at a terminal: the held-out figures before and after, and one problem's completion
//! before and after, side by side.

use anyhow::Result;

use crate::eval::{Evaluation, in_words};
use crate::output::say;
use crate::run::Outcome;

/// Columns of one completion: two of them fit a terminal of 80.
const WIDTH: usize = 40;

/// Takes a number of an evaluation.
type Of = fn(&Evaluation) -> Option<f64>;

/// What every run has.
const MEASURES: [(&str, Of); 6] = [
    ("accuracy", |found| Some(found.accuracy)),
    ("tokens per completion", |found| Some(found.len_mean)),
    ("of those that are right", |found| found.len_right),
    ("of those that are wrong", |found| found.len_wrong),
    ("cut at the limit", |found| Some(found.truncated)),
    ("entropy", |found| Some(found.entropy)),
];

/// Prints the summary on standard output.
pub(super) fn print(Outcome { before, after }: &Outcome) -> Result<()> {
    say!("\n{:<28}{:>10}{:>10}", "held-out", "before", "after")?;
    let row = |name: &str, before: Option<f64>, after: Option<f64>| {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        say!("{name:<28}{:>10}{:>10}", number(before), number(after))
    };
    for (name, of) in MEASURES {
        row(name, of(before), of(after))?;
    }
    for (name, found) in &after.behaviours {
        row(&in_words(name), before.behaviour(name), Some(*found))?;
    }
    let pairs = before.judged.iter().zip(&after.judged);
    let solved = pairs.filter(|(before, after)| before.passed == Some(false) && after.passed == Some(true));
    // The problem that took the longest thought shows best what was learned.
    let Some((before, after)) = solved.max_by_key(|(_, after)| after.completion.len()) else {
        return Ok(());
    };
    say!("\n{}\n{:<WIDTH$}after", before.question, "before")?;
    let (left, right) = (wrap(&before.completion), wrap(&after.completion));
    for line in 0..left.len().max(right.len()) {
        let of = |lines: &[String]| lines.get(line).cloned().unwrap_or_default();
        say!("{:<WIDTH$}{}", of(&left), of(&right))?;
    }
    Ok(())
}

/// One attempt in each line, and a line for each tag that follows; longer lines are cut to fit their column.
fn wrap(completion: &str) -> Vec<String> {
    let lines = completion.replace("wait", " wait\n").replace("</think>", "</think>\n");
    let cut = |line: &str| line.chars().collect::<Vec<_>>().chunks(WIDTH - 2).map(|c| c.iter().collect()).collect();
    lines.lines().flat_map(|line| -> Vec<String> { cut(line) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_is_cut_at_its_turns_and_never_wider_than_its_column() {
        let lines = wrap("<think>7-4=3,3*7=21wait7*4=28,28+7=35ok</think><answer>(7*4)+7</answer>");
        assert_eq!(lines, ["<think>7-4=3,3*7=21 wait", "7*4=28,28+7=35ok</think>", "<answer>(7*4)+7</answer>"]);
        assert_eq!(wrap(&"x".repeat(2 * WIDTH)).iter().map(String::len).max(), Some(WIDTH - 2));
    }
}
