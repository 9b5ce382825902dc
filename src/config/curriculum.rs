//! The `[curriculum]` table: which of the rows that come next are asked.

use anyhow::{Error, Result, ensure};
use reckon_datasets::Range::AtLeast;
use reckon_datasets::{Table, table};
use serde::{Deserialize, Serialize};

/// The words of the key `order`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// Rows as they come.
    Uniform,
    /// Those whose groups are likely to have right and wrong completions.
    Balanced,
    /// Those whose pass rate is near what falls from 1 to 0 over the run.
    EasyToHard,
}

table! {
    /// Which rows are asked, by how their completions have fared in the run; for rows that come again, as those of files do.
    pub struct CurriculumConfig {
        /// Rows as they come (`uniform`), those whose groups are likely to have right and wrong completions (`balanced`), or
        /// those of a pass rate that falls from 1 to 0 over the run (`easy_to_hard`). A row not asked yet counts as 1/2.
        pub order: Curriculum = Curriculum::Uniform,
        /// Rows looked at for each that is asked, where `order` is not `uniform`; the others are passed over until the next
        /// pass.
        pub pool: usize = 3 => AtLeast(2.0),
        /// Groups in a row that are all right, or all wrong, after which a row rests; 0 for never.
        pub rest_after: u64 = 0,
        /// Steps that it rests.
        pub rest_steps: u64 = 50 => AtLeast(1.0),
        /// Problems of each source that generates them, the first so many, which come again in each pass as rows of files do;
        /// without it they are endless, and nothing can be remembered of them.
        pub rows: Option<usize> = None,
    }
}

impl CurriculumConfig {
    /// Whether the run remembers its rows.
    pub fn is_on(&self) -> bool {
        self.order != Curriculum::Uniform || self.rest_after > 0
    }

    /// Refuses a value out of its range.
    pub fn validate(&self, generated: bool) -> Result<()> {
        self.check("curriculum.").map_err(Error::msg)?;
        ensure!(
            !self.is_on() || !generated || self.rows.is_some(),
            "curriculum: generated problems do not come again, so nothing can be remembered of them; give curriculum.rows, \
             so many that come again, or remove the table"
        );
        ensure!(
            self.rows != Some(0),
            "curriculum.rows = 0: there would be nothing to train on; remove it for endless problems"
        );
        ensure!(
            generated || self.rows.is_none(),
            "curriculum.rows = {}: rows of files come again anyway; remove it",
            self.rows.unwrap_or_default()
        );
        Ok(())
    }
}
