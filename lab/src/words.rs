//! Published lists of the key words by which papers counted reflection. A list counts occurrences; it knows nothing of
//! what is meant by them, and two papers disagree on `wait`. Where a paper printed patterns, these are its patterns.

use serde::Serialize;

/// A list with the rule by which its words are found.
#[derive(Debug, Clone, Copy)]
pub struct WordList {
    /// What a config calls it, and what the names of its curves end with.
    pub name: &'static str,
    /// Whose it is, and how they counted.
    pub source: &'static str,
    /// What is looked for.
    pub words: &'static [&'static str],
    /// How it is found.
    pub rule: Rule,
}

/// Where a word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// In any case, with no letter before or after; a digit may stand there, as in the traces `4wait1*10`.
    WholeWord,
    /// In any case, within longer words too.
    AnyCase,
    /// As they are written here.
    Exact,
}

/// Names of the lists that are drawn, and highlighted, of every run that kept rollouts: what DeepSeek-R1 drew, and the most
/// careful of those that followed.
pub const DRAWN: [&str; 3] = ["wait", "aha-r1", "aha-qwen"];

/// All lists.
pub const WORD_LISTS: &[WordList] = &[
    WordList {
        name: "wait",
        source: "\"wait\" alone, which DeepSeek-R1 (Nature 645, 2025) draws apart from its list",
        words: &["wait"],
        rule: Rule::WholeWord,
    },
    WordList {
        name: "aha-r1",
        source: "DeepSeek-R1 (Nature 645, 2025): ten words that three experts chose",
        words: &["wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check"],
        rule: Rule::WholeWord,
    },
    WordList {
        name: "aha-qwen",
        source: "oat-zero and Dr. GRPO (arXiv:2503.20783), over bases of Qwen2.5: lower-cased, within words too; \"wait\" and \
                 \"try again\" are left out as noisy",
        words: &[
            "recheck",
            "rethink",
            "reassess",
            "reevaluate",
            "re-evaluate",
            "reevaluation",
            "re-examine",
            "reexamine",
            "reconsider",
            "reanalyze",
            "double-check",
            "check again",
            "think again",
            "verify again",
            "go over the steps",
        ],
        rule: Rule::AnyCase,
    },
    WordList {
        name: "aha-orz",
        source: "Open-Reasoner-Zero (arXiv:2503.24290): its patterns, in the case that they have there",
        words: &["wait,", "recheck,", "recheck ", "recheck\n", "retry", "alternatively,", "however,"],
        rule: Rule::Exact,
    },
    WordList {
        name: "aha-simplerl",
        source: "SimpleRL-Zoo (arXiv:2503.18892): lower-cased, within words too",
        words: &["recheck", "rethink", "try again", "wait", "alternatively", "retry", "however"],
        rule: Rule::AnyCase,
    },
    WordList {
        name: "aha-logic-rl",
        source: "Logic-RL (arXiv:2502.14768); its Chinese characters are among `reckon analyze`'s languages",
        words: &["verify", "re-evaluate", "check", "yet", "let's", "wait", "recheck", "reevaluate"],
        rule: Rule::WholeWord,
    },
    WordList {
        name: "aha-logic-rl-lite",
        source: "Logic-RL-Lite",
        words: &[
            "rethink",
            "re-think",
            "think again",
            "retry",
            "re-try",
            "try again",
            "recheck",
            "re-check",
            "check again",
            "reevaluate",
            "re-evaluate",
            "double check",
            "double-check",
            "verify",
            "aha",
            "wait",
            "summarize",
            "summary",
        ],
        rule: Rule::WholeWord,
    },
    WordList {
        name: "aha-mini-r1",
        source: "mini-R1: what its traces of countdown say",
        words: &["let's try", "too high", "too low", "this works"],
        rule: Rule::AnyCase,
    },
];

impl WordList {
    /// The list of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        WORD_LISTS.iter().find(|list| list.name == name)
    }

    /// The lists of [`DRAWN`].
    pub fn drawn() -> impl Iterator<Item = &'static Self> {
        DRAWN.into_iter().filter_map(Self::named)
    }

    /// How often its words occur; a word within another of the list counts for both, as in the papers.
    pub fn count(&self, text: &str) -> usize {
        if self.rule == Rule::Exact {
            return self.words.iter().map(|word| text.matches(word).count()).sum();
        }
        let text = text.to_lowercase();
        let at = |word: &str| text.match_indices(word).filter(|(at, _)| self.stands(&text, *at, word.len())).count();
        self.words.iter().map(|word| at(word)).sum()
    }

    fn stands(&self, text: &str, at: usize, length: usize) -> bool {
        let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphabetic());
        self.rule != Rule::WholeWord
            || outside(text[..at].chars().next_back()) && outside(text[at + length..].chars().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_by_the_rule_of_their_list() {
        for (list, text, expected) in [
            ("wait", "Wait, I await a waiter. WAIT!", 2),
            ("wait", "5-1=4wait1*10=10", 1),
            ("aha-r1", "But the button is wrong; let me check, however odd.", 4),
            ("aha-qwen", "Let me double-check and Reconsidered it. Wait.", 2),
            ("aha-orz", "Wait, wait, However, however, recheck\nit", 3),
            ("aha-simplerl", "await; try again", 2),
            // "re-evaluate" is not "reevaluate", and "recheck" holds no whole "check".
            ("aha-logic-rl", "I recheck, re-evaluate, reevaluate. Let's see.", 4),
            ("aha-logic-rl-lite", "Aha! In summary, re-check again", 4),
            ("aha-mini-r1", "Let's try 3+4: too low. This works", 3),
        ] {
            assert_eq!(WordList::named(list).unwrap().count(text), expected, "{list}: {text}");
        }
        assert!(WordList::named("aha").is_none());
    }

    #[test]
    fn names_differ_and_what_is_drawn_is_there() {
        assert_eq!(WordList::drawn().count(), DRAWN.len());
        // The page finds those in any case.
        assert!(WordList::drawn().all(|list| list.rule != Rule::Exact));
        let mut names: Vec<&str> = WORD_LISTS.iter().map(|list| list.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORD_LISTS.len());
    }
}
