//! Tells a person how far a long piece of work has come, on standard error.
//!
//! On a terminal: a bar that is redrawn in place. Anywhere else, such as a log file: plain lines, seldom enough to read.
//! Nothing here is a result; results go to standard output and to [`crate::metrics`].

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::output::note;
use crate::parallel::lock;

/// The least time between two plain lines, the first and the last apart.
const PAUSE: Duration = Duration::from_secs(2);

/// What matters first stands on a line that fits a terminal of 80 columns; the rest is cut where there is no room.
const TEMPLATE: &str = "{bar:10} {pos}/{len}  {eta} left  {prefix}\n{wide_msg}";

/// The progress of a known number of steps. May be shared between threads.
#[derive(Debug)]
pub struct Bar {
    label: &'static str,
    total: u64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Terminal(ProgressBar),
    /// When the last line was printed.
    Lines(Mutex<Option<Instant>>),
}

impl Bar {
    /// Progress over `total` steps of what `label` names, such as "train".
    pub fn new(total: u64, label: &'static str) -> Self {
        let terminal = stderr().is_terminal();
        let display = if terminal { Display::Terminal(bar(total, label)) } else { Display::Lines(Mutex::default()) };
        Self { label, total, display }
    }

    /// Says that `done` steps are done: in some 40 characters what matters, and then what else is worth knowing.
    pub fn tick(&self, done: u64, summary: &str, details: &str) {
        match &self.display {
            Display::Terminal(bar) => {
                bar.set_prefix(summary.to_owned());
                bar.set_message(details.to_owned());
                bar.set_position(done);
            }
            Display::Lines(last) => {
                let mut last = lock(last);
                let now = Instant::now();
                if done >= self.total || is_due(*last, now) {
                    *last = Some(now);
                    print(&plain(self.label, done, self.total, &format!("{summary}  {details}")));
                }
            }
        }
    }

    /// Prints a line that stays, above the bar.
    pub fn line(&self, text: &str) {
        match &self.display {
            Display::Terminal(bar) => bar.suspend(|| print(text)),
            Display::Lines(_) => print(text),
        }
    }

    /// Ends the display; the bar makes room for `text`.
    pub fn finish(self, text: &str) {
        if let Display::Terminal(bar) = &self.display {
            bar.finish_and_clear();
        }
        print(text);
    }
}

fn bar(total: u64, label: &str) -> ProgressBar {
    // The template is fixed, and the test below shows that it is valid.
    let style = ProgressStyle::with_template(&template(label)).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_finish(ProgressFinish::Abandon);
    // The clock goes on during a long step.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

fn template(label: &str) -> String {
    format!("{label} {TEMPLATE}")
}

fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= PAUSE)
}

fn plain(label: &str, done: u64, total: u64, message: &str) -> String {
    format!("{label} {done}/{total} {message}").trim_end().to_owned()
}

fn print(text: &str) {
    note!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_first_and_then_at_most_every_two_seconds() {
        let start = Instant::now();
        assert!(is_due(None, start));
        assert!(!is_due(Some(start), start + Duration::from_millis(1999)));
        assert!(is_due(Some(start), start + PAUSE));
    }

    #[test]
    fn a_plain_line_names_the_work_and_how_far_it_is() {
        assert_eq!(plain("train", 3, 10, "reward 0.50"), "train 3/10 reward 0.50");
        assert_eq!(plain("eval", 3, 10, ""), "eval 3/10");
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        let bar = bar(10, "train");
        bar.set_position(4);
        assert_eq!((bar.position(), bar.length()), (4, Some(10)));
        assert!(ProgressStyle::with_template(&template("train")).is_ok());
    }

    #[test]
    fn work_that_is_not_shown_on_a_terminal_can_be_driven_to_its_end() {
        let progress = Bar::new(3, "test");
        (0..=3).for_each(|done| progress.tick(done, "going on", "well"));
        progress.line("a note");
        progress.finish("done");
    }
}
