//! Words by which published work finds reflection in a completion, counted in what a run kept. A rough measure: a parser
//! of the task's traces sees more, and a word is no proof of what it says.

/// A list of words: its name, whose it is, and the words in lower case.
#[derive(Clone, Copy, Debug)]
pub struct WordList {
    /// In the names of curves.
    pub name: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// What is looked for, anywhere in the text, in any case.
    pub words: &'static [&'static str],
}

/// The lists whose counts are drawn.
pub const LISTS: [WordList; 3] = [
    WordList { name: "wait", source: "the word alone, as DeepSeek-R1 (Nature, 2025) plots it", words: &["wait"] },
    WordList {
        name: "r1",
        source: "the ten words of DeepSeek-R1 (Nature, 2025)",
        words: &["wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check"],
    },
    WordList {
        name: "dr-grpo",
        source: "those of Liu et al. 2025 (arXiv:2503.20783), which leave out `wait` as noisy",
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
    },
];

impl WordList {
    /// How often words of the list stand in a text that is in lower case.
    pub fn count(&self, lower: &str) -> usize {
        self.words.iter().map(|word| lower.matches(word).count()).sum()
    }
}
