//! A slab of cached keys and values on a device, and attention over it: launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::super::Heads;
use crate::device::{Buffer, Class, Device, Launch, View};

/// Most heads of a block, which share what it reads.
const HEADS: usize = 16;
/// Positions that a block takes. Fixed, so that a row's bits do not depend on the rows beside it.
const STRETCH: usize = 256;
/// Rows of a tile of keys or values.
const ROWS: usize = 64;

/// Where a token's key and value are: the place in the slab where its sequence begins, and its position in the sequence.
pub type Slot = [u32; 2];

/// Keys and values of every layer, bf16: `(layers, 2, sequences, length, key_value * D)`. A sequence has a fixed place.
#[derive(Debug)]
pub struct Cache {
    values: Buffer<bf16>,
    heads: Heads,
    sequences: usize,
    length: usize,
}

impl Cache {
    /// Room for `sequences` sequences of up to `length` tokens.
    pub fn new(device: &Device, heads: Heads, layers: usize, sequences: usize, length: usize) -> Result<Self> {
        assert!(
            u32::try_from(sequences * length).is_ok(),
            "{sequences} sequences of {length} tokens have no numbers of 32 bits"
        );
        let values = device.buffer(Class::Cache, layers * 2 * sequences * length * heads.key_value * heads.size)?;
        Ok(Self { values, heads, sequences, length })
    }

    /// Where position `position` of a sequence is.
    pub fn slot(&self, sequence: usize, position: usize) -> Slot {
        assert!(
            sequence < self.sequences && position < self.length,
            "position {position} of sequence {sequence} is not in the cache"
        );
        [(sequence * self.length) as u32, position as u32]
    }

    /// Values of a token's key in all heads.
    fn width(&self) -> usize {
        self.heads.key_value * self.heads.size
    }

    /// Values of the keys, or of the values, of a layer.
    fn plane(&self) -> usize {
        self.sequences * self.length * self.width()
    }

    fn keys(&self, layer: usize) -> View<'_, bf16> {
        self.values.part(2 * layer * self.plane()..(2 * layer + 1) * self.plane())
    }

    fn values(&self, layer: usize) -> View<'_, bf16> {
        self.values.part((2 * layer + 1) * self.plane()..(2 * layer + 2) * self.plane())
    }

    /// Keys and values of `qkv (T, row)`, rotated, to `slots (T)`, which differ and are of this cache.
    pub fn put(&self, layer: usize, qkv: View<bf16>, slots: View<Slot>) -> Result<()> {
        assert_eq!(qkv.len(), slots.len() * self.heads.row());
        let launch = Launch::new("cache_put", [slots.len().div_ceil(4), 1, 1], 128).arg(qkv).arg(slots);
        let launch = launch.arg(self.keys(layer)).arg(self.values(layer)).arg(slots.len() as u32);
        let launch = launch.arg(self.heads.row() as u32).arg(self.heads.output() as u32).arg(self.width() as u32);
        // SAFETY: lengths are checked above; slots are places of this cache.
        unsafe { qkv.device().launch(&launch) }
    }

    /// The first `count` positions of sequence `from`, in every layer, to sequence `to`.
    pub fn copy(&self, from: usize, to: usize, count: usize) -> Result<()> {
        assert!(
            from != to && from.max(to) < self.sequences && count <= self.length,
            "{count} positions of {from} to {to}"
        );
        let (values, sequence) = (count * self.width(), self.length * self.width());
        let grid = [values.div_ceil(8 * 256), self.values.all().len() / self.plane(), 1];
        let launch = Launch::new("cache_copy", grid, 256).arg(self.values.all()).arg((from * sequence) as u64);
        let launch = launch.arg((to * sequence) as u64).arg(values as u64).arg(self.plane() as u64);
        // SAFETY: both sequences lie within every plane.
        unsafe { self.values.all().device().launch(&launch) }
    }

    /// Attention of one token a row, `qkv (R, row)`, which [`Cache::put`] has put to `slots (R)`, over its sequence up to
    /// there -> `o (R, query * D)`. No position is beyond `longest` tokens; `partial` is scratch of [`partial_len`].
    pub fn attend(
        &self,
        layer: usize,
        qkv: View<bf16>,
        slots: View<Slot>,
        longest: usize,
        o: View<bf16>,
        partial: View<f32>,
    ) -> Result<()> {
        let (heads, rows, stretches) = (self.heads, slots.len(), longest.div_ceil(STRETCH));
        assert_eq!((qkv.len(), o.len()), (rows * heads.row(), rows * heads.output()));
        assert!(longest <= self.length && partial.len() >= partial_len(heads, rows, longest), "scratch of attention");
        let kernel = match heads.size {
            32 => "cached_attention_32",
            64 => "cached_attention_64",
            128 => "cached_attention_128",
            256 => "cached_attention_256",
            size => panic!("head size {size}: sizes are checked when the model comes to the device"),
        };
        let grid = [rows, heads.key_value * heads.group().div_ceil(HEADS), stretches];
        // Two tiles of keys and of values, or one of each where two do not fit.
        let tiles = if heads.size > 128 { 2 } else { 4 };
        let shared = ((HEADS + tiles * ROWS) * heads.size * size_of::<bf16>()) as u32;
        let launch = Launch::new(kernel, grid, 128).with_shared(shared).arg(qkv);
        let launch = launch.arg(self.keys(layer)).arg(self.values(layer)).arg(slots).arg(o).arg(partial);
        // SAFETY: lengths are checked above; slots are places of this cache.
        unsafe { qkv.device().launch(&launch.arg(crate::attention::packed::device::shape(heads)))? };
        if stretches <= 1 {
            return Ok(());
        }
        let launch = Launch::new("cached_attention_join", [rows, heads.query, 1], 128).arg(partial).arg(slots).arg(o);
        // SAFETY: as above; every stretch that a row has was written.
        unsafe { qkv.device().launch(&launch.arg(stretches as u32).arg(heads.size as u32)) }
    }
}

/// Values of scratch that attention of `rows` rows of up to `longest` tokens takes.
pub fn partial_len(heads: Heads, rows: usize, longest: usize) -> usize {
    match longest.div_ceil(STRETCH) {
        ..=1 => 0,
        stretches => rows * heads.query * stretches * (heads.size + 2),
    }
}
