//! All metrics of a study as one table: a row for each step of each run.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::arms::Study;

/// The table, its first line the names of its columns: `arm`, `run`, `seed`, `step`, and the metrics in alphabetical
/// order. A number that a step has not is an empty field.
pub fn table(study: &Study) -> String {
    let names: BTreeSet<&String> = study.runs.iter().flat_map(|run| run.series.keys()).collect();
    let mut text = "arm,run,seed,step".to_owned();
    names.iter().for_each(|name| text += &format!(",{}", field(name)));
    text.push('\n');
    for arm in &study.arms {
        for run in study.of(arm) {
            let start = format!("{},{},{}", field(&arm.name), field(&run.folder_name()), run.seed());
            for (at, step) in run.steps.iter().enumerate() {
                let _ = write!(text, "{start},{step}");
                for name in &names {
                    let value = run.series.get(*name).map_or(f64::NAN, |values| values[at]);
                    let _ = if value.is_finite() { write!(text, ",{value}") } else { write!(text, ",") };
                }
                text.push('\n');
            }
        }
    }
    text
}

/// A field in quotes where it holds what separates fields.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
