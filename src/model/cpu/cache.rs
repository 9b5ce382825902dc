//! What sequences have of their tokens so far: keys and values, in blocks of 16 positions that completions of one prompt
//! share, and the states of delta nets, one a sequence, which do not grow.

use crate::ops::{LANES, memory};

/// Index of a block in its [`Cache`].
pub type BlockId = u32;

/// Index of a state in its [`Cache`].
pub type StateId = usize;

/// Sizes of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers whose keys and values are in it.
    pub layers: usize,
    /// Values of each in a block.
    pub block: usize,
    /// Layers that have a state.
    pub states: usize,
    /// Values of the state of each.
    pub state: usize,
}

impl CacheShape {
    /// Bytes that a sequence of so many tokens takes.
    pub fn sequence_bytes(&self, tokens: usize) -> usize {
        size_of::<f32>() * (blocks(tokens) * self.layers * self.block + self.states * self.state)
    }
}

/// What a cache holds of a sequence.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    /// In the order of the positions.
    pub blocks: Vec<BlockId>,
    /// Tokens that are in it.
    pub cached: usize,
    /// After them; none before there is a token.
    pub state: Option<StateId>,
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
    /// Those of all layers end to end.
    states: Vec<Vec<f32>>,
    free_states: Vec<StateId>,
    shape: CacheShape,
}

impl Cache {
    /// An empty pool.
    pub fn new(shape: CacheShape) -> Self {
        Self { shape, ..Self::default() }
    }

    /// Gives its memory back to the system.
    pub fn give_back(self) {
        self.slabs.into_iter().chain(self.states).for_each(memory::give_back);
    }

    /// Makes it a pool of such a shape; one that is not yet is emptied.
    pub fn shape(&mut self, shape: CacheShape) {
        if self.shape != shape {
            *self = Self::new(shape);
        }
    }

    /// A sequence of so many tokens, which are yet to be put in; its states are zero.
    pub fn begin(&mut self, tokens: usize) -> Sequence {
        let state = self.take_state();
        self.states[state].fill(0.0);
        Sequence { blocks: (0..blocks(tokens)).map(|_| self.take()).collect(), cached: tokens, state: Some(state) }
    }

    /// A state of one's own. Its values are whatever they were.
    fn take_state(&mut self) -> StateId {
        self.free_states.pop().unwrap_or_else(|| {
            self.states.push(vec![0f32; self.shape.states * self.shape.state]);
            self.states.len() - 1
        })
    }

    /// The states of one of the layers that have some, each of another sequence.
    pub fn states_mut(&mut self, ids: impl IntoIterator<Item = StateId>, layer: usize) -> Vec<&mut [f32]> {
        let len = self.shape.state;
        let mut all: Vec<Option<&mut Vec<f32>>> = self.states.iter_mut().map(Some).collect();
        let state = |id: StateId| {
            let state = all[id].take().expect("a sequence has a state of its own");
            &mut state[layer * len..][..len]
        };
        ids.into_iter().map(state).collect()
    }

    /// A block for one holder. Its values are whatever they were.
    pub fn take(&mut self) -> BlockId {
        if let Some(id) = self.free.pop() {
            self.holders[id as usize] = 1;
            return id;
        }
        if self.holders.len().is_multiple_of(SLAB) {
            self.slabs.push(vec![0f32; SLAB * self.shape.layers * self.shape.block]);
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
        for layer in 0..self.shape.layers {
            let values = self.layer(id, layer).to_vec();
            self.layer_mut(copy, layer).copy_from_slice(&values);
        }
        copy
    }

    /// A sequence that goes on from `prompt`: whole blocks are shared, the unfinished last one and the states are copied.
    pub fn fork(&mut self, prompt: &Sequence) -> Sequence {
        let state = prompt.state.map(|from| {
            let to = self.take_state();
            let values = std::mem::take(&mut self.states[from]);
            self.states[to].copy_from_slice(&values);
            self.states[from] = values;
            to
        });
        let whole = prompt.cached / LANES;
        let fork = |(i, &id)| if i < whole { self.share(id) } else { self.copy(id) };
        Sequence { blocks: prompt.blocks.iter().enumerate().map(fork).collect(), cached: prompt.cached, state }
    }

    /// Gives a sequence a place for one more token.
    pub fn make_room(&mut self, sequence: &mut Sequence) {
        if sequence.cached.is_multiple_of(LANES) {
            sequence.blocks.push(self.take());
        }
    }

    /// Releases what is held of a sequence, which then is empty.
    pub fn free(&mut self, sequence: &mut Sequence) {
        let Sequence { blocks, state, .. } = std::mem::take(sequence);
        blocks.into_iter().for_each(|id| self.release(id));
        self.free_states.extend(state);
    }

    fn place(&self, id: BlockId, layer: usize) -> (usize, usize) {
        (id as usize / SLAB, (id as usize % SLAB * self.shape.layers + layer) * self.shape.block)
    }

    /// One layer of a block.
    pub fn layer(&self, id: BlockId, layer: usize) -> &[f32] {
        let (slab, start) = self.place(id, layer);
        &self.slabs[slab][start..start + self.shape.block]
    }

    /// One layer of a block, to write.
    pub fn layer_mut(&mut self, id: BlockId, layer: usize) -> &mut [f32] {
        let (slab, start) = self.place(id, layer);
        &mut self.slabs[slab][start..start + self.shape.block]
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
        let mut cache = Cache::new(CacheShape { layers: 1, block: 4, ..CacheShape::default() });
        let mut prompt = cache.begin(LANES + 2);
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

    #[test]
    fn a_sequence_begins_with_zeros_and_goes_on_with_a_copy_of_its_prompt_s_states() {
        let mut cache = Cache::new(CacheShape { states: 2, state: 3, ..CacheShape::default() });
        let mut prompt = cache.begin(5);
        cache.states_mut(prompt.state, 1)[0].fill(7.0);
        let mut forks = [cache.fork(&prompt), cache.fork(&prompt)];
        let ids: Vec<StateId> = forks.iter().filter_map(|fork| fork.state).collect();
        cache.states_mut(ids.clone(), 1)[0].fill(8.0);
        assert_eq!(cache.states_mut(ids.clone(), 1), [[8.0; 3], [7.0; 3]], "each its own");
        assert_eq!(cache.states_mut(ids, 0), [[0.0; 3]; 2], "the other layer");
        forks.iter_mut().for_each(|fork| cache.free(fork));
        cache.free(&mut prompt);
        let again: Vec<Sequence> = (0..3).map(|_| cache.begin(1)).collect();
        for layer in 0..2 {
            let states = cache.states_mut(again.iter().filter_map(|sequence| sequence.state), layer);
            assert_eq!(states, [[0.0; 3]; 3], "used again");
        }
        assert_eq!(cache.states.len(), 3);
    }
}
