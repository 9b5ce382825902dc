//! `reckon data measure`: how often the config's model solves each row, written to a file that `data.rates` joins to the
//! rows. The measurement itself is [`crate::measure`].

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use reckon_rewards::Registry;

use super::super::arguments::whole;
use super::super::{ConfigArgs, judge, policies};
use crate::behaviours::Behaviours;
use crate::environment::Environment;
use crate::groups::Rollouts;
use crate::measure::{Rates, measure};
use crate::output::note;
use crate::progress::Bar;
use crate::prompt::{Prompt, PromptSource};
use crate::ranks::Ranks;
use crate::rollout::LocalSampler;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Completions of each row.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 8)]
    samples: usize,
    /// The file of rates; one that is there is gone on with.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let config = args.config.load()?;
    config.validate()?;
    let mut policy = match config.lora {
        Some(_) => policies::trained(&config, &Ranks::alone())?,
        None => policies::computed(&config.compute, || policies::frozen(&config.model.name()))?,
    };
    let judge = judge(&config, registry)?;
    let prompts = PromptSource::of(&config, &mut policy)?;
    prompts.dropped().iter().for_each(|line| note!("{line}"));
    let environment = Environment::of(&config, &prompts)?;
    let rows = rows(&prompts)?;
    let model = config.model.name();
    let mut rates = Rates::open(&args.out, &model, args.samples)?;
    let sampling = config.rollout.sampling(policy.config.eos_token_id.clone())?;
    let sampler = LocalSampler { capacity: config.rollout.capacity };
    let behaviours = Behaviours::default();
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
    let left: Vec<Prompt> = rows.iter().filter(|row| rates.get(&row.example.id).is_none()).cloned().collect();
    let (bar, mut done) = (Bar::new(rows.len() as u64, "measure"), rows.len() - left.len());
    let mut faults = Vec::new();
    // Enough rows at a time to keep the sampler filled, few enough to lose little when the work is killed.
    for some in left.chunks((4 * config.rollout.capacity / args.samples).max(1)) {
        faults.extend(measure(rollouts, some.to_vec(), (args.samples, &model, config.seed), &mut rates)?);
        done += some.len();
        bar.tick(done as u64, &told(&rates), "");
    }
    bar.finish(&format!("{}, in {}", told(&rates), args.out.display()));
    if let Some(first) = faults.first() {
        bail!("{} of {} rows cannot be judged: {first}", faults.len(), rows.len());
    }
    Ok(())
}

/// A prompt for each row that is trained on, numbered as the row is.
fn rows(prompts: &PromptSource) -> Result<Vec<Prompt>> {
    let (mut all, mut ids) = (Vec::new(), HashSet::new());
    for (index, source) in prompts.sources().iter().enumerate() {
        ensure!(source.shuffled, "data source \"{}\" makes its rows, and there is no end to them", source.name);
        for row in 0..source.train.len() {
            let example = source.train.get(row);
            let id = example.id.clone();
            ensure!(!ids.contains(&id), "two rows are called {id:?}: name a column of ids with data.columns.id");
            ids.insert(id);
            all.push(prompts.prompt(index, example, all.len() as u64)?);
        }
    }
    Ok(all)
}

/// How the rates are spread.
fn told(rates: &Rates) -> String {
    let count = |is: fn(f64) -> bool| rates.all().filter(|rate| rate.pass_rate.is_some_and(is)).count();
    let (never, always) = (count(|rate| rate == 0.0), count(|rate| rate == 1.0));
    let between = count(|rate| rate > 0.0 && rate < 1.0);
    format!("{between} rows solved at times, {never} never, {always} always")
}
