//! Traces as rows of a file: prompt, completion and answer under the names that `reckon sft` and `reckon train` know, the
//! row's other columns, and the provenance.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use reckon_datasets::write_parquet;
use serde_json::{Map, Value, json};

use super::VerifiedTrace;
use crate::disk::fill_file;

/// Writes traces, whole or not at all: Parquet where the file's name says so, JSON Lines else.
pub fn write(path: &Path, traces: &[VerifiedTrace]) -> Result<()> {
    let rows = traces.iter().map(row).collect::<Result<Vec<_>>>()?;
    let parquet = path.extension().is_some_and(|extension| extension == "parquet");
    fill_file(path, |file| {
        if parquet {
            return Ok(write_parquet(file, &rows)?);
        }
        let mut file = BufWriter::new(file);
        for row in &rows {
            serde_json::to_writer(&mut file, row)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    })
}

/// Columns of a row that stand for what a trace has under another name.
const OWN: [&str; 8] = ["id", "prompt", "completion", "answer", "provenance", "question", "messages", "problem"];

fn row(trace: &VerifiedTrace) -> Result<Map<String, Value>> {
    let VerifiedTrace { example, completion, provenance } = trace;
    let prompt = match &example.messages[..] {
        [] => json!(example.question),
        messages => json!(messages),
    };
    let mut row = Map::new();
    row.insert("id".into(), json!(example.id));
    row.insert("prompt".into(), prompt);
    row.insert("completion".into(), json!(completion));
    if !example.answer.is_empty() {
        row.insert("answer".into(), serde_json::to_value(&example.answer)?);
    }
    let others = example.info.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    row.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    row.insert("provenance".into(), serde_json::to_value(provenance)?);
    Ok(row)
}
