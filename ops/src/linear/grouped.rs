//! One product over rows that lie in groups, each with a matrix of its own: the experts of a layer. A group may have
//! any number of rows, also none; nothing is padded, and no row's bits depend on how many there are.

use std::ops::Range;

use super::Linear;
use crate::product::Epilogue;
use crate::team::Team;

/// Rows of a group that one thread computes at a time, where there are several threads.
const ROWS: usize = 64;

/// Rows cut into parts of one group each: the group, and its rows.
fn parts(team: &Team, groups: &[Range<usize>]) -> Vec<(usize, Range<usize>)> {
    let most = if team.threads() == 1 { usize::MAX } else { ROWS };
    let cut = |(group, rows): (usize, &Range<usize>)| {
        let end = rows.end;
        rows.clone()
            .step_by(most.min(rows.len().max(1)))
            .map(move |first| (group, first..end.min(first.saturating_add(most))))
    };
    groups.iter().enumerate().flat_map(cut).collect()
}

/// `out (R, width)` in the rows of the parts, which lie one behind the other.
fn split<'a>(
    parts: &'a [(usize, Range<usize>)],
    out: &'a mut [f32],
    width: usize,
) -> impl Iterator<Item = (usize, Range<usize>, &'a mut [f32])> {
    let mut rest = out;
    parts.iter().map(move |(group, rows)| {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(rows.len() * width);
        rest = others;
        (*group, rows.clone(), own)
    })
}

/// `x (R, K)` -> `y (R, N)`, the rows of each group by its matrix.
pub fn forward(team: &Team, matrices: &[&Linear], groups: &[Range<usize>], x: &[f32], y: &mut [f32]) {
    let Some(first) = matrices.first() else { return };
    let (n, k, parts) = (first.outputs(), first.inputs(), parts(team, groups));
    team.each(split(&parts, y, n), |(group, rows, y)| {
        matrices[group].forward(&Team::alone(), &x[rows.start * k..rows.end * k], y, Epilogue::None);
    });
}

/// `dy (R, N)` -> `dx (R, K)`, written.
pub fn backward_input(team: &Team, matrices: &[&Linear], groups: &[Range<usize>], dy: &[f32], dx: &mut [f32]) {
    let Some(first) = matrices.first() else { return };
    let (n, k, parts) = (first.outputs(), first.inputs(), parts(team, groups));
    team.each(split(&parts, dx, k), |(group, rows, dx)| {
        matrices[group].backward_input(&Team::alone(), &dy[rows.start * n..rows.end * n], dx);
    });
}

/// `x (R, K)`, `dy (R, N)` -> the gradient of what is trained of each matrix, added to `gradients`.
pub fn backward_weight(
    team: &Team,
    matrices: &[&Linear],
    groups: &[Range<usize>],
    x: &[f32],
    dy: &[f32],
    gradients: &mut [f32],
) {
    for (matrix, rows) in matrices.iter().zip(groups).filter(|(_, rows)| !rows.is_empty()) {
        let (n, k) = (matrix.outputs(), matrix.inputs());
        matrix.backward_weight(team, &x[rows.start * k..rows.end * k], &dy[rows.start * n..rows.end * n], gradients);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{PackedMatrix, Precision};
    use reckon_datasets::Counted;

    #[test]
    fn a_row_has_the_bits_that_it_has_alone_and_threads_change_none() {
        let (n, k) = (70, 50);
        let mut random = Counted::new(&[5]);
        let mut draw = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<_>>();
        let (weights, groups) = ([draw(n * k), draw(n * k), draw(n * k)], [0..150, 150..150, 150..157]);
        let (x, dy) = (draw(157 * k), draw(157 * n));
        for precision in [Precision::Fp32, Precision::Bf16] {
            let packed = [0, 1, 2].map(|i| PackedMatrix::new(&Team::alone(), &weights[i], k, precision));
            let layers = [0, 1, 2].map(|i| Linear::trained(&packed[i], &weights[i], i * n * k..(i + 1) * n * k));
            let layers: Vec<&Linear> = layers.iter().collect();
            let run = |team: &Team| {
                let (mut y, mut dx) = (vec![f32::NAN; 157 * n], vec![f32::NAN; 157 * k]);
                let mut gradients = vec![0f32; 3 * n * k];
                forward(team, &layers, &groups, &x, &mut y);
                backward_input(team, &layers, &groups, &dy, &mut dx);
                backward_weight(team, &layers, &groups, &x, &dy, &mut gradients);
                (y, dx, gradients)
            };
            let (y, dx, gradients) = run(&Team::alone());
            Team::with(3, |team| assert!(run(team) == (y.clone(), dx.clone(), gradients.clone()), "{precision:?}"));
            for row in [0, 63, 149, 150, 156] {
                let layer = layers[if row < 150 { 0 } else { 2 }];
                let (mut alone, mut d_alone) = (vec![0f32; n], vec![0f32; k]);
                layer.forward(&Team::alone(), &x[row * k..][..k], &mut alone, Epilogue::None);
                layer.backward_input(&Team::alone(), &dy[row * n..][..n], &mut d_alone);
                assert!(alone == y[row * n..][..n] && d_alone == dx[row * k..][..k], "{precision:?}: row {row}");
            }
            assert!(gradients[n * k..2 * n * k].iter().all(|g| *g == 0.0), "no row, no gradient");
        }
    }
}
