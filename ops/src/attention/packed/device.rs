//! Attention over packed sequences on a device: launches of `kernel.cu`.

use anyhow::{Result, ensure};
use half::bf16;

use super::super::{Heads, Segment};
use crate::device::{Buffer, Class, Device, Launch, View};

/// Rows of a block, queries or keys.
const ROWS: usize = 64;
/// Most columns that a block gathers.
const COLUMNS: usize = 128;
/// Bytes of shared memory that a block may have on every card from sm_80 on: sm_86 and sm_89 have the least.
const SHARED_LIMIT: usize = 99 << 10;

/// The tiles of whole sequences, each where its sequence starts, its length, and its first row. Those with most to do
/// come first, so that the last blocks to run are short ones.
///
/// # Panics
/// If a segment has a prefix: the kernels know none.
pub fn tiles(segments: &[Segment]) -> Vec<[u32; 3]> {
    let mut tiles: Vec<[u32; 3]> = Vec::new();
    for Segment { prefix, rows } in segments {
        assert!(prefix.is_empty(), "a device attends over whole sequences");
        tiles.extend((0..rows.len()).step_by(ROWS).map(|first| [rows.start as u32, rows.len() as u32, first as u32]));
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile[2]));
    tiles
}

/// Refuses head sizes that no kernel was compiled for.
pub fn check(heads: Heads) -> Result<()> {
    let known = kernels(heads.size).is_some();
    ensure!(known, "head size {} has no CUDA kernels: 32, 64, 128 and 256 have", heads.size);
    Ok(())
}

/// Forward, gradient of keys and values, gradient of queries.
fn kernels(size: usize) -> Option<[&'static str; 3]> {
    match size {
        32 => Some(["attention_forward_32", "attention_backward_keys_32", "attention_backward_queries_32"]),
        64 => Some(["attention_forward_64", "attention_backward_keys_64", "attention_backward_queries_64"]),
        128 => Some(["attention_forward_128", "attention_backward_keys_128", "attention_backward_queries_128"]),
        256 => Some(["attention_forward_256", "attention_backward_keys_256", "attention_backward_queries_256"]),
        _ => None,
    }
}

/// Values in shared memory of a block of each of these kernels: a tile of 64 rows or two, and what is met with it, twice
/// so that the next is loaded meanwhile. The constants are those of the kernels.
fn shared(size: usize) -> [usize; 3] {
    match size {
        ..=128 => [(2 + 4) * ROWS * size, (2 * ROWS + 4 * 32) * size, (2 + 4) * ROWS * size],
        _ => [(ROWS + ROWS) * size + ROWS * COLUMNS, (2 * ROWS + 4 * 16) * size, (2 * ROWS + 4 * 16) * size],
    }
}

/// A launch of kernel `which` over `tiles` and `across` heads.
fn launch(heads: Heads, which: usize, tiles: View<[u32; 3]>, across: usize) -> Launch {
    let names = kernels(heads.size).expect("head sizes are checked when the model comes to the device");
    let shared = shared(heads.size)[which] * size_of::<bf16>();
    assert!(shared <= SHARED_LIMIT, "a block asks for {shared} bytes of shared memory");
    let grid = [tiles.len(), across, heads.size.div_ceil(COLUMNS)];
    Launch::new(names[which], grid, 128).with_shared(shared as u32)
}

pub(crate) fn shape(heads: Heads) -> [u32; 4] {
    [heads.query as u32, heads.key_value as u32, heads.row() as u32, heads.scale().to_bits()]
}

/// `qkv (T, row)` rotated -> `o (T, query * D)`, `lse (T, query)`.
#[allow(unsafe_code)]
pub fn forward(heads: Heads, qkv: View<bf16>, tiles: View<[u32; 3]>, o: View<bf16>, lse: View<f32>) -> Result<()> {
    let t = qkv.len() / heads.row();
    assert_eq!((o.len(), lse.len()), (t * heads.output(), t * heads.query));
    let launch = launch(heads, 0, tiles, heads.query).arg(qkv).arg(tiles).arg(o).arg(lse).arg(shape(heads));
    // SAFETY: tiles are of sequences within the T rows, and the lengths fit them.
    unsafe { qkv.device().launch(&launch) }
}

/// What the forward read and wrote, on the device.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// `(T, row)`, rotated.
    pub qkv: View<'a, bf16>,
    /// `(T, query * D)`.
    pub o: View<'a, bf16>,
    /// `(T, query)`.
    pub lse: View<'a, f32>,
}

/// `d_o (T, query * D)` -> `d_qkv (T, row)`, written; `delta (T, query)` is scratch.
#[allow(unsafe_code)]
pub fn backward(
    heads: Heads,
    kept: Kept,
    tiles: View<[u32; 3]>,
    d_o: View<bf16>,
    delta: View<f32>,
    d_qkv: View<bf16>,
) -> Result<()> {
    let t = kept.qkv.len() / heads.row();
    assert_eq!((kept.o.len(), kept.lse.len(), d_o.len()), (t * heads.output(), t * heads.query, t * heads.output()));
    assert_eq!((d_qkv.len(), delta.len()), (kept.qkv.len(), t * heads.query));
    let rows = t * heads.query;
    let deltas = Launch::new("attention_delta", [rows.div_ceil(4), 1, 1], 128)
        .arg(kept.o)
        .arg(d_o)
        .arg(delta)
        .arg(rows as u32)
        .arg(heads.size as u32);
    let both =
        |launch: Launch| launch.arg(kept.qkv).arg(d_o).arg(kept.lse).arg(delta).arg(tiles).arg(d_qkv).arg(shape(heads));
    let keys = both(launch(heads, 1, tiles, heads.key_value));
    let queries = both(launch(heads, 2, tiles, heads.query));
    for launch in [deltas, keys, queries] {
        // SAFETY: tiles are of sequences within the T rows, and the lengths fit them.
        unsafe { kept.qkv.device().launch(&launch)? };
    }
    Ok(())
}

/// The tiles of `segments` on the device.
pub fn upload_tiles(device: &Device, segments: &[Segment]) -> Result<Buffer<[u32; 3]>> {
    device.upload(Class::Activations, &tiles(segments))
}
