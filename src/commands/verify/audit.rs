//! `reckon verify audit`: a training config's rubric and dataset are held to each other, without a model. The short
//! form that every run begins with is [`crate::audit`].

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use reckon_rewards::{Audit, Registry, Rubric, Scope};

use super::super::arguments::whole;
use super::super::{ConfigArgs, load_companions};
use crate::output::say;
use crate::prompt::Source;

/// Rows of generated data that are looked at: there is no end to them.
const SAMPLE: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Rows to look at: the first this many, instead of all rows of a file and 1000 of generated data.
    #[arg(long, value_parser = whole::<usize>(1))]
    rows: Option<usize>,
    /// Look at the held-out rows instead of those to train on.
    #[arg(long)]
    held_out: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, registry: &Registry) -> Result<()> {
    let config = args.config.load()?;
    let mut failed = BTreeSet::new();
    let (views, companions) = (config.sources()?, load_companions(&config.model.name())?);
    for (index, view) in views.iter().enumerate() {
        let source = Source::open(view, index, &companions, config.seed)?;
        if views.len() > 1 && !args.json {
            say!("data source {:?}", source.name)?;
        }
        let audit = audit(&args, &Rubric::from_config_with(view.rubric, registry)?, &source)?;
        if args.json {
            say!("{}", serde_json::to_string(&audit)?)?;
        } else {
            say!("{audit}")?;
        }
        failed.extend(audit.findings.iter().filter(|f| f.failed > 0).map(|f| f.check.claim()));
    }
    let failed: Vec<&str> = failed.into_iter().collect();
    ensure!(failed.is_empty(), "it does not hold that {}", failed.join(", nor that "));
    Ok(())
}

/// The rubric of a source held to its rows.
fn audit(args: &Args, rubric: &Rubric, source: &Source) -> Result<Audit> {
    ensure!(
        rubric.scope() == Scope::Completion,
        "this rubric judges completions by comparing those of a group; an audit judges them one by one"
    );
    let data = if args.held_out { &source.held_out } else { &source.train };
    // Generated rows have an order of their own, and no end.
    let all = if source.shuffled { data.len() } else { SAMPLE };
    let rows = (0..args.rows.unwrap_or(all).min(data.len()))
        .map(|row| data.get(row))
        .map(|example| Ok((example.clone(), source.template.render(&example)?.text)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Audit::of(rubric, &rows)?)
}
