//! A slab of cached keys and values, or latents, on a device, and attention over keys and values: launches of `kernel.cu`.
//! That over latents is `latent/device.rs`'s.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::super::Heads;
use super::super::latent::Latent;
use crate::device::{Buffer, Class, Device, Launch, Null, View};

/// Most heads of a block, which share what it reads.
const HEADS: usize = 16;
/// Positions that a block takes. Fixed, so that a row's bits do not depend on the rows beside it.
const STRETCH: usize = 256;
/// Rows of a tile of keys or values.
const ROWS: usize = 64;

/// Where a token's key and value are: the place in the slab where its sequence begins, and its position in the sequence.
pub type Slot = [u32; 2];

/// Where the tokens of rows are, as the host knows it and on the device.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// On the host.
    pub known: &'a [Slot],
    /// On the device.
    pub there: View<'a, Slot>,
}

/// What a layer keeps of a token.
#[derive(Debug, Clone, Copy)]
enum Token {
    /// Keys and values of these heads, a plane each.
    Grouped(Heads),
    /// A key that holds its value: one plane.
    Latent(Latent),
}

impl Token {
    fn planes(self) -> usize {
        match self {
            Self::Grouped(_) => 2,
            Self::Latent(_) => 1,
        }
    }

    /// Values of a token in a plane.
    fn width(self) -> usize {
        match self {
            Self::Grouped(heads) => heads.key_value * heads.size,
            Self::Latent(latent) => latent.compressed(),
        }
    }
}

/// What tokens have left in every layer, bf16: `(layers, planes, sequences, length, width)`. A sequence has a fixed place.
#[derive(Debug)]
pub struct Cache {
    values: Buffer<bf16>,
    token: Token,
    sequences: usize,
    length: usize,
}

impl Cache {
    /// Room for the keys and values of `sequences` sequences of up to `length` tokens.
    pub fn new(device: &Device, heads: Heads, layers: usize, sequences: usize, length: usize) -> Result<Self> {
        Self::of(device, Token::Grouped(heads), layers, sequences, length)
    }

    /// Room for the latents of as many, with what is rotated beside them.
    pub fn of_latents(device: &Device, s: Latent, layers: usize, sequences: usize, length: usize) -> Result<Self> {
        let cache = Self::of(device, Token::Latent(s), layers, sequences, length)?;
        // Positions behind a row's own are multiplied beside those of longer rows, by 0: they must be numbers.
        cache.values.all().zero()?;
        Ok(cache)
    }

    fn of(device: &Device, token: Token, layers: usize, sequences: usize, length: usize) -> Result<Self> {
        assert!(
            u32::try_from(sequences * length).is_ok(),
            "{sequences} sequences of {length} tokens have no numbers of 32 bits"
        );
        let values = device.buffer(Class::Cache, layers * token.planes() * sequences * length * token.width())?;
        Ok(Self { values, token, sequences, length })
    }

    /// Where position `position` of a sequence is.
    pub fn slot(&self, sequence: usize, position: usize) -> Slot {
        assert!(
            sequence < self.sequences && position < self.length,
            "position {position} of sequence {sequence} is not in the cache"
        );
        [(sequence * self.length) as u32, position as u32]
    }

    /// Values of a token in a plane.
    fn width(&self) -> usize {
        self.token.width()
    }

    /// Values of a plane of a layer.
    fn plane_len(&self) -> usize {
        self.sequences * self.length * self.width()
    }

    fn plane(&self, layer: usize, plane: usize) -> View<'_, bf16> {
        let start = (self.token.planes() * layer + plane) * self.plane_len();
        self.values.part(start..start + self.plane_len())
    }

    fn heads(&self) -> Heads {
        let Token::Grouped(heads) = self.token else { panic!("a cache of latents has no keys and values of heads") };
        heads
    }

    /// The keys of a layer, `(sequences length, L + R)`.
    pub(crate) fn latents(&self, layer: usize) -> View<'_, bf16> {
        assert!(matches!(self.token, Token::Latent(_)), "a cache of keys and values has no latents");
        self.plane(layer, 0)
    }

    /// Keys and values of `qkv (T, row)`, rotated, to `slots (T)`, which differ and are of this cache.
    pub fn put(&self, layer: usize, qkv: View<bf16>, slots: View<Slot>) -> Result<()> {
        let heads = self.heads();
        assert_eq!(qkv.len(), slots.len() * heads.row());
        let launch = Self::put_launch(qkv, slots).arg(self.plane(layer, 0)).arg(self.plane(layer, 1));
        let launch = launch.arg(slots.len() as u32).arg(heads.row() as u32).arg(heads.output() as u32);
        // SAFETY: lengths are checked above; slots are places of this cache.
        unsafe { qkv.device().launch(&launch.arg(self.width() as u32)) }
    }

    /// Keys `(T, L + R)`, rotated, to `slots (T)`, which differ and are of this cache.
    pub fn put_latents(&self, layer: usize, keys: View<bf16>, slots: View<Slot>) -> Result<()> {
        let width = self.width() as u32;
        assert_eq!(keys.len(), slots.len() * self.width());
        let launch = Self::put_launch(keys, slots).arg(self.latents(layer)).arg(Null);
        // SAFETY: lengths are checked above; slots are places of this cache.
        unsafe { keys.device().launch(&launch.arg(slots.len() as u32).arg(width).arg(0u32).arg(width)) }
    }

    fn put_launch(rows: View<bf16>, slots: View<Slot>) -> Launch {
        Launch::new("cache_put", [slots.len().div_ceil(4), 1, 1], 128).arg(rows).arg(slots)
    }

    /// The first `count` positions of sequence `from`, in every layer, to sequence `to`.
    pub fn copy(&self, from: usize, to: usize, count: usize) -> Result<()> {
        assert!(
            from != to && from.max(to) < self.sequences && count <= self.length,
            "{count} positions of {from} to {to}"
        );
        let (values, sequence) = (count * self.width(), self.length * self.width());
        let grid = [values.div_ceil(8 * 256), self.values.all().len() / self.plane_len(), 1];
        let launch = Launch::new("cache_copy", grid, 256).arg(self.values.all()).arg((from * sequence) as u64);
        let launch = launch.arg((to * sequence) as u64).arg(values as u64).arg(self.plane_len() as u64);
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
        let (heads, rows, stretches) = (self.heads(), slots.len(), longest.div_ceil(STRETCH));
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
        let launch = launch.arg(self.plane(layer, 0)).arg(self.plane(layer, 1)).arg(slots).arg(o).arg(partial);
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
