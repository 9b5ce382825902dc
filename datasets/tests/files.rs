//! Files of every kind that people have are read alike, or one line says what a file is and what to do.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reckon_datasets::{Columns, Dataset, Error, Example, FileRows, Purpose, Wanted};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn open(paths: &[PathBuf]) -> Result<FileRows, Error> {
    FileRows::open(paths, &Columns::default(), Purpose::Reference)
}

fn written(name: &str, bytes: impl AsRef<[u8]>) -> Result<FileRows, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    open(&[path])
}

fn told(rows: &FileRows) -> Vec<(String, String, String)> {
    let told = |e: Example| (e.id, e.question, e.answer.to_string());
    (0..rows.len()).map(|row| told(rows.get(row))).collect()
}

fn sums(stem: &str, answers: [&str; 2]) -> Vec<(String, String, String)> {
    let row = |at: usize| (format!("{stem}-{}", at + 1), ["1+1?", "1+2?"][at].to_owned(), answers[at].to_owned());
    vec![row(0), row(1)]
}

#[test]
fn parquet_is_read_in_every_compression_and_type() {
    for compression in ["none", "gzip", "brotli", "lz4", "zstd"] {
        let stem = format!("kinds_{compression}");
        let rows = open(&[fixture(&format!("{stem}.parquet"))]).unwrap();
        assert_eq!(told(&rows), sums(&stem, ["2.00", "3.00"]));
        let info = serde_json::to_string(&rows.get(0).info).unwrap();
        let (answer, parts) = (r#"{"question":"1+1?","answer":2.00"#, r#"[{"z":1,"a":"x"},{"z":2,"a":null}]"#);
        assert_eq!(info, format!(r#"{answer},"level":"easy","big":123456789012345678901234567890,"parts":{parts}}}"#));
    }
}

#[test]
fn shards_may_have_other_columns_in_another_order_or_no_row() {
    let shards = ["shard_empty", "shard_0", "shard_1"].map(|name| fixture(&format!("{name}.parquet")));
    let rows = open(&shards).unwrap();
    assert_eq!(told(&rows).iter().map(|row| row.2.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(rows.get(1).info["source"], "x");
    assert!(open(&shards[..1]).unwrap_err().to_string().contains("shard_empty.parquet holds no example"));
}

#[test]
fn compressed_lines_are_unpacked() {
    for (name, stem, numbers) in [
        ("lines.jsonl.gz", "lines", ["2", "3"]),
        ("members.json.gz", "members", ["2", "3"]),
        ("lines.jsonl.zst", "lines", ["2", "3"]),
    ] {
        assert_eq!(told(&open(&[fixture(name)]).unwrap()), sums(stem, numbers), "{name}");
    }
    let whole = std::fs::read(fixture("lines.jsonl.gz")).unwrap();
    for length in [10, whole.len() / 2, whole.len() - 1] {
        let message = written("cut.jsonl.gz", &whole[..length]).unwrap_err().to_string();
        assert!(message.contains("cannot read") && message.contains("cut.jsonl.gz"), "{length}: {message}");
    }
}

#[test]
fn tables_of_text_are_read_with_any_separator() {
    for (name, text) in [
        ("a.csv", "question,answer,note\n1+1?,2.0,\"a, \"\"b\"\"\nc\"\n1+2?,3,\n"),
        ("a.csv", "\u{feff}question;answer;note\r\n1+1?;2.0;\"a, \"\"b\"\"\nc\"\r\n1+2?;3;\r\n"),
        ("a.tsv", "question\tanswer\tnote\n1+1?\t2.0\t\"a, \"\"b\"\"\nc\"\n\n1+2?\t3\t"),
    ] {
        let rows = written(name, text).unwrap();
        assert_eq!(told(&rows), sums("a", ["2.0", "3"]), "{text}");
        assert_eq!(
            serde_json::to_string(&rows.get(0).info).unwrap(),
            r#"{"question":"1+1?","answer":"2.0","note":"a, \"b\"\nc"}"#
        );
        assert!(rows.get(1).info["note"].is_null());
    }
    for (text, expected) in [
        ("question,answer\n1+1?,2\n1+2?,3,4\n", "line 3: 3 values where the first line has 2 names"),
        ("question,answer,answer\n", "line 1: two columns are called \"answer\""),
        ("question,answer\n1+1?,\n", "line 2: column \"answer\" is empty"),
        ("question,answer\n", "holds no example"),
    ] {
        let message = written("a.csv", text).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    let message = written("a.csv", b"question,answer\n1+1?,\xff\n").unwrap_err().to_string();
    assert!(message.contains("line 2: not UTF-8"), "{message}");
}

#[test]
fn what_json_does_not_have_stops_no_run_unless_it_is_read() {
    let rows = written("a.jsonl", r#"{"question": "\ud83d?", "answer": 1.50, "x": NaN, "y": [-Infinity]}"#).unwrap();
    let example = rows.get(0);
    assert_eq!((example.question.as_str(), example.answer.as_str()), ("\u{fffd}?", "1.50"));
    assert_eq!(
        serde_json::to_string(&example.info).unwrap(),
        "{\"question\":\"\u{fffd}?\",\"answer\":1.50,\"x\":null,\"y\":[null]}"
    );
    let message = written("a.jsonl", r#"{"question": "?", "answer": NaN}"#).unwrap_err().to_string();
    assert!(message.contains("line 1: column \"answer\" is empty (null, NaN or Infinity)"), "{message}");
}

#[test]
fn a_file_of_another_kind_is_named() {
    for (bytes, expected) in [
        (&b"BZh91AY"[..], "bzip2: unpack it"),
        (b"\xfd7zXZ\0", "xz: unpack it"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"ARROW1\0\0", "Parquet, as `Dataset.to_parquet` does"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "an Arrow stream"),
        (b"\xff\xfe{\0}\0", "UTF-16: save it as UTF-8"),
        (b"\x80\x04\x95", "a Python pickle"),
    ] {
        let message = written("a.jsonl", bytes).unwrap_err().to_string();
        assert!(message.contains("a.jsonl: it ") && message.contains(expected) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn rows_are_kept_by_numbers_of_any_column_also_of_a_file_that_is_joined() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let row = |i: usize| format!("{{\"question\": \"q{i}\", \"answer\": {i}, \"n\": {i}}}\n");
    std::fs::write(path("rows.jsonl"), (1..=4).map(row).collect::<String>()).unwrap();
    std::fs::write(path("rates.csv"), "id,pass_rate\nrows-1,0.125\nrows-2,0.2\nrows-3,1.0\n").unwrap();
    let rows = open(&[path("rows.jsonl")]).unwrap().joined(&path("rates.csv")).unwrap();
    let kept = |column: &str, range: &str| -> Result<String, Error> {
        let rows = rows.clone().only(&[(column.to_owned(), Wanted::Within(range.into()))].into())?;
        Ok(told(&rows).into_iter().map(|row| row.2).collect())
    };
    for (column, range, expected) in [
        ("pass_rate", "0.2..0.8", "2"),
        ("pass_rate", "0.125..", "123"),
        ("pass_rate", " .. 0.2", "12"),
        ("n", "2..3", "23"),
    ] {
        assert_eq!(kept(column, range).unwrap(), expected, "{range}");
    }
    for (range, expected) in [
        ("0.8..0.2", "only.pass_rate = \"0.8..0.2\" is neither"),
        ("high", "a range of numbers such as \"0.2..0.8\""),
        ("0.3..0.4", "no row is left whose column \"pass_rate\" is a number in 0.3..0.4"),
    ] {
        let message = kept("pass_rate", range).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for (text, expected) in [
        ("id,pass_rate\nother-1,1\n", "names none of the rows, such as \"rows-1\""),
        ("id,pass_rate\nrows-1,1\nrows-1,1\n", "line 3: row \"rows-1\" stands here a second time"),
        ("name,pass_rate\nrows-1,1\n", "line 2: no column \"id\""),
    ] {
        std::fs::write(path("rates.csv"), text).unwrap();
        let message = open(&[path("rows.jsonl")]).unwrap().joined(&path("rates.csv")).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn a_damaged_text_is_rows_or_one_line_of_complaint(
        ending in prop::sample::select(vec!["jsonl", "json", "csv", "tsv", "jsonl.gz"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = "\u{feff}[{\"question\": \"\\ud83d\\ude00 é\", \"answer\": [1.50, NaN]},\r\n {\"a\": {\"b\": \"c;d\te,\"}}]\n";
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let message = written(&format!("a.{ending}"), bytes).map_or_else(|error| error.to_string(), |_| String::new());
        prop_assert!(!message.contains('\n'), "{}", message);
    }
}
