//! Priming traces: supervised completions that search, say `wait` after a miss, and often give up too early, and the
//! controls to compare with. The habit of going on is in them, but too rarely: to find that it pays is left to
//! reinforcement learning. What an attempt at a problem looks like, its task says ([`Traced`]).

use serde::{Deserialize, Serialize};

use super::{Generated, Task};
use crate::{Counted, Error, Example, table};

table! {
    /// How traces are made.
    pub struct TraceConfig {
        /// Chance that an attempt is a solution on purpose.
        pub success_rate: f64 = 0.15,
        /// Chance to give up after a miss.
        pub give_up_rate: f64 = 0.5,
        /// Most attempts of a trace.
        pub longest: usize = 8,
        /// Share of traces that do not give up before their `longest` attempt: without them a model hardly sees what comes
        /// late in a search, and miscalculates there.
        pub patient_share: f64 = 0.0,
        /// Share of traces that answer without thinking.
        pub direct_share: f64 = 0.0,
        /// What stands in the thinking: the `search`, the same `unchecked` (without a word on whether an attempt fits), or
        /// as many `dots` as it has tokens, before an answer that is right.
        pub thought: Thought = Thought::Search,
        /// Whether an attempt may be one that the same trace has made before.
        pub repeats: bool = true,
        /// Whether traces that end right are left out.
        pub wrong_only: bool = false,
    }
}

/// What stands in the thinking of a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thought {
    /// Attempts, each with a word on whether it fits.
    #[default]
    Search,
    /// Attempts without such words: a search that checks nothing.
    Unchecked,
    /// Dots in place of the tokens of a search, and an answer that is right: length without behaviour.
    Dots,
}

/// What one attempt at a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// As it stands in the thinking.
    pub text: String,
    /// The answer that it leads to.
    pub answer: String,
    /// Whether that answer is right.
    pub correct: bool,
}

/// How a task's traces are put together.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Before the first attempt.
    pub open: &'static str,
    /// After a miss that is followed by another attempt.
    pub wait: &'static str,
    /// After the last miss of a trace that gives up.
    pub give_up: &'static str,
    /// After a hit.
    pub ok: &'static str,
    /// One token of a thought that says nothing.
    pub dot: &'static str,
    /// Between thinking and answer.
    pub close: &'static str,
    /// After the answer.
    pub end: &'static str,
}

/// An attempt at one problem: a solution where the first argument says so, else any, which may solve by luck.
pub type Attempts<'a> = Box<dyn Fn(bool, &mut Counted) -> Attempt + 'a>;

/// A task that traces can be made for.
pub trait Traced: Task {
    /// What stands around its attempts.
    const WORDS: Words;

    /// What attempts at `problem` can be.
    fn attempts<'a>(&'a self, problem: &'a Self::Problem) -> Attempts<'a>;

    /// Tokens of a thought: as many dots take its place. Here each number, word and sign is one.
    fn tokens(thought: &str) -> usize {
        lexemes(thought)
    }
}

/// A problem with a completion to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The problem.
    pub example: Example,
    /// `<think>...</think><answer>...</answer>`.
    pub completion: String,
    /// Attempts in the thinking.
    pub attempts: usize,
    /// Whether the answer reaches the target.
    pub correct: bool,
}

impl Trace {
    /// Question and completion: what supervised training needs.
    pub fn pair(&self) -> (&str, &str) {
        (&self.example.question, &self.completion)
    }
}

/// Where traces come from, whatever their task.
pub trait TraceSource: Send + Sync {
    /// Trace `index`, a function of the seeds and the index.
    fn get(&self, index: usize) -> Trace;
}

/// A seeded source of traces.
///
/// ```
/// use reckon_datasets::{Countdown, CountdownConfig, Split, TraceConfig, TraceSource, Traces};
/// let problems = Countdown::new(CountdownConfig::default(), 7, Split::Train)?;
/// let traces = Traces::new(problems, TraceConfig::default(), 7)?;
/// let trace = traces.get(0);
/// let (question, completion) = trace.pair();
/// assert!(question.contains(':') && completion.starts_with("<think>") && completion.ends_with("</answer>"));
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Traces<T> {
    problems: Generated<T>,
    config: TraceConfig,
    seed: u64,
}

/// Draws before a rule that a trace has to keep gives way: a new attempt where all may have been made, or a trace that ends
/// wrong where most attempts are right.
const TRIES: usize = 200;

impl<T: Traced> Traces<T> {
    /// Traces for `problems`.
    ///
    /// # Errors
    /// A rate outside `0..=1`, a longest trace of no attempt, or rules that no trace can keep.
    pub fn new(problems: Generated<T>, config: TraceConfig, seed: u64) -> Result<Self, Error> {
        for (key, value) in [
            ("success_rate", config.success_rate),
            ("give_up_rate", config.give_up_rate),
            ("direct_share", config.direct_share),
            ("patient_share", config.patient_share),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Config(format!("traces.{key} = {value}: a share in [0, 1] is needed")));
            }
        }
        if config.longest == 0 {
            return Err(Error::Config("traces.longest = 0: a trace has at least one attempt".into()));
        }
        let traces = Self { problems, config, seed };
        if traces.config.wrong_only && (0..TRIES).all(|index| traces.make(index).correct) {
            let text =
                "traces.wrong_only = true: no trace ends wrong; lower traces.success_rate, or use thought = \"search\"";
            return Err(Error::Config(text.into()));
        }
        Ok(traces)
    }

    fn make(&self, index: usize) -> Trace {
        let problem = self.problems.problem(index);
        let example = self.problems.example(index, &problem);
        let mut random = Counted::new(&[self.seed, 0x7eace, index as u64]);
        let attempts = self.problems.task.attempts(&problem);
        let mut trace = self.trace(&attempts, &mut random);
        for _ in 0..TRIES {
            if !(self.config.wrong_only && trace.correct) {
                break;
            }
            trace = self.trace(&attempts, &mut random);
        }
        let Thinking { text, answer, attempts, correct } = trace;
        let Words { open, close, end, .. } = T::WORDS;
        Trace { example, completion: format!("{open}{text}{close}{answer}{end}"), attempts, correct }
    }

    /// One way to think about a problem.
    fn trace(&self, attempts: &Attempts, random: &mut Counted) -> Thinking {
        let direct = random.unit() < self.config.direct_share;
        let mut found = self.search(attempts, direct, random);
        if self.config.thought == Thought::Dots && !direct {
            let label = attempts(true, random);
            let text = T::WORDS.dot.repeat(T::tokens(&found.text));
            found = Thinking { text, answer: label.answer, attempts: 0, correct: label.correct };
        }
        found
    }

    fn search(&self, attempts: &Attempts, direct: bool, random: &mut Counted) -> Thinking {
        let (config, words) = (&self.config, T::WORDS);
        let checked = config.thought != Thought::Unchecked;
        let say = |word: &'static str| if checked { word } else { "" };
        let (mut text, mut made) = (String::new(), Vec::new());
        let patient = config.patient_share > 0.0 && random.unit() < config.patient_share;
        let give_up_rate = if patient { 0.0 } else { config.give_up_rate };
        loop {
            let attempt = self.attempt(attempts, &made, random);
            let Attempt { answer, correct, .. } = attempt.clone();
            if direct {
                return Thinking { text, answer, attempts: 0, correct };
            }
            text += &attempt.text;
            made.push(attempt.text);
            let over = correct || made.len() >= config.longest;
            if over || random.unit() < give_up_rate {
                text += say(if correct { words.ok } else { words.give_up });
                return Thinking { text, answer, attempts: made.len(), correct };
            }
            text += say(words.wait);
        }
    }

    /// The next attempt after those that were `made`.
    fn attempt(&self, attempts: &Attempts, made: &[String], random: &mut Counted) -> Attempt {
        let mut draw = || attempts(random.unit() < self.config.success_rate, random);
        let mut attempt = draw();
        for _ in 0..TRIES {
            if self.config.repeats || !made.contains(&attempt.text) {
                break;
            }
            attempt = draw();
        }
        attempt
    }
}

impl<T: Traced> TraceSource for Traces<T> {
    fn get(&self, index: usize) -> Trace {
        let trace = self.make(index);
        if !(self.config.wrong_only && trace.correct) {
            return trace;
        }
        // Here every attempt is right; another problem has some that are not, as the constructor saw.
        (1..).map(|next| self.make(index.wrapping_add(next))).find(|trace| !trace.correct).unwrap_or(trace)
    }
}

/// The thinking of a trace, and what came of it.
struct Thinking {
    text: String,
    answer: String,
    attempts: usize,
    correct: bool,
}

/// Numbers, words and signs of a text: its tokens where a tokenizer has one for each.
fn lexemes(text: &str) -> usize {
    let kind = |c: char| if c.is_ascii_digit() { 1 } else { 2 * usize::from(c.is_alphabetic()) };
    let (mut count, mut last) = (0, 0);
    for c in text.chars() {
        let now = kind(c);
        count += usize::from(!c.is_whitespace() && (now == 0 || now != last));
        last = now;
    }
    count
}

#[cfg(test)]
mod tests;
