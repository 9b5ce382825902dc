//! What [`super::watch`] draws, for any size of terminal: what there is no room for is left out, the least important first.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph};

use super::Snapshot;
use crate::run::Run;
use crate::transcripts::{Rollout, Verdict};

/// Curves in the order of their importance: name, title, colour.
const CURVES: [(&str, &str, Color); 4] = [
    ("reward/mean", "reward", Color::Cyan),
    ("eval/pass@1", "held-out accuracy", Color::Green),
    ("completion/len_mean", "tokens", Color::Yellow),
    ("policy/entropy", "entropy", Color::Magenta),
];
/// Parts of a step's time.
const TIMES: [(&str, &str); 4] = [
    ("time/sample_s", "sample"),
    ("time/verify_s", "verify"),
    ("time/forward_backward_s", "forward, backward"),
    ("time/update_s", "update"),
];
/// The least room of a curve, in cells.
const CURVE: (u16, u16) = (28, 7);
/// A run without a record for so many seconds, and for several steps, may have ended.
const SILENT: f64 = 60.0;

/// Draws a run; `scroll` completions are passed over.
pub fn draw(frame: &mut Frame, snapshot: &Snapshot, scroll: usize) {
    let area = frame.area();
    let [head, gauge, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::from(area.height >= 6)),
        Constraint::Min(0),
        Constraint::Length(u16::from(area.height >= 10)),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(headline(snapshot)), head);
    draw_gauge(frame, &snapshot.run, gauge);
    let help = "q leaves   up and down scroll the completions";
    frame.render_widget(Paragraph::new(help).style(Style::new().fg(Color::DarkGray)), foot);
    let curves_height = if rest.height < CURVE.1 * 2 { 0 } else { (rest.height * 3 / 5).max(CURVE.1) };
    let [curves, below] = Layout::vertical([Constraint::Length(curves_height), Constraint::Min(0)]).areas(rest);
    draw_curves(frame, &snapshot.run, curves);
    let times_width = if below.width >= 70 { 34 } else { 0 };
    let [times, texts] = Layout::horizontal([Constraint::Length(times_width), Constraint::Min(0)]).areas(below);
    draw_times(frame, &snapshot.run, times);
    draw_texts(frame, snapshot, texts, scroll);
}

/// Where the run stands, the most important first: a narrow terminal cuts the end.
fn headline(snapshot: &Snapshot) -> Line<'static> {
    let run = &snapshot.run;
    let step = run.steps.last().copied().unwrap_or(0);
    let asked = run.steps_asked();
    let mut text = format!("step {step}{}", asked.map_or(String::new(), |asked| format!("/{asked}")));
    for (metric, label) in [("reward/mean", "reward"), ("eval/pass@1", "held-out"), ("completion/len_mean", "tokens")] {
        if let Some((_, value)) = run.points(metric).next_back() {
            text += &format!("  {label} {}", number(value));
        }
    }
    let left = asked.and_then(|asked| time_left(run, asked.saturating_sub(step)));
    text += &left.map_or(String::new(), |seconds| format!("  {} left", clock(seconds)));
    let usual = pace(run).unwrap_or(0.0);
    let over = asked.is_some_and(|asked| step >= asked);
    let silent = snapshot.age.filter(|age| !over && *age > SILENT.max(5.0 * usual));
    let warning = silent.map_or(String::new(), |age| format!("  no record for {}: has it ended?", clock(age)));
    let name = Span::styled(format!("{}  ", run.folder_name()), Style::new().add_modifier(Modifier::BOLD));
    Line::from(vec![Span::raw(text + "  "), name, Span::styled(warning, Style::new().fg(Color::Red))])
}

fn draw_gauge(frame: &mut Frame, run: &Run, area: Rect) {
    let (Some(&step), Some(asked)) = (run.steps.last(), run.steps_asked()) else { return };
    let share = (step as f64 / asked.max(1) as f64).clamp(0.0, 1.0);
    if !area.is_empty() {
        let style = Style::new().fg(Color::Blue).bg(Color::DarkGray);
        frame.render_widget(Gauge::default().ratio(share).gauge_style(style), area);
    }
}

/// As many curves as have room, in one row or two.
fn draw_curves(frame: &mut Frame, run: &Run, area: Rect) {
    let drawn: Vec<_> = CURVES.iter().filter(|(metric, ..)| run.points(metric).next().is_some()).collect();
    let columns = usize::from(area.width / CURVE.0).min(drawn.len());
    if columns == 0 || area.height < CURVE.1 {
        return;
    }
    let rows = usize::from(area.height / CURVE.1).min(drawn.len().div_ceil(columns)).max(1);
    let bands = Layout::vertical(vec![Constraint::Fill(1); rows]).split(area);
    let mut curves = drawn.into_iter();
    for band in bands.iter() {
        for place in Layout::horizontal(vec![Constraint::Fill(1); columns]).split(*band).iter() {
            if let Some((metric, title, colour)) = curves.next() {
                draw_curve(frame, run, metric, title, *colour, *place);
            }
        }
    }
}

fn draw_curve(frame: &mut Frame, run: &Run, metric: &str, title: &str, colour: Color, area: Rect) {
    let points: Vec<(f64, f64)> = run.points(metric).map(|(step, value)| (step as f64, value)).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low < high { [low, high] } else { [low - 0.5, high + 0.5] }
    };
    let (x, y) = (bounds(&mut points.iter().map(|p| p.0)), bounds(&mut points.iter().map(|p| p.1)));
    let line = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).data(&points);
    let faint = Style::new().fg(Color::DarkGray);
    let label = |value: f64| Span::raw(number(value));
    let chart = Chart::new(vec![line.style(Style::new().fg(colour))])
        .block(Block::bordered().title(format!(" {title} {} ", number(last.1))).border_style(faint))
        .x_axis(Axis::default().bounds(x).style(faint).labels([label(first.0), label(last.0)]))
        .y_axis(Axis::default().bounds(y).style(faint).labels([label(y[0]), label(y[1])]));
    frame.render_widget(chart, area);
}

/// Shares of the last step's time, as bars.
fn draw_times(frame: &mut Frame, run: &Run, area: Rect) {
    if area.height < 3 || area.width < 20 {
        return;
    }
    let last = |metric: &str| run.points(metric).next_back().map_or(0.0, |(_, value)| value);
    let whole = last("time/step_s");
    let room = usize::from(area.width).saturating_sub(28);
    let bar = |(metric, name): &(&str, &str)| {
        let seconds = last(metric);
        let share = if whole > 0.0 { (seconds / whole).clamp(0.0, 1.0) } else { 0.0 };
        let full = (share * room as f64).round() as usize;
        Line::from(vec![
            Span::raw(format!("{name:<17} {seconds:>6.2}s ")),
            Span::styled("█".repeat(full), Style::new().fg(Color::Blue)),
        ])
    };
    let mut lines: Vec<Line> = TIMES.iter().map(bar).collect();
    let speed = |metric: &str, name: &str| Line::raw(format!("{name:<17} {:>6.0} tok/s", last(metric)));
    lines.push(speed("speed/sample_tokens_per_s", "sampling"));
    lines.push(speed("speed/update_tokens_per_s", "update"));
    let title = format!(" a step: {whole:.2}s ");
    let block = Block::bordered().title(title).border_style(Style::new().fg(Color::DarkGray));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The completions of the step just done, each on a line, in the colour of its verdict.
fn draw_texts(frame: &mut Frame, snapshot: &Snapshot, area: Rect, scroll: usize) {
    if area.height < 3 {
        return;
    }
    let rollouts: Vec<&Rollout> = snapshot.live.iter().flat_map(|group| &group.rollouts).collect();
    let right = rollouts.iter().filter(|rollout| rollout.verdict() == Verdict::Right).count();
    let question = snapshot.live.first().map_or("", |group| group.example.question.as_str());
    let title = match rollouts.len() {
        0 => " no rollouts yet ".to_owned(),
        count => format!(" {right} of {count} right: {} ", one_line(question)),
    };
    let most = rollouts.len().saturating_sub(usize::from(area.height) - 2);
    let lines = rollouts.iter().skip(scroll.min(most)).map(|rollout| {
        let colour = match rollout.verdict() {
            Verdict::Right => Color::Green,
            Verdict::Wrong => Color::Red,
            Verdict::Truncated => Color::Yellow,
            Verdict::Unjudged => Color::DarkGray,
        };
        Line::styled(one_line(&rollout.completion), Style::new().fg(colour))
    });
    let block = Block::bordered().title(title).border_style(Style::new().fg(Color::DarkGray));
    frame.render_widget(Paragraph::new(Text::from_iter(lines)).block(block), area);
}

/// A text without its line ends and without what a terminal would obey.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}

/// The mean time of the last steps, in seconds, their evaluations left out.
fn pace(run: &Run) -> Option<f64> {
    let last: Vec<f64> = run.points("time/step_s").rev().take(20).map(|(_, seconds)| seconds).collect();
    (!last.is_empty()).then(|| crate::stats::mean(&last))
}

fn time_left(run: &Run, steps: u64) -> Option<f64> {
    pace(run).filter(|_| steps > 0).map(|pace| pace * steps as f64)
}

/// `2:05`, or `1:02:05`.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        whole if whole.fract() == 0.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
