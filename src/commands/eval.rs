//! `reckon eval`: held-out accuracy of a model under a training config's data and rubric.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use reckon_rewards::Registry;

use super::{ConfigArgs, judge, policies};
use crate::behaviours::Behaviours;
use crate::config::{EvalConfig, ModelSource};
use crate::environment::Environment;
use crate::eval::{Evaluation, evaluate};
use crate::groups::Rollouts;
use crate::output::{note, say};
use crate::prompt::{Prompt, PromptSource};
use crate::ranks::Ranks;
use crate::rollout::LocalSampler;

/// Arguments of `reckon eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Model folder or adapter, instead of the config's.
    #[arg(long)]
    model: Option<String>,
    /// Take the most likely token instead of sampling.
    #[arg(long)]
    greedy: bool,
    /// Evaluate on this one of the config's `eval.sets`, instead of the held-out problems of its data.
    #[arg(long)]
    on: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let mut config = args.config.load()?;
    config.validate()?;
    let mut policy = match (args.model, &config.lora) {
        (None, Some(_)) => policies::trained(&config, &Ranks::alone())?,
        (None, None) => policies::sampled(&config.model.name(), &config.compute)?,
        (Some(path), _) => {
            config.model = ModelSource { path, revision: None };
            policies::sampled(&config.model.path, &config.compute)?
        }
    };
    let judge = judge(&config, registry)?;
    let prompts = PromptSource::of(&config, &mut policy)?;
    prompts.dropped().iter().for_each(|line| note!("{line}"));
    let mut sampling = config.eval.sampling(&config.rollout.sampling(policy.config.eos_token_id.clone())?);
    if args.greedy {
        sampling.temperature = 0.0;
    }
    let eval = &config.eval;
    let environment = Environment::of(&config, &prompts)?;
    let (prompts, samples) = held_out(&prompts, eval, args.on.as_deref())?;
    let sampler = LocalSampler { capacity: config.rollout.capacity };
    let behaviours = Behaviours::of(&config)?;
    let rollouts = Rollouts {
        policy: &policy,
        sampler: &sampler,
        judge: &judge,
        sampling: &sampling,
        behaviours: &behaviours,
        environment: environment.as_ref(),
        ranks: None,
        routed: false,
    };
    let asked = prompts.len();
    ensure!(asked > 0, "there is nothing to evaluate: eval.problems, or that of the set, must be above 0");
    let found = evaluate(rollouts, prompts, samples)?;
    let problems = asked - found.unreadable.len();
    tell(&found, [problems, samples], args.json)?;
    if let Some(first) = found.unreadable.first() {
        bail!("{} of {asked} held-out rows cannot be judged: {first}", found.unreadable.len());
    }
    Ok(())
}

/// What was found, as lines or as one JSON object.
fn tell(found: &Evaluation, [problems, samples]: [usize; 2], json: bool) -> Result<()> {
    if json {
        let object = serde_json::json!({
            "pass@1": found.accuracy, "margin": found.margin, "not_judged": found.not_judged,
            "len_mean": found.len_mean, "len_right": found.len_right, "len_wrong": found.len_wrong,
            "truncated": found.truncated, "entropy": found.entropy,
            "behaviours": found.behaviours.iter().cloned().collect::<BTreeMap<_, _>>(),
            "pass@k": found.passes_at, "maj@k": found.majority,
            "problems": problems, "samples": samples, "unreadable": found.unreadable.len(),
        });
        say!("{object}")?;
    } else {
        say!("pass@1 {:.3} ± {:.3} (95%) on {problems} problems", found.accuracy, found.margin)?;
        found.passes_at.iter().try_for_each(|(k, share)| say!("pass@{k} {share:.3}"))?;
        found.majority.iter().try_for_each(|(k, share)| say!("maj@{k} {share:.3}"))?;
        if found.not_judged > 0.0 {
            say!("{:.1}% of the completions were not judged", 100.0 * found.not_judged)?;
        }
        let length = |mean: Option<f64>| mean.map_or("none".to_owned(), |mean| format!("{mean:.1}"));
        let (right, wrong) = (length(found.len_right), length(found.len_wrong));
        say!("tokens {:.1} (right {right}, wrong {wrong}), cut {:.1}%", found.len_mean, 100.0 * found.truncated)?;
        say!("entropy {:.3} nats a token", found.entropy)?;
        for (name, value) in &found.behaviours {
            say!("{name} {value:.3}")?;
        }
    }
    Ok(())
}

/// The problems of the config's data, or those of one of its further sets, with the completions of each.
fn held_out(prompts: &PromptSource, eval: &EvalConfig, on: Option<&str>) -> Result<(Vec<Prompt>, usize)> {
    let Some(name) = on else { return Ok((prompts.held_out(eval.problems)?, eval.samples)) };
    let known = || eval.sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>().join(", ");
    let place = eval.sets.iter().position(|set| set.name == name);
    let place = place.with_context(|| format!("--on {name}: no such set among eval.sets ({})", known()))?;
    let set = &eval.sets[place];
    Ok((prompts.set(place, set.problems.unwrap_or(eval.problems))?, set.samples.unwrap_or(eval.samples)))
}
