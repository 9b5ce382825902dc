//! `reckon verify replay`: the saved rollouts of a run are scored again and must get the same verdicts. What a control
//! or a rule on length made of a reward afterwards is counted, and is no difference.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use reckon_rewards::{Registry, Rubric, Score, Verdict};
use serde::Serialize;

use super::super::{config_of_run, judge};
use crate::output::say;
use crate::run::rollouts;

/// Differences that are shown.
const SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the run.
    run: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What scoring again found.
#[derive(Debug, Default, Serialize)]
struct Replay {
    steps: Vec<u64>,
    rollouts: usize,
    reproduced: usize,
    /// Rollouts that were trained on another reward than the rubric's total.
    replaced: usize,
    differences: Vec<Difference>,
}

/// A rollout that was judged differently.
#[derive(Debug, Serialize)]
struct Difference {
    step: u64,
    id: String,
    sample: usize,
    completion: String,
    saved: Score,
    again: Score,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let config = config_of_run(&args.run)?;
    let judge = judge(&config, registry)?;
    let mut replay = Replay::default();
    for file in rollouts::files(&args.run)? {
        for group in rollouts::read(&file)? {
            replay.group(judge.rubric(group.source), group)?;
        }
    }
    let run = args.run.display();
    ensure!(replay.rollouts > 0, "{run} holds no rollouts: train with save.rollouts_every above 0");
    if args.json {
        say!("{}", serde_json::to_string(&replay)?)?;
    } else {
        replay.print()?;
    }
    let missed = replay.rollouts - replay.reproduced;
    ensure!(
        missed == 0,
        "{missed} of {} rollouts were judged differently than in the run: a verifier changed or depends on chance",
        replay.rollouts
    );
    Ok(())
}

impl Replay {
    fn group(&mut self, rubric: &Rubric, group: rollouts::SavedGroup) -> Result<()> {
        let scores = rubric.score_batch(&group.submissions())?;
        if self.steps.last() != Some(&group.step) {
            self.steps.push(group.step);
        }
        for (sample, (saved, again)) in group.rollouts.into_iter().zip(scores).enumerate() {
            self.rollouts += 1;
            self.replaced += usize::from(saved.reward != saved.score.total);
            if same(&saved.score, &again) {
                self.reproduced += 1;
            } else if self.differences.len() < SHOWN {
                let (step, id, completion) = (group.step, group.example.id.clone(), saved.completion);
                self.differences.push(Difference { step, id, sample, completion, saved: saved.score, again });
            }
        }
        Ok(())
    }

    fn print(&self) -> Result<()> {
        say!("{} of {} rollouts of {} steps reproduced", self.reproduced, self.rollouts, self.steps.len())?;
        if self.replaced > 0 {
            say!("{} were trained on a reward that a control or a rule on length put in its place", self.replaced)?;
        }
        for Difference { step, id, sample, completion, saved, again } in &self.differences {
            let [saved_total, total] = [saved, again].map(|score| shown(score.total));
            say!("step {step}, {id}, sample {sample}: {total} was {saved_total}")?;
            let pairs = saved.parts.iter().zip(&again.parts).filter(|(saved, again)| !same_verdict(saved, again));
            for (saved, again) in pairs {
                say!("  {}, was {}", describe(again), describe(saved))?;
            }
            say!("  {completion:?}")?;
        }
        Ok(())
    }
}

fn shown(total: Option<f32>) -> String {
    total.map_or("not judged".into(), |total| total.to_string())
}

/// Whether two scores give the same rewards for the same outcomes; reasons are free to be worded anew.
fn same(saved: &Score, again: &Score) -> bool {
    let equal = saved.parts.len() == again.parts.len() && saved.total == again.total;
    equal && saved.parts.iter().zip(&again.parts).all(|(saved, again)| same_verdict(saved, again))
}

fn same_verdict(saved: &Verdict, again: &Verdict) -> bool {
    (saved.reward, saved.outcome) == (again.reward, again.outcome)
}

fn describe(verdict: &Verdict) -> String {
    format!("{:?} {} ({})", verdict.outcome, verdict.reward, verdict.reason)
}
