//! Priming traces: supervised completions that search, say `wait` after a miss, and often give up too early.
//! The habit of going on is in them, but too rarely: to find that it pays is left to reinforcement learning.

use super::chain::{Rules, Step, expression, write_steps};
use super::countdown::CountdownProblem;
use crate::{Countdown, Counted, Error, Example, table};

table! {
    /// How traces are made.
    pub struct TraceConfig {
        /// Chance that an attempt is a solution on purpose.
        pub success_rate: f64 = 0.15,
        /// Chance to give up after a miss.
        pub give_up_rate: f64 = 0.5,
        /// Most attempts of a trace.
        pub longest: usize = 8,
        /// Share of traces that answer without thinking.
        pub direct_share: f64 = 0.0,
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

/// A seeded source of traces.
///
/// ```
/// use reckon_datasets::{Countdown, CountdownConfig, Split, TraceConfig, Traces};
/// let problems = Countdown::new(CountdownConfig::default(), 7, Split::Train)?;
/// let traces = Traces::new(problems, TraceConfig::default(), 7)?;
/// let trace = traces.get(0);
/// let (question, completion) = trace.pair();
/// assert!(question.contains(':') && completion.starts_with("<think>") && completion.ends_with("</answer>"));
/// # Ok::<(), reckon_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Traces {
    problems: Countdown,
    config: TraceConfig,
    seed: u64,
}

impl Traces {
    /// Traces for `problems`.
    ///
    /// # Errors
    /// A rate outside `0..=1`, or a longest trace of no attempt.
    pub fn new(problems: Countdown, config: TraceConfig, seed: u64) -> Result<Self, Error> {
        for (key, value) in [
            ("success_rate", config.success_rate),
            ("give_up_rate", config.give_up_rate),
            ("direct_share", config.direct_share),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Config(format!("traces.{key} = {value}: a share in [0, 1] is needed")));
            }
        }
        if config.longest == 0 {
            return Err(Error::Config("traces.longest = 0: a trace has at least one attempt".into()));
        }
        Ok(Self { problems, config, seed })
    }

    /// Trace `index`, a function of the seeds and the index.
    pub fn get(&self, index: usize) -> Trace {
        let problem = self.problems.problem(index);
        let example = self.problems.example(index, &problem);
        let mut random = Counted::new(&[self.seed, 0x7eace, index as u64]);
        let direct = random.unit() < self.config.direct_share;
        let source = Attempts::new(self.problems.task.rules(), &problem);
        let (mut thought, mut attempts) = (String::new(), 0);
        loop {
            let chain = source.draw(random.unit() < self.config.success_rate, &mut random);
            let correct = chain.last().is_some_and(|step| step.result == problem.target());
            if !direct {
                attempts += 1;
                write_steps(&chain, &mut thought);
            }
            let over = direct || correct || attempts >= self.config.longest;
            if over || random.unit() < self.config.give_up_rate {
                let verified = if correct && !direct { "ok" } else { "" };
                let completion = format!("<think>{thought}{verified}</think><answer>{}</answer>", expression(&chain));
                return Trace { example, completion, attempts, correct };
            }
            thought += "wait";
        }
    }
}

/// The most numbers whose chains are all listed: 3 numbers have 72 at most with three operations, 4 have over 1,000.
const LISTED: usize = 3;

/// Draws before an attempt on more numbers falls back on the solution that the problem was made with.
/// Drawing goes on until a chain is legal or solves, so a bound is needed; a hundred draws are the usual number.
const TRIES: usize = 2_000;

/// What an attempt at one problem can be.
struct Attempts<'a> {
    rules: Rules,
    problem: &'a CountdownProblem,
    /// All legal chains one after the other; empty when there are too many to list.
    legal: Vec<Step>,
    /// Numbers of those chains that reach the target.
    solving: Vec<usize>,
}

impl<'a> Attempts<'a> {
    fn new(rules: Rules, problem: &'a CountdownProblem) -> Self {
        let few = problem.numbers.len() <= LISTED;
        let legal = if few { rules.all(&problem.numbers) } else { Vec::new() };
        let reaches = |chain: &[Step]| chain.last().is_some_and(|step| step.result == problem.target());
        let chains = legal.chunks(problem.solution.len().max(1)).enumerate();
        let solving = chains.filter(|(_, chain)| reaches(chain)).map(|(i, _)| i).collect();
        Self { rules, problem, legal, solving }
    }

    /// A solution if `solve`, else any legal chain, which may solve by luck; each is as likely as the others.
    fn draw(&self, solve: bool, random: &mut Counted) -> Vec<Step> {
        let length = self.problem.solution.len().max(1);
        if self.solving.is_empty() {
            return self.search(solve, random);
        }
        let chain = if solve {
            self.solving[random.below(self.solving.len())]
        } else {
            random.below(self.legal.len() / length)
        };
        self.legal[chain * length..][..length].to_vec()
    }

    fn search(&self, solve: bool, random: &mut Counted) -> Vec<Step> {
        let found = (0..TRIES).find_map(|_| {
            let chain = self.rules.draw(&self.problem.numbers, random)?;
            let reaches = chain.last().is_some_and(|step| step.result == self.problem.target());
            (reaches || !solve).then_some(chain)
        });
        found.unwrap_or_else(|| self.problem.solution.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CountdownConfig, Split, TraceStats};

    fn traces(problems: CountdownConfig, config: TraceConfig) -> Traces {
        Traces::new(Countdown::new(problems, 1, Split::Train).unwrap(), config, 2).unwrap()
    }

    /// What a parser finds in a trace, and the trace.
    fn read(traces: &Traces, index: usize) -> (Trace, TraceStats) {
        let problem = traces.problems.problem(index);
        let trace = traces.get(index);
        let stats = TraceStats::of(&trace.completion, &problem.numbers, problem.target());
        (trace, stats)
    }

    #[test]
    fn a_trace_does_what_it_says() {
        let numbers = |numbers| CountdownConfig { numbers, ..CountdownConfig::default() };
        let divide = CountdownConfig { operations: "+-*/".into(), ..numbers(4) };
        for problems in [numbers(2), numbers(3), numbers(4), divide, numbers(6)] {
            let traces = traces(problems, TraceConfig::default());
            for index in 0..500 {
                let (trace, stats) = read(&traces, index);
                let expected = TraceStats {
                    attempts: trace.attempts,
                    waits: trace.attempts - 1,
                    oks: usize::from(trace.correct),
                    slips: 0,
                    repeats: stats.repeats,
                    verified: usize::from(trace.correct),
                    gave_up: !trace.correct,
                };
                assert_eq!(stats, expected, "{}", trace.completion);
                assert!(trace.attempts <= 8, "{}", trace.completion);
            }
        }
    }

    #[test]
    fn the_answer_is_the_last_attempt() {
        let traces = traces(CountdownConfig::default(), TraceConfig::default());
        for index in 0..500 {
            let completion = traces.get(index).completion;
            let (thought, answer) = completion.split_once("</think><answer>").unwrap();
            let last = thought.trim_start_matches("<think>").trim_end_matches("ok").rsplit("wait").next().unwrap();
            let (first, second) = last.split_once(',').unwrap();
            let (inner, running) = first.split_once('=').unwrap();
            let formula = second.split_once('=').unwrap().0;
            let nested = match formula.strip_prefix(running).filter(|rest| rest.starts_with(['+', '-', '*'])) {
                Some(rest) => format!("({inner}){rest}</answer>"),
                None => format!("{}({inner})</answer>", formula.strip_suffix(running).unwrap()),
            };
            // With equal operands the steps do not say which one is the result so far.
            let ambiguous = formula.split('-').all(|operand| operand == running);
            assert!(ambiguous || answer == nested, "{completion}");
        }
    }

    #[test]
    fn the_knobs_set_how_often_traces_end_right() {
        let base = TraceConfig::default;
        for (config, right, attempts) in [
            (TraceConfig { success_rate: 1.0, ..base() }, 1.0..=1.0, 1.0..=1.0),
            (TraceConfig { give_up_rate: 1.0, ..base() }, 0.15..=0.30, 1.0..=1.0),
            // The recipe's run had 39%.
            (base(), 0.34..=0.44, 1.4..=1.8),
            (TraceConfig { give_up_rate: 0.0, longest: 200, ..base() }, 1.0..=1.0, 3.0..=6.5),
            (TraceConfig { give_up_rate: 0.0, success_rate: 0.0, longest: 2, ..base() }, 0.05..=0.35, 1.7..=2.0),
        ] {
            let traces = traces(CountdownConfig::default(), config.clone());
            let all: Vec<Trace> = (0..4000).map(|i| traces.get(i)).collect();
            let mean = |of: fn(&Trace) -> usize| all.iter().map(of).sum::<usize>() as f64 / 4000.0;
            let found = (mean(|trace| trace.correct.into()), mean(|trace| trace.attempts));
            assert!(right.contains(&found.0) && attempts.contains(&found.1), "{found:?} for {config:?}");
        }
    }

    #[test]
    fn direct_traces_do_not_think() {
        for (success_rate, right) in [(1.0, 500..=500), (0.0, 5..=150)] {
            let config = TraceConfig { direct_share: 1.0, success_rate, ..TraceConfig::default() };
            let traces = traces(CountdownConfig::default(), config);
            let all: Vec<Trace> = (0..500).map(|i| traces.get(i)).collect();
            assert!(all.iter().all(|t| t.completion.starts_with("<think></think><answer>") && t.attempts == 0));
            let found = all.iter().filter(|trace| trace.correct).count();
            assert!(right.contains(&found), "{found} of 500 at success_rate = {success_rate}");
        }
        let mixed = traces(CountdownConfig::default(), TraceConfig { direct_share: 0.3, ..TraceConfig::default() });
        let direct = (0..2000).filter(|&i| mixed.get(i).attempts == 0).count();
        assert!((520..680).contains(&direct), "{direct} of 2000 at direct_share = 0.3");
    }

    #[test]
    fn traces_are_a_function_of_seed_and_index() {
        let make = |seed| {
            let problems = Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap();
            Traces::new(problems, TraceConfig::default(), seed).unwrap()
        };
        assert_eq!(make(4).get(9), make(4).get(9));
        assert!((0..20).any(|i| make(4).get(i).completion != make(5).get(i).completion));
        assert_eq!(make(4).get(9).example, make(5).get(9).example);
    }

    #[test]
    fn rates_out_of_range_are_refused_by_value() {
        let base = TraceConfig::default;
        for (config, expected) in [
            (TraceConfig { success_rate: 1.1, ..base() }, "traces.success_rate = 1.1"),
            (TraceConfig { give_up_rate: -0.5, ..base() }, "traces.give_up_rate = -0.5"),
            (TraceConfig { direct_share: f64::NAN, ..base() }, "traces.direct_share = NaN"),
            (TraceConfig { longest: 0, ..base() }, "traces.longest = 0"),
        ] {
            let problems = Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap();
            let message = Traces::new(problems, config, 0).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
