//! The letter of a choice before what it stands for: `\textbf{(B)}\ 5`, `(B) 5`, `\text{B) 5}`.

use super::token;

/// Most choices, from A on.
const CHOICES: u8 = 8;

/// The letter and what follows it, in a cleaned answer; `None` where either is missing.
pub(crate) fn split(text: &str) -> Option<(char, &str)> {
    let text = text.trim();
    let command = text
        .strip_prefix('\\')
        .and_then(|name| name.split_once('{'))
        .filter(|(name, _)| token::is_text(name) || matches!(*name, "mathbf" | "mathsf" | "mathtt"));
    let inside = command.map_or(text, |(_, inside)| inside).trim_start();
    let letter = inside.strip_prefix('(').unwrap_or(inside);
    let label = letter.chars().next().filter(|c| (b'A'..b'A' + CHOICES).contains(&u8::try_from(*c).unwrap_or(0)))?;
    let rest = letter[1..].strip_prefix(')')?;
    let rest = match command {
        // The command holds the letter alone, or all of it.
        Some(_) => rest.trim_start().strip_prefix('}').or_else(|| rest.strip_suffix('}'))?,
        None => Some(rest).filter(|rest| rest.starts_with([' ', '~', '\\']))?,
    };
    // Another letter beside it is another answer.
    let names_another = (0..CHOICES).any(|at| rest.contains(&format!("({})", char::from(b'A' + at))));
    (!rest.trim().is_empty() && !names_another).then_some((label, rest))
}
