//! A worker process: calls go in, answers come out, matched by id. Whether a fault is forgiven is left to the pool.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use super::channel::{Channel, NoLine};
use super::pool::{Answers, Fault, Worker};
use super::wire::{Answer, Call};
use crate::Outcome;
use crate::process::Process;

pub(super) struct ProcessWorker {
    channel: Channel,
    timeout: Duration,
}

impl ProcessWorker {
    /// A worker behind `channel` that has `timeout` for each completion.
    pub(super) fn of(channel: Channel, timeout: Duration) -> Self {
        Self { channel, timeout }
    }
}

/// Starts `command` and waits at most `start` for its `{"ready": true}`.
pub(crate) fn ready(mut command: Command, memory: Option<u64>, start: Duration) -> Result<Channel, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let process =
        Process::spawn(&mut command, memory).map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    let mut channel = Channel::new(process);
    let answer = match channel.receive(Instant::now() + start) {
        Ok(line) => Answer::parse(line)?,
        Err(NoLine::Late) => return Err(format!("`{program}` was not ready within {} s", start.as_secs_f64())),
        Err(NoLine::Closed(end)) => return Err(format!("`{program}` {end} before it was ready")),
        Err(NoLine::TooLong) => return Err(format!("`{program}` did not say {{\"ready\": true}} first")),
    };
    match answer {
        Answer { error: Some(error), .. } => Err(error),
        Answer { ready: true, .. } => Ok(channel),
        _ => Err(format!("`{program}` did not say {{\"ready\": true}} first")),
    }
}

impl Worker for ProcessWorker {
    fn judge(&mut self, calls: &[&Call], answers: &mut Answers) -> Result<(), Fault> {
        let mut open: HashMap<u64, usize> = calls.iter().enumerate().map(|(place, call)| (call.id, place)).collect();
        if self.channel.has_more() {
            let problem = "a worker said something without being asked, or answered twice";
            return Err(Fault::Broken(0, problem.into()));
        }
        self.channel.send(calls.iter().map(|call| call.line.as_str()));
        let mut answered = vec![false; calls.len()];
        let mut at = 0;
        while !open.is_empty() {
            let broken = |problem: String| Fault::Broken(at, problem);
            // Calls are worked on in order, so an answer is the start of the work on the next call.
            let deadline = Instant::now() + self.timeout * calls[at].count as u32;
            let line = self.channel.receive(deadline).map_err(|none| match none {
                NoLine::Late => Fault::Died(Outcome::Timeout),
                NoLine::Closed(_) => Fault::Died(Outcome::Crash),
                NoLine::TooLong => broken("a worker wrote a line of more than 1 MiB".into()),
            })?;
            let answer = Answer::parse(line).map_err(broken)?;
            let id = answer.id.ok_or_else(|| broken("an answer without an `id`".into()))?;
            let place = open.remove(&id).ok_or_else(|| match calls.iter().position(|call| call.id == id) {
                Some(place) => Fault::Broken(place, format!("call {id} was answered twice")),
                None => broken(format!("call {id} was answered but not asked")),
            })?;
            let verdicts = calls[place].verdicts(answer).map_err(|problem| Fault::Broken(place, problem))?;
            answers.push((place, verdicts));
            answered[place] = true;
            at += answered[at..].iter().take_while(|&&done| done).count();
        }
        match self.channel.has_more() {
            true => Err(Fault::Broken(calls.len() - 1, "a worker answered more than it was asked".into())),
            false => Ok(()),
        }
    }
}
