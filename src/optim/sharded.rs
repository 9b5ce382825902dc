//! Numbers of which each rank has a share, as one row to a checkpoint.

use std::ops::Range;

use anyhow::Result;
use safetensors::tensor::Dtype;

use crate::ranks::{Ranks, overlap};
use crate::tensor::{Element, Tensor};

/// A row of numbers that lies on all ranks, each with its share; all of it on one process.
///
/// All ranks are to read the same of it in the same order, because what one of them has goes by way of others: the first
/// rank gets the numbers. Each is to be written all of it, and keeps its share.
#[derive(Debug, Clone)]
pub(super) struct Sharded<T> {
    own: Vec<T>,
    shares: Vec<Range<usize>>,
    ranks: Ranks,
}

impl<T: Element> Sharded<T> {
    /// So many zeros, all on this process.
    pub(super) fn zeros(count: usize) -> Self {
        Self { own: vec![T::zeroed(); count], shares: std::iter::once(0..count).collect(), ranks: Ranks::alone() }
    }

    /// Keeps this rank's of the `shares`, of numbers that each rank has all of.
    pub(super) fn share(&mut self, ranks: &Ranks, shares: Vec<Range<usize>>) {
        let own = shares[ranks.rank()].clone();
        if own.len() < self.own.len() {
            self.own = self.own[own].to_vec();
        }
        (self.shares, self.ranks) = (shares, ranks.clone());
    }

    /// This rank's of them, at places of the whole row.
    pub(super) fn at(&mut self, range: Range<usize>) -> &mut [T] {
        let first = self.shares[self.ranks.rank()].start;
        &mut self.own[range.start - first..range.end - first]
    }
}

impl<T: Element> Tensor for Sharded<T> {
    fn dtype(&self) -> Dtype {
        T::DTYPE
    }

    fn count(&self) -> usize {
        self.shares.last().map_or(0, |share| share.end)
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.len() * size_of::<T>()];
        for (owner, share) in self.shares.iter().enumerate() {
            let part = overlap(&range, share);
            if part.is_empty() {
                continue;
            }
            let first = (part.start - range.start) * size_of::<T>();
            let place = &mut bytes[first..first + part.len() * size_of::<T>()];
            if owner == self.ranks.rank() {
                place
                    .copy_from_slice(bytemuck::cast_slice(&self.own[part.start - share.start..part.end - share.start]));
            }
            self.ranks.bring_to_first(owner, place)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        let range = first..first + bytes.len() / size_of::<T>();
        let part = overlap(&range, &self.shares[self.ranks.rank()]);
        if !part.is_empty() {
            let skipped = (part.start - first) * size_of::<T>();
            let own = &bytes[skipped..skipped + part.len() * size_of::<T>()];
            bytemuck::cast_slice_mut(self.at(part)).copy_from_slice(own);
        }
        Ok(())
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
                    let mut row = Sharded::<f32>::zeros(1000);
                    row.share(&ranks, shares.to_vec());
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
