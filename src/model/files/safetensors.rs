//! Weights in safetensors files: `model.safetensors` alone, or several with `model.safetensors.index.json`.
//!
//! A tensor is read a piece at a time straight to where it belongs, so weights are never held twice; it is written the
//! same way. Which tensors there should be is the business of [`crate::model::layout`].

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{ReadSeek, Source, TensorFile, check, pieces};
use crate::model::dtype::SaveDtype;
use crate::model::layout::Entry;
use crate::model::text_part;

/// The file of a model that has only one.
const SINGLE: &str = "model.safetensors";
/// The file that names the shards of a model that has several.
const INDEX: &str = "model.safetensors.index.json";
/// Bytes read or written at a time.
const PIECE: usize = 1 << 20;
/// What a reader takes a longer header for: damage (the format's own limit).
const LONGEST_HEADER: u64 = 100_000_000;

/// Which tensors a file holds: its name, and theirs in the order of the file.
pub type Shards = Vec<(String, Vec<String>)>;

/// An open safetensors file.
struct Shard<'a> {
    name: String,
    source: Box<dyn ReadSeek + 'a>,
    metadata: Metadata,
    /// Where the first tensor begins.
    start: u64,
}

/// The tensors of a folder, to be read in any order.
pub struct Reader<'a> {
    shards: Vec<Shard<'a>>,
    /// The shard of each tensor and its name there, by what it is called in a model of texts alone.
    places: BTreeMap<String, (usize, String)>,
}

#[derive(Serialize, Deserialize)]
struct Index {
    metadata: Option<serde_json::Value>,
    weight_map: BTreeMap<String, String>,
}

impl<'a> Shard<'a> {
    /// Reads the header and checks that the file is as long as it says.
    fn open(name: &str, mut source: impl Read + Seek + 'a) -> Result<Self> {
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
        Ok(Self { name: name.to_owned(), source: Box::new(source), metadata, start })
    }

    /// Hands the bytes of a tensor on, piece by piece.
    fn read(&mut self, info: &TensorInfo, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
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

impl Shard<'static> {
    fn open_in(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        Self::open(name, File::open(&path).with_context(|| format!("cannot open {}", path.display()))?)
    }
}

impl Reader<'static> {
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
            let place = self.places.get(&*text_part::name_of(tensor));
            let found = place.map(|(shard, _)| self.shards[*shard].name.as_str());
            ensure!(found == Some(file), "{INDEX} says that {tensor} is in {file}, which does not hold it");
        }
        for (shard, tensor) in self.places.values() {
            let known = index.weight_map.contains_key(tensor);
            ensure!(known, "{} holds {tensor}, which {INDEX} does not list", self.shards[*shard].name);
        }
        Ok(())
    }
}

impl<'a> Reader<'a> {
    /// The content of one file.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        Self::of(vec![Shard::open(SINGLE, Cursor::new(bytes))?])
    }

    fn of(shards: Vec<Shard<'a>>) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            for tensor in shard.metadata.offset_keys() {
                let double = places.insert(text_part::name_of(&tensor).into_owned(), (number, tensor.clone()));
                ensure!(double.is_none(), "{tensor} is in two files, one of them {}", shard.name);
            }
        }
        Ok(Self { shards, places })
    }

    fn describe(&self, tensor: &str) -> Result<&TensorInfo> {
        let place = self.places.get(tensor).map(|(shard, name)| (&self.shards[*shard].metadata, name));
        place.and_then(|(metadata, name)| metadata.info(name)).with_context(|| match self.shards.as_slice() {
            [only] => format!("{} has no tensor {tensor}", only.name),
            shards => format!("none of the {} shards has a tensor {tensor}", shards.len()),
        })
    }

    /// Hands the bytes of a tensor on, piece by piece; none cuts a value.
    pub fn read_bytes(&mut self, tensor: &str, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let info = self.describe(tensor)?.clone();
        self.shards[self.places[tensor].0].read(&info, sink)
    }

    /// The type in the file and the shape of a tensor.
    pub fn info(&self, tensor: &str) -> Result<(Dtype, &[usize])> {
        let info = self.describe(tensor)?;
        Ok((info.dtype, &info.shape))
    }

    /// Which file holds which tensors.
    pub fn shards(&self) -> Shards {
        let names = |shard: &Shard| shard.metadata.offset_keys().iter().map(|t| text_part::name_of(t).into()).collect();
        self.shards.iter().map(|shard| (shard.name.clone(), names(shard))).collect()
    }
}

impl TensorFile for Reader<'_> {
    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn file_of(&self, tensor: &str) -> &str {
        self.places.get(tensor).map_or("no file", |(shard, _)| &self.shards[*shard].name)
    }

    fn shape(&self, tensor: &str) -> Result<&[usize]> {
        Ok(self.info(tensor)?.1)
    }

    fn dtype(&self, tensor: &str) -> Result<SaveDtype> {
        SaveDtype::of(self.info(tensor)?.0)
    }

    fn read(&mut self, tensor: &str, sink: &mut dyn FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let dtype = self.dtype(tensor)?;
        let (mut values, mut first) = (Vec::new(), 0);
        self.read_bytes(tensor, &mut |bytes| {
            dtype.decode(bytes, &mut values);
            sink(first, &values)?;
            first += values.len();
            Ok(())
        })
    }
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
    let total: usize = source.entries().iter().map(|e| e.range.len() * stored_as(e, dtype).size()).sum();
    let place = |(file, entries): &(String, Vec<&Entry>)| {
        entries.iter().map(|entry| (entry.name.clone(), file.clone())).collect::<Vec<_>>()
    };
    let weight_map = files.iter().flat_map(place).collect();
    let index = Index { metadata: Some(serde_json::json!({ "total_size": total })), weight_map };
    let path = folder.join(INDEX);
    std::fs::write(&path, serde_json::to_vec_pretty(&index)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What a tensor is stored as beside others of `dtype`.
fn stored_as(entry: &Entry, dtype: SaveDtype) -> SaveDtype {
    if entry.stays_fp32() { SaveDtype::F32 } else { dtype }
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
    write_header(
        &mut file,
        entries.iter().map(|e| (e.name.clone(), stored_as(e, dtype).file_type(), e.shape.clone())),
    )?;
    let mut bytes = Vec::new();
    for entry in entries {
        pieces(source, entry, |values| {
            stored_as(entry, dtype).encode(values, &mut bytes);
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
pub fn verify(reader: &mut Reader, source: &dyn Source, dtype: SaveDtype) -> Result<()> {
    check(reader, source.entries(), &|_| false)?;
    let (mut expected, mut bytes, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    for entry in source.entries() {
        let dtype = stored_as(entry, dtype);
        reader.read(&entry.name, &mut |first, values| {
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
