//! Attempts at a countdown problem: legal chains such as `15-10=5,5-1=4`, each as likely as the others, with `wait` after
//! a miss and `ok` after a hit.

use super::chain::{Rules, Step, expression, write_steps};
use super::countdown::{CountdownConfig, CountdownProblem};
use super::traces::{Attempt, Attempts, Traced, Words};
use crate::Counted;

impl Traced for CountdownConfig {
    const WORDS: Words = Words {
        open: "<think>",
        wait: "wait",
        give_up: "",
        ok: "ok",
        dot: ".",
        close: "</think><answer>",
        end: "</answer>",
    };

    fn attempts<'a>(&'a self, problem: &'a CountdownProblem) -> Attempts<'a> {
        let chains = Chains::new(self.rules(), problem);
        Box::new(move |solve, random| {
            let chain = chains.draw(solve, random);
            let mut text = String::new();
            write_steps(&chain, &mut text);
            Attempt { text, answer: expression(&chain), correct: reaches(&chain, problem) }
        })
    }
}

/// The most numbers whose chains are all listed: 3 numbers have 72 at most with three operations, 4 have over 1,000.
const LISTED: usize = 3;

/// Draws before an attempt on more numbers falls back on the solution that the problem was made with.
/// Drawing goes on until a chain is legal or solves, so a bound is needed; a hundred draws are the usual number.
const TRIES: usize = 2_000;

/// What an attempt at one problem can be.
struct Chains<'a> {
    rules: Rules,
    problem: &'a CountdownProblem,
    /// All legal chains one after the other; empty when there are too many to list.
    legal: Vec<Step>,
    /// Numbers of those chains that reach the target.
    solving: Vec<usize>,
}

fn reaches(chain: &[Step], problem: &CountdownProblem) -> bool {
    chain.last().is_some_and(|step| step.result == problem.target())
}

impl<'a> Chains<'a> {
    fn new(rules: Rules, problem: &'a CountdownProblem) -> Self {
        let few = problem.numbers.len() <= LISTED;
        let legal = if few { rules.all(&problem.numbers) } else { Vec::new() };
        let chains = legal.chunks(problem.solution.len().max(1)).enumerate();
        let solving = chains.filter(|(_, chain)| reaches(chain, problem)).map(|(i, _)| i).collect();
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
            (!solve || reaches(&chain, self.problem)).then_some(chain)
        });
        found.unwrap_or_else(|| self.problem.solution.clone())
    }
}
