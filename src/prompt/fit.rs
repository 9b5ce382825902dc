//! Whether rows fit the model that reads them: all rows of files, and the first of sources without end, are counted in
//! tokens before anything is trained on them.

use anyhow::{Result, bail};
use reckon_datasets::{Dataset, Example};

use crate::config::LongPrompts;
use crate::output::note;
use crate::parallel::{Pool, default_threads, map_in_order};

/// Rows beyond which a line says that they are being counted.
const MANY: usize = 50_000;

/// Rows that fit.
pub(crate) struct Fitted {
    /// The rows that were not left out.
    pub(crate) rows: Box<dyn Dataset>,
    /// Tokens of each of them, or of the first ones where there is no end.
    pub(crate) lengths: Vec<usize>,
    /// How many were left out.
    pub(crate) dropped: usize,
}

/// How long a row may be.
pub(crate) struct Room<'a> {
    /// Tokens that fit.
    pub(crate) tokens: usize,
    /// What is done with longer rows.
    pub(crate) long: LongPrompts,
    /// What the tokens are those of, such as `prompts of data source "file-0"`.
    pub(crate) what: &'a str,
    /// Where the limit comes from, and what would raise it.
    pub(crate) limit: &'a str,
}

impl Room<'_> {
    /// Holds the first `count` rows, each of `length` tokens, to what fits. Where there are more, none is left out.
    pub(crate) fn fit(
        &self,
        rows: Box<dyn Dataset>,
        count: usize,
        length: &(dyn Fn(Example) -> Result<usize> + Sync),
    ) -> Result<Fitted> {
        let (endless, count) = (rows.len() > count, count.min(rows.len()));
        let lengths = lengths(rows.as_ref(), count, length)?;
        let long: Vec<usize> = (0..count).filter(|&row| lengths[row] > self.tokens).collect();
        let Some(&first) = long.first() else { return Ok(Fitted { rows, lengths, dropped: 0 }) };
        if self.long == LongPrompts::Error || endless {
            bail!(
                "{} of {count} {} are longer than {} tokens, {} (the first is {}, with {}){}",
                long.len(),
                self.what,
                self.tokens,
                self.limit,
                rows.get(first).id,
                lengths[first],
                if endless { "" } else { ", or leave them out with data.long_prompts = \"drop\"" }
            );
        }
        let kept: Vec<usize> = (0..count).filter(|&row| lengths[row] <= self.tokens).collect();
        let lengths = kept.iter().map(|&row| lengths[row]).collect();
        Ok(Fitted { rows: Box::new(Chosen { rows, kept }), lengths, dropped: long.len() })
    }
}

/// What each of the first `count` rows counts, on all cores.
fn lengths(rows: &dyn Dataset, count: usize, length: &(dyn Fn(Example) -> Result<usize> + Sync)) -> Result<Vec<usize>> {
    if count >= MANY {
        note!("counting the tokens of {count} rows");
    }
    let mut all = Ok(Vec::with_capacity(count));
    let count_row = |(): &mut (), row| length(rows.get(row));
    map_in_order(count, default_threads(), &Pool::default(), count_row, |length| match (&mut all, length) {
        (Ok(lengths), Ok(length)) => lengths.push(length),
        (Ok(_), Err(error)) => all = Err(error),
        (Err(_), _) => {}
    });
    all
}

/// Some rows of a dataset.
struct Chosen {
    rows: Box<dyn Dataset>,
    kept: Vec<usize>,
}

impl Dataset for Chosen {
    fn len(&self) -> usize {
        self.kept.len()
    }

    fn get(&self, index: usize) -> Example {
        self.rows.get(self.kept[index])
    }
}
