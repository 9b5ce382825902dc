//! Any bytes are a model in a GGUF file or an error: files of every type with bytes changed, left out, repeated and cut
//! off. `RECKON_FUZZ_S=900 cargo test --release --test it gguf::mutated` goes on for so many seconds, and then looks at
//! the memory that was taken too.

use std::time::{Duration, Instant};

use candle_core::quantized::GgmlDType;
use reckon::model::files::TensorFile;
use reckon::model::files::gguf::{Mix, Model};
use reckon_datasets::Counted;

use super::read::{LARGE, by_candle};
use super::{SMALL, Size, model, written};
use crate::models::FAMILIES;

/// Whole files to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let small = Size { width: 32, inner: 64, head: 8, tied: true };
    let mut seeds: Vec<Vec<u8>> = FAMILIES.iter().map(|family| written(&model(family, SMALL), Mix::F32)).collect();
    seeds.extend(
        [GgmlDType::Q4_0, GgmlDType::Q5_1, GgmlDType::Q8_0].map(|dtype| by_candle(FAMILIES[0], small, |_| dtype)),
    );
    seeds.push(by_candle(FAMILIES[1], LARGE, |number| [GgmlDType::Q2K, GgmlDType::Q6K][number % 2]));
    seeds
}

/// Reads all that can be read of a file.
fn read(bytes: &[u8]) {
    let Ok(mut model) = Model::from_bytes(bytes) else { return };
    let names: Vec<String> = model.weights.names().into_iter().map(str::to_owned).collect();
    for name in names {
        let mut count = 0;
        let read = model.weights.read(&name, &mut |first, values| {
            assert_eq!(first, count, "the pieces of {name} follow one another");
            count += values.len();
            Ok(())
        });
        let shape = model.weights.shape(&name).unwrap().to_vec();
        if read.is_ok() {
            assert_eq!(count, shape.iter().product::<usize>(), "{name} is read whole");
        }
        if let Some(kind) = model.weights.blocks(&name).unwrap() {
            let (mut rows, width) = (0, shape.last().copied().unwrap_or(1));
            let _ = model.weights.read_blocks(&name, &mut |first, bytes| {
                assert_eq!(first, rows);
                rows += bytes.len() / (width / kind.values() * kind.bytes()).max(1);
                Ok(())
            });
        }
    }
}

/// Changes a file in one to four places, most of them in its header.
fn mutate(bytes: &mut Vec<u8>, random: &mut Counted) {
    const NUMBERS: [u64; 10] =
        [0, 1, 7, 1 << 16, (1 << 31) - 1, 1 << 31, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX];
    for _ in 0..=random.below(4) {
        let reach = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(40_000) };
        let at = random.below(reach.max(1));
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(64)).min(bytes.len()))),
            4 => {
                let piece = bytes[at..(at + 1 + random.below(64)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            kind => {
                let size = if kind % 2 == 0 { 4 } else { 8 };
                let number = NUMBERS[random.below(NUMBERS.len())].wrapping_add(random.below(3) as u64);
                let end = (at + size).min(bytes.len());
                let count = end.saturating_sub(at);
                bytes[at.min(end)..end].copy_from_slice(&number.to_le_bytes()[..count]);
            }
        }
    }
}

#[test]
fn changed_files_are_read_or_refused_and_take_no_memory_beyond_their_size() {
    let asked = std::env::var("RECKON_FUZZ_S").ok().and_then(|text| text.parse().ok());
    let (begin, seconds) = (Instant::now(), Duration::from_secs(asked.unwrap_or(2)));
    let seeds = seeds();
    let mut runs = 0;
    while begin.elapsed() < seconds {
        let mut random = Counted::new(&[runs]);
        let mut bytes = seeds[runs as usize % seeds.len()].clone();
        mutate(&mut bytes, &mut random);
        let result = std::panic::catch_unwind(|| read(&bytes));
        assert!(result.is_ok(), "run {runs} panics");
        runs += 1;
    }
    assert!(runs > 10);
    if asked.is_some() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let mib = peak.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024;
        eprintln!("{runs} files, at most {mib} MiB");
        assert!(mib < 512, "{mib} MiB were taken");
    }
}
