//! A study as one page: charts, rollouts, held-out problems, figures with intervals, configs. It asks no network for
//! anything; [`crate::serve`] serves the same page of a run that goes on.

mod data;
mod packing;
mod texts;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::arms::Study;
use crate::summary::Summary;

/// Bytes of rollouts, and of held-out problems, that a page takes over all runs: with the curves of 15 runs of 500 steps
/// it stays below 15 MB.
const TRANSCRIPTS: usize = 7_000_000;
const PROBLEMS: usize = 3_000_000;

/// What a page is to say beside what the runs do.
pub struct Options<'a> {
    /// What a metric is, by its name.
    pub meaning: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the page asks the server that it came from for what is new.
    pub live: bool,
}

/// A study, ready to be shown.
pub struct Report {
    /// Curves, tables and configs, as JSON.
    pub data: String,
    /// The rollouts of each run, as JSON.
    pub transcripts: Vec<String>,
    /// The held-out problems of each run, as JSON.
    pub problems: Vec<String>,
    /// The figures in words.
    pub summary: Summary,
    title: String,
}

impl Report {
    /// Reads the texts of a study, adds what follows from them to its curves, and puts everything together.
    pub fn of(study: &mut Study, options: &Options) -> Result<Self> {
        let count = study.runs.len().max(1);
        let (mut transcripts, mut problems, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (run, evals) in study.runs.iter_mut().zip(&study.evals) {
            let found = texts::transcripts(run, TRANSCRIPTS / count)?;
            kept.push((found.steps, found.kept));
            transcripts.push(found.json);
            problems.push(texts::problems(evals, PROBLEMS / count)?.json);
        }
        let summary = Summary::of(study);
        let data = data::of(study, &summary, &kept, options)?;
        let names: Vec<&str> = study.arms.iter().map(|arm| arm.name.as_str()).collect();
        Ok(Self { data, transcripts, problems, summary, title: names.join(", ") })
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut scripts = script("data", &self.data);
        for (kind, texts) in [("transcripts", &self.transcripts), ("problems", &self.problems)] {
            for (run, json) in texts.iter().enumerate() {
                scripts += &script(&format!("{kind}-{run}"), json);
            }
        }
        let title = self.title.replace('&', "&amp;").replace('<', "&lt;");
        SKELETON
            .replace("<!--TITLE-->", &title)
            .replace("/*STYLES*/", &STYLES.concat())
            .replace("/*SCRIPTS*/", &SCRIPTS.join("\n"))
            // Last: what stands in texts is no place to put anything.
            .replace("<!--DATA-->", &scripts)
    }
}

/// JSON in a script that the page reads when it is needed.
fn script(id: &str, json: &str) -> String {
    format!("<script type=\"application/json\" id=\"{id}\">{}</script>\n", packing::for_page(json))
}

const SKELETON: &str = include_str!("../../assets/report.html");
const STYLES: [&str; 2] = [include_str!("../../assets/uplot/uPlot.min.css"), include_str!("../../assets/report.css")];
/// In the order in which they need each other.
const SCRIPTS: [&str; 9] = [
    include_str!("../../assets/uplot/uPlot.iife.min.js"),
    include_str!("../../assets/data.js"),
    include_str!("../../assets/text.js"),
    include_str!("../../assets/charts.js"),
    include_str!("../../assets/path.js"),
    include_str!("../../assets/transcripts.js"),
    include_str!("../../assets/problems.js"),
    include_str!("../../assets/tables.js"),
    include_str!("../../assets/app.js"),
];

/// Bands of a metric that intervals over problems give, where there is one seed: by name, the ends for each step.
type Bands = BTreeMap<String, [Vec<f64>; 2]>;
