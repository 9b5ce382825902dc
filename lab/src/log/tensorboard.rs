//! TensorBoard's event files: records of
//!
//! ```text
//! u64 length, u32 masked crc32c(length), event, u32 masked crc32c(event)       little-endian
//! Event   { 1 wall_time double, 2 step int64, 3 file_version string, 5 summary Summary }
//! Summary { 1 value { 1 tag string, 2 simple_value float } }
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::checksum::masked_crc32c;
use super::protobuf::Message;

/// An event file that is written to.
#[derive(Debug)]
pub struct TensorBoard {
    file: File,
}

impl TensorBoard {
    /// Begins the file of a run in `folder`, in place of one that is there: the caller writes the steps that stay again.
    /// `wall_time` is in seconds since 1970.
    pub fn create(folder: &Path, wall_time: f64) -> Result<Self> {
        let begin = || {
            fs::create_dir_all(folder)?;
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
                    fs::remove_file(path)?;
                }
            }
            File::create(folder.join(format!("{PREFIX}{:010}.reckon", wall_time as u64)))
        };
        let file = begin().with_context(|| format!("cannot begin an event file in {}", folder.display()))?;
        let mut log = Self { file };
        log.write(&Message::default().double(1, wall_time).text(3, "brain.Event:2"))?;
        Ok(log)
    }

    /// Writes the numbers of a step; those that are not finite are left out.
    pub fn append(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (name, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            summary = summary.message(1, &Message::default().text(1, name).float(2, *value as f32));
        }
        self.write(&Message::default().double(1, wall_time).int(2, step).message(5, &summary))
    }

    /// One call to the system for a record, so that a reader meets whole ones.
    fn write(&mut self, event: &Message) -> Result<()> {
        let event = event.bytes();
        let length = (event.len() as u64).to_le_bytes();
        let head = masked_crc32c(&length).to_le_bytes();
        let record = [&length[..], &head, event, &masked_crc32c(event).to_le_bytes()].concat();
        self.file.write_all(&record).context("cannot write to TensorBoard's event file")
    }
}

/// What the names of event files begin with.
const PREFIX: &str = "events.out.tfevents.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_file_has_the_bytes_that_tensorboard_reads() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = TensorBoard::create(folder.path(), 1.0).unwrap();
        log.append(3, 2.0, &[("a", 0.5), ("b", f64::NAN)]).unwrap();
        let read = |folder: &Path| {
            let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(files.len(), 1);
            fs::read(&files[0]).unwrap()
        };
        let bytes = read(folder.path());
        // Read back by tensorboard 2.20, which also checks the sums: scripts/read_logs.py.
        let expected = include_bytes!("../../tests/fixtures/events.bin");
        assert_eq!(bytes, expected);
        // A run that goes on begins its file anew.
        TensorBoard::create(folder.path(), 5.0).unwrap();
        assert_eq!(read(folder.path()).len(), 8 + 4 + 24 + 4);
    }
}
