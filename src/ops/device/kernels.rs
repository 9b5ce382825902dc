//! Launches of the kernels that lie beside the CPU bodies (`ops/*.cu`), each with its lengths checked. Formulas and
//! shapes are those of the CPU twin of the same name; attention and the products have files of their own.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::super::adamw::Step;
use super::{Class, Device, Launch, Null, View};

/// Rows that a block of the kernels with a warp a row takes.
const WARPS: usize = 4;
/// Threads of the elementwise kernels.
const THREADS: usize = 256;
/// Rows of a stretch that one block sums the columns of.
const STRETCH: usize = 256;
/// Blocks that a norm is summed in: enough for every card, and the same on all.
const NORM_BLOCKS: usize = 1024;

/// Rows of `k` values that a norm is taken of: `heads` to a token, and tokens `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Values in a row, a multiple of 8.
    pub k: usize,
    /// Rows of a token.
    pub heads: usize,
    /// Values from token to token.
    pub stride: usize,
}

impl Rows {
    /// Rows end to end.
    pub fn dense(k: usize) -> Self {
        Self { k, heads: 1, stride: k }
    }

    /// How many rows `x` holds; it starts at the first token's first row and may end with the last token's last.
    fn count(self, x: View<bf16>) -> usize {
        let tokens = x.len().div_ceil(self.stride);
        assert!(self.k.is_multiple_of(8) && self.stride.is_multiple_of(8), "kernels read eight values at a time");
        assert!(
            tokens == 0 || x.len() >= (tokens - 1) * self.stride + self.heads * self.k,
            "the last row is cut short"
        );
        tokens * self.heads
    }

    fn grid(self, x: View<bf16>) -> [usize; 3] {
        [self.count(x).div_ceil(WARPS), 1, 1]
    }
}

/// `x`, `w (k)` -> `y` of the same places, and the rows' factors for the backward.
pub fn rms_norm(rows: Rows, x: View<bf16>, w: View<bf16>, y: View<bf16>, factors: View<f32>, eps: f32) -> Result<()> {
    let count = rows.count(x);
    assert_eq!((w.len(), y.len(), factors.len()), (rows.k, x.len(), count));
    let launch = Launch::new("rms_norm_forward", rows.grid(x), 128).arg(x).arg(w).arg(y).arg(factors).arg(count as u32);
    let launch = launch.arg(rows.k as u32).arg(rows.heads as u32).arg(rows.stride as u32).arg(eps);
    // SAFETY: lengths are checked above.
    unsafe { x.device().launch(&launch) }
}

/// What the backward of a norm reads.
#[derive(Clone, Copy)]
pub struct NormKept<'a> {
    /// Input of the forward.
    pub x: View<'a, bf16>,
    /// Weight.
    pub w: View<'a, bf16>,
    /// Factors that the forward left.
    pub factors: View<'a, f32>,
}

/// `dy` -> `dx`, added to where `add` (the residual stream passes the norm by), else written; `dw`, if the weight learns,
/// is added to.
pub fn rms_norm_backward(
    rows: Rows,
    kept: NormKept,
    dy: View<bf16>,
    dx: View<bf16>,
    add: bool,
    dw: Option<View<f32>>,
    partial: View<f32>,
) -> Result<()> {
    let count = rows.count(kept.x);
    assert_eq!((kept.w.len(), kept.factors.len()), (rows.k, count));
    assert_eq!((dy.len(), dx.len()), (kept.x.len(), kept.x.len()));
    // The weight's gradient first: `dx` may take the place of `dy`.
    if let Some(dw) = dw {
        assert_eq!(dw.len(), rows.k);
        let sums = Launch::new("column_partials", stretches(rows.k, count), 256).arg(dy).arg(kept.x).arg(kept.factors);
        column_sums(sums, rows, count, dw, partial)?;
    }
    let launch = Launch::new("rms_norm_backward", rows.grid(kept.x), 128).arg(kept.x).arg(kept.w).arg(kept.factors);
    let launch = launch.arg(dy).arg(dx).arg(count as u32).arg(rows.k as u32).arg(rows.heads as u32);
    // SAFETY: lengths are checked above.
    unsafe { dx.device().launch(&launch.arg(rows.stride as u32).arg(u32::from(add))) }
}

/// `db (N) += sum over rows of dy (T, N)`.
pub fn bias_backward(dy: View<bf16>, db: View<f32>, partial: View<f32>) -> Result<()> {
    let rows = Rows::dense(db.len());
    let count = rows.count(dy);
    let launch = Launch::new("column_partials", stretches(rows.k, count), 256).arg(dy).arg(Null).arg(Null);
    column_sums(launch, rows, count, db, partial)
}

/// Values of scratch that the sums over `count` rows of `k` columns take.
pub fn partial_len(k: usize, count: usize) -> usize {
    count.div_ceil(STRETCH) * k
}

fn stretches(k: usize, count: usize) -> [usize; 3] {
    [k.div_ceil(64), count.div_ceil(STRETCH), 1]
}

/// Sums in two passes; the first is given its terms.
fn column_sums(first: Launch, rows: Rows, count: usize, sum: View<f32>, partial: View<f32>) -> Result<()> {
    assert!(partial.len() >= partial_len(rows.k, count), "too little scratch for the sums of columns");
    let first = first.arg(partial).arg(count as u32).arg(rows.k as u32).arg(rows.heads as u32);
    let first = first.arg(rows.stride as u32).arg(STRETCH as u32);
    let second = Launch::new("column_total", [rows.k.div_ceil(THREADS), 1, 1], 256).arg(partial).arg(sum);
    let second = second.arg(rows.k as u32).arg(count.div_ceil(STRETCH) as u32);
    // SAFETY: lengths are checked by the callers and above.
    unsafe {
        sum.device().launch(&first)?;
        sum.device().launch(&second)
    }
}

/// Writes `b (N)` into every row of `y`.
pub fn fill_bias(b: View<bf16>, y: View<bf16>) -> Result<()> {
    assert!(y.len().is_multiple_of(b.len()) && b.len().is_multiple_of(8), "rows of the bias, eight values at a time");
    let launch = Launch::new("fill_rows", eights(y.len()), 256).arg(b).arg(y).arg(b.len() as u32).arg(y.len() as u64);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch) }
}

fn eights(values: usize) -> [usize; 3] {
    [values.div_ceil(8 * THREADS), 1, 1]
}

/// `gate_up (T, 2F)` -> `y (T, F)`.
pub fn swiglu(gate_up: View<bf16>, f: usize, y: View<bf16>) -> Result<()> {
    assert!(f.is_multiple_of(8) && y.len().is_multiple_of(f) && gate_up.len() == 2 * y.len(), "rows of F, 2F values");
    let launch = Launch::new("swiglu_forward", eights(y.len()), 256).arg(gate_up).arg(y).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(y.len() as u64)) }
}

/// `dy (T, F)` -> the gradient of `gate_up (T, 2F)`, in its place.
pub fn swiglu_backward(gate_up: View<bf16>, f: usize, dy: View<bf16>) -> Result<()> {
    assert!(f.is_multiple_of(8) && dy.len().is_multiple_of(f) && gate_up.len() == 2 * dy.len(), "rows of F, 2F values");
    let launch = Launch::new("swiglu_backward", eights(dy.len()), 256).arg(gate_up).arg(dy).arg(f as u32);
    // SAFETY: lengths are checked above.
    unsafe { dy.device().launch(&launch.arg(dy.len() as u64)) }
}

/// Angles on the device: `(positions, half)` each.
#[derive(Clone, Copy)]
pub struct Angles<'a> {
    /// Pairs a head.
    pub half: usize,
    /// Cosines.
    pub cos: View<'a, f32>,
    /// Sines.
    pub sin: View<'a, f32>,
}

/// Rotates the first `heads` heads of every row of `x (T, stride)` in place, back again where `sign` is -1. The caller
/// has checked that the table holds every position.
pub fn rotate(
    angles: Angles,
    x: View<bf16>,
    positions: View<u32>,
    heads: usize,
    stride: usize,
    sign: f32,
) -> Result<()> {
    assert_eq!(x.len(), positions.len() * stride);
    assert!(heads * 2 * angles.half <= stride, "a row holds its heads");
    let launch = Launch::new("rope_rotate", [positions.len(), 1, 1], 256).arg(x).arg(positions).arg(angles.cos);
    let launch = launch.arg(angles.sin).arg(heads as u32).arg(angles.half as u32).arg(stride as u32).arg(sign);
    // SAFETY: lengths are checked above.
    unsafe { x.device().launch(&launch) }
}

/// `y (R, K)` = rows `ids` of `w`. The caller has checked that `w` has every row.
pub fn take_rows(ids: View<u32>, w: View<bf16>, y: View<bf16>, k: usize) -> Result<()> {
    move_rows("embedding_forward", ids, w, y, k, y.len())
}

/// Rows `ids` of `y`, which differ, = `x (R, K)`.
pub fn put_rows(ids: View<u32>, x: View<bf16>, y: View<bf16>, k: usize) -> Result<()> {
    move_rows("scatter_rows", ids, x, y, k, x.len())
}

fn move_rows(kernel: &'static str, ids: View<u32>, x: View<bf16>, y: View<bf16>, k: usize, short: usize) -> Result<()> {
    assert_eq!(short, ids.len() * k);
    assert!(k.is_multiple_of(8), "kernels read eight values at a time");
    let launch = Launch::new(kernel, [ids.len().div_ceil(WARPS), 1, 1], 128).arg(ids).arg(x).arg(y);
    // SAFETY: lengths are checked above.
    unsafe { y.device().launch(&launch.arg(ids.len() as u32).arg(k as u32)) }
}

/// The places of each token that occurs, sorted by token: what the embedding's backward goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Occurrences {
    /// Tokens, each once, ascending.
    pub tokens: Vec<u32>,
    /// Where each token's places start, and the total at the end.
    pub starts: Vec<u32>,
    /// Places, ascending for each token.
    pub places: Vec<u32>,
}

impl Occurrences {
    /// Sorts `tokens`.
    pub fn of(tokens: &[u32]) -> Self {
        let mut places: Vec<u32> = (0..tokens.len() as u32).collect();
        places.sort_by_key(|&place| tokens[place as usize]);
        let mut sorted = Self::default();
        for (i, &place) in places.iter().enumerate() {
            let token = tokens[place as usize];
            if sorted.tokens.last() != Some(&token) {
                sorted.tokens.push(token);
                sorted.starts.push(i as u32);
            }
        }
        sorted.starts.push(places.len() as u32);
        Self { places, ..sorted }
    }
}

/// `dw[tokens[t]] += dy[t]`, in the order of the tokens.
pub fn embedding_backward(occurrences: &Occurrences, dy: View<bf16>, k: usize, dw: View<f32>) -> Result<()> {
    assert_eq!(dy.len(), occurrences.places.len() * k);
    assert!(
        occurrences.tokens.last().is_none_or(|&last| (last as usize + 1) * k <= dw.len()),
        "a token beyond the rows"
    );
    let device = dy.device();
    let upload = |ids: &[u32]| device.upload(Class::Activations, ids);
    let (tokens, starts) = (upload(&occurrences.tokens)?, upload(&occurrences.starts)?);
    let places = upload(&occurrences.places)?;
    let grid = [occurrences.tokens.len(), k.div_ceil(256), 1];
    let launch = Launch::new("embedding_backward", grid, 128).arg(tokens.all()).arg(starts.all()).arg(places.all());
    // SAFETY: lengths are checked above.
    unsafe { device.launch(&launch.arg(dy).arg(dw).arg(k as u32)) }
}

/// A chunk of logits with what is asked of it.
#[derive(Clone, Copy)]
pub struct Logits<'a> {
    /// `(R, V)`.
    pub values: View<'a, f32>,
    /// `(R)`; the caller has checked that each is a column.
    pub targets: View<'a, u32>,
    /// Divides the logits.
    pub temperature: f32,
}

impl Logits<'_> {
    fn launch(&self, kernel: &'static str) -> Launch {
        Launch::new(kernel, [self.targets.len(), 1, 1], 512).arg(self.values).arg(self.targets)
    }

    fn columns(&self) -> usize {
        self.values.len() / self.targets.len().max(1)
    }
}

/// Log-probability, entropy and log-sum-exp of each row.
pub fn logprobs(logits: Logits, logprobs: View<f32>, entropies: View<f32>, lses: View<f32>) -> Result<()> {
    let rows = logits.targets.len();
    assert_eq!((logprobs.len(), entropies.len(), lses.len()), (rows, rows, rows));
    let launch = logits.launch("logprob_forward").arg(logprobs).arg(entropies).arg(lses);
    // SAFETY: lengths are checked above.
    unsafe { lses.device().launch(&launch.arg(logits.columns() as u32).arg(logits.temperature)) }
}

/// `dlogprob (R)` -> `dz (R, V)`.
pub fn logprobs_backward(logits: Logits, lses: View<f32>, d_logprobs: View<f32>, dz: View<bf16>) -> Result<()> {
    let rows = logits.targets.len();
    assert_eq!((lses.len(), d_logprobs.len(), dz.len()), (rows, rows, logits.values.len()));
    let launch = logits.launch("logprob_backward").arg(lses).arg(d_logprobs).arg(dz);
    // SAFETY: lengths are checked above.
    unsafe { lses.device().launch(&launch.arg(logits.columns() as u32).arg(logits.temperature)) }
}

/// Moments of AdamW for a stretch of weights.
#[derive(Clone, Copy)]
pub enum Moments<'a> {
    /// Four bytes each.
    Full {
        /// First.
        m: View<'a, f32>,
        /// Second.
        v: View<'a, f32>,
    },
    /// A byte each, and a largest magnitude for every 256.
    EightBit {
        /// First.
        m: View<'a, i8>,
        /// Second.
        v: View<'a, u8>,
        /// Largest first moment of each block.
        m_largest: View<'a, f32>,
        /// Largest second moment of each block.
        v_largest: View<'a, f32>,
    },
}

/// Values that share a largest magnitude in [`Moments::EightBit`].
pub const MOMENT_BLOCK: usize = 256;

/// One update of a stretch of weights, and of their bf16 copy.
pub fn adamw(step: Step, w: View<f32>, copy: View<bf16>, g: View<f32>, moments: Moments) -> Result<()> {
    let n = w.len();
    assert_eq!((copy.len(), g.len()), (n, n));
    let [correct1, correct2] = step.corrections();
    let settings = [step.lr, step.beta1, step.beta2, step.eps, step.weight_decay, step.scale, correct1, correct2];
    let start = |kernel| Launch::new(kernel, [n.div_ceil(THREADS), 1, 1], 256).arg(w).arg(copy).arg(g);
    let launch = match moments {
        Moments::Full { m, v } => {
            assert_eq!((m.len(), v.len()), (n, n));
            start("adamw_update").arg(m).arg(v)
        }
        Moments::EightBit { m, v, m_largest, v_largest } => {
            let blocks = n.div_ceil(MOMENT_BLOCK);
            assert_eq!((m.len(), v.len(), m_largest.len(), v_largest.len()), (n, n, blocks, blocks));
            start("adamw_update_8bit").arg(m).arg(v).arg(m_largest).arg(v_largest)
        }
    };
    let launch = launch.arg(n as u64).arg(settings.map(f32::to_bits));
    let launch = if matches!(moments, Moments::EightBit { .. }) { launch.arg(step.count as u32) } else { launch };
    // SAFETY: lengths are checked above.
    unsafe { w.device().launch(&launch) }
}

/// `sum of g²` in f64; waits for the work queued before.
pub fn squared_norm(device: &Device, g: View<f32>) -> Result<f64> {
    let partial = device.zeros::<f64>(Class::Gradients, NORM_BLOCKS)?;
    let launch = Launch::new("squared_norm", [NORM_BLOCKS, 1, 1], 256).arg(g).arg(partial.all()).arg(g.len() as u64);
    // SAFETY: a partial sum a block.
    unsafe { device.launch(&launch)? };
    Ok(partial.all().read()?.iter().sum())
}

/// Writes the bf16 copy of `w`.
pub fn round_weights(w: View<f32>, copy: View<bf16>) -> Result<()> {
    assert_eq!(w.len(), copy.len());
    let launch = Launch::new("round_weights", [w.len().div_ceil(THREADS), 1, 1], 256).arg(w).arg(copy);
    // SAFETY: lengths are checked above.
    unsafe { w.device().launch(&launch.arg(w.len() as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sorted_with_all_their_places() {
        let sorted = Occurrences::of(&[7, 3, 7, 9, 3]);
        let expected = Occurrences { tokens: vec![3, 7, 9], starts: vec![0, 2, 4, 5], places: vec![1, 4, 0, 2, 3] };
        assert_eq!(sorted, expected);
    }
}
