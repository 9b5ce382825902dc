//! Priming traces: supervised completions that search, say `wait` after a miss, and often give up too early.

use serde::{Deserialize, Serialize};

use crate::countdown::{Chain, expression};
use crate::{Countdown, Counted, Dataset, Error, Example};

/// How traces are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Chance that an attempt is a solution on purpose.
    pub success_rate: f64,
    /// Chance to give up after a miss.
    pub give_up_rate: f64,
    /// Most attempts of a trace.
    pub longest: usize,
    /// Share of traces that answer without thinking.
    pub direct_share: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { success_rate: 0.15, give_up_rate: 0.5, longest: 8, direct_share: 0.0 }
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

/// A seeded source of traces.
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

    /// Trace `index`, a function of the seed and the index.
    pub fn get(&self, index: usize) -> Trace {
        let example = self.problems.get(index);
        let mut random = Counted::new(&[self.seed, 0x7eace, index as u64]);
        let numbers: Vec<i64> =
            example.info["numbers"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        let target = example.info["target"].as_i64().unwrap_or_default();
        let direct = random.unit() < self.config.direct_share;
        let mut thought = String::new();
        let mut attempts = 0;
        loop {
            let chain = self.attempt(&numbers, target, &mut random);
            let correct = chain.last().is_some_and(|step| step.result == target);
            if !direct {
                attempts += 1;
                thought += &written(&chain);
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

    /// A solution with chance `success_rate`, else any legal chain.
    fn attempt(&self, numbers: &[i64], target: i64, random: &mut Counted) -> Chain {
        let solve = random.unit() < self.config.success_rate;
        let mut any = Chain::new();
        // Every problem has a solution, which 3 numbers show within some dozens of draws.
        for _ in 0..100_000 {
            let Some(chain) = self.problems.random_chain(numbers, random) else { continue };
            if !solve || chain.last().is_some_and(|step| step.result == target) {
                return chain;
            }
            any = chain;
        }
        any
    }
}

/// `15-10=5,5-1=4`.
fn written(chain: &Chain) -> String {
    let steps: Vec<String> =
        chain.iter().map(|s| format!("{}{}{}={}", s.left, s.operation, s.right, s.result)).collect();
    steps.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CountdownConfig, Split, TraceStats};

    fn traces(config: TraceConfig) -> Traces {
        Traces::new(Countdown::new(CountdownConfig::default(), 1, Split::Train).unwrap(), config, 2).unwrap()
    }

    #[test]
    fn a_trace_says_what_it_does() {
        let traces = traces(TraceConfig::default());
        let mut right = 0;
        for index in 0..2000 {
            let trace = traces.get(index);
            let numbers: Vec<i64> =
                trace.example.info["numbers"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
            let target = trace.example.info["target"].as_i64().unwrap();
            let stats = TraceStats::of(&trace.completion, &numbers, target);
            assert_eq!(stats.slips, 0, "{}", trace.completion);
            assert_eq!(stats.attempts, trace.attempts, "{}", trace.completion);
            assert_eq!(stats.waits, trace.attempts - 1, "{}", trace.completion);
            assert_eq!(stats.oks, usize::from(trace.correct), "{}", trace.completion);
            assert_eq!(stats.gave_up, !trace.correct, "{}", trace.completion);
            assert!(trace.attempts <= 8);
            right += usize::from(trace.correct);
        }
        assert!((600..1000).contains(&right), "{right} of 2000 traces end right");
    }

    #[test]
    fn direct_traces_do_not_think() {
        let trace = traces(TraceConfig { direct_share: 1.0, ..TraceConfig::default() }).get(3);
        assert!(trace.completion.starts_with("<think></think><answer>"), "{}", trace.completion);
    }
}
