use reckon_lab::arms::Study;
use reckon_lab::report::{Options, Report};
use reckon_lab::summary::Summary;
use reckon_lab::{charts, csv, svg};

use crate::made_up::{Size, experiment};

const SMALL: Size = Size { seeds: 3, steps: 40, groups: 3, group_size: 4, problems: 100 };

fn study() -> (tempfile::TempDir, Study) {
    let folder = tempfile::tempdir().unwrap();
    experiment(folder.path(), SMALL);
    let study = Study::read(&[folder.path().display().to_string()]).unwrap();
    (folder, study)
}

#[test]
fn the_summary_shows_differences_where_there_are_some_and_says_where_there_are_none() {
    let (_folder, study) = study();
    let names: Vec<&str> = study.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(names, ["coin-flip", "direct", "dots", "primed", "wrong-only"]);
    let summary = Summary::of(&study);
    let primed = summary.arms[3].accuracy.as_ref().unwrap();
    let (gain, interval) = primed.gain.unwrap();
    assert!(gain > 0.4 && interval.low > 0.3 && interval.high < 0.8, "{gain} {interval:?}");
    assert!(primed.tests.len() == 3 && primed.tests.iter().all(|(_, test)| test.p < 1e-6 && test.problems == 100));
    let text = summary.to_string();
    assert!(text.contains("primed: seeds 1, 2, 3, 40 steps"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    // Against the coin flip everything differs; dots and direct answers do not differ from each other.
    assert!(summary.between.iter().all(|found| found.with == "coin-flip" && found.interval.low > 0.0), "{text}");
    let two = ["direct", "dots"].map(|arm| _folder.path().join(arm).display().to_string());
    let text = Summary::of(&Study::read(&two).unwrap()).to_string();
    assert!(text.contains("dots less direct") && text.contains("no difference shown"), "{text}");
}

#[test]
fn a_page_holds_all_that_it_needs_and_cannot_be_broken_out_of() {
    let (folder, _) = study();
    let rollouts = folder.path().join("primed/seed-1/rollouts/step-000001.jsonl");
    let text = std::fs::read_to_string(&rollouts).unwrap();
    std::fs::write(&rollouts, text.replace("<think>", "</script><script>alert(1)</script><!--DATA-->")).unwrap();
    let mut study = Study::read(&[folder.path().display().to_string()]).unwrap();
    let report =
        Report::of(&mut study, &Options { meaning: &|name| Some(format!("what {name} is")), live: false }).unwrap();
    let page = report.page();
    // One script of the page and its data: 15 runs with rollouts and problems each, and what all have.
    assert_eq!(page.matches("</script>").count(), 1 + 15 * 2 + 1);
    for address in ["src=", "href=\"http", "url(", "@import", "//cdn"] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("what reward/mean is") && page.contains("default-src 'none'"));
}

#[test]
fn every_metric_is_in_some_chart_and_every_chart_is_a_picture() {
    let (_folder, mut study) = study();
    Report::of(&mut study, &Options { meaning: &|_| None, live: false }).unwrap();
    let charts = charts::of(&study);
    let ids: Vec<&str> = charts.iter().map(|chart| chart.id.as_str()).collect();
    for id in
        ["accuracy", "reward", "length-by-verdict", "behaviours", "words", "reward-against-length", "entropy", "time"]
    {
        assert!(ids.iter().any(|found| found.starts_with(id)), "{id} in {ids:?}");
    }
    for run in &study.runs {
        for name in run.series.keys() {
            assert!(charts.iter().any(|chart| chart.left.contains(name) || chart.right.contains(name)), "{name}");
        }
    }
    for chart in &charts {
        let picture = svg::draw(&study, chart);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{}", chart.id);
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{}", chart.id);
    }
    let accuracy = svg::draw(&study, &charts[0]);
    assert_eq!(accuracy.matches("opacity=\"0.18\"").count(), 5, "a band for each arm's seeds");
}

#[test]
fn a_table_has_a_row_for_each_step_of_each_run() {
    let (_folder, study) = study();
    let text = csv::table(&study);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 15 * 41);
    assert!(lines[0].starts_with("arm,run,seed,step,") && lines[0].contains(",reward/mean,"));
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns));
    assert!(lines[1].starts_with("coin-flip,seed-1,1,0,"));
}
