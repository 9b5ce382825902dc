//! Of a completion as it is, whatever its task: whether it repeats itself, ends in a loop, or mixes scripts.

use std::collections::{BTreeMap, HashSet};

/// Tokens of the stretches that are compared.
const N: usize = 4;

/// Share of a completion's 4-grams of tokens that it has said before; 0 where it has none.
pub fn repeated(tokens: &[u32]) -> f64 {
    let all = tokens.windows(N).count();
    let distinct = tokens.windows(N).collect::<HashSet<_>>().len();
    (all - distinct) as f64 / all.max(1) as f64
}

/// The longest period of a loop, in tokens, and how often it has to come round.
const LONGEST: usize = 64;
const ROUNDS: usize = 3;

/// Whether the same tokens come three times in a row at the end, and take up eight tokens at least.
pub fn ends_in_a_loop(tokens: &[u32]) -> bool {
    (1..=LONGEST).any(|period| {
        let rounds = ROUNDS.max(8usize.div_ceil(period));
        let Some(start) = tokens.len().checked_sub(period * rounds) else { return false };
        tokens[start..].chunks(period).all(|round| round == &tokens[start..start + period])
    })
}

/// The least share of the letters that a second script has in a mixture.
const SECOND: f64 = 0.05;

/// Whether letters of more than one script stand in a text, the second with a twentieth of them at least.
pub fn mixes_scripts(text: &str) -> bool {
    let mut counts: BTreeMap<Script, usize> = BTreeMap::new();
    text.chars().filter_map(script).for_each(|script| *counts.entry(script).or_default() += 1);
    let letters: usize = counts.values().sum();
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts.len() > 1 && counts[counts.len() - 2] as f64 >= SECOND * letters as f64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Arabic,
    Hebrew,
    Indic,
    Thai,
    Hangul,
    /// Han and kana: Japanese writes both.
    HanOrKana,
}

/// The script of a letter; none of signs, digits and the Greek letters that mathematics uses.
fn script(c: char) -> Option<Script> {
    Some(match c {
        'α'..='ω' | 'Γ' | 'Δ' | 'Θ' | 'Λ' | 'Ξ' | 'Π' | 'Σ' | 'Φ' | 'Ψ' | 'Ω' => return None,
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' => Script::Latin,
        '\u{370}'..='\u{3ff}' => Script::Greek,
        '\u{400}'..='\u{52f}' => Script::Cyrillic,
        '\u{590}'..='\u{5ff}' => Script::Hebrew,
        '\u{600}'..='\u{6ff}' => Script::Arabic,
        '\u{900}'..='\u{dff}' => Script::Indic,
        '\u{e00}'..='\u{e7f}' => Script::Thai,
        '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => Script::Hangul,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}' => Script::HanOrKana,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_4_grams_are_counted() {
        for (tokens, expected) in [
            (vec![], 0.0),
            (vec![1, 2, 3], 0.0),
            (vec![1, 2, 3, 4, 5], 0.0),
            (vec![1; 8], 0.8),
            (vec![1, 2, 3, 4, 9, 1, 2, 3, 4], 1.0 / 6.0),
        ] {
            assert!((repeated(&tokens) - expected).abs() < 1e-12, "{tokens:?}");
        }
    }

    #[test]
    fn a_loop_stands_at_the_end_and_comes_round_three_times() {
        let check = |tokens: Vec<u32>, expected| assert_eq!(ends_in_a_loop(&tokens), expected, "{tokens:?}");
        check([vec![7], [1, 2, 3].repeat(3)].concat(), true);
        check([vec![7], [1, 2, 3].repeat(2)].concat(), false);
        check([[1, 2, 3].repeat(3), vec![9]].concat(), false);
        check(vec![5; 8], true);
        // Three equal digits are no loop.
        check(vec![1, 2, 5, 5, 5], false);
        check((0..200).collect(), false);
        check((0..64).collect::<Vec<u32>>().repeat(3), true);
    }

    #[test]
    fn scripts_are_mixed_where_the_second_is_no_mere_name() {
        for (text, expected) in [
            ("Let me check 3 + 4 = 7.", false),
            ("所以答案是七", false),
            ("So the 答案是七 then", true),
            ("因为 let x = 3, 所以 x + 4 = 7", true),
            ("Let α + β be the angle at Ω", false),
            ("A long English sentence which mentions 王 once and nothing else of the kind", false),
            ("Ответ: seven", true),
            ("日本語のテキスト", false),
            ("", false),
        ] {
            assert_eq!(mixes_scripts(text), expected, "{text}");
        }
    }
}
