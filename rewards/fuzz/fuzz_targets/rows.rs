//! Any bytes are rows or one line that says what is wrong with them, under whatever name the file stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon_datasets::read_rows;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    let ending = ["jsonl", "json", "csv", "tsv", "json.gz"][usize::from(kind) % 5];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("rows.{ending}"));
    std::fs::write(&path, bytes).expect("a file");
    if let Err(error) = read_rows(&path, &mut |_| Ok(())) {
        assert!(!error.to_string().is_empty());
    }
});
