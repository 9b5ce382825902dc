//! The offline format of Weights & Biases: `offline-run-STAMP-ID/run-ID.wandb`, which `wandb sync` sends.
//!
//! ```text
//! ":W&B" u16 0xbee1 u8 0                                       7 bytes, counted in the first block
//! u32 crc32(type, data), u16 length, u8 type, data             blocks of 32 KiB, as LevelDB's log has them
//! ```
//! A record that does not fit its block goes on in the next one: `type` is whole, first, middle or last. Data is a
//! protobuf `Record` of `wandb_internal.proto`, of which a header, the run, its history, a summary and the exit are
//! written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::checksum::crc32;
use super::protobuf::Message;

/// Bytes of a block, and of the head of a piece in it.
const BLOCK: usize = 32 * 1024;
const HEAD: usize = 7;
/// The oldest version of wandb that reads such files, as wandb itself writes it.
const MIN_CONSUMER: &str = "0.70.0";

/// Who a run is.
#[derive(Clone, Debug)]
pub struct WandbRun {
    /// Eight letters and digits that no other run of the project has.
    pub id: String,
    /// The name that is shown.
    pub name: String,
    /// The project that it is sent to.
    pub project: String,
    /// When it began, as `20261127_093000`.
    pub stamp: String,
    /// The same in seconds since 1970.
    pub started: f64,
    /// Its config.
    pub config: toml::Table,
}

/// An offline run that is written to.
#[derive(Debug)]
pub struct Wandb {
    file: File,
    started: f64,
    /// Bytes written.
    len: usize,
    records: u64,
    /// The last value of each metric.
    summary: Map<String, Value>,
}

impl Wandb {
    /// Begins the run's file below `folder`, in place of one that is there: the caller writes the steps that stay again.
    pub fn create(folder: &Path, run: &WandbRun) -> Result<Self> {
        let place = folder.join(format!("offline-run-{}-{}", run.stamp, run.id));
        let begin = || {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("offline-run-")) {
                    fs::remove_dir_all(path)?;
                }
            }
            fs::create_dir_all(place.join("files"))?;
            File::create(place.join(format!("run-{}.wandb", run.id)))
        };
        let file = begin().with_context(|| format!("cannot begin an offline run in {}", folder.display()))?;
        let mut log = Self { file, started: run.started, len: 0, records: 0, summary: Map::new() };
        log.put(b":W&B\xe1\xbe\x00")?;
        let version = Message::default().text(1, concat!("reckon ", env!("CARGO_PKG_VERSION"))).text(2, MIN_CONSUMER);
        log.record(21, &Message::default().message(1, &version))?;
        log.record(17, &run_record(run)?)?;
        Ok(log)
    }

    /// Writes the numbers of a step; those that are not finite are left out.
    pub fn append(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> Result<()> {
        let mut step_values = Map::new();
        for (name, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            step_values.insert((*name).to_owned(), json!(value));
        }
        step_values.insert("_step".into(), json!(step));
        step_values.insert("_timestamp".into(), json!(wall_time));
        step_values.insert("_runtime".into(), json!(wall_time - self.started));
        let history = items(&step_values).message(2, &Message::default().int(1, step));
        self.summary.extend(step_values);
        self.record(2, &history)
    }

    /// Says that the run is over.
    pub fn finish(mut self) -> Result<()> {
        let summary = items(&std::mem::take(&mut self.summary));
        self.record(3, &summary)?;
        self.record(18, &Message::default())
    }

    /// Writes a `Record` whose one field `field` is `message`.
    fn record(&mut self, field: u32, message: &Message) -> Result<()> {
        self.records += 1;
        // Fields may come in any order: the number stands first, whatever the other is.
        let record = Message::default().int(1, self.records).message(field, message);
        let mut rest = record.bytes();
        let mut bytes = Vec::with_capacity(rest.len() + HEAD);
        let mut is_first = true;
        loop {
            let mut room = BLOCK - (self.len + bytes.len()) % BLOCK;
            if room < HEAD {
                bytes.resize(bytes.len() + room, 0);
                room = BLOCK;
            }
            let (piece, after) = rest.split_at(rest.len().min(room - HEAD));
            rest = after;
            let kind = match (is_first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            bytes.extend(crc32(kind, piece).to_le_bytes());
            bytes.extend((piece.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(piece);
            is_first = false;
            if rest.is_empty() {
                return self.put(&bytes);
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len();
        self.file.write_all(bytes).context("cannot write to the file of Weights & Biases")
    }
}

/// Field 1 of a history, a summary: `{ 2 nested_key, 16 value_json }` for each name.
fn items(values: &Map<String, Value>) -> Message {
    let item = |(name, value): (&String, &Value)| Message::default().text(2, name).text(16, &value.to_string());
    values.iter().map(item).fold(Message::default(), |message, item| message.message(1, &item))
}

/// `RunRecord { 1 run_id, 3 project, 4 config { 1 update { 1 key, 16 value_json } }, 8 display_name, 17 start_time }`.
fn run_record(run: &WandbRun) -> Result<Message> {
    let mut config = Message::default();
    // wandb keeps remarks of its own under this key, and expects it.
    let own = Message::default().text(1, "_wandb").text(16, "{}");
    config = config.message(1, &own);
    for (key, value) in &run.config {
        let item = Message::default().text(1, key).text(16, &serde_json::to_string(value)?);
        config = config.message(1, &item);
    }
    let seconds = run.started.max(0.0);
    let started = Message::default().int(1, seconds as u64).int(2, (seconds.fract() * 1e9) as u64);
    let record = Message::default().text(1, &run.id).text(3, &run.project).message(4, &config).text(8, &run.name);
    Ok(record.message(17, &started))
}

/// An id from what tells a run from others: its folder, its seed, when it began. FNV-1a, in base 36.
pub fn run_id(parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let digit = |_| {
        let digit = char::from_digit((hash % 36) as u32, 36).unwrap_or('0');
        hash /= 36;
        digit
    };
    (0..8).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> WandbRun {
        let config = "seed = 1\n[optim]\nlr = 1e-4".parse().unwrap();
        let (id, name, project) = ("abcd1234".into(), "run".into(), "reckon".into());
        WandbRun { id, name, project, stamp: "20261127_093000".into(), started: 10.0, config }
    }

    /// The records of a file, put together again; every checksum is checked.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        assert_eq!(&bytes[..7], b":W&B\xe1\xbe\x00");
        let (mut at, mut records, mut under_way) = (7, Vec::new(), Vec::new());
        while at < bytes.len() {
            if BLOCK - at % BLOCK < HEAD {
                at += BLOCK - at % BLOCK;
            }
            let (head, kind) = (&bytes[at..at + HEAD], bytes[at + 6]);
            let data = &bytes[at + HEAD..][..usize::from(u16::from_le_bytes([head[4], head[5]]))];
            assert_eq!(head[..4], crc32(kind, data).to_le_bytes());
            assert!(at % BLOCK + HEAD + data.len() <= BLOCK, "a piece stays in its block");
            assert_eq!(under_way.is_empty(), kind <= 2, "a record begins with its first piece");
            under_way.extend_from_slice(data);
            at += HEAD + data.len();
            if kind == 1 || kind == 4 {
                records.push(std::mem::take(&mut under_way));
            }
        }
        records
    }

    #[test]
    fn records_keep_their_frames_across_the_ends_of_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Wandb::create(folder.path(), &run()).unwrap();
        let names: Vec<String> = (0..3000).map(|index| format!("metric/{index}")).collect();
        for step in 0..40 {
            // Records of many lengths, some longer than a block.
            let count = (step * 137) % 3000 + 1;
            let values: Vec<(&str, f64)> = names[..count].iter().map(|name| (name.as_str(), step as f64)).collect();
            log.append(step as u64, 10.0 + step as f64, &values).unwrap();
        }
        log.finish().unwrap();
        let path = folder.path().join("offline-run-20261127_093000-abcd1234/run-abcd1234.wandb");
        let records = records(&fs::read(path).unwrap());
        assert_eq!(records.len(), 2 + 40 + 2);
        for (index, record) in records.iter().enumerate() {
            assert!(record.starts_with(Message::default().int(1, index as u64 + 1).bytes()), "record {index}");
        }
        assert!(records.iter().any(|record| record.len() > BLOCK), "some are longer than a block");
    }

    #[test]
    fn a_run_that_goes_on_replaces_its_file() {
        let folder = tempfile::tempdir().unwrap();
        Wandb::create(folder.path(), &run()).unwrap().append(1, 11.0, &[("a", f64::NAN)]).unwrap();
        let later = WandbRun { stamp: "20261128_093000".into(), ..run() };
        Wandb::create(folder.path(), &later).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn ids_are_eight_letters_and_digits_that_depend_on_every_part() {
        let ids = [run_id(&["a", "b"]), run_id(&["ab", ""]), run_id(&["a", "c"])];
        assert!(ids.iter().all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
    }
}
