//! `reckon report`: runs as one page with charts, rollouts and figures, and the same as text, as a table, as pictures. What
//! is read, compared and drawn is the crate `reckon_lab`'s.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reckon_lab::arms::Study;
use reckon_lab::report::{Options, Report};
use reckon_lab::{charts, csv, svg};

use crate::disk::write_file;
use crate::metrics::Metric;
use crate::output::{note, print};

/// Arguments of `reckon report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folders of runs, or folders that hold some; `NAME=FOLDER` names an arm. Runs that differ in their seed alone are
    /// one arm.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The page; `report.html` unless something else is asked for.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write every chart into this folder, as an SVG file.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Print all metrics as a table of CSV.
    #[arg(long, conflicts_with = "text")]
    csv: bool,
    /// Print the figures with their intervals.
    #[arg(long)]
    text: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let (study, report) = read(&args.runs)?;
    let asked = args.svg.is_some() || args.csv || args.text;
    let out = args.out.clone().or_else(|| (!asked).then(|| PathBuf::from("report.html")));
    if let Some(out) = &out {
        write(&study, &report, out)?;
    }
    if let Some(folder) = &args.svg {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let charts = charts::of(&study);
        for chart in &charts {
            write_file(&folder.join(format!("{}.svg", chart.id)), svg::draw(&study, chart).as_bytes())?;
        }
        note!("{}: {} charts", folder.display(), charts.len());
    }
    match (args.csv, args.text || out.is_some()) {
        (true, _) => print(format_args!("{}", csv::table(&study))),
        (_, true) => print(format_args!("{}", report.summary)),
        _ => Ok(()),
    }
}

/// The page of an experiment that is over, whose runs are below `runs`.
pub(super) fn page(runs: &Path, out: &Path) -> Result<()> {
    let (study, report) = read(&[runs.to_string_lossy().into_owned()])?;
    write(&study, &report, out)
}

fn read(runs: &[String]) -> Result<(Study, Report)> {
    let mut study = Study::read(runs)?;
    let report = Report::of(&mut study, &Options { meaning: &meaning, live: false })?;
    Ok((study, report))
}

fn write(study: &Study, report: &Report, out: &Path) -> Result<()> {
    let page = report.page();
    write_file(out, page.as_bytes())?;
    note!("{}: {} runs, {:.1} MB; open it in a browser", out.display(), study.runs.len(), page.len() as f64 / 1e6);
    Ok(())
}

/// What a metric is.
pub(super) fn meaning(name: &str) -> Option<String> {
    Metric::of(name).map(|metric| metric.meaning.to_owned())
}
