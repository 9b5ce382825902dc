//! Charts as SVG files for papers: curves with the bands of their seeds, one file each, in plain shapes and texts that any
//! program draws and edits.

use std::fmt::Write;

use crate::arms::{Arm, Study};
use crate::charts::{Chart, Kind};
use crate::stats::{Band, band};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
/// Room beside the axes: left, right, above, below.
const MARGINS: [f64; 4] = [62.0, 62.0, 40.0, 44.0];
/// Colours that are told apart without seeing all of them (Okabe and Ito 2008).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5cc7", "#6b6b6b"];
/// Of the first, second, third metric of an arm.
const DASHES: [&str; 4] = ["", "6 4", "2 3", "9 3 2 3"];

/// A line of a chart: an arm's metric with a band at each step.
struct Line {
    label: String,
    colour: &'static str,
    dash: &'static str,
    is_right: bool,
    points: Vec<(f64, Band)>,
}

/// A linear map from a range of values to a range of the picture.
#[derive(Clone, Copy)]
struct Scale {
    from: [f64; 2],
    to: [f64; 2],
}

/// The chart as a file.
pub fn draw(study: &Study, chart: &Chart) -> String {
    let lines = match chart.kind {
        Kind::Curves => curves(study, chart),
        Kind::Path => paths(study, chart),
    };
    let x = Scale::of(lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)), [left(), WIDTH - right()]);
    let y = |is_right: bool| {
        let of_axis = lines.iter().filter(|line| line.is_right == is_right);
        Scale::of(
            of_axis.flat_map(|line| line.points.iter().flat_map(|(_, b)| [b.min, b.max])),
            [HEIGHT - below(), above()],
        )
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n<rect width=\"100%\" \
         height=\"100%\" fill=\"#fff\"/>\n<text x=\"{}\" y=\"16\" font-size=\"13\" font-weight=\"bold\">{}</text>\n",
        left(),
        escaped(&chart.title)
    );
    let names = match chart.kind {
        Kind::Curves => ["step".to_owned(), chart.left.join(", "), chart.right.join(", ")],
        Kind::Path => [chart.left.join(", "), chart.right.join(", "), String::new()],
    };
    axes(&mut svg, x, [y(false), y(true)], lines.iter().any(|line| line.is_right), &names);
    lines.iter().for_each(|line| draw_line(&mut svg, line, x, y(line.is_right), chart.kind));
    legend(&mut svg, &lines);
    svg + "</svg>\n"
}

fn left() -> f64 {
    MARGINS[0]
}
fn right() -> f64 {
    MARGINS[1]
}
fn above() -> f64 {
    MARGINS[2]
}
fn below() -> f64 {
    MARGINS[3]
}

fn curves(study: &Study, chart: &Chart) -> Vec<Line> {
    let metrics: Vec<(&String, bool)> =
        chart.left.iter().map(|name| (name, false)).chain(chart.right.iter().map(|name| (name, true))).collect();
    let single = metrics.len() - chart.right.len() == 1;
    let mut lines = Vec::new();
    for (at, arm) in study.arms.iter().enumerate() {
        for (which, (metric, is_right)) in metrics.iter().enumerate() {
            // One arm is told apart by its metrics, several by their colour.
            let one = study.arms.len() == 1;
            let colour = COLOURS[if one { which } else { at } % COLOURS.len()];
            let dash = if one && !is_right { "" } else { DASHES[which % DASHES.len()] };
            let label = match (one, single && !is_right) {
                (true, _) => (*metric).clone(),
                (false, true) => arm.name.clone(),
                (false, false) => format!("{} {metric}", arm.name),
            };
            lines.push(Line { label, colour, dash, is_right: *is_right, points: bands(study, arm, metric) });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}

/// Of each step that a seed has a value for, the band over the seeds.
fn bands(study: &Study, arm: &Arm, metric: &str) -> Vec<(f64, Band)> {
    let mut points: Vec<(u64, f64)> = study.of(arm).flat_map(|run| run.points(metric)).collect();
    points.sort_by_key(|point| point.0);
    let steps = points.chunk_by(|a, b| a.0 == b.0);
    steps
        .filter_map(|points| {
            let values: Vec<f64> = points.iter().map(|point| point.1).collect();
            Some((points[0].0 as f64, band(&values)?))
        })
        .collect()
}

/// The way of each arm's mean through two metrics, each a mean over ten steps.
fn paths(study: &Study, chart: &Chart) -> Vec<Line> {
    let way = |(at, arm): (usize, &Arm)| {
        let (x, y) = (bands(study, arm, &chart.left[0]), bands(study, arm, &chart.right[0]));
        let both: Vec<(f64, f64)> = x
            .iter()
            .filter_map(|(step, x)| Some((x.mean, y.iter().find(|(other, _)| other == step)?.1.mean)))
            .collect();
        let points = both.chunks(10).filter_map(|points| {
            let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
            Some((crate::stats::mean(&xs), band(&[crate::stats::mean(&ys)])?))
        });
        let colour = COLOURS[at % COLOURS.len()];
        Line { label: arm.name.clone(), colour, dash: "", is_right: false, points: points.collect() }
    };
    study.arms.iter().enumerate().map(way).filter(|line| !line.points.is_empty()).collect()
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, to: [f64; 2]) -> Self {
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // What is never negative is drawn from 0, unless that would press it flat.
        if low > 0.0 && low < 0.5 * high {
            low = 0.0;
        }
        if low == high {
            (low, high) = (low - 0.5, high + 0.5);
        }
        Self { from: [low, high], to }
    }

    fn at(&self, value: f64) -> f64 {
        self.to[0] + (value - self.from[0]) / (self.from[1] - self.from[0]) * (self.to[1] - self.to[0])
    }

    /// Round values within the range, some five of them.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.from[1] - self.from[0]) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let (first, last) = ((self.from[0] / step).ceil() as i64, (self.from[1] / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

fn axes(svg: &mut String, x: Scale, y: [Scale; 2], has_right: bool, names: &[String; 3]) {
    let (bottom, end) = (HEIGHT - below(), WIDTH - right());
    for value in x.ticks() {
        let at = x.at(value);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 15.0,
            short(value)
        );
    }
    for value in y[0].ticks() {
        let at = y[0].at(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {at:.1}H{end:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            left(),
            left() - 5.0,
            at + 4.0,
            short(value)
        );
    }
    for value in y[1].ticks().into_iter().filter(|_| has_right) {
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", end + 5.0, y[1].at(value) + 4.0, short(value));
    }
    let _ =
        writeln!(svg, "<path d=\"M{:.1} {:.1}V{bottom:.1}H{end:.1}\" fill=\"none\" stroke=\"#222\"/>", left(), above());
    axis_names(svg, names);
}

/// The names below, on the left and on the right.
fn axis_names(svg: &mut String, names: &[String; 3]) {
    let middle = f64::midpoint(above(), HEIGHT - below());
    let turned = |x: f64, name: &str| {
        format!(
            "<text transform=\"translate({x:.1} {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            escaped(name)
        )
    };
    let across = f64::midpoint(left(), WIDTH - right());
    let _ = writeln!(
        svg,
        "<text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 10.0,
        escaped(&names[0])
    );
    *svg += &turned(14.0, &clipped(&names[1]));
    *svg += &turned(WIDTH - 6.0, &clipped(&names[2]));
}

fn draw_line(svg: &mut String, line: &Line, x: Scale, y: Scale, kind: Kind) {
    let way = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        points.map(|(at, value)| format!("{:.1} {:.1}", x.at(at), y.at(value))).collect::<Vec<_>>().join("L")
    };
    let colour = line.colour;
    if line.points.iter().any(|(_, band)| band.min < band.max) {
        let upper = way(&mut line.points.iter().map(|(at, band)| (*at, band.max)));
        let lower = way(&mut line.points.iter().rev().map(|(at, band)| (*at, band.min)));
        let _ = writeln!(svg, "<path d=\"M{upper}L{lower}Z\" fill=\"{colour}\" opacity=\"0.18\"/>");
    }
    let mean = way(&mut line.points.iter().map(|(at, band)| (*at, band.mean)));
    let dash = if line.dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", line.dash) };
    let _ = writeln!(svg, "<path d=\"M{mean}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}/>");
    if let (Kind::Path, Some(first), Some(last)) = (kind, line.points.first(), line.points.last()) {
        let dot = |(at, band): &(f64, Band), fill: &str| {
            let (cx, cy) = (x.at(*at), y.at(band.mean));
            format!("<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"/>\n")
        };
        *svg += &dot(first, "#fff");
        *svg += &dot(last, colour);
    }
}

/// One entry for each line, in a row under the title; those that would leave the picture go into the next row.
fn legend(svg: &mut String, lines: &[Line]) {
    let (mut at, mut row) = (left(), 0.0);
    for line in lines {
        let width = 30.0 + 6.0 * line.label.chars().count() as f64;
        if at + width > WIDTH - 10.0 && at > left() {
            (at, row) = (left(), row + 12.0);
        }
        let y = 28.0 + row;
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {:.1}h16\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/><text x=\"{:.1}\" \
             y=\"{:.1}\" font-size=\"10\">{}</text>",
            y - 3.0,
            line.colour,
            if line.dash.is_empty() { "none" } else { line.dash },
            at + 20.0,
            y,
            escaped(&line.label)
        );
        at += width;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// As much of a name as stands beside an axis.
fn clipped(name: &str) -> String {
    if name.chars().count() <= 44 { name.to_owned() } else { name.chars().take(43).chain(['…']).collect() }
}

/// A tick's value without the noise of its sum.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" || text.is_empty() { "0".to_owned() } else { text.to_owned() }
}
