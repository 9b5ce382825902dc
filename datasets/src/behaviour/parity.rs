//! Traces of parity: the parity of the bits so far, after each bit.

use super::search::thinking;
use super::{Fold, Measure};
use crate::Example;

pub(super) const MEASURES: &[Measure] = &[
    Measure { name: "thinks", meaning: "whether the thinking holds anything", fold: Fold::Mean(0) },
    Measure {
        name: "whole_thoughts",
        meaning: "whether the thinking has a parity for every bit, right or not",
        fold: Fold::Mean(1),
    },
    Measure {
        name: "slips",
        meaning: "parities in the thinking that do not follow from the one before",
        fold: Fold::Mean(2),
    },
];

/// In the order of [`MEASURES`].
pub(super) fn counts(example: &Example, completion: &str) -> Option<Vec<usize>> {
    example.info.get("ones")?;
    let bit = |c: char| matches!(c, '0' | '1').then_some(c == '1');
    let bits: Vec<bool> = example.question.chars().map(bit).collect::<Option<_>>()?;
    let thought: Vec<bool> = thinking(completion).0.chars().filter_map(bit).collect();
    let before = std::iter::once(false).chain(thought.iter().copied());
    let slips = thought.iter().zip(&bits).zip(before).filter(|&((&now, &bit), before)| now != (before ^ bit));
    let extra = thought.len().saturating_sub(bits.len());
    Some(vec![usize::from(!thought.is_empty()), usize::from(thought.len() == bits.len()), slips.count() + extra])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slip_is_counted_where_it_is_made_and_not_carried_on() {
        let info = [("ones".to_owned(), json!(3))].into_iter().collect();
        let example = Example { question: "1011".into(), info, ..Example::default() };
        for (thought, expected) in
            [("1101", [1, 1, 0]), ("1110", [1, 1, 1]), ("1111", [1, 1, 2]), ("", [0, 0, 0]), ("11010", [1, 0, 1])]
        {
            let text = format!("<think>{thought}</think><answer>1</answer>");
            assert_eq!(counts(&example, &text).unwrap(), expected, "{thought}");
        }
    }
}
