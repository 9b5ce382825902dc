//! The summary as lines of plain text, at most 100 columns wide, for a terminal or a README.

use std::fmt::{self, Display, Formatter};

use super::{ALPHA, Accuracy, ArmSummary, Between, Summary};
use crate::stats::{Band, Interval, Paired};

/// Columns of a figure's name.
const NAME: usize = 30;

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, arm) in self.arms.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{arm}")?;
        }
        if !self.between.is_empty() {
            writeln!(
                f,
                "\nheld-out accuracy at the end, on the same problems (95% intervals over seeds and problems)"
            )?;
            self.between.iter().try_for_each(|between| write!(f, "{between}"))?;
        }
        if !self.remarks.is_empty() {
            writeln!(f)?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "note: {remark}"))
    }
}

impl Display for ArmSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seeds: Vec<String> = self.seeds.iter().map(i64::to_string).collect();
        let word = if seeds.len() == 1 { "seed" } else { "seeds" };
        writeln!(f, "{}: {word} {}, {}", self.name, seeds.join(", "), self.steps())?;
        writeln!(f, "  {:<NAME$}{:>10}{:>10}", "", "before", "after")?;
        if let Some(accuracy) = &self.accuracy {
            write!(f, "{accuracy}")?;
        }
        for (name, before, after) in &self.changes {
            writeln!(f, "  {name:<NAME$}{:>10}{:>10}{}", short(before.mean), short(after.mean), seeds_of(after))?;
        }
        Ok(())
    }
}

impl ArmSummary {
    fn steps(&self) -> String {
        let (done, asked): (Vec<u64>, Vec<Option<u64>>) = self.steps.iter().copied().unzip();
        let least = done.iter().min().copied().unwrap_or(0);
        let most = done.iter().max().copied().unwrap_or(0);
        let done = if least == most { least.to_string() } else { format!("{least} to {most}") };
        match asked.first().copied().flatten() {
            Some(asked) if asked != least => format!("{done} of {asked} steps"),
            _ => format!("{done} steps"),
        }
    }
}

impl Display for Accuracy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ((before, _), (after, interval)) = (self.before, self.after);
        writeln!(f, "  {:<NAME$}{before:>10.3}{after:>10.3}  {}", "held-out accuracy", span(interval))?;
        if let Some((gain, interval)) = self.gain {
            let verdict = if interval.holds(0.0) { ": no difference shown" } else { "" };
            let over = if self.tests.len() > 1 { "seeds and problems" } else { "problems" };
            let on = format!("{} {over}", if self.tests.len() > 1 { "over" } else { "over the" });
            let count = self.problems;
            writeln!(f, "  {:<NAME$}{:>20}  {} {on} ({count}){verdict}", "  gained", signed(gain), span(interval))?;
        }
        for (seed, test) in &self.tests {
            writeln!(f, "    seed {seed}: {}", of_test(test))?;
        }
        for (k, before, after) in &self.pass_at {
            writeln!(f, "  {:<NAME$}{before:>10.3}{after:>10.3}", format!("  pass@{k} of {}", self.samples))?;
        }
        Ok(())
    }
}

impl Display for Between {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = format!("{} less {}", self.arm, self.with);
        let verdict = |interval: &Interval| if interval.holds(0.0) { ": no difference shown" } else { "" };
        let (interval, difference) = (self.interval, signed(self.difference));
        writeln!(f, "  {name:<NAME$} {difference:>8} {}{}", span(interval), verdict(&interval))?;
        if let Some((gain, interval)) = self.gain {
            writeln!(
                f,
                "  {:<NAME$} {:>8} {}{}",
                "  what each gained",
                signed(gain),
                span(interval),
                verdict(&interval)
            )?;
        }
        Ok(())
    }
}

fn of_test(test: &Paired) -> String {
    let Paired { problems, only_first, only_second, p } = *test;
    let p_text = if p < 1e-4 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") };
    let verdict = if p < ALPHA { "" } else { ": no difference shown" };
    format!("{only_second} won and {only_first} lost of {problems} (McNemar exact, {p_text}){verdict}")
}

fn seeds_of(band: &Band) -> String {
    let several = band.interval.is_some();
    if several { format!("  {} to {} over the seeds", short(band.min), short(band.max)) } else { String::new() }
}

fn span(interval: Interval) -> String {
    format!("[{:.3}, {:.3}]", interval.low, interval.high)
}

fn signed(value: f64) -> String {
    format!("{value:+.3}")
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        usual if usual >= 0.001 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}
