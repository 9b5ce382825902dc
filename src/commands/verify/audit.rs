//! `reckon verify audit`: a training config's rubric and dataset are held to each other, without a model. The short
//! form that every run begins with is here too.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use reckon_rewards::{Audit, Check, Registry, Rubric, Scope};

use super::super::{ConfigArgs, load_companions};
use crate::config::AuditConfig;
use crate::prompt::Source;

/// Rows of generated data that are looked at: there is no end to them.
const SAMPLE: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Rows to look at: the first this many, instead of all rows of a file and 1000 of generated data.
    #[arg(long)]
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
            println!("data source {:?}", source.name);
        }
        let audit = audit(&args, &Rubric::from_config_with(view.rubric, registry)?, &source)?;
        match args.json {
            true => println!("{}", serde_json::to_string(&audit)?),
            false => println!("{audit}"),
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
        .map(|example| Ok((example.clone(), source.template.render(&example)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Audit::of(rubric, &rows)?)
}

/// The short form: refuses a run that would train on references that fail, or that would reward nothing or garbage.
/// Returns a line for each of the other checks that fails.
pub(in crate::commands) fn before_training(
    rubric: &Rubric,
    rows: &[(reckon_datasets::Example, String)],
    config: &AuditConfig,
) -> Result<Vec<String>> {
    if rubric.scope() == Scope::Group {
        return Ok(Vec::new());
    }
    let audit = Audit::of(rubric, rows)?;
    let way_out = "`reckon verify audit` looks at every row; audit.rows = 0 trains all the same";
    let mut remarks = Vec::new();
    for finding in audit.findings.iter().filter(|finding| finding.failed > 0) {
        let Some(first) = &finding.first else { continue };
        let claim = format!(
            "it does not hold that {}: {} of {} rows, as {}: {:?}: {}",
            finding.check.claim(),
            finding.failed,
            finding.rows,
            first.id,
            first.completion.chars().take(200).collect::<String>(),
            first.reason
        );
        match finding.check {
            Check::Reference if finding.rate() <= config.max_failed => remarks.push(claim),
            Check::Reference => {
                bail!("{claim}; correct or drop such rows, or allow for them with audit.max_failed; {way_out}")
            }
            Check::Judged | Check::Empty | Check::Garbage => bail!("{claim}; {way_out}"),
            _ => remarks.push(claim),
        }
    }
    Ok(remarks)
}
