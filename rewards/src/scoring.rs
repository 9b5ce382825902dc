//! Many rows judged by one rubric on all cores: what `reckon verify score` and the Python module make of a file. A row
//! that cannot be judged takes no other with it.

use reckon_datasets::{Answer, Example};
use serde_json::{Map, Value};

use crate::parallel::in_order;
use crate::{Rubric, Scope, Score, Submission, VerifierError};

/// Fewest completions that are worth a thread: `math` judges as many in 0.2 ms, and a thread starts in less.
const WORTH_A_THREAD: usize = 8;
/// Most completions that a thread takes at a time, so that slow ones do not gather on one.
const SHARE: usize = 64;

/// What is said of a row: a score, or that it cannot be judged.
pub type Judged = Result<Score, VerifierError>;

/// A row of a file that cannot be read as an example with a completion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RowError(String);

/// The example and the completion of a row such as `{"answer": reference, "completion": text, ...}`, which `id` names.
/// Columns other than these two and `question` go to `info`, where countdown finds its numbers and target. A list of
/// answers is one of which any will do.
///
/// # Errors
/// A row without a completion, and one whose columns are no texts or numbers.
pub fn submission(mut row: Map<String, Value>, id: &str) -> Result<(Example, String), RowError> {
    let mut texts = |name: &str| match row.shift_remove(name) {
        Some(Value::Array(several)) if name == "answer" => several.iter().map(|one| text(name, one)).collect(),
        Some(value) => Ok(vec![text(name, &value)?]),
        None => Ok(Vec::new()),
    };
    let completion = texts("completion")?.pop().ok_or_else(|| RowError("no column \"completion\"".into()))?;
    let answer = Answer::any_of(texts("answer")?);
    let question = texts("question")?.pop().unwrap_or_default();
    Ok((Example { id: id.to_owned(), question, answer, messages: Vec::new(), info: row }, completion))
}

fn text(name: &str, value: &Value) -> Result<String, RowError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(RowError(format!("column \"{name}\" holds {other}, not a text or a number"))),
    }
}

impl Rubric {
    /// One score for each submission in order, or what makes it impossible, on all cores. For a rubric of
    /// [`Scope::Group`], consecutive submissions with the same question are a group.
    ///
    /// # Errors
    /// Machinery that failed, which is no fault of a row's.
    pub fn score_all(&self, rows: &[Submission]) -> Result<Vec<Judged>, VerifierError> {
        if self.scope() == Scope::Group {
            let groups = rows.chunk_by(|a, b| a.example.question == b.example.question);
            return Ok(groups.map(|group| self.group(group)).collect::<Result<Vec<_>, _>>()?.concat());
        }
        if self.spreads() || rows.len() < 2 * WORTH_A_THREAD {
            return self.alone(rows);
        }
        let share = rows.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
        let shares: Vec<&[Submission]> = rows.chunks(share.clamp(WORTH_A_THREAD, SHARE)).collect();
        Ok(in_order(shares.len(), |index| self.alone(shares[index]))?.concat())
    }

    /// A group is judged as a whole or not at all.
    fn group(&self, group: &[Submission]) -> Result<Vec<Judged>, VerifierError> {
        match self.score_batch(group) {
            Ok(scores) => Ok(scores.into_iter().map(Ok).collect()),
            Err(error @ VerifierError::Example { .. }) => Ok(vec![Err(error); group.len()]),
            Err(error) => Err(error),
        }
    }

    /// Completions that are judged one by one where one of them cannot be judged.
    fn alone(&self, rows: &[Submission]) -> Result<Vec<Judged>, VerifierError> {
        match self.score_batch(rows) {
            Ok(scores) => Ok(scores.into_iter().map(Ok).collect()),
            Err(VerifierError::Example { .. }) if rows.len() > 1 => {
                rows.iter().try_fold(Vec::with_capacity(rows.len()), |mut judged, row| {
                    judged.extend(self.alone(&[*row])?);
                    Ok(judged)
                })
            }
            Err(error @ VerifierError::Example { .. }) => Ok(vec![Err(error)]),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Mode, Part, VerifierConfig};

    fn rubric(config: &str) -> Rubric {
        let config: Value = serde_json::from_str(config).unwrap();
        let verifier = serde_json::from_value::<VerifierConfig>(config).unwrap().build().unwrap();
        Rubric::new(Mode::Binary, vec![Part { verifier, weight: 1.0, required: true }]).unwrap()
    }

    #[test]
    fn a_row_that_cannot_be_judged_takes_no_other_with_it_whatever_the_number_of_rows() {
        let rubric = rubric(r#"{"kind": "numeric"}"#);
        for count in [1, 2, 15, 16, 1000] {
            let rows: Vec<(Example, String)> = (0..count)
                .map(|row| {
                    let answer = if row % 7 == 3 { "seven".into() } else { row.to_string() };
                    let mut columns = Map::new();
                    columns.insert("answer".into(), answer.into());
                    columns.insert("completion".into(), format!("<answer>{}</answer>", row - row % 2).into());
                    submission(columns, &row.to_string()).unwrap()
                })
                .collect();
            let rows: Vec<_> = rows.iter().map(|(example, text)| Submission::new(example, text)).collect();
            let judged = rubric.score_all(&rows).unwrap();
            assert_eq!(judged.len(), count);
            for (row, judged) in judged.iter().enumerate() {
                match judged {
                    Ok(score) => assert_eq!(score.total, Some(f32::from(row % 2 == 0)), "{row} of {count}"),
                    Err(error) => assert!(row % 7 == 3 && error.to_string().contains("seven"), "{error}"),
                }
            }
        }
    }

    #[test]
    fn a_row_is_an_example_with_a_completion_or_says_what_is_wrong() {
        let check = |row: &str, expected: &str| {
            let Value::Object(columns) = serde_json::from_str(row).unwrap() else { unreachable!("a row is an object") };
            let read = submission(columns, "r").map(|(example, completion)| {
                format!("{}|{}|{completion}|{}", example.question, example.answer.as_str(), Value::from(example.info))
            });
            assert_eq!(read.unwrap_or_else(|error| error.to_string()), expected, "{row}");
        };
        check(r#"{"answer": 1.50, "completion": "x", "target": 7}"#, r#"|1.50|x|{"target":7}"#);
        check(r#"{"answer": ["a", 1], "completion": "x", "question": "q"}"#, r#"q|["a","1"]|x|{}"#);
        check(r#"{"answer": "a"}"#, "no column \"completion\"");
        check(r#"{"answer": {}, "completion": "x"}"#, "column \"answer\" holds {}, not a text or a number");
    }
}
