//! A weight matrix `(N, K)` in panels of `PANEL` outputs, each `(K, PANEL)`: what the fp32 product reads as it lies. The
//! panels may be bf16 or quantized blocks, and are then widened one at a time as they are used, to the very values that
//! fp32 would hold.

use std::cell::Cell;
use std::ops::Range;

use super::blocks::{BlockType, Blocks};
use crate::product::{Epilogue, Left, Out, PANEL, Right, Shape, chain, product, product_together};
use crate::team::Team;
use crate::vector::vectorised;

/// A matrix in panels.
#[derive(Debug, Clone)]
pub struct Panels {
    values: Values,
    n: usize,
    k: usize,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<half::bf16>),
    Blocks(Blocks),
}

/// What the values of panels are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As they are multiplied.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// In quantized blocks.
    Blocks(BlockType),
}

impl Stored {
    /// Bytes that the panels of `(N, K)` take.
    pub fn bytes(self, n: usize, k: usize) -> usize {
        match self {
            Self::F32 => 4 * n.next_multiple_of(PANEL) * k,
            Self::Bf16 => 2 * n.next_multiple_of(PANEL) * k,
            Self::Blocks(kind) => Blocks::bytes(kind, n, k),
        }
    }
}

thread_local! {
    // Used again by every product of a thread, as the product's own buffers are.
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static TURNED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Panels that a backward turns into rows at a time.
const PANELS_TURNED: usize = 4;

impl Panels {
    /// `(N, K)` zeros, for values to be put into.
    pub fn zeros(stored: Stored, n: usize, k: usize) -> Self {
        let len = n.next_multiple_of(PANEL) * k;
        let values = match stored {
            Stored::F32 => Values::F32(vec![0f32; len]),
            Stored::Bf16 => Values::Bf16(vec![half::bf16::ZERO; len]),
            Stored::Blocks(kind) => Values::Blocks(Blocks::zeros(kind, n, k)),
        };
        Self { values, n, k }
    }

    /// Outputs (`N`).
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Inputs (`K`).
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// Puts all values of `w (N, K)` where they belong.
    pub(super) fn fill(&mut self, team: &Team, w: &[f32]) {
        let (k, piece) = (self.k, team.piece(self.n.div_ceil(PANEL)));
        let Values::F32(panels) = &mut self.values else { return self.put(0, w) };
        let pieces = panels.chunks_mut(piece * PANEL * k).zip(w.chunks(piece * PANEL * k));
        team.each(pieces, |(panels, w)| {
            panels.chunks_exact_mut(PANEL * k).zip(w.chunks(PANEL * k)).for_each(|(panel, rows)| pack(rows, k, panel));
        });
    }

    /// Puts whole rows where they belong, from `row` on, as the bytes of their quantized blocks.
    pub fn put_blocks(&mut self, row: usize, bytes: &[u8]) {
        match &mut self.values {
            Values::Blocks(blocks) => blocks.put(row, bytes),
            Values::F32(_) | Values::Bf16(_) => panic!("blocks are put into panels of numbers"),
        }
    }

    /// Puts values where they belong, beginning with value `first` of `(N, K)`. What is held in blocks is put there with
    /// [`Panels::put_blocks`].
    pub fn put(&mut self, first: usize, values: &[f32]) {
        let mut left = values;
        for (at, count) in segments(self.k, first..first + values.len()) {
            let segment;
            (segment, left) = left.split_at(count);
            match &mut self.values {
                Values::F32(panels) => {
                    let to = panels[at..].iter_mut().step_by(PANEL);
                    to.zip(segment).for_each(|(to, value)| *to = *value);
                }
                Values::Bf16(panels) => {
                    let to = panels[at..].iter_mut().step_by(PANEL);
                    to.zip(segment).for_each(|(to, value)| *to = half::bf16::from_f32(*value));
                }
                Values::Blocks(_) => panic!("numbers are put into panels of blocks"),
            }
        }
    }

    /// Writes the values `range` of `(N, K)` to `out`.
    pub fn values(&self, range: Range<usize>, out: &mut [f32]) {
        let (mut left, mut first) = (out, range.start);
        for (at, count) in segments(self.k, range) {
            let segment;
            (segment, left) = left.split_at_mut(count);
            match &self.values {
                Values::Blocks(blocks) => blocks.values(first / self.k, first % self.k, segment),
                Values::F32(panels) => {
                    segment.iter_mut().zip(panels[at..].iter().step_by(PANEL)).for_each(|(to, value)| *to = *value);
                }
                Values::Bf16(panels) => {
                    let values = panels[at..].iter().step_by(PANEL);
                    segment.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_f32());
                }
            }
            first += count;
        }
    }

    /// `rows` rows of `x` times `Wᵀ`, to the first `N` columns of `out`.
    pub(super) fn forward(&self, team: &Team, x: Left, rows: usize, out: Out) {
        let width = PANEL * team.piece(self.n.div_ceil(PANEL));
        team.each(out.columns(self.n, width), |(first, out)| {
            for (column, mut out) in out.columns(width.min(self.n - first), PANEL) {
                let shape = Shape { m: rows, n: PANEL.min(self.n - first - column), k: self.k };
                let p = (first + column) / PANEL;
                if rows == 1 && self.one_row(p, x, out.reborrow()) {
                    continue;
                }
                self.with_panel(p, |panel| {
                    product(shape, x, Right { next: self.after(p), ..Right::new(panel, PANEL) }, out);
                });
            }
        });
    }

    /// One row of `x` times panel `p`, without widening that in memory, where it can be: the chains of [`product`], so that
    /// a row has the same bits whether it comes alone or with others.
    fn one_row(&self, p: usize, x: Left, mut out: Out) -> bool {
        let Values::Blocks(blocks) = &self.values else { return false };
        assert_eq!(x.inner, 1, "the values of a row lie side by side");
        let width = PANEL.min(self.n - p * PANEL);
        for first in (0..self.k).step_by(chain(self.k)) {
            let x = &x.values[first..self.k.min(first + chain(self.k))];
            let Some(sums) = blocks.dot(p, first, x) else { return false };
            out.add_row(&sums[..width]);
            out.epilogue = Epilogue::Accumulate;
        }
        true
    }

    /// `dx (T, K) = dy (T, N) W`, or added to it. Rows of the matrix are laid out again, a few panels at a time.
    pub(super) fn backward_input(&self, team: &Team, dy: Left, rows: usize, dx: &mut [f32], epilogue: Epilogue) {
        let (n, k, mut turned) = (self.n, self.k, TURNED.take());
        turned.resize(PANELS_TURNED * PANEL * k, 0.0);
        for first in (0..n).step_by(PANELS_TURNED * PANEL) {
            let count = (n - first).min(PANELS_TURNED * PANEL);
            let parts = turned[..count.next_multiple_of(PANEL) * k].chunks_exact_mut(PANEL * k);
            team.each(parts.enumerate(), |(p, part)| self.with_panel(first / PANEL + p, |panel| turn(panel, k, part)));
            let epilogue = if first == 0 { epilogue } else { Epilogue::Accumulate };
            let left = Left { values: &dy.values[first * dy.inner..], ..dy };
            let shape = Shape { m: rows, n: k, k: count };
            product_together(team, shape, left, Right::new(&turned, k), Out::new(dx, k, epilogue));
        }
        TURNED.set(turned);
    }

    /// The same for some of the outputs, to the first columns of `out`.
    pub(super) fn forward_window(&self, window: Range<usize>, x: Left, rows: usize, mut out: Out) {
        for p in window.start / PANEL..window.end.div_ceil(PANEL) {
            let columns = window.start.max(p * PANEL)..window.end.min((p + 1) * PANEL);
            let shape = Shape { m: rows, n: columns.len(), k: self.k };
            self.with_panel(p, |panel| {
                let right = Right::new(&panel[columns.start - p * PANEL..], PANEL);
                product(shape, x, right, out.reborrow().part(0, columns.start - window.start));
            });
        }
    }

    /// What lies behind panel `p`, where products read panels as they lie.
    fn after(&self, p: usize) -> &[f32] {
        match &self.values {
            Values::F32(panels) => &panels[(p + 1) * PANEL * self.k..],
            Values::Bf16(_) | Values::Blocks(_) => &[],
        }
    }

    /// Calls `use_it` with panel `p`, in fp32.
    fn with_panel(&self, p: usize, use_it: impl FnOnce(&[f32])) {
        let range = p * PANEL * self.k..(p + 1) * PANEL * self.k;
        match &self.values {
            Values::F32(panels) => use_it(&panels[range]),
            Values::Bf16(panels) => {
                let mut widened = WIDENED.take();
                widened.resize(range.len(), 0.0);
                widen(&panels[range], &mut widened);
                use_it(&widened);
                WIDENED.set(widened);
            }
            Values::Blocks(blocks) => {
                let mut widened = WIDENED.take();
                widened.resize(range.len(), 0.0);
                blocks.widen(p, &mut widened);
                use_it(&widened);
                WIDENED.set(widened);
            }
        }
    }
}

/// Where the rows of `(N, K)` that values `range` touch lie in the panels: (first place, how many, [`PANEL`] apart).
fn segments(k: usize, range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let rows = range.start / k..range.end.div_ceil(k);
    rows.map(move |row| {
        let (from, to) = (range.start.max(row * k), range.end.min((row + 1) * k));
        (row / PANEL * PANEL * k + (from - row * k) * PANEL + row % PANEL, to - from)
    })
}

/// bf16 is the upper half of fp32.
fn widen(from: &[half::bf16], to: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from_bits(u32::from(from.to_bits()) << 16)),
    );
}

/// Columns of a block that stays in the first cache while a panel is packed or turned.
const BLOCK: usize = 16;

/// Up to [`PANEL`] rows of `K` values to a panel `(K, PANEL)`.
fn pack(rows: &[f32], k: usize, panel: &mut [f32]) {
    for (block, panel) in panel.chunks_mut(BLOCK * PANEL).enumerate() {
        let width = panel.len() / PANEL;
        for (column, row) in rows.chunks_exact(k).enumerate() {
            let from = &row[block * BLOCK..][..width];
            panel[column..].iter_mut().step_by(PANEL).zip(from).for_each(|(to, value)| *to = *value);
        }
    }
}

/// A panel `(K, PANEL)` to rows `(PANEL, K)`.
fn turn(panel: &[f32], k: usize, rows: &mut [f32]) {
    for (block, panel) in panel.chunks(BLOCK * PANEL).enumerate() {
        let width = panel.len() / PANEL;
        for (column, row) in rows.chunks_exact_mut(k).enumerate() {
            let to = &mut row[block * BLOCK..][..width];
            to.iter_mut().zip(panel[column..].iter().step_by(PANEL)).for_each(|(to, value)| *to = *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        let mut random = Counted::new(&[seed]);
        (0..n).map(|_| half::bf16::from_f64(random.normal()).to_f32()).collect()
    }

    #[test]
    fn values_come_back_in_whatever_pieces_they_went_in() {
        for (n, k) in [(1, 5), (33, 7), (70, 3), (100, 40)] {
            let w = random(1, n * k);
            let mut at_once = Panels::zeros(Stored::F32, n, k);
            Team::with(3, |team| at_once.fill(team, &w));
            let mut matrices = [Stored::F32, Stored::Bf16].map(|stored| Panels::zeros(stored, n, k));
            for (index, piece) in w.chunks(11).enumerate() {
                matrices.iter_mut().for_each(|matrix| matrix.put(11 * index, piece));
            }
            for matrix in matrices.iter().chain([&at_once]) {
                for range in [0..n * k, 2..3, n * k / 2..n * k] {
                    let mut out = vec![0f32; range.len()];
                    matrix.values(range.clone(), &mut out);
                    assert_eq!(out, w[range]);
                }
            }
        }
    }

    #[test]
    fn halved_panels_give_the_bits_of_whole_ones_on_any_threads_and_both_the_gradient_of_rows() {
        for (t, n, k) in [(3, 40, 20), (9, 257, 33), (1, 128, 16)] {
            let (w, x, dy) = (random(1, n * k), random(2, t * k), random(3, t * n));
            let [mut whole, mut halved] = [Stored::F32, Stored::Bf16].map(|stored| Panels::zeros(stored, n, k));
            whole.put(0, &w);
            halved.put(0, &w);
            let run = |team: &Team, matrix: &Panels| {
                let (mut y, mut dx) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k]);
                matrix.forward(team, Left { values: &x, row: k, inner: 1 }, t, Out::new(&mut y, n, Epilogue::None));
                let left = Left { values: &dy, row: n, inner: 1 };
                matrix.backward_input(team, left, t, &mut dx, Epilogue::None);
                (y, dx)
            };
            let alone = run(&Team::alone(), &whole);
            Team::with(3, |team| assert_eq!([run(team, &whole), run(team, &halved)], [alone.clone(), alone.clone()]));
            let mut expected = vec![0f32; t * k];
            super::super::backward_input(&Team::alone(), &dy, &w, &mut expected, k);
            for (got, expected) in alone.1.iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{got}, not {expected}");
            }
        }
    }
}
