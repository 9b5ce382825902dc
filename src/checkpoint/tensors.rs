//! The flat tensors that a checkpoint holds beside the model: written and read a piece at a time, wherever they are kept.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use half::bf16;
use safetensors::tensor::Dtype;

use crate::model::shards::{self, Reader};
use crate::ops::device::Buffer;

/// Values read or written at a time.
const PIECE: usize = 1 << 18;

/// A type of number that a checkpoint holds.
pub trait Element: Pod {
    /// What the file calls it.
    const DTYPE: Dtype;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
}

impl Element for i8 {
    const DTYPE: Dtype = Dtype::I8;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}

/// A row of numbers in this machine's memory or on a device.
pub trait Tensor {
    /// Their type.
    fn dtype(&self) -> Dtype;

    /// How many there are.
    fn count(&self) -> usize;

    /// The bytes of those at `range`.
    fn read(&self, range: Range<usize>) -> Result<Vec<u8>>;

    /// Replaces those from `first` on.
    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()>;
}

impl<T: Element> Tensor for Vec<T> {
    fn dtype(&self) -> Dtype {
        T::DTYPE
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self[range]).to_vec())
    }

    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let count = bytes.len() / size_of::<T>();
        bytemuck::cast_slice_mut(&mut self[first..first + count]).copy_from_slice(bytes);
        Ok(())
    }
}

impl<T: Element> Tensor for Buffer<T> {
    fn dtype(&self) -> Dtype {
        T::DTYPE
    }

    fn count(&self) -> usize {
        self.all().len()
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(&self.part(range).read()?).to_vec())
    }

    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
        self.part(first..first + values.len()).write(&values)
    }
}

/// Writes tensors under their names into one safetensors file.
pub fn write(path: &Path, tensors: &[(&str, &dyn Tensor)]) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let shapes = tensors.iter().map(|(name, t)| ((*name).to_owned(), t.dtype(), vec![t.count()]));
        shards::write_header(&mut file, shapes)?;
        for (_, tensor) in tensors {
            for first in (0..tensor.count()).step_by(PIECE) {
                file.write_all(&tensor.read(first..tensor.count().min(first + PIECE))?)?;
            }
        }
        Ok(file.flush()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a tensor to where it belongs.
pub fn read(file: &mut Reader<File>, name: &str, out: &mut dyn Tensor) -> Result<()> {
    let (dtype, shape) = file.kind(name)?;
    let count: usize = shape.iter().product();
    ensure!(
        dtype == out.dtype(),
        "{name} was saved as {dtype:?}, and this run keeps it as {:?}: go on with the compute.device and optim.moments \
         that the run began with",
        out.dtype()
    );
    ensure!(count == out.count(), "{name} has {count} values, the model {}", out.count());
    let mut first = 0;
    file.read_bytes(name, |bytes| {
        out.write(first, bytes)?;
        first += bytes.len() / (dtype.bitsize() / 8);
        Ok(())
    })
}
