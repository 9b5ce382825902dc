//! Completions of several turns: what is a call, who answers it, and how a row that waits leaves its place to others.
//!
//! A turn that ends in a call is handed over with its row; threads answer while the other rows go on, and the row comes
//! back with the answer behind its tokens. Which tools there are is left to [`Tools`].

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::engine::Row;
use crate::parallel::lock;

/// How calls and answers stand in a completion, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// What a call stands between.
    pub call: [String; 2],
    /// What an answer is put between.
    pub answer: [String; 2],
    /// Whether a turn ends by a stop token, as those of chat models do, and not where its call is closed.
    pub whole_turns: bool,
    /// Most calls of a completion; one more ends it.
    pub max_calls: usize,
    /// Most tokens of an answer, without what it is put between; the rest is cut off.
    pub max_answer_tokens: usize,
    /// Calls answered at a time.
    pub workers: usize,
}

/// What tools remember of a completion: theirs to fill, nothing before its first call, and dropped when it is done.
pub type Memory = Option<Box<dyn Any + Send>>;

/// What answers calls.
pub trait Tools: Sync {
    /// Answers a call of a completion of prompt `prompt` of the request. The answer is a function of the prompt, of the
    /// calls before it, by way of `memory`, and of nothing else.
    ///
    /// # Errors
    /// Where a tool is broken.
    fn answer(&self, prompt: usize, memory: &mut Memory, call: &str) -> Result<Answer>;
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model reads.
    pub text: String,
    /// Whether it says that the call failed.
    pub failed: bool,
    /// The reward that the tool gave for the call: kept for whoever judges, and in no token.
    pub reward: Option<f64>,
}

/// The rules, and who answers.
#[derive(Clone, Copy)]
pub struct Calling<'a> {
    /// The rules.
    pub turns: &'a Turns,
    /// Who answers.
    pub tools: &'a dyn Tools,
}

impl std::fmt::Debug for Calling<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.turns.fmt(f)
    }
}

/// What tools did in a completion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolUse {
    /// Which of its tokens are theirs: nothing is learned from them.
    pub observed: Vec<Range<usize>>,
    /// Calls that were answered.
    pub calls: usize,
    /// Of these, calls that failed.
    pub failed: usize,
    /// Seconds from calls to answers.
    pub waited_s: f64,
    /// The rewards that calls were given, in the order of the calls; of one that was given none there is none.
    #[serde(default)]
    pub rewards: Vec<f64>,
}

impl ToolUse {
    /// How many tokens are the tools'.
    pub fn observed_len(&self) -> usize {
        self.observed.iter().map(Range::len).sum()
    }
}

/// The turns of a row under way.
#[derive(Default)]
pub(super) struct Talk {
    /// Where in the completion the present turn begins.
    pub(super) begins: usize,
    pub(super) used: ToolUse,
    memory: Memory,
}

impl Turns {
    /// The calls in the text of a turn.
    pub(super) fn calls<'t>(&self, mut turn: &'t str) -> Vec<&'t str> {
        let [open, close] = &self.call;
        let mut calls = Vec::new();
        while let Some((_, rest)) = turn.split_once(open.as_str()) {
            let Some((call, rest)) = rest.split_once(close.as_str()) else { break };
            calls.push(call);
            turn = rest;
        }
        calls
    }

    /// What stands in the context for the answers of a turn, which ends in the text `turn`. A token that closes a call may
    /// hold more, as `><` does behind `</tool`: what of it begins the text before an answer is not written again.
    fn tokens(&self, answers: &[Answer], turn: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let encode = |text: &str| {
            let encoding = tokenizer.encode_fast(text, false);
            encoding.map(|found| found.get_ids().to_vec()).map_err(|error| anyhow!("cannot encode an answer: {error}"))
        };
        let text = answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>().join("\n");
        let (mut text, ids) = (text.clone(), encode(&text)?);
        if ids.len() > self.max_answer_tokens {
            text = tokenizer.decode(&ids[..self.max_answer_tokens], false).unwrap_or_default();
        }
        let [before, after] = &self.answer;
        let more = turn.rsplit_once(self.call[1].as_str()).map_or("", |(_, more)| more);
        let before = before.strip_prefix(more).unwrap_or(before);
        encode(&[before, text.as_str(), after].concat())
    }
}

/// A row with what its calls got.
pub(super) struct Answered {
    pub(super) row: Row,
    /// What stands behind the calls in the context.
    pub(super) tokens: Vec<u32>,
}

/// A row that waits, and where it is to be brought.
struct Asked {
    row: Row,
    calls: Vec<String>,
    since: Instant,
    back: Sender<Result<Answered>>,
}

/// A worker's line to those who answer.
pub(super) struct Line {
    asked: Sender<Asked>,
    sender: Sender<Result<Answered>>,
    back: Receiver<Result<Answered>>,
    /// Rows that wait.
    pub(super) away: usize,
}

impl Line {
    /// Hands over a row that waits for answers to `calls`.
    pub(super) fn ask(&mut self, row: Row, calls: Vec<String>) {
        self.away += 1;
        let asked = Asked { row, calls, since: Instant::now(), back: self.sender.clone() };
        // Those who answer stay until every line is gone.
        let _ = self.asked.send(asked);
    }

    /// A row that was answered, if there is one.
    pub(super) fn answered(&mut self) -> Option<Result<Answered>> {
        let answered = self.back.try_recv().ok()?;
        self.away -= 1;
        Some(answered)
    }

    /// Waits for a row to be answered.
    pub(super) fn wait(&mut self) -> Result<Answered> {
        let answered = self.back.recv()?;
        self.away -= 1;
        answered
    }
}

/// Makes the lines of workers.
pub(super) struct Desk(Sender<Asked>);

impl Desk {
    pub(super) fn line(&self) -> Line {
        let (sender, back) = channel();
        Line { asked: self.0.clone(), sender, back, away: 0 }
    }
}

/// Does `work` while threads answer what is asked at the desk.
pub(super) fn with_desk<T>(calling: Calling, tokenizer: &Tokenizer, work: impl FnOnce(Desk) -> T) -> T {
    let (sender, receiver) = channel::<Asked>();
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..calling.turns.workers.max(1) {
            scope.spawn(|| {
                while let Some(asked) = next(&receiver) {
                    let Asked { row, calls, since, back } = asked;
                    // One that panicked must not be waited for.
                    let answered = catch_unwind(AssertUnwindSafe(|| answer(calling, tokenizer, row, &calls, since)));
                    let _ = back.send(answered.unwrap_or_else(|_| Err(anyhow!("a tool panicked"))));
                }
            });
        }
        work(Desk(sender))
    })
}

fn next(receiver: &Mutex<Receiver<Asked>>) -> Option<Asked> {
    lock(receiver).recv().ok()
}

fn answer(calling: Calling, tokenizer: &Tokenizer, mut row: Row, calls: &[String], since: Instant) -> Result<Answered> {
    let Calling { turns, tools } = calling;
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        let answer = tools.answer(row.prompt(), &mut row.talk.memory, call)?;
        row.talk.used.calls += 1;
        row.talk.used.failed += usize::from(answer.failed);
        row.talk.used.rewards.extend(answer.reward);
        answers.push(answer);
    }
    row.talk.used.waited_s += since.elapsed().as_secs_f64();
    let turn = tokenizer.decode(row.turn(), false).unwrap_or_default();
    let tokens = turns.tokens(&answers, &turn, tokenizer)?;
    Ok(Answered { row, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Turns {
        Turns {
            call: ["<tool>", "</tool>"].map(String::from),
            answer: ["<result>", "</result>"].map(String::from),
            whole_turns: false,
            max_calls: 1,
            max_answer_tokens: 9,
            workers: 1,
        }
    }

    #[test]
    fn what_the_token_that_closes_a_call_holds_of_an_answer_is_not_written_again() {
        // A token for each letter, as far as these texts go.
        let letters: Vec<String> =
            "</tol>re su9x".chars().enumerate().map(|(id, letter)| format!("{letter:?}: {id}")).collect();
        let text = format!(
            r#"{{"version": "1.0", "added_tokens": [], "decoder": {{"type": "Fuse"}},
                "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}}"#,
            letters.join(", ").replace('\'', "\"")
        );
        let tokenizer: Tokenizer = text.parse().unwrap();
        let answer = |text: &str| Answer { text: text.into(), failed: false, reward: None };
        for (turn, expected) in [
            ("<tool>9</tool>", "<result>9</result>"),
            ("<tool>9</tool><", "result>9</result>"),
            ("<tool>9</tool><result>", "9</result>"),
            // No beginning of an answer.
            ("<tool>9</tool>>", "<result>9</result>"),
            ("<tool>9</tool> <", "<result>9</result>"),
        ] {
            let tokens = turns().tokens(&[answer("9")], turn, &tokenizer).unwrap();
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), expected, "{turn}");
        }
    }

    #[test]
    fn a_turn_has_the_calls_that_are_closed_in_it() {
        let turns = turns();
        for (turn, expected) in [
            ("say <tool>1+1</tool>", &["1+1"][..]),
            ("<tool>a</tool> and <tool>b</tool> and <tool>c", &["a", "b"]),
            ("<tool></tool>", &[""]),
            ("</tool> <tool>", &[]),
            ("", &[]),
        ] {
            assert_eq!(turns.calls(turn), expected, "{turn}");
        }
    }
}
