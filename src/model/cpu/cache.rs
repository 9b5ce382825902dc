//! Keys and values of the tokens so far, in blocks of 16 positions that completions of one prompt share.

use crate::ops::{LANES, memory};

/// Index of a block in its [`Cache`].
pub type BlockId = u32;

/// The blocks of a sequence, and how many tokens they hold.
#[derive(Debug, Default)]
pub struct Sequence {
    /// In the order of the positions.
    pub blocks: Vec<BlockId>,
    /// Tokens whose keys and values are in them.
    pub cached: usize,
}

/// Blocks allocated at a time.
pub(crate) const SLAB: usize = 64;

/// Blocks that a sequence takes.
pub(crate) fn blocks(tokens: usize) -> usize {
    tokens.div_ceil(LANES)
}

/// A pool of blocks; one holds 16 positions of every layer. Blocks are counted, and used again when nobody holds them.
#[derive(Debug, Default)]
pub struct Cache {
    /// Blocks lie in slabs, so that the system can back them by large pages.
    slabs: Vec<Vec<f32>>,
    holders: Vec<u32>,
    free: Vec<BlockId>,
    layer_len: usize,
    layers: usize,
}

impl Cache {
    /// An empty pool for `layers` layers, each with `layer_len` values in each block.
    pub fn new(layers: usize, layer_len: usize) -> Self {
        Self { layer_len, layers, ..Self::default() }
    }

    /// Gives its memory back to the system.
    pub fn give_back(self) {
        self.slabs.into_iter().for_each(memory::give_back);
    }

    /// Makes it a pool for such layers; one that is not yet is emptied.
    pub fn shape(&mut self, layers: usize, layer_len: usize) {
        if (self.layers, self.layer_len) != (layers, layer_len) {
            *self = Self::new(layers, layer_len);
        }
    }

    /// A block for one holder. Its values are whatever they were.
    pub fn take(&mut self) -> BlockId {
        if let Some(id) = self.free.pop() {
            self.holders[id as usize] = 1;
            return id;
        }
        if self.holders.len().is_multiple_of(SLAB) {
            self.slabs.push(vec![0f32; SLAB * self.layers * self.layer_len]);
        }
        self.holders.push(1);
        (self.holders.len() - 1) as BlockId
    }

    /// One more holder of a block.
    pub fn share(&mut self, id: BlockId) -> BlockId {
        self.holders[id as usize] += 1;
        id
    }

    /// One holder less; the last one frees the block.
    pub fn release(&mut self, id: BlockId) {
        self.holders[id as usize] -= 1;
        if self.holders[id as usize] == 0 {
            self.free.push(id);
        }
    }

    /// A block of one's own with the values of `id`.
    pub fn copy(&mut self, id: BlockId) -> BlockId {
        let copy = self.take();
        for layer in 0..self.layers {
            let values = self.layer(id, layer).to_vec();
            self.layer_mut(copy, layer).copy_from_slice(&values);
        }
        copy
    }

    /// A sequence that goes on from `prompt`: whole blocks are shared, the unfinished last one is copied.
    pub fn fork(&mut self, prompt: &Sequence) -> Sequence {
        let whole = prompt.cached / LANES;
        let fork = |(i, &id)| if i < whole { self.share(id) } else { self.copy(id) };
        Sequence { blocks: prompt.blocks.iter().enumerate().map(fork).collect(), cached: prompt.cached }
    }

    /// Gives a sequence a place for one more token.
    pub fn make_room(&mut self, sequence: &mut Sequence) {
        if sequence.cached.is_multiple_of(LANES) {
            sequence.blocks.push(self.take());
        }
    }

    /// Releases the blocks of a sequence, which then is empty.
    pub fn free(&mut self, sequence: &mut Sequence) {
        std::mem::take(sequence).blocks.into_iter().for_each(|id| self.release(id));
    }

    fn place(&self, id: BlockId, layer: usize) -> (usize, usize) {
        (id as usize / SLAB, (id as usize % SLAB * self.layers + layer) * self.layer_len)
    }

    /// One layer of a block.
    pub fn layer(&self, id: BlockId, layer: usize) -> &[f32] {
        let (slab, start) = self.place(id, layer);
        &self.slabs[slab][start..start + self.layer_len]
    }

    /// One layer of a block, to write.
    pub fn layer_mut(&mut self, id: BlockId, layer: usize) -> &mut [f32] {
        let (slab, start) = self.place(id, layer);
        &mut self.slabs[slab][start..start + self.layer_len]
    }

    /// Blocks that somebody holds.
    pub fn held(&self) -> usize {
        self.holders.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_shared_and_the_last_one_is_copied() {
        let mut cache = Cache::new(1, 4);
        let mut prompt = Sequence { blocks: vec![cache.take(), cache.take()], cached: LANES + 2 };
        cache.layer_mut(prompt.blocks[1], 0).fill(3.0);
        let mut fork = cache.fork(&prompt);
        assert_eq!(fork.blocks[0], prompt.blocks[0]);
        assert_ne!(fork.blocks[1], prompt.blocks[1]);
        assert_eq!(cache.layer(fork.blocks[1], 0), [3.0; 4]);
        assert_eq!(cache.held(), 3);
        cache.free(&mut fork);
        cache.free(&mut prompt);
        assert_eq!(cache.held(), 0);
    }
}
