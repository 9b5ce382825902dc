//! A run that goes on, in a terminal: where it stands, its curves, what it has just sampled, where a step's time goes.
//! Reads the run's folder and changes nothing. What is drawn is [`view`]'s.

pub mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::run::Run;
use crate::transcripts::{self, Group};

/// Time between two looks at the folder.
const PAUSE: Duration = Duration::from_millis(500);

/// A look at a run.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its numbers.
    pub run: Run,
    /// Rollouts of the step just done.
    pub live: Vec<Group>,
    /// Seconds since its last record was written.
    pub age: Option<f64>,
}

impl Snapshot {
    /// Reads the run in `path`. While its rollouts are being written anew, those of `before` stand.
    pub fn read(path: &Path, before: Option<&Self>) -> Result<Self> {
        let mut run = Run::read(path)?;
        let live = transcripts::read(&path.join("live.jsonl"), &mut Vec::new()).unwrap_or_default();
        let live = if live.is_empty() { newest(path, &mut run) } else { live };
        let live = if live.is_empty() { before.map(|before| before.live.clone()).unwrap_or_default() } else { live };
        let written = std::fs::metadata(path.join("metrics.jsonl")).and_then(|found| found.modified()).ok();
        let age = written.and_then(|at| SystemTime::now().duration_since(at).ok()).map(|age| age.as_secs_f64());
        Ok(Self { run, live, age })
    }
}

/// The rollouts of the last step that kept some: of a run of an older build.
fn newest(path: &Path, run: &mut Run) -> Vec<Group> {
    let Some((_, file)) = transcripts::files(path).pop() else { return Vec::new() };
    transcripts::read(&file, &mut run.remarks).unwrap_or_default()
}

/// Shows the run in `path` until somebody leaves.
pub fn watch(path: &Path) -> Result<()> {
    let mut snapshot = Snapshot::read(path, None)?;
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let outcome = show(&mut terminal, path.to_owned(), &mut snapshot);
    ratatui::try_restore().context("cannot restore the terminal")?;
    outcome
}

fn show(terminal: &mut ratatui::DefaultTerminal, path: PathBuf, snapshot: &mut Snapshot) -> Result<()> {
    let mut scroll = 0;
    loop {
        terminal.draw(|frame| view::draw(frame, snapshot, scroll)).context("cannot draw")?;
        // Keys are answered at once; a wait for them is the pause between two looks.
        if event::poll(PAUSE).context("cannot read keys")? {
            if let Event::Key(key) = event::read().context("cannot read keys")? {
                match meaning(key) {
                    Some(Key::Leave) => return Ok(()),
                    Some(Key::Up) => scroll = scroll.saturating_sub(1),
                    Some(Key::Down) => scroll += 1,
                    None => {}
                }
            }
            continue;
        }
        *snapshot = Snapshot::read(&path, Some(snapshot))?;
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Leave,
    Up,
    Down,
}

fn meaning(key: KeyEvent) -> Option<Key> {
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Leave),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Leave),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_and_scroll() {
        let of = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        assert_eq!(of(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Leave));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Leave));
        assert_eq!(of(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(of(KeyCode::Down, KeyModifiers::NONE), Some(Key::Down));
    }
}
