//! Weights in safetensors files: `model.safetensors` alone, or several with `model.safetensors.index.json`.
//!
//! A tensor is read a piece at a time straight to where it belongs, so weights are never held twice; it is written the
//! same way. Which tensors there should be is the business of [`super::weights::Layout`].

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::weights::Entry;

/// The file of a model that has only one.
const SINGLE: &str = "model.safetensors";
/// The file that names the shards of a model that has several.
const INDEX: &str = "model.safetensors.index.json";
/// Bytes read or written at a time.
const PIECE: usize = 1 << 20;
/// What a reader takes a longer header for: damage (the format's own limit).
const LONGEST_HEADER: u64 = 100_000_000;

/// The type of number a model is written in. Computation is in fp32 on a CPU whatever the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// Four bytes, exact.
    #[default]
    F32,
    /// Two bytes, rounded to 8 bits of mantissa.
    Bf16,
    /// Two bytes, rounded to 11 bits of mantissa, of a narrow range.
    F16,
}

impl SaveDtype {
    /// The name that `config.json` uses.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    fn of(dtype: Dtype) -> Result<Self> {
        match dtype {
            Dtype::F32 => Ok(Self::F32),
            Dtype::BF16 => Ok(Self::Bf16),
            Dtype::F16 => Ok(Self::F16),
            other => bail!("type {other:?} is not supported: F32, BF16 and F16 are"),
        }
    }

    fn file_type(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// Bytes a value.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Values of little-endian bytes, in place of what `out` held.
    fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        out.clear();
        match self {
            Self::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::Bf16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32())),
            Self::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32())),
        }
    }

    /// Little-endian bytes of values, in place of what `out` held.
    fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
            Self::Bf16 => out.extend(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())),
            Self::F16 => out.extend(values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes())),
        }
    }
}

/// Which tensors a file holds: its name, and theirs in the order of the file.
pub type Shards = Vec<(String, Vec<String>)>;

/// An open safetensors file.
struct Shard<R> {
    name: String,
    source: R,
    metadata: Metadata,
    /// Where the first tensor begins.
    start: u64,
}

/// The tensors of a folder, to be read in any order.
pub struct Reader<R> {
    shards: Vec<Shard<R>>,
    /// The shard of each tensor.
    places: BTreeMap<String, usize>,
}

#[derive(Serialize, Deserialize)]
struct Index {
    metadata: Option<serde_json::Value>,
    weight_map: BTreeMap<String, String>,
}

impl<R: Read + Seek> Shard<R> {
    /// Reads the header and checks that the file is as long as it says.
    fn open(name: &str, mut source: R) -> Result<Self> {
        let damaged = || format!("{name} is damaged or cut short");
        let mut word = [0u8; 8];
        source.read_exact(&mut word).with_context(damaged)?;
        let header = u64::from_le_bytes(word);
        ensure!(header <= LONGEST_HEADER, "{name} is damaged: its header would be {header} bytes long");
        let mut bytes = vec![0u8; header as usize];
        source.read_exact(&mut bytes).with_context(damaged)?;
        let metadata: Metadata = serde_json::from_slice(&bytes).with_context(damaged)?;
        let (found, start) = (source.seek(SeekFrom::End(0))?, 8 + header);
        let expected = start + metadata.data_len() as u64;
        ensure!(
            found == expected,
            "{name} is {found} bytes long, but its header describes {expected}: it is damaged or cut short"
        );
        Ok(Self { name: name.to_owned(), source, metadata, start })
    }

    /// Hands the bytes of a tensor on, piece by piece.
    fn read(&mut self, info: &TensorInfo, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (from, to) = info.data_offsets;
        self.source.seek(SeekFrom::Start(self.start + from as u64))?;
        let (mut piece, mut left) = (vec![0u8; PIECE.min(to - from)], to - from);
        while left > 0 {
            let count = left.min(PIECE);
            self.source.read_exact(&mut piece[..count]).with_context(|| format!("cannot read {}", self.name))?;
            sink(&piece[..count])?;
            left -= count;
        }
        Ok(())
    }
}

impl Shard<File> {
    fn open_in(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        Self::open(name, File::open(&path).with_context(|| format!("cannot open {}", path.display()))?)
    }
}

impl Reader<File> {
    /// Opens a single file.
    pub fn open_file(folder: &Path, name: &str) -> Result<Self> {
        Self::of(vec![Shard::open_in(folder, name)?])
    }

    /// Opens the weights of a model folder.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.join(SINGLE).exists() {
            return Self::open_file(folder, SINGLE);
        }
        let path = folder.join(INDEX);
        ensure!(
            path.exists(),
            "{} holds neither {SINGLE} nor {INDEX}: weights are read from safetensors files alone",
            folder.display()
        );
        let index: Index = serde_json::from_slice(&std::fs::read(&path)?).context(INDEX)?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        let beside = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
        let foreign = names.iter().find(|name| !beside(name));
        ensure!(foreign.is_none(), "{INDEX} names {foreign:?}, which is not a file beside it");
        let reader = Self::of(names.into_iter().map(|name| Shard::open_in(folder, name)).collect::<Result<_>>()?)?;
        reader.agree_with(&index)?;
        Ok(reader)
    }

    /// Whether every tensor lies where the index says.
    fn agree_with(&self, index: &Index) -> Result<()> {
        for (tensor, file) in &index.weight_map {
            let found = self.places.get(tensor).map(|&shard| self.shards[shard].name.as_str());
            ensure!(found == Some(file), "{INDEX} says that {tensor} is in {file}, which does not hold it");
        }
        for (tensor, &shard) in &self.places {
            let known = index.weight_map.contains_key(tensor);
            ensure!(known, "{} holds {tensor}, which {INDEX} does not list", self.shards[shard].name);
        }
        Ok(())
    }
}

impl<'a> Reader<Cursor<&'a [u8]>> {
    /// The content of one file.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::of(vec![Shard::open(SINGLE, Cursor::new(bytes))?])
    }
}

impl<R: Read + Seek> Reader<R> {
    fn of(shards: Vec<Shard<R>>) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for tensor in shard.metadata.offset_keys() {
                let double = places.insert(tensor.clone(), number);
                ensure!(double.is_none(), "{tensor} is in two files, one of them {}", shard.name);
            }
        }
        Ok(Self { shards, places })
    }

    /// Refuses weights that are not exactly those of `entries`: a missing tensor, one of another shape or of a type
    /// that cannot be read, one too many. `optional` names those that may be there and are not read.
    pub fn check(&self, entries: &[Entry], optional: impl Fn(&str) -> bool) -> Result<()> {
        for entry in entries {
            let info = self.info(&entry.name)?;
            ensure!(
                info.shape == entry.shape,
                "tensor {} has shape {:?}, but the config asks for {:?}",
                entry.name,
                info.shape,
                entry.shape
            );
            SaveDtype::of(info.dtype).with_context(|| format!("tensor {}", entry.name))?;
        }
        let known: std::collections::HashSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
        let extra = self.places.keys().find(|name| !known.contains(name.as_str()) && !optional(name));
        if let Some(extra) = extra {
            bail!("{} has a tensor {extra} that the config has no place for", self.shards[self.places[extra]].name);
        }
        Ok(())
    }

    fn info(&self, tensor: &str) -> Result<&TensorInfo> {
        let place = self.places.get(tensor).map(|&shard| &self.shards[shard].metadata);
        place.and_then(|metadata| metadata.info(tensor)).with_context(|| match self.shards.as_slice() {
            [only] => format!("{} has no tensor {tensor}", only.name),
            shards => format!("none of the {} shards has a tensor {tensor}", shards.len()),
        })
    }

    /// The type of a tensor's values.
    pub fn dtype(&self, tensor: &str) -> Result<SaveDtype> {
        SaveDtype::of(self.info(tensor)?.dtype)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The type in the file and the shape of a tensor.
    pub fn kind(&self, tensor: &str) -> Result<(Dtype, &[usize])> {
        let info = self.info(tensor)?;
        Ok((info.dtype, &info.shape))
    }

    /// Hands the bytes of a tensor on, piece by piece; none cuts a value.
    pub fn read_bytes(&mut self, tensor: &str, sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let info = self.info(tensor)?.clone();
        self.shards[self.places[tensor]].read(&info, sink)
    }

    /// Hands the values of a tensor to `sink(index of the first, values)`, piece by piece.
    pub fn read(&mut self, tensor: &str, mut sink: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let (info, dtype) = (self.info(tensor)?.clone(), self.dtype(tensor)?);
        let (mut values, mut first) = (Vec::new(), 0);
        self.shards[self.places[tensor]].read(&info, |bytes| {
            dtype.decode(bytes, &mut values);
            sink(first, &values)?;
            first += values.len();
            Ok(())
        })
    }

    /// All values of a tensor, to `out`, which has its length.
    pub fn read_to(&mut self, tensor: &str, out: &mut [f32]) -> Result<()> {
        self.read(tensor, |first, values| {
            out[first..first + values.len()].copy_from_slice(values);
            Ok(())
        })
    }

    /// Which file holds which tensors.
    pub fn shards(&self) -> Shards {
        self.shards.iter().map(|shard| (shard.name.clone(), shard.metadata.offset_keys())).collect()
    }
}

/// Values that can be asked for a stretch at a time, wherever and however they are kept.
pub trait Source {
    /// All tensors.
    fn entries(&self) -> &[Entry];

    /// Writes the values `range` of a tensor, counted from its first, to `out`. What a device holds may fail to come.
    fn values(&self, entry: &Entry, range: Range<usize>, out: &mut [f32]) -> Result<()>;
}

/// Calls `each(values)` with all values of a tensor, piece by piece.
pub(super) fn pieces(source: &dyn Source, entry: &Entry, mut each: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
    let (total, mut piece) = (entry.range.len(), Vec::new());
    for first in (0..total).step_by(PIECE / 4) {
        let range = first..total.min(first + PIECE / 4);
        piece.resize(range.len(), 0.0);
        source.values(entry, range, &mut piece)?;
        each(&piece)?;
    }
    Ok(())
}

/// Writes all tensors of `source` into `folder`, spread over files as `shards` says; a tensor it does not name goes
/// into the last file, and no shards at all mean one file.
pub fn write(folder: &Path, source: &dyn Source, shards: &Shards, dtype: SaveDtype) -> Result<()> {
    let files = distribute(source.entries(), shards);
    for (name, entries) in &files {
        write_entries(&folder.join(name), source, entries, dtype)?;
    }
    if let [(name, _)] = files.as_slice()
        && name == SINGLE
    {
        return Ok(());
    }
    let total: usize = source.entries().iter().map(|e| e.range.len() * dtype.size()).sum();
    let place = |(file, entries): &(String, Vec<&Entry>)| {
        entries.iter().map(|entry| (entry.name.clone(), file.clone())).collect::<Vec<_>>()
    };
    let weight_map = files.iter().flat_map(place).collect();
    let index = Index { metadata: Some(serde_json::json!({ "total_size": total })), weight_map };
    let path = folder.join(INDEX);
    std::fs::write(&path, serde_json::to_vec_pretty(&index)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn distribute<'a>(entries: &'a [Entry], shards: &Shards) -> Vec<(String, Vec<&'a Entry>)> {
    let mut files: Vec<(String, Vec<&Entry>)> = shards.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    if files.is_empty() {
        files.push((SINGLE.to_owned(), Vec::new()));
    }
    let places: HashMap<&str, usize> = shards
        .iter()
        .enumerate()
        .flat_map(|(number, (_, tensors))| tensors.iter().map(move |tensor| (tensor.as_str(), number)))
        .collect();
    let last = files.len() - 1;
    for entry in entries {
        files[places.get(entry.name.as_str()).copied().unwrap_or(last)].1.push(entry);
    }
    files.retain(|(_, entries)| !entries.is_empty());
    files
}

/// Writes all tensors of `source` into one file.
pub fn write_file(path: &Path, source: &dyn Source, dtype: SaveDtype) -> Result<()> {
    write_entries(path, source, &source.entries().iter().collect::<Vec<_>>(), dtype)
}

fn write_entries(path: &Path, source: &dyn Source, entries: &[&Entry], dtype: SaveDtype) -> Result<()> {
    let write = || fill(BufWriter::with_capacity(PIECE, File::create(path)?), source, entries, dtype);
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn fill(mut file: impl Write, source: &dyn Source, entries: &[&Entry], dtype: SaveDtype) -> Result<()> {
    write_header(&mut file, entries.iter().map(|e| (e.name.clone(), dtype.file_type(), e.shape.clone())))?;
    let mut bytes = Vec::new();
    for entry in entries {
        pieces(source, entry, |values| {
            dtype.encode(values, &mut bytes);
            Ok(file.write_all(&bytes)?)
        })?;
    }
    Ok(file.flush()?)
}

/// Begins a safetensors file of tensors with these names, types and shapes, whose values follow in that order.
pub fn write_header(mut file: impl Write, tensors: impl Iterator<Item = (String, Dtype, Vec<usize>)>) -> Result<()> {
    let mut end = 0;
    let describe = |(name, dtype, shape): (String, Dtype, Vec<usize>)| {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
    };
    let infos = tensors.map(describe).collect();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    // Tensors begin at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    Ok(file.write_all(&header)?)
}

/// Reads what [`write()`] or [`write_file`] wrote and compares every value.
pub fn verify(reader: &mut Reader<File>, source: &dyn Source, dtype: SaveDtype) -> Result<()> {
    reader.check(source.entries(), |_| false)?;
    let (mut expected, mut bytes, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    for entry in source.entries() {
        reader.read(&entry.name, |first, values| {
            expected.resize(values.len(), 0.0);
            source.values(entry, first..first + values.len(), &mut expected)?;
            dtype.encode(&expected, &mut bytes);
            dtype.decode(&bytes, &mut rounded);
            let same = rounded.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
            ensure!(same, "{} was written, but other values came back: the disk is not to be trusted", entry.name);
            Ok(())
        })?;
    }
    Ok(())
}
