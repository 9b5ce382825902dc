//! Finds the program in a completion: the last fenced code block after the thoughts.

/// The text of the last block that carries one of `labels`, or else of the last one without a label. Fences are those
/// of CommonMark: three or more backticks or tildes that begin a line, closed by a line of at least as many.
pub(super) fn program<'a>(text: &'a str, labels: &[String]) -> Result<&'a str, &'static str> {
    let (mut labelled, mut bare) = (None, None);
    let mut open: Option<(Fence, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        open = match (open, Fence::parse(line)) {
            (Some((fence, start)), Some(close)) if close.closes(&fence) => {
                let code = &text[start..at];
                if fence.label.is_empty() {
                    bare = Some(code);
                } else if labels.iter().any(|known| known.eq_ignore_ascii_case(fence.label)) {
                    labelled = Some(code);
                }
                None
            }
            (None, Some(fence)) => Some((fence, next)),
            (open, _) => open,
        };
        at = next;
    }
    if open.is_some() {
        return Err("a code block is not closed");
    }
    let code = labelled.or(bare).ok_or("there is no code block with a program")?;
    if code.trim().is_empty() { Err("the code block is empty") } else { Ok(code) }
}

/// A line of backticks or tildes.
struct Fence<'a> {
    mark: char,
    length: usize,
    /// The first word behind them: the language.
    label: &'a str,
    /// All that is behind them.
    info: &'a str,
}

impl<'a> Fence<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let text = line.trim();
        let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = text.trim_start_matches(mark);
        let length = text.len() - info.len();
        let info = info.trim();
        // Code between backticks within one line is no fence.
        let fence = length >= 3 && !(mark == '`' && info.contains('`'));
        let label = info.split_whitespace().next().unwrap_or("").trim_matches(['{', '}', '.']);
        fence.then_some(Self { mark, length, label, info })
    }

    fn closes(&self, open: &Fence) -> bool {
        self.mark == open.mark && self.length >= open.length && self.info.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_labelled_block_is_the_program() {
        let labels = ["python".to_owned(), "py".to_owned()];
        let check = |text: &str, expected: Result<&str, &str>| assert_eq!(program(text, &labels), expected, "{text:?}");
        check("```python\na\n```\ntext\n```py\nb\n```", Ok("b\n"));
        check("```python\na\n```\nprints\n```\n3\n```\n", Ok("a\n"));
        check("```\na\n```\n```text\nb\n```\n", Ok("a\n"));
        check("```Python title=x\na\n```", Ok("a\n"));
        check("``` {.python}\na\n```", Ok("a\n"));
        check("  ~~~py\na\n```\n  ~~~", Ok("a\n```\n"));
        check("````py\n```\n````", Ok("```\n"));
        check("```py\r\na\r\n```\r\n", Ok("a\r\n"));
        check("```python\na\n```\n```python\nb", Err("a code block is not closed"));
        check("```rust\na\n```", Err("there is no code block with a program"));
        check("`a` and ```b```", Err("there is no code block with a program"));
        check("", Err("there is no code block with a program"));
        check("```python\n \n```", Err("the code block is empty"));
    }
}
