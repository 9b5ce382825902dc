//! Latent attention on a device, in the absorbed form of mod.rs. Keys lie apart from the absorbed queries, one of `L + R`
//! values a token whose first `L` are its value too, so that all heads of some queries are the rows of one matrix and meet
//! the keys of their sequence in one product; launches of `kernel.cu` stand between the products.
//!
//! Scores of a stretch of queries are held at a time, and their keys up to the last one's own are multiplied: the memory
//! does not grow with the square of a sequence. The gradient of keys is summed over stretches in fp32, in order.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::Latent;
use crate::adamw::device::round_weights;
use crate::attention::Segment;
use crate::attention::cached::device::{Cache, Slot, Slots};
use crate::device::columns;
use crate::device::products::{Matrix, Side, product, products};
use crate::device::{Buffer, Class, Device, Launch, Null, View};
use crate::linear::device::{Linear, LoraHidden, Window};

/// Most scores that are held at a time, unless those of a single query are more.
const SCORES: usize = 1 << 24;

/// `queries (T, H (plain + R))` -> `absorbed (T, H (L + R))`, times `factor`, not yet rotated. `expand` makes keys and values
/// of latents; `lora_hidden` is scratch between the factors of an addition to it.
pub fn absorb(
    s: Latent,
    expand: &Linear,
    factor: f32,
    queries: View<bf16>,
    absorbed: View<bf16>,
    lora_hidden: View<bf16>,
) -> Result<()> {
    let size = s.compressed();
    let (from, to) = (Matrix::dense(queries, s.queries()), Matrix::dense(absorbed, s.heads * size));
    let windows = each_head(s, |head| {
        let (x, y) = (from.columns(head * s.query(), s.plain), to.columns(head * size, s.rank));
        Window { rows: s.keys(head), x, y }
    });
    expand.times_windows(&windows, factor, lora_hidden)?;
    columns::copy(rotated(queries, s.query(), s), rotated(absorbed, size, s), factor)
}

fn each_head<'a>(s: Latent, window: impl Fn(usize) -> Window<'a>) -> Vec<Window<'a>> {
    (0..s.heads).map(window).collect()
}

/// The last columns of rows of `width` values, which are rotated.
fn rotated(values: View<bf16>, width: usize, s: Latent) -> Matrix<bf16> {
    Matrix::dense(values, width).columns(width - s.rotated, s.rotated)
}

/// The backward of [`absorb`]: `d_absorbed`, rotated back -> `d_queries`, written, and the gradient of what is trained of
/// `expand`.
pub fn absorb_backward(
    s: Latent,
    expand: &Linear,
    factor: f32,
    (queries, d_absorbed): (View<bf16>, View<bf16>),
    d_queries: View<bf16>,
    lora_hidden: LoraHidden,
) -> Result<()> {
    let size = s.compressed();
    let (queries, from) = (Matrix::dense(queries, s.queries()), Matrix::dense(d_absorbed, s.heads * size));
    let to = Matrix::dense(d_queries, s.queries());
    let windows = [to, queries].map(|of_queries| {
        each_head(s, |head| {
            let (x, y) = (from.columns(head * size, s.rank), of_queries.columns(head * s.query(), s.plain));
            Window { rows: s.keys(head), x, y }
        })
    });
    expand.forward_windows(&windows[0], factor, lora_hidden.values)?;
    expand.add_window_gradients(&windows[1], factor, lora_hidden)?;
    columns::copy(rotated(d_absorbed, size, s), rotated(d_queries, s.query(), s), factor)
}

/// Sums of latents `(T, H L)` -> outputs of heads `(T, H value)`.
pub fn expand(
    s: Latent,
    expand: &Linear,
    attended: View<bf16>,
    values: View<bf16>,
    lora_hidden: View<bf16>,
) -> Result<()> {
    let (from, to) = (Matrix::dense(attended, s.heads * s.rank), Matrix::dense(values, s.outputs()));
    let windows = each_head(s, |head| {
        let (x, y) = (from.columns(head * s.rank, s.rank), to.columns(head * s.value, s.value));
        Window { rows: s.values(head), x, y }
    });
    expand.forward_windows(&windows, 1.0, lora_hidden)
}

/// The backward of [`expand`]: `d_values (T, H value)` -> `d_attended (T, H L)`, written, and the gradient of what is
/// trained of the matrix.
pub fn expand_backward<'a>(
    s: Latent,
    expand: &Linear,
    (attended, d_values): (View<'a, bf16>, View<'a, bf16>),
    d_attended: View<'a, bf16>,
    lora_hidden: LoraHidden,
) -> Result<()> {
    let (attended, to) = (Matrix::dense(attended, s.heads * s.rank), Matrix::dense(d_attended, s.heads * s.rank));
    let from = Matrix::dense(d_values, s.outputs());
    let of_value = |head: usize| from.columns(head * s.value, s.value);
    let of_sum = |matrix: Matrix<'a, bf16>, head: usize| matrix.columns(head * s.rank, s.rank);
    let windows = each_head(s, |head| Window { rows: s.values(head), x: of_value(head), y: of_sum(to, head) });
    expand.times_windows(&windows, 1.0, lora_hidden.values)?;
    let windows = each_head(s, |head| Window { rows: s.values(head), x: of_sum(attended, head), y: of_value(head) });
    expand.add_window_gradients(&windows, 1.0, lora_hidden)
}

/// Scores of a stretch of queries, or their gradient, in fp32, and what is made of them in bf16.
#[derive(Debug)]
pub struct Scratch {
    wide: Buffer<f32>,
    rounded: Buffer<bf16>,
}

/// How many scores [`Scratch`] needs room for where up to `queries` queries see up to `longest` keys.
pub fn scratch_len(s: Latent, queries: usize, longest: usize) -> usize {
    let of_query = s.heads * padded(longest);
    (queries * of_query).min(SCORES.max(of_query))
}

/// Values from one row of scores to the next: products read and write faster where rows are aligned.
fn padded(keys: usize) -> usize {
    keys.next_multiple_of(8)
}

impl Scratch {
    /// Room for `len` scores.
    pub fn new(device: &Device, class: Class, len: usize) -> Result<Self> {
        Ok(Self { wide: device.buffer(class, len)?, rounded: device.buffer(class, len)? })
    }

    /// How many queries that see up to `keys` keys there is room for.
    fn queries(&self, s: Latent, keys: usize) -> usize {
        let queries = self.wide.all().len() / (s.heads * padded(keys));
        assert!(queries > 0, "too little scratch for the scores of {keys} keys");
        queries
    }
}

/// The rows of scores of some queries.
#[derive(Clone, Copy)]
struct Scores {
    s: Latent,
    /// Queries before them in the scratch.
    first: usize,
    queries: usize,
    /// Keys that the first query sees beside its own, where the queries are of one sequence.
    before: usize,
    keys: usize,
    /// Values from row to row.
    width: usize,
}

impl Scores {
    /// Theirs in a buffer of the scratch: `(queries H, keys)`.
    fn of<'a, T: bytemuck::Pod>(&self, buffer: &'a Buffer<T>) -> Matrix<'a, T> {
        let start = self.first * self.s.heads * self.width;
        let values = buffer.part(start..start + self.rows() * self.width);
        Matrix::dense(values, self.width).columns(0, self.keys)
    }

    fn rows(&self) -> usize {
        self.queries * self.s.heads
    }

    /// As the kernels take them.
    fn shape(&self) -> [u32; 6] {
        [self.rows(), self.width, self.s.heads, self.keys, self.before, 0].map(|n| n as u32)
    }

    fn launch(&self, kernel: &'static str) -> Launch {
        Launch::new(kernel, [self.rows().div_ceil(columns::WARP_ROWS), 1, 1], 128)
    }

    /// Scores to probabilities. The sums go to `lse`, or `slots` say what the queries see.
    fn probabilities(&self, scratch: &Scratch, lse: Option<View<f32>>, slots: Option<View<Slot>>) -> Result<()> {
        let launch = self.launch("latent_probabilities").arg(scratch.wide.all()).arg(scratch.rounded.all());
        let launch = match lse {
            Some(lse) => launch.arg(lse),
            None => launch.arg(Null),
        };
        let launch = match slots {
            Some(slots) => launch.arg(slots),
            None => launch.arg(Null),
        };
        // SAFETY: the scratch holds these rows from its beginning, and there is a sum or a slot for each.
        unsafe { scratch.wide.all().device().launch(&launch.arg(self.shape())) }
    }
}

/// A stretch of queries of a sequence: its rows in the batch, and where its keys begin there.
#[derive(Clone, Copy)]
struct Stretch {
    row: usize,
    start: usize,
    scores: Scores,
}

impl Stretch {
    /// Values of a matrix whose rows are queries, `width` to a head.
    fn heads<'a, T: bytemuck::Pod>(&self, values: View<'a, T>, width: usize) -> View<'a, T> {
        let row = self.scores.s.heads * width;
        values.part(self.row * row..(self.row + self.scores.queries) * row)
    }

    /// Those of a matrix whose rows are the heads of queries, `width` values each.
    fn queries<'a>(&self, values: View<'a, bf16>, width: usize) -> Matrix<'a, bf16> {
        Matrix::dense(self.heads(values, width), width)
    }

    /// The product of its scores.
    fn multiply<'a>(
        &self,
        scratch: &'a Scratch,
        queries: View<'a, bf16>,
        keys: View<'a, bf16>,
    ) -> (Side<'a>, Side<'a>, Matrix<'a, f32>) {
        let queries = self.queries(queries, self.scores.s.compressed());
        (Side::plain(queries), Side::transposed(self.keys(keys)), self.scores.of(&scratch.wide))
    }

    /// That of its values weighed by their probabilities.
    fn weigh<'a>(
        &self,
        scratch: &'a Scratch,
        keys: View<'a, bf16>,
        o: View<'a, bf16>,
    ) -> (Side<'a>, Side<'a>, Matrix<'a, bf16>) {
        let rank = self.scores.s.rank;
        let (p, values) = (self.scores.of(&scratch.rounded), self.keys(keys).columns(0, rank));
        (Side::plain(p), Side::plain(values), self.queries(o, rank))
    }

    /// The keys that it sees, or their gradient.
    fn keys<'a, T: bytemuck::Pod>(&self, values: View<'a, T>) -> Matrix<'a, T> {
        let size = self.scores.s.compressed();
        Matrix::dense(values.part(self.start * size..(self.start + self.scores.keys) * size), size)
    }
}

/// The stretches of all sequences, as many queries each as there is room for.
///
/// # Panics
/// If a segment has a prefix: a device attends over whole sequences.
fn stretches<'a>(s: Latent, segments: &'a [Segment], scratch: &'a Scratch) -> impl Iterator<Item = Stretch> + 'a {
    segments.iter().filter(|segment| !segment.rows.is_empty()).flat_map(move |Segment { prefix, rows }| {
        assert!(prefix.is_empty(), "a device attends over whole sequences");
        let (start, length) = (rows.start, rows.len());
        let most = scratch.queries(s, length);
        (0..length).step_by(most).map(move |before| {
            let queries = most.min(length - before);
            let keys = before + queries;
            let scores = Scores { s, first: 0, queries, before, keys, width: padded(keys) };
            Stretch { row: start + before, start, scores }
        })
    })
}

/// `queries (T, H (L + R))` and `keys (T, L + R)`, rotated -> `o (T, H L)`, `lse (T, H)`.
pub fn forward(
    s: Latent,
    (queries, keys): (View<bf16>, View<bf16>),
    segments: &[Segment],
    scratch: &Scratch,
    o: View<bf16>,
    lse: View<f32>,
) -> Result<()> {
    let (size, t) = (s.compressed(), keys.len() / s.compressed());
    assert_eq!((queries.len(), o.len(), lse.len()), (t * s.heads * size, t * s.heads * s.rank, t * s.heads));
    for stretch in stretches(s, segments, scratch) {
        products(&[stretch.multiply(scratch, queries, keys)], s.attention().scale(), false)?;
        stretch.scores.probabilities(scratch, Some(stretch.heads(lse, 1)), None)?;
        products(&[stretch.weigh(scratch, keys, o)], 1.0, false)?;
    }
    Ok(())
}

/// What the forward read and wrote.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// `(T, H (L + R))`, rotated.
    pub queries: View<'a, bf16>,
    /// `(T, L + R)`, rotated.
    pub keys: View<'a, bf16>,
    /// `(T, H L)`.
    pub o: View<'a, bf16>,
    /// `(T, H)`.
    pub lse: View<'a, f32>,
}

/// What the backward works in.
#[derive(Clone, Copy)]
pub struct BackwardScratch<'a> {
    /// Scores and probabilities.
    pub scores: &'a Scratch,
    /// Their gradients: as much room.
    pub gradients: &'a Scratch,
    /// `(T, H)`.
    pub delta: View<'a, f32>,
    /// The gradient of keys before it is rounded, `(T, L + R)`.
    pub keys: View<'a, f32>,
}

/// `d_o (T, H L)` -> `d_queries` and `d_keys`, written; that of keys holds what they get as values too.
pub fn backward(
    s: Latent,
    kept: Kept,
    segments: &[Segment],
    d_o: View<bf16>,
    scratch: BackwardScratch,
    (d_queries, d_keys): (View<bf16>, View<bf16>),
) -> Result<()> {
    let (size, scale, BackwardScratch { scores: forward, gradients, .. }) =
        (s.compressed(), s.attention().scale(), scratch);
    let rows = kept.lse.len();
    assert_eq!((kept.o.len(), d_o.len(), scratch.delta.len()), (rows * s.rank, rows * s.rank, rows));
    assert_eq!((kept.queries.len(), d_queries.len()), (rows * size, rows * size));
    assert_eq!([kept.keys.len(), d_keys.len()].map(|len| len * s.heads), [rows * size; 2]);
    assert!(gradients.wide.all().len() >= forward.wide.all().len(), "gradients take as much room as scores");
    let deltas = Launch::new("attention_delta", [rows.div_ceil(columns::WARP_ROWS), 1, 1], 128).arg(kept.o).arg(d_o);
    // SAFETY: lengths are checked above.
    unsafe { d_o.device().launch(&deltas.arg(scratch.delta).arg(rows as u32).arg(s.rank as u32))? };
    scratch.keys.zero()?;
    for stretch in stretches(s, segments, forward) {
        let (scores, keys, d_keys) = (stretch.scores, stretch.keys(kept.keys), stretch.keys(scratch.keys));
        let (queries, d_o) = (stretch.queries(kept.queries, size), stretch.queries(d_o, s.rank));
        products(&[stretch.multiply(forward, kept.queries, kept.keys)], scale, false)?;
        let values = Side::transposed(keys.columns(0, s.rank));
        product(Side::plain(d_o), values, scores.of(&gradients.wide), 1.0, false)?;
        let launch = scores.launch("latent_score_gradients").arg(forward.wide.all()).arg(gradients.wide.all());
        let launch = launch.arg(stretch.heads(kept.lse, 1)).arg(stretch.heads(scratch.delta, 1));
        let launch = launch.arg(forward.rounded.all()).arg(gradients.rounded.all()).arg(scores.shape());
        // SAFETY: both scratches hold these rows from their beginning, and there is a sum and a delta for each.
        unsafe { d_queries.device().launch(&launch)? };
        let (p, ds) = (scores.of(&forward.rounded), scores.of(&gradients.rounded));
        product(Side::plain(ds), Side::plain(keys), stretch.queries(d_queries, size), scale, false)?;
        product(Side::transposed(ds), Side::plain(queries), d_keys, scale, true)?;
        product(Side::transposed(p), Side::plain(d_o), d_keys.columns(0, s.rank), 1.0, true)?;
    }
    round_weights(scratch.keys, d_keys)
}

/// Attention of one token a row, `queries (R, H (L + R))`, whose keys [`Cache::put_latents`] has put to `slots (R)`, over its
/// sequence up to there -> `o (R, H L)`.
pub fn cached(
    s: Latent,
    (cache, layer): (&Cache, usize),
    queries: View<bf16>,
    slots: Slots,
    scratch: &Scratch,
    o: View<bf16>,
) -> Result<()> {
    let (size, latents, known) = (s.compressed(), cache.latents(layer), slots.known);
    assert_eq!((queries.len(), o.len()), (known.len() * s.heads * size, known.len() * s.heads * s.rank));
    let longest = known.iter().map(|slot| slot[1] as usize + 1).max().unwrap_or(0);
    let most = scratch.queries(s, longest.max(1));
    for (index, together) in known.chunks(most).enumerate() {
        let begin = index * most;
        // Keys beyond a row's own token are multiplied too, so that all rows have the same sizes, and weigh nothing.
        let all = Scores { s, first: 0, queries: together.len(), before: 0, keys: longest, width: padded(longest) };
        let rows: Vec<Stretch> = together
            .iter()
            .enumerate()
            .map(|(first, slot)| Stretch {
                row: begin + first,
                start: slot[0] as usize,
                scores: Scores { first, queries: 1, ..all },
            })
            .collect();
        let scores: Vec<_> = rows.iter().map(|row| row.multiply(scratch, queries, latents)).collect();
        products(&scores, s.attention().scale(), false)?;
        all.probabilities(scratch, None, Some(slots.there.part(begin..begin + together.len())))?;
        let sums: Vec<_> = rows.iter().map(|row| row.weigh(scratch, latents, o)).collect();
        products(&sums, 1.0, false)?;
    }
    Ok(())
}
