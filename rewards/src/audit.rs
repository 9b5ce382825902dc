//! Holds a rubric and a dataset to each other before anything is trained on them: reference answers must pass, and what
//! a model might try instead must not. What a reference is, and how an answer becomes a completion, the verifiers say
//! themselves ([`Verifier::reference`](crate::Verifier::reference), [`Verifier::lay_out`](crate::Verifier::lay_out)).

use std::fmt;
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use serde::Serialize;

use crate::parallel::in_order;
use crate::{Outcome, Reference, ReferenceKind, Rubric, Score, Submission, VerifierError};

/// What is asked of a rubric, a row at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The verifiers can judge the row at all.
    Judged,
    /// The reference answer passes.
    Reference,
    /// A completion of nothing fails, laid out or not.
    Empty,
    /// Text that answers nothing fails.
    Garbage,
    /// The prompt, and the question as an answer, fail.
    Echo,
    /// Answers of other rows fail. A row fails the check when most of three other answers pass: that one of them is
    /// equal in value, as `1/2` and `0.5` are, is no fault.
    OtherAnswer,
    /// The reference answer beside another fails: `A or B`, and `A` followed by `B`.
    TwoAnswers,
    /// Expressions that would take for ever to evaluate fail.
    Huge,
}

impl Check {
    /// All checks, in the order in which they are made.
    pub const ALL: [Self; 8] = [
        Self::Judged,
        Self::Reference,
        Self::Empty,
        Self::Garbage,
        Self::Echo,
        Self::OtherAnswer,
        Self::TwoAnswers,
        Self::Huge,
    ];

    /// What holds where the check does.
    pub fn claim(self) -> &'static str {
        match self {
            Self::Judged => "rows can be judged",
            Self::Reference => "reference answers pass",
            Self::Empty => "empty completions fail",
            Self::Garbage => "garbage fails",
            Self::Echo => "the echoed prompt fails",
            Self::OtherAnswer => "other rows' answers fail",
            Self::TwoAnswers => "two answers fail",
            Self::Huge => "huge expressions fail",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// Rows that it was made on.
    pub rows: usize,
    /// Rows that it failed on.
    pub failed: usize,
    /// The first of those.
    pub first: Option<Failure>,
}

impl Finding {
    /// Share of the rows that failed.
    pub fn rate(&self) -> f64 {
        self.failed as f64 / self.rows.max(1) as f64
    }
}

/// A row on which a check failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The row's id.
    pub id: String,
    /// What was judged.
    pub completion: String,
    /// What the verifiers said.
    pub reason: String,
}

/// What an audit found.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// Rows looked at.
    pub rows: usize,
    /// Rows for which no verifier knows a reference answer: only [`Check::Judged`] and [`Check::Empty`] are made there.
    pub without_reference: usize,
    /// One finding a check, in the order of [`Check::ALL`].
    pub findings: Vec<Finding>,
    /// The longest that a completion took to judge.
    pub slowest: Slowest,
}

/// The completion that took longest to judge.
#[derive(Debug, Clone, Serialize)]
pub struct Slowest {
    /// Its row.
    pub id: String,
    /// What it was made for.
    pub check: Check,
    /// Seconds it took.
    pub seconds: f64,
}

impl Audit {
    /// Makes all checks on all rows, each an example with the text of its prompt.
    ///
    /// ```
    /// use reckon_datasets::Example;
    /// use reckon_rewards::{Audit, Check, Rubric, RubricConfig};
    /// let config: RubricConfig = toml::from_str("[[verifiers]]\nkind = 'numeric'")?;
    /// let row = |question: &str, answer: &str| Example {
    ///     id: answer.into(), question: question.into(), answer: answer.into(), ..Example::default() };
    /// let rows = [row("6 * 7?", "42"), row("1 + 1?", "2"), row("half of 1?", "#### 0.5")];
    /// let rows: Vec<_> = rows.into_iter().map(|row| { let prompt = row.question.clone(); (row, prompt) }).collect();
    /// let audit = Audit::of(&Rubric::from_config(&config)?, &rows)?;
    /// assert!(audit.is_clean(), "{audit}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Machinery of a verifier that failed. A row that cannot be judged is a finding.
    pub fn of(rubric: &Rubric, rows: &[(Example, String)]) -> Result<Self, VerifierError> {
        let read = |row: usize| Ok::<_, VerifierError>(rubric.reference(&rows[row].0));
        let references = in_order(rows.len(), read)?;
        let row = |row| {
            let mut auditor = Auditor { rubric, rows, references: &references, audit: Self::empty(1) };
            auditor.row(row)?;
            Ok(auditor.audit)
        };
        let found = in_order(rows.len(), row)?;
        Ok(found.into_iter().fold(Self::empty(rows.len()), Self::with))
    }

    /// This audit with what was found on a further row.
    fn with(mut self, row: Self) -> Self {
        self.without_reference += row.without_reference;
        for (all, finding) in self.findings.iter_mut().zip(row.findings) {
            all.rows += finding.rows;
            all.failed += finding.failed;
            all.first = all.first.take().or(finding.first);
        }
        if row.slowest.seconds > self.slowest.seconds {
            self.slowest = row.slowest;
        }
        self
    }

    fn empty(rows: usize) -> Self {
        let finding = |check| Finding { check, rows: 0, failed: 0, first: None };
        let slowest = Slowest { id: String::new(), check: Check::Judged, seconds: 0.0 };
        Self { rows, without_reference: 0, findings: Check::ALL.map(finding).into(), slowest }
    }

    /// What one check found.
    pub fn finding(&self, check: Check) -> &Finding {
        &self.findings[check as usize]
    }

    /// Whether no check failed on any row.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.failed == 0)
    }
}

/// A table of the claims, each with an example where it does not hold.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings.iter().filter(|finding| finding.rows > 0) {
            let held = finding.rows - finding.failed;
            write!(f, "{:<26}{held:>8} of {}", finding.check.claim(), finding.rows)?;
            if let Some(Failure { id, completion, reason }) = &finding.first {
                write!(f, "   {:.1}% wrong, as {id}: {:?}: {reason}", 100.0 * finding.rate(), brief(completion))?;
            }
            writeln!(f)?;
        }
        if self.without_reference > 0 {
            let n = self.without_reference;
            writeln!(f, "{n} of {} rows have no reference answer that a verifier compares with", self.rows)?;
        }
        let Slowest { id, check, seconds } = &self.slowest;
        write!(f, "slowest verdict {:.3} ms, on {id} ({})", 1000.0 * seconds, check.claim())
    }
}

/// The start of a text that may be long.
fn brief(text: &str) -> String {
    let start: String = text.chars().take(120).collect();
    if start.len() < text.len() { start + "..." } else { start }
}

const GARBAGE: [&str; 3] = ["I do not know", "?!", "lorem ipsum dolor sit amet"];

/// Why an echoed prompt may pass: the answer was read from a text that marks none.
fn read_unmarked(text: &str, score: &Score) -> Option<String> {
    let marked = ["\\boxed", "\\fbox", "<answer>", "####"].iter().any(|mark| text.contains(mark));
    let read = score.parts.iter().find_map(|part| part.parsed.as_deref()).filter(|_| !marked)?;
    let last = if ends_in(text, read) { "its last number happens to be the answer" } else { "it marks no answer" };
    Some(format!(
        "; {last}: with extract.from = \"marked\" (in `math`) or \"tag\" only what stands in a box or tag is read"
    ))
}

/// Whether what a verifier read is the last number of a text.
fn ends_in(text: &str, read: &str) -> bool {
    let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '/');
    let last = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let start = last.trim_end_matches(number).len();
    start < last.len() && read.contains(&last[start..])
}

/// Expressions to hang an evaluator, and lengths to exhaust a parser.
fn huge() -> [String; 5] {
    let (digits, brackets) = ("9".repeat(100_000), "(".repeat(50_000));
    ["9**9**9**9".into(), r"5^{(5^{(5^{(5^5)})})}".into(), "1e999999999".into(), digits, brackets]
}

/// An audit of one row being made.
struct Auditor<'a> {
    rubric: &'a Rubric,
    rows: &'a [(Example, String)],
    references: &'a [Option<Reference>],
    audit: Audit,
}

impl Auditor<'_> {
    fn row(&mut self, row: usize) -> Result<(), VerifierError> {
        let (example, prompt) = &self.rows[row];
        if let Err(error @ VerifierError::Example { .. }) = self.rubric.score(example, "") {
            self.note(
                Check::Judged,
                Some(Failure { id: example.id.clone(), completion: String::new(), reason: error.to_string() }),
            );
            return Ok(());
        }
        self.note(Check::Judged, None);
        let Some(Reference { answer, kind }) = self.references[row].clone() else {
            self.audit.without_reference += 1;
            return self.must_fail(Check::Empty, row, &[String::new(), " \n".into()]);
        };
        let laid_out = |answer: &str| self.rubric.lay_out(example, &[answer]);
        let empty = [String::new(), laid_out("")];
        let garbage: Vec<String> = GARBAGE.iter().flat_map(|text| [(*text).to_owned(), laid_out(text)]).collect();
        let echo = [prompt.clone(), example.question.clone(), laid_out(&example.question)];
        self.must_pass(row, laid_out(&answer))?;
        self.must_fail(Check::Empty, row, &empty)?;
        self.must_fail(Check::Garbage, row, &garbage)?;
        self.must_fail(Check::Echo, row, &echo)?;
        if kind != ReferenceKind::Program {
            let huge = huge().map(|text| laid_out(&text));
            self.must_fail(Check::Huge, row, &huge)?;
        }
        if kind == ReferenceKind::Form { Ok(()) } else { self.others(row, &answer) }
    }

    /// The checks that need another row's answer.
    fn others(&mut self, row: usize, answer: &str) -> Result<(), VerifierError> {
        let example = &self.rows[row].0;
        let others: Vec<String> = self.other_answers(row, answer);
        let Some(other) = others.first() else { return Ok(()) };
        let two = [
            self.rubric.lay_out(example, &[&format!("{answer} or {other}")]),
            self.rubric.lay_out(example, &[answer, other]),
        ];
        let mut passed = Vec::new();
        for other in &others {
            let completion = self.rubric.lay_out(example, &[other]);
            let (accepted, said) = self.judge(Check::OtherAnswer, row, completion)?;
            passed.extend((accepted == Some(true)).then_some(said));
        }
        let most = passed.len() * 2 > others.len();
        self.note(Check::OtherAnswer, passed.pop().filter(|_| most));
        self.must_fail(Check::TwoAnswers, row, &two)
    }

    /// Up to three answers of rows apart from each other that are written differently from this one.
    fn other_answers(&self, row: usize, answer: &str) -> Vec<String> {
        let rows = self.rows.len();
        let starts = [1, rows / 3, 2 * rows / 3];
        let different = |at: usize| {
            let other = &self.references[(row + at) % rows].as_ref()?.answer;
            (other != answer).then(|| other.clone())
        };
        let mut found: Vec<String> = starts.iter().filter_map(|start| (*start..rows).find_map(different)).collect();
        found.dedup();
        found
    }

    fn must_pass(&mut self, row: usize, completion: String) -> Result<(), VerifierError> {
        let (passed, said) = self.judge(Check::Reference, row, completion)?;
        if let Some(passed) = passed {
            self.note(Check::Reference, (!passed).then_some(said));
        }
        Ok(())
    }

    fn must_fail(&mut self, check: Check, row: usize, completions: &[String]) -> Result<(), VerifierError> {
        let mut failure = None;
        for completion in completions {
            let (passed, said) = self.judge(check, row, completion.clone())?;
            failure = failure.or((passed == Some(true)).then_some(said));
        }
        self.note(check, failure);
        Ok(())
    }

    /// Judges a completion: whether it passes, `None` where no part judges it, and what was said of it.
    fn judge(
        &mut self,
        check: Check,
        row: usize,
        completion: String,
    ) -> Result<(Option<bool>, Failure), VerifierError> {
        let example = &self.rows[row].0;
        let start = Instant::now();
        // No answer of a row has called a tool: where the row says what is right, its word stands for the tool's.
        let earned = self.references[row].as_ref().and_then(|_| self.rubric.wanted_reward());
        let submission = Submission { rewards: earned.as_slice(), ..Submission::new(example, &completion) };
        let score = self.rubric.score_batch(&[submission])?.remove(0);
        self.time(check, &example.id, start.elapsed());
        let said = self.rubric.names().into_iter().zip(&score.parts);
        let mut reason = said.map(|(name, part)| format!("{name}: {}", part.reason)).collect::<Vec<_>>().join("; ");
        let failed = score.parts.iter().any(|part| part.outcome == Outcome::Error);
        let accepted = (failed || score.total.is_some()).then(|| self.rubric.accepts(example, &score));
        if accepted == Some(true) && check == Check::Echo {
            reason += &read_unmarked(&completion, &score).unwrap_or_default();
        }
        Ok((accepted, Failure { id: example.id.clone(), completion, reason }))
    }

    fn time(&mut self, check: Check, id: &str, took: Duration) {
        if took.as_secs_f64() > self.audit.slowest.seconds {
            self.audit.slowest = Slowest { id: id.to_owned(), check, seconds: took.as_secs_f64() };
        }
    }

    fn note(&mut self, check: Check, failure: Option<Failure>) {
        let finding = &mut self.audit.findings[check as usize];
        finding.rows += 1;
        finding.failed += usize::from(failure.is_some());
        finding.first = finding.first.take().or(failure);
    }
}
