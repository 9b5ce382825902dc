//! A file of rows, opened: what kind it is, by its first bytes and its name, unpacked where it is compressed. The rows
//! in it are left to `lines`, `csv` and `parquet`.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::Error;

/// What a file of rows is.
pub(super) enum Source {
    /// Parquet, which is read from all over the file.
    Parquet(File),
    /// A table of texts with a line of names.
    Csv(Text),
    /// JSON, a value in each line or one for the whole file.
    Json(Text),
}

/// A text file, unpacked.
pub(super) type Text = Box<dyn BufRead>;

/// First bytes of files that are no texts, what they are, and the way out.
const FOREIGN: [(&[u8], &str); 9] = [
    (b"BZh", "it is compressed with bzip2: unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it, or compress it with gzip"),
    (b"PK\x03\x04", "it is a ZIP archive: unpack it"),
    (b"ARROW1", "it is an Arrow file: save it as Parquet, as `Dataset.to_parquet` does"),
    (b"\xff\xff\xff\xff", "it is an Arrow stream: save it as Parquet, as `Dataset.to_parquet` does"),
    (b"\xff\xfe", "it is UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16: save it as UTF-8"),
    (b"SQLite format 3", "it is an SQLite database: save its rows as JSON Lines or CSV"),
    (b"\x80", "it looks like a Python pickle: save its rows as JSON Lines or Parquet"),
];

impl Source {
    /// Opens a file of rows.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let io = |cause| Error::Io { path: path.into(), cause };
        if let Some(problem) = not_a_file(path) {
            return Err(Error::Foreign { path: path.into(), problem });
        }
        let mut file = File::open(path).map_err(io)?;
        let start = first_bytes(&mut file).map_err(io)?;
        file.rewind().map_err(io)?;
        if start.starts_with(b"PAR1") || has_ending(path, "parquet") {
            return Ok(Self::Parquet(file));
        }
        let file = BufReader::new(file);
        let mut text: Text = match start.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(file).map_err(io)?))
            }
            _ => Box::new(file),
        };
        let start = text.fill_buf().map_err(io)?;
        if let Some((_, problem)) = FOREIGN.iter().find(|(mark, _)| start.starts_with(mark)) {
            return Err(Error::Foreign { path: path.into(), problem });
        }
        let plain = unpacked(path);
        let is_table = has_ending(&plain, "csv") || has_ending(&plain, "tsv");
        Ok(if is_table { Self::Csv(text) } else { Self::Json(text) })
    }
}

/// What stands at a path in place of a file, and the way out.
fn not_a_file(path: &Path) -> Option<&'static str> {
    match path.metadata() {
        Ok(there) if there.is_dir() => Some("it is a folder: name the files in it"),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(
            "there is no such file: check the path, which is relative to the current folder unless it begins with /",
        ),
        _ => None,
    }
}

fn first_bytes(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(4).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether a file's name ends so, in either case.
pub(super) fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|there| there.eq_ignore_ascii_case(ending))
}

/// The name of a file without the ending of its compression.
pub(super) fn unpacked(path: &Path) -> PathBuf {
    let packed = ["gz", "zst", "zstd"].iter().any(|ending| has_ending(path, ending));
    if packed { path.with_extension("") } else { path.into() }
}
