//! A model whose output matrix is its embedding, as files that name both: for programs that keep a copy of the output
//! matrix of their own, and would not see a tied one change.

use std::ops::Range;

use anyhow::{Context, Result};

use super::Source;
use crate::model::config::ModelConfig;
use crate::model::layout::{Entry, Layout};

const OUTPUT: &str = "lm_head.weight";

/// The values of a tied model, with those of the embedding under two names.
pub struct Untied<'a> {
    source: &'a dyn Source,
    entries: Vec<Entry>,
}

impl<'a> Untied<'a> {
    /// The shape and the values of a tied model as an untied one's.
    ///
    /// # Errors
    ///
    /// A model that is not tied, or has no embedding.
    pub fn of(config: &ModelConfig, source: &'a dyn Source) -> Result<(ModelConfig, Self)> {
        let untied = ModelConfig { tie_word_embeddings: false, ..config.clone() };
        let shapes = Layout::of(&untied)?.entries;
        let mut entries = source.entries().to_vec();
        let added = shapes.iter().find(|shape| entries.iter().all(|entry| entry.name != shape.name));
        let output = added.filter(|shape| shape.name == OUTPUT).context("the model's output matrix is not tied")?;
        let embedding = entries.iter().find(|entry| entry.name.ends_with("embed_tokens.weight"));
        let embedding = embedding.context("the model has no embedding")?;
        // It has the embedding's place among the values.
        let tied = Entry { name: output.name.clone(), ..embedding.clone() };
        entries.push(tied);
        Ok((untied, Self { source, entries }))
    }
}

impl Source for Untied<'_> {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.source.values(entry, range, out)
    }
}
