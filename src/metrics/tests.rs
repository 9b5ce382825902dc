//! Records through files, and the table through documents.

use super::*;

fn record(step: u64, values: &[(&str, f64)]) -> Record {
    let mut record = Record::new(step);
    values.iter().for_each(|(name, value)| record.set(*name, *value));
    record
}

fn file_with(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_record_is_a_flat_object_with_the_step_first() {
    let text = |value: f64| serde_json::to_string(&record(3, &[("reward/mean", value), ("optim/lr", 1e-6)])).unwrap();
    assert_eq!(text(0.5), r#"{"step":3,"optim/lr":1e-6,"reward/mean":0.5}"#);
    assert_eq!(text(f64::NAN), r#"{"step":3,"optim/lr":1e-6,"reward/mean":null}"#);
    assert_eq!(text(f64::INFINITY), text(f64::NAN));
    assert_eq!(text(-0.0), text(0.0));
    assert_eq!(text(2.0), r#"{"step":3,"optim/lr":1e-6,"reward/mean":2.0}"#);
}

#[test]
fn a_record_survives_the_file() {
    let (_folder, path) = file_with(b"");
    let records = [record(1, &[("reward/mean", 0.1), ("time/step_s", 3.0)]), record(2, &[("eval/pass@1", 1.0 / 3.0)])];
    let mut file = MetricsFile::open(&path, 0).unwrap();
    records.iter().for_each(|record| file.append(record).unwrap());
    file.sync().unwrap();
    assert_eq!(read(&path).unwrap(), records);
}

#[test]
fn resuming_drops_later_steps_and_a_torn_line_and_keeps_the_rest_untouched() {
    let head = "{\"step\":0,\"eval/pass@1\":0.10}\n{\"step\":1,  \"a\":null}\n{\"step\":2,\"a\":1}\n";
    let check = |tail: &[u8], resume: u64, lines: usize| {
        let (_folder, path) = file_with(&[head.as_bytes(), tail].concat());
        MetricsFile::open(&path, resume).unwrap().append(&record(9, &[("loss/total", 2.0)])).unwrap();
        let kept: String = head.lines().take(lines).map(|line| format!("{line}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), kept + "{\"step\":9,\"loss/total\":2.0}\n", "for {tail:?}");
    };
    check(b"", 2, 3);
    check(b"", 0, 1);
    check(b"{\"step\":3,\"a\":1}\n{\"step\":4,\"a\":1}\n", 2, 3);
    check(b"{\"step\":3,\"a", 5, 3);
    check(b"{\"ste", 1, 2);
    check(b"{\"step\":3,\"\xe2\x88", 2, 3);
    check(b"{\"step\":3,\"a\":1}", 2, 3);
}

#[test]
fn a_last_line_that_lacks_only_its_end_is_kept() {
    let (_folder, path) = file_with(b"{\"step\":1}\n{\"step\":2}");
    MetricsFile::open(&path, 2).unwrap().append(&record(3, &[])).unwrap();
    assert_eq!(read(&path).unwrap().len(), 3);
}

#[test]
fn a_broken_line_in_the_middle_is_an_error_that_names_it() {
    let (_folder, path) = file_with(b"{\"step\":1}\n{\"st\n{\"step\":3}\n");
    for error in [read(&path).unwrap_err(), MetricsFile::open(&path, 9).unwrap_err()] {
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}

#[test]
fn timings_are_left_out_of_what_equal_runs_agree_on() {
    let full = record(1, &[("time/step_s", 1.0), ("speed/sample_tokens_per_s", 2.0), ("loss/total", 3.0)]);
    assert_eq!(full.without_timings(), record(1, &[("loss/total", 3.0)]));
}

#[test]
fn a_name_is_in_the_table_or_cannot_be_written() {
    for (name, pattern) in [
        ("reward/mean", Some("reward/mean")),
        ("reward/countdown", Some("reward/<verifier>")),
        ("verdict/a/b/pass", Some("verdict/<verifier>/<outcome>")),
        ("eval/pass@1", Some("eval/pass@1")),
        ("eval/pass@8", Some("eval/pass@<k>")),
        ("eval/hard/pass@8", Some("eval/<set>/<number>")),
        ("eval/something", None),
        ("reward/", None),
        ("step", None),
        ("loss", None),
    ] {
        assert_eq!(Metric::of(name).map(|metric| metric.name), pattern, "{name}");
    }
}

#[test]
fn the_documents_have_the_table_as_it_is() {
    let document = include_str!("../../docs/metrics.md");
    assert!(document.contains(&table()), "put the output of `reckon metrics --markdown` into docs/metrics.md");
}
