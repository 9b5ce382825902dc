//! The flat tensors that a checkpoint holds beside the model: written and read a piece at a time, wherever they are kept.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::model::files::safetensors::{Reader, write_header};
use crate::tensor::Tensor;

/// Values read or written at a time.
const PIECE: usize = 1 << 18;

/// Writes tensors under their names into one safetensors file.
pub fn write(path: &Path, tensors: &[(&str, &dyn Tensor)]) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let shapes = tensors.iter().map(|(name, t)| ((*name).to_owned(), t.dtype(), vec![t.count()]));
        write_header(&mut file, shapes)?;
        read_all(tensors, |piece| Ok(file.write_all(piece)?))?;
        Ok(file.flush()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads tensors from end to end in the pieces of [`write`], for what lies on several ranks: whoever does not write them
/// has to hand over his share.
pub fn read_all(tensors: &[(&str, &dyn Tensor)], mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for (_, tensor) in tensors {
        for first in (0..tensor.count()).step_by(PIECE) {
            take(&tensor.read(first..tensor.count().min(first + PIECE))?)?;
        }
    }
    Ok(())
}

/// Reads a tensor to where it belongs.
pub fn read(file: &mut Reader, name: &str, out: &mut dyn Tensor) -> Result<()> {
    let (dtype, shape) = file.info(name)?;
    let count: usize = shape.iter().product();
    ensure!(
        dtype == out.dtype(),
        "{name} was saved as {dtype:?}, and this run keeps it as {:?}: go on with the compute.device and optim.moments \
         that the run began with",
        out.dtype()
    );
    ensure!(count == out.count(), "{name} has {count} values, the model {}", out.count());
    let mut first = 0;
    file.read_bytes(name, &mut |bytes| {
        out.write(first, bytes)?;
        first += bytes.len() / (dtype.bitsize() / 8);
        Ok(())
    })
}
