//! Moments of which each rank has those of its share, as one row to a checkpoint, wherever they lie.

use std::ops::Range;

use anyhow::Result;
use bytemuck::Pod;
use safetensors::tensor::Dtype;

use super::{MomentKind, Stretch};
use crate::ops::device::{Buffer, View};
use crate::ranks::{Ranks, overlap};
use crate::tensor::Tensor;

/// The moments of AdamW in rows of four bytes a number, of signed and of unsigned bytes.
#[derive(Debug, Clone)]
pub(super) enum Moments<F, I, U> {
    /// Four bytes each.
    Full { m: Sharded<F>, v: Sharded<F> },
    /// A byte each, and the largest magnitude of each block.
    EightBit { m: Sharded<I>, v: Sharded<U>, m_largest: Sharded<F>, v_largest: Sharded<F> },
}

/// Makes rows of so many zeros.
pub(super) struct Zeros<'a, F, I, U> {
    pub floats: &'a dyn Fn(usize) -> Result<F>,
    pub signed: &'a dyn Fn(usize) -> Result<I>,
    pub unsigned: &'a dyn Fn(usize) -> Result<U>,
}

impl<F: Tensor, I: Tensor, U: Tensor> Moments<F, I, U> {
    /// Empty ones of this rank's of the `shares` of all.
    pub(super) fn empty(
        kind: MomentKind,
        stretches: &[Stretch],
        shares: &[Range<usize>],
        ranks: &Ranks,
        zeros: &Zeros<F, I, U>,
    ) -> Result<Self> {
        let blocks = blocks(stretches, shares);
        let row = |shares: &[Range<usize>]| Place { shares: shares.to_vec(), ranks: ranks.clone() };
        Ok(match kind {
            MomentKind::Full => {
                Self::Full { m: row(shares).filled(zeros.floats)?, v: row(shares).filled(zeros.floats)? }
            }
            MomentKind::EightBit => Self::EightBit {
                m: row(shares).filled(zeros.signed)?,
                v: row(shares).filled(zeros.unsigned)?,
                m_largest: row(&blocks).filled(zeros.floats)?,
                v_largest: row(&blocks).filled(zeros.floats)?,
            },
        })
    }

    /// Each row by its name in a checkpoint.
    pub(super) fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)> {
        match self {
            Self::Full { m, v } => vec![("m", m), ("v", v)],
            Self::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }

    /// The same, to be replaced.
    pub(super) fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        match self {
            Self::Full { m, v } => vec![("m", m), ("v", v)],
            Self::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }
}

/// The blocks of moments of each rank's share.
fn blocks(stretches: &[Stretch], shares: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let blocks_of = |share: &Range<usize>| {
        let (start, last) = (end, stretches.iter().rev().find_map(|stretch| stretch.within(share)));
        end = last.map_or(start, |last| last.blocks.end);
        start..end
    };
    shares.iter().map(blocks_of).collect()
}

/// Whose a row's parts are.
#[derive(Debug, Clone)]
struct Place {
    shares: Vec<Range<usize>>,
    ranks: Ranks,
}

impl Place {
    fn own(&self) -> &Range<usize> {
        &self.shares[self.ranks.rank()]
    }

    /// A row there, of which this rank has as much as `make` makes.
    fn filled<S>(self, make: impl Fn(usize) -> Result<S>) -> Result<Sharded<S>> {
        Ok(Sharded { own: make(self.own().len())?, place: self })
    }

    /// A range of the whole row in this rank's part of it.
    fn within(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.own().start;
        range.start - first..range.end - first
    }
}

/// A row of numbers that lies on all ranks, each with its share; all of it on one process.
///
/// All ranks are to read the same of it in the same order, because what one of them has goes by way of others: the first
/// rank gets the numbers. Each is to be written all of it, and keeps its share.
#[derive(Debug, Clone)]
pub(super) struct Sharded<S> {
    own: S,
    place: Place,
}

impl<T> Sharded<Vec<T>> {
    /// This rank's of them, at places of the whole row.
    pub(super) fn at(&mut self, range: Range<usize>) -> &mut [T] {
        &mut self.own[self.place.within(&range)]
    }
}

impl<T: Pod> Sharded<Buffer<T>> {
    /// This rank's of them, at places of the whole row.
    pub(super) fn at(&self, range: Range<usize>) -> View<'_, T> {
        self.own.part(self.place.within(&range))
    }
}

impl<S: Tensor> Tensor for Sharded<S> {
    fn dtype(&self) -> Dtype {
        self.own.dtype()
    }

    fn count(&self) -> usize {
        self.place.shares.last().map_or(0, |share| share.end)
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let size = self.dtype().bitsize() / 8;
        let mut bytes = vec![0; range.len() * size];
        for (owner, share) in self.place.shares.iter().enumerate() {
            let part = overlap(&range, share);
            if part.is_empty() {
                continue;
            }
            let first = (part.start - range.start) * size;
            let place = &mut bytes[first..first + part.len() * size];
            if owner == self.place.ranks.rank() {
                place.copy_from_slice(&self.own.read(self.place.within(&part))?);
            }
            self.place.ranks.bring_to_first(owner, place)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let size = self.dtype().bitsize() / 8;
        let range = first..first + bytes.len() / size;
        let part = overlap(&range, self.place.own());
        if part.is_empty() {
            return Ok(());
        }
        let skipped = (part.start - first) * size;
        self.own.write(self.place.within(&part).start, &bytes[skipped..skipped + part.len() * size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::tcp::ring_of_threads;

    #[test]
    fn a_checkpoint_reads_and_writes_what_lies_on_several_ranks_as_one_row() {
        let (numbers, shares) = ((0..1000).map(|i| i as f32).collect::<Vec<f32>>(), [0..300, 300..300, 300..1000]);
        let pieces = [0..256, 256..512, 512..1000];
        std::thread::scope(|scope| {
            for ranks in ring_of_threads(3).unwrap() {
                let (numbers, shares, pieces) = (&numbers, &shares, &pieces);
                scope.spawn(move || {
                    let place = Place { shares: shares.to_vec(), ranks: ranks.clone() };
                    let mut row = place.filled(|len| Ok(vec![0f32; len])).unwrap();
                    for piece in pieces {
                        row.write(piece.start, bytemuck::cast_slice(&numbers[piece.clone()])).unwrap();
                    }
                    assert_eq!((row.count(), row.own.as_slice()), (1000, &numbers[shares[ranks.rank()].clone()]));
                    let read = pieces.iter().flat_map(|piece| row.read(piece.clone()).unwrap()).collect::<Vec<u8>>();
                    if ranks.is_first() {
                        assert_eq!(read, bytemuck::cast_slice::<f32, u8>(numbers));
                    }
                    ranks.finish(Ok(())).unwrap();
                });
            }
        });
    }
}
