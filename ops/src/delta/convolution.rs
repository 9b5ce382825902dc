//! The short convolution before the recurrence: `u_tc = sum_j w_cj x_(t-W+1+j)c` over the last `W` tokens of each channel,
//! then `silu(u)`, and queries and keys made as long as one.

use std::ops::Range;

use super::{Delta, earlier};
use crate::matrix::MatrixMut;
use crate::memory::sized;
use crate::team::Team;
use crate::vector::{dot, exp, vectorised};

/// Added to the squared length of queries and keys.
const EPS: f32 = 1e-6;

/// The projected row so many tokens before a row, if the sequence has one.
pub(super) type Before<'a, 'v> = &'a (dyn Fn(usize, usize) -> Option<&'v [f32]> + Sync);

/// `(C, W)` to `(W, C)`.
fn by_tap(s: Delta, taps: &[f32]) -> Vec<f32> {
    (0..s.taps).flat_map(|j| taps[j..].iter().step_by(s.taps).copied()).collect()
}

/// `projected (T, row)` -> `rows (T, C)`.
pub(super) fn forward(team: &Team, s: Delta, taps: &[f32], projected: &[f32], before: Before, rows: &mut Vec<f32>) {
    let (taps, t) = (by_tap(s, taps), projected.len() / s.row());
    let (channels, piece) = (s.channels(), team.piece(t));
    let pieces = sized(rows, t * channels).chunks_mut(piece * channels).enumerate();
    team.each(pieces, |(index, rows)| {
        for (row, out) in rows.chunks_exact_mut(channels).enumerate() {
            convolve(s, &taps, projected, before, index * piece + row, out);
            vectorised(
                #[inline(always)]
                || {
                    out.iter_mut().for_each(|u| *u /= 1.0 + exp(-*u));
                    for (head, part) in out[..2 * s.keys()].chunks_exact_mut(s.key).enumerate() {
                        let factor = factor(s, head, part);
                        part.iter_mut().for_each(|x| *x *= factor);
                    }
                },
            );
        }
    });
}

/// What a query or a key is multiplied by.
#[inline(always)]
fn factor(s: Delta, head: usize, part: &[f32]) -> f32 {
    scale(s, head) / (dot(part, part) + EPS).sqrt()
}

/// The length of queries, which come first, and of keys.
fn scale(s: Delta, head: usize) -> f32 {
    if head < s.key_heads { 1.0 / (s.key as f32).sqrt() } else { 1.0 }
}

/// `u` of a row.
fn convolve(s: Delta, taps: &[f32], projected: &[f32], before: Before, row: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (j, taps) in taps.chunks_exact(s.channels()).enumerate() {
        let back = s.taps - 1 - j;
        let x = if back == 0 { Some(&projected[row * s.row()..]) } else { before(row, back) };
        let Some(x) = x else { continue };
        vectorised(
            #[inline(always)]
            || out.iter_mut().zip(taps.iter().zip(x)).for_each(|(u, (&w, &x))| *u = w.mul_add(x, *u)),
        );
    }
}

/// Leaves the last rows of a run where the next one looks for them, behind those that were there.
pub(super) fn leave(s: Delta, projected: &[f32], rows: Range<usize>, tail: &mut [f32]) {
    let (kept, channels) = (s.taps - 1, s.channels());
    let new = rows.len().min(kept);
    tail.copy_within(new * channels.., 0);
    for (row, to) in (rows.end - new..rows.end).zip(tail[(kept - new) * channels..].chunks_exact_mut(channels)) {
        to.copy_from_slice(&projected[row * s.row()..][..channels]);
    }
}

/// `d_rows (T, C)`, which becomes the gradient of `u` -> the channels of `d_projected (T, row)`, written, and that of the
/// taps `(C, W)`, added if they are trained.
pub(super) fn backward(
    team: &Team,
    s: Delta,
    taps: &[f32],
    projected: &[f32],
    previous: &[Option<usize>],
    d_rows: &mut [f32],
    (d_projected, d_taps): (&mut [f32], Option<&mut [f32]>),
) {
    let (by_tap, t, channels) = (by_tap(s, taps), previous.len(), s.channels());
    let before = |row, back| earlier(previous, row, back).map(|row| &projected[row * s.row()..]);
    let piece = team.piece(t);
    team.each(d_rows.chunks_mut(piece * channels).enumerate(), |(index, d_rows)| {
        let (mut u, mut slopes) = (vec![0f32; channels], vec![0f32; channels]);
        for (row, d) in d_rows.chunks_exact_mut(channels).enumerate() {
            convolve(s, &by_tap, projected, &before, index * piece + row, &mut u);
            vectorised(
                #[inline(always)]
                || activation_backward(s, &mut u, &mut slopes, d),
            );
        }
    });
    let (width, d_rows) = (team.piece(channels), &*d_rows);
    let (d_channels, _) = MatrixMut::new(d_projected, s.row()).split_columns(channels);
    team.each(d_channels.columns(width), |(first, mut d)| {
        let columns = first..channels.min(first + width);
        inputs_backward(s, &by_tap, previous, d_rows, columns, &mut d);
    });
    let Some(d_taps) = d_taps else { return };
    team.each(d_taps.chunks_mut(width * s.taps).enumerate(), |(index, d_taps)| {
        taps_backward(s, projected, previous, d_rows, index * width, d_taps);
    });
}

/// Through the lengths of queries and keys and through silu; `u` becomes `silu(u)` on the way.
#[inline(always)]
fn activation_backward(s: Delta, u: &mut [f32], slopes: &mut [f32], d: &mut [f32]) {
    for (u, slope) in u.iter_mut().zip(slopes.iter_mut()) {
        let sigmoid = 1.0 / (1.0 + exp(-*u));
        *slope = sigmoid * (1.0 + *u * (1.0 - sigmoid));
        *u *= sigmoid;
    }
    let parts = u.chunks_exact(s.key).zip(d.chunks_exact_mut(s.key)).take(2 * s.key_heads);
    for (head, (x, d)) in parts.enumerate() {
        let r = 1.0 / (dot(x, x) + EPS).sqrt();
        let (shared, scale) = (dot(x, d) * r * r * r, scale(s, head));
        d.iter_mut().zip(x).for_each(|(d, x)| *d = scale * (r * *d - x * shared));
    }
    d.iter_mut().zip(slopes.iter()).for_each(|(d, slope)| *d *= slope);
}

/// The gradient of some channels: every row adds to those before it that it saw.
fn inputs_backward(
    s: Delta,
    by_tap: &[f32],
    previous: &[Option<usize>],
    du: &[f32],
    columns: Range<usize>,
    d: &mut MatrixMut,
) {
    let width = columns.len();
    (0..previous.len()).for_each(|t| d.part(t, 0..width).fill(0.0));
    for t in 0..previous.len() {
        let du = &du[t * s.channels()..][columns.clone()];
        for back in 0..s.taps {
            let Some(to) = earlier(previous, t, back) else { break };
            let taps = &by_tap[(s.taps - 1 - back) * s.channels()..][columns.clone()];
            let d = d.part(to, 0..width);
            vectorised(
                #[inline(always)]
                || d.iter_mut().zip(du.iter().zip(taps)).for_each(|(d, (&du, &w))| *d = du.mul_add(w, *d)),
            );
        }
    }
}

/// Adds the gradient of the taps of channels from `first` on.
fn taps_backward(
    s: Delta,
    projected: &[f32],
    previous: &[Option<usize>],
    du: &[f32],
    first: usize,
    d_taps: &mut [f32],
) {
    let width = d_taps.len() / s.taps;
    for back in 0..s.taps {
        let mut sums = vec![0f32; width];
        for t in 0..previous.len() {
            let Some(from) = earlier(previous, t, back) else { continue };
            let (du, x) = (&du[t * s.channels() + first..][..width], &projected[from * s.row() + first..][..width]);
            vectorised(
                #[inline(always)]
                || sums.iter_mut().zip(du.iter().zip(x)).for_each(|(sum, (&du, &x))| *sum = du.mul_add(x, *sum)),
            );
        }
        let taps = d_taps[s.taps - 1 - back..].iter_mut().step_by(s.taps);
        taps.zip(&sums).for_each(|(d, sum)| *d += sum);
    }
}
