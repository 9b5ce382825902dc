use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use reckon_lab::watch::{Snapshot, view};

use crate::made_up::{ARMS, Size, run};

const SMALL: Size = Size { seeds: 1, steps: 30, groups: 2, group_size: 8, problems: 10 };

fn drawn(snapshot: &Snapshot, width: u16, height: u16, scroll: usize) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, snapshot, scroll)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let symbols: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    symbols.chunks(width).map(|row| row.concat() + "\n").collect()
}

fn snapshot() -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), ARMS[0], 1, SMALL);
    Snapshot::read(folder.path(), None).unwrap()
}

#[test]
fn a_terminal_shows_where_a_run_stands_its_curves_its_time_and_its_completions() {
    let screen = drawn(&snapshot(), 120, 40, 0);
    let shown = text(&screen);
    for expected in [
        "step 30/30",
        "reward 0.",
        "held-out accuracy",
        "tokens",
        "entropy",
        "forward, backward",
        "tok/s",
        "of 8 right",
        "<think>",
        "q leaves",
    ] {
        assert!(shown.contains(expected), "{expected}:\n{shown}");
    }
    let green = screen.content.iter().filter(|cell| cell.fg == Color::Green && cell.symbol() == "<").count();
    assert!(green > 0, "right completions are green:\n{shown}");
}

#[test]
fn a_small_terminal_shows_what_matters_first() {
    let snapshot = snapshot();
    let shown = text(&drawn(&snapshot, 80, 24, 0));
    assert!(shown.contains("step 30/30") && shown.contains("reward") && shown.contains("of 8 right"), "{shown}");
    let shown = text(&drawn(&snapshot, 30, 8, 0));
    assert!(shown.contains("step 30/30  reward 0."), "{shown}");
    // No size makes it fail.
    for width in 1..45 {
        for height in 1..30 {
            drawn(&snapshot, width, height, usize::from(width));
        }
    }
}

#[test]
fn completions_scroll_and_stop_at_the_last() {
    let snapshot = snapshot();
    let at = |scroll| text(&drawn(&snapshot, 80, 24, scroll));
    assert_ne!(at(0), at(2));
    assert_eq!(at(100), at(1000));
}

#[test]
fn a_run_that_has_only_begun_can_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "steps = 5\n").unwrap();
    let snapshot = Snapshot::read(folder.path(), None).unwrap();
    let shown = text(&drawn(&snapshot, 80, 24, 0));
    assert!(shown.contains("step 0/5") && shown.contains("no rollouts yet"), "{shown}");
}

#[test]
fn control_characters_of_a_completion_do_not_reach_the_terminal() {
    let mut snapshot = snapshot();
    snapshot.live[0].rollouts[0].completion = "a\u{1b}[31mb\nc\u{7}".into();
    let shown = text(&drawn(&snapshot, 100, 30, 0));
    assert!(shown.contains("a [31mb c ") && !shown.contains('\u{1b}'), "{shown}");
}
