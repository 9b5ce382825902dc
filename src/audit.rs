//! The short audit that a run begins with: the first rows of its data and its rubrics are held to each other, without the
//! model. That of all rows is `reckon verify audit`; the checks themselves are [`reckon_rewards::Audit`]'s.

use std::collections::HashSet;

use anyhow::{Result, bail};
use reckon_datasets::Example;
use reckon_rewards::{Audit, Check, Rubric, Scope};

use crate::config::AuditConfig;
use crate::parallel::{Pool, map_in_order};
use crate::prompt::Source;
use crate::train::Trainer;

/// Refuses a run that would meet rows no verifier can read, train on references that fail, or reward nothing or garbage.
/// Returns a line for each of the other checks that fails.
pub fn before_training(trainer: &Trainer) -> Result<Vec<String>> {
    let config = &trainer.config.audit;
    for (index, source) in trainer.prompts().sources().iter().enumerate().filter(|(_, source)| source.shuffled) {
        check_all(source, trainer.rollouts().judge.rubric(index), trainer.config.compute.threads())?;
    }
    let prompts = trainer.prompts().train(0, config.rows)?;
    let mut found = Vec::new();
    for (index, source) in trainer.prompts().sources().iter().enumerate() {
        let mut seen = HashSet::new();
        let examples = prompts.iter().filter(|prompt| prompt.source == index).map(|prompt| &*prompt.example);
        let rows = examples
            .filter(|example| seen.insert(&example.id))
            .map(|example| Ok((example.clone(), source.template.render(example)?.text)))
            .collect::<Result<Vec<_>>>()?;
        found.extend(remarks(trainer.rollouts().judge.rubric(index), &rows, config)?);
    }
    Ok(found)
}

/// Refuses a source with rows to train on that its rubric cannot read: one of them would stop the run when its turn comes.
fn check_all(source: &Source, rubric: &Rubric, threads: usize) -> Result<()> {
    let (rows, mut faults) = (&source.train, Vec::new());
    let check = |(): &mut (), row| rubric.check(&rows.get(row)).err();
    map_in_order(rows.len(), threads, &Pool::default(), check, |fault| faults.extend(fault));
    match faults.first() {
        None => Ok(()),
        Some(first) => bail!(
            "{} of {} rows of data source \"{}\" cannot be judged: {first}; `reckon data check` counts them, and data.only \
             leaves rows out",
            faults.len(),
            rows.len(),
            source.name
        ),
    }
}

/// A line for each check that fails and lets a run go on; the others are errors.
fn remarks(rubric: &Rubric, rows: &[(Example, String)], config: &AuditConfig) -> Result<Vec<String>> {
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
