//! Rows of numbers in this machine's memory or on a device, as bytes: what a checkpoint takes and gives back without
//! asking where they are kept.

use std::ops::Range;

use anyhow::Result;
use bytemuck::Pod;
use half::bf16;
use safetensors::tensor::Dtype;

use crate::ops::device::Buffer;

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
