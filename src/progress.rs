//! Tells a person how far a long piece of work has come, on standard error.
//!
//! On a terminal: a bar that is redrawn in place. Anywhere else, such as a log file: plain lines, seldom enough to read.
//! Nothing here is a result; results go to standard output and to [`crate::metrics`].

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

use crate::output::note;
use crate::parallel::lock;

/// The least time between two plain lines, the first and the last apart.
const PAUSE: Duration = Duration::from_secs(2);

/// The same for one of several pieces of work at a time, which go on for longer.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// What matters first stands on a line that fits a terminal of 80 columns; the rest is cut where there is no room.
const TEMPLATE: &str = "{bar:10} {pos}/{len}  {eta} left  {prefix}\n{wide_msg}";

/// One of several.
const SHORT_TEMPLATE: &str = "{bar:10} {pos}/{len}  {eta} left  {prefix}";

/// The progress of a known number of steps. May be shared between threads.
#[derive(Debug)]
pub struct Bar {
    label: String,
    total: u64,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Terminal(ProgressBar),
    /// One line of several; what it says beside its progress is not shown.
    Among(ProgressBar),
    /// When the last line was printed, and how long the next one waits.
    Lines(Mutex<Option<Instant>>, Duration),
}

/// Several pieces of work at a time: on a terminal a line for each.
#[derive(Debug)]
pub struct Bars {
    terminal: Option<MultiProgress>,
}

impl Bars {
    /// Room for lines.
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A line below the others.
    pub fn bar(&self, total: u64, label: &str) -> Bar {
        let display = match &self.terminal {
            Some(lines) => Display::Among(lines.add(bar(total, &format!("{label:<20} {SHORT_TEMPLATE}")))),
            None => Display::Lines(Mutex::default(), LONG_PAUSE),
        };
        Bar { label: label.to_owned(), total, display }
    }

    /// Prints a line that stays, above the bars.
    pub fn line(&self, text: &str) {
        match &self.terminal {
            Some(lines) => lines.suspend(|| print(text)),
            None => print(text),
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Bar {
    /// Progress over `total` steps of what `label` names, such as "train".
    pub fn new(total: u64, label: &str) -> Self {
        let display = match stderr().is_terminal() {
            true => Display::Terminal(bar(total, &format!("{label} {TEMPLATE}"))),
            false => Display::Lines(Mutex::default(), PAUSE),
        };
        Self { label: label.to_owned(), total, display }
    }

    /// Shows nothing: another rank does.
    pub fn silent() -> Self {
        Self { label: String::new(), total: 0, display: Display::Among(ProgressBar::hidden()) }
    }

    /// Says that `done` steps are done: in some 40 characters what matters, and then what else is worth knowing.
    pub fn tick(&self, done: u64, summary: &str, details: &str) {
        match &self.display {
            Display::Terminal(bar) | Display::Among(bar) => {
                bar.set_prefix(summary.to_owned());
                bar.set_message(details.to_owned());
                bar.set_position(done);
            }
            Display::Lines(last, pause) => {
                let mut last = lock(last);
                let now = Instant::now();
                if done >= self.total || is_due(*last, now, *pause) {
                    *last = Some(now);
                    print(&plain(&self.label, done, self.total, &format!("{summary}  {details}")));
                }
            }
        }
    }

    /// Prints a line that stays, above the bar; one of several is silent on a terminal, and elsewhere says whose line it is.
    pub fn line(&self, text: &str) {
        match &self.display {
            Display::Terminal(bar) => bar.suspend(|| print(text)),
            Display::Among(_) => {}
            Display::Lines(_, pause) if *pause == LONG_PAUSE => print(&format!("{}: {text}", self.label)),
            Display::Lines(..) => print(text),
        }
    }

    /// Ends the display; the bar makes room for `text`.
    pub fn finish(self, text: &str) {
        match &self.display {
            Display::Terminal(bar) => bar.finish_and_clear(),
            Display::Among(bar) => return bar.abandon_with_message(text.to_owned()),
            Display::Lines(..) => {}
        }
        self.line(text);
    }
}

fn bar(total: u64, template: &str) -> ProgressBar {
    // The templates are fixed, and the test below shows that they are valid.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_finish(ProgressFinish::Abandon);
    // The clock goes on during a long step.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

fn is_due(last: Option<Instant>, now: Instant, pause: Duration) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= pause)
}

fn plain(label: &str, done: u64, total: u64, message: &str) -> String {
    format!("{label} {done}/{total} {message}").trim_end().to_owned()
}

/// Values as a line of at most `width` blocks, lowest to highest; each block is the mean of its share of the values.
pub fn curve(values: &[f64], width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let count = width.min(values.len());
    let mean = |column: usize| {
        let share = &values[column * values.len() / count..(column + 1) * values.len() / count];
        share.iter().sum::<f64>() / share.len() as f64
    };
    let means: Vec<f64> = (0..count).map(mean).collect();
    let (low, high) =
        means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &m| (low.min(m), high.max(m)));
    let block = |mean: &f64| {
        let height = if high > low { (mean - low) / (high - low) } else { 0.0 };
        BLOCKS[((height * 8.0) as usize).min(7)]
    };
    means.iter().map(block).collect()
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
        assert!(is_due(None, start, PAUSE));
        assert!(!is_due(Some(start), start + Duration::from_millis(1999), PAUSE));
        assert!(is_due(Some(start), start + PAUSE, PAUSE));
    }

    #[test]
    fn a_plain_line_names_the_work_and_how_far_it_is() {
        assert_eq!(plain("train", 3, 10, "reward 0.50"), "train 3/10 reward 0.50");
        assert_eq!(plain("eval", 3, 10, ""), "eval 3/10");
    }

    #[test]
    fn a_curve_goes_from_its_lowest_to_its_highest_block() {
        for (values, width, expected) in [
            (vec![8.0, 6.0, 4.0, 1.0], 9, "█▆▄▁"),
            (vec![0.0, 2.0, 6.0, 8.0], 2, "▁█"),
            (vec![3.0, 3.0], 5, "▁▁"),
            (vec![f64::NAN, 1.0, 2.0], 3, "▁▁█"),
            (vec![], 5, ""),
        ] {
            assert_eq!(curve(&values, width), expected, "{values:?}");
        }
    }

    #[test]
    fn the_templates_of_bars_are_valid() {
        let bar = bar(10, TEMPLATE);
        bar.set_position(4);
        assert_eq!((bar.position(), bar.length()), (4, Some(10)));
        for template in [TEMPLATE, SHORT_TEMPLATE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn work_that_is_not_shown_on_a_terminal_can_be_driven_to_its_end() {
        let progress = Bar::new(3, "test");
        (0..=3).for_each(|done| progress.tick(done, "going on", "well"));
        progress.line("a note");
        progress.finish("done");
    }
}
