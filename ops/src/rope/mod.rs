//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864): `(a, b) -> (a cos - b sin, b cos + a sin)`, in the
//! half-split layout of Hugging Face with `a` the first and `b` the second half of a head, or with the two side by
//! side.

pub mod device;

use std::sync::Arc;

use super::team::Team;
use super::vector::vectorised;

/// `cos` and `sin` of `position * frequency`, computed in f64 once for all positions of a run. Copies share the table.
#[derive(Debug, Clone)]
pub struct RopeTable {
    half: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    pairs: Pairs,
}

/// Which values of a head are turned with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Value `i` of the first half and value `i` of the second.
    Halves,
    /// Values `2i` and `2i + 1`.
    Neighbours,
}

/// Where in a row the parts lie that are turned, each as long as the table's angles are for.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// Where the first one begins.
    pub first: usize,
    /// From one to the next.
    pub step: usize,
    /// How many there are.
    pub count: usize,
}

impl RopeTable {
    /// For `positions` positions and heads of twice as many values as there are `frequencies` (radians per position).
    pub fn new(positions: usize, frequencies: &[f64]) -> Self {
        let table = |f: fn(f64) -> f64| {
            (0..positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect()
        };
        Self { half: frequencies.len(), cos: table(f64::cos), sin: table(f64::sin), pairs: Pairs::Halves }
    }

    /// The same angles for other pairs.
    pub fn turning(self, pairs: Pairs) -> Self {
        Self { pairs, ..self }
    }

    /// The same with what is turned also made longer.
    pub fn stretched(self, factor: f64) -> Self {
        let times = |table: &[f32]| table.iter().map(|&x| (f64::from(x) * factor) as f32).collect();
        if factor == 1.0 { self } else { Self { cos: times(&self.cos), sin: times(&self.sin), ..self } }
    }

    /// Cosines and sines `(positions, D / 2)`, for a device.
    pub fn tables(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// How many values of a part are turned with as many others.
    pub fn half(&self) -> usize {
        self.half
    }

    /// Which values of a part are turned with each other.
    pub fn pairs(&self) -> Pairs {
        self.pairs
    }

    /// How many positions the table holds.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Rotates the first `heads` heads of every row of `x (T, stride)` in place, row `t` by `positions[t]`.
    pub fn rotate(&self, team: &Team, x: &mut [f32], positions: &[u32], heads: usize, stride: usize) {
        self.rotate_parts(team, x, positions, self.heads(heads), stride);
    }

    /// Parts end to end from the beginning of a row.
    fn heads(&self, count: usize) -> Parts {
        Parts { first: 0, step: 2 * self.half, count }
    }

    /// Rotates parts of every row of `x (T, stride)` in place, row `t` by `positions[t]`.
    pub fn rotate_parts(&self, team: &Team, x: &mut [f32], positions: &[u32], parts: Parts, stride: usize) {
        let rows = team.piece(positions.len());
        let pieces = x.chunks_mut(rows * stride).zip(positions.chunks(rows));
        team.each(pieces, |(x, positions)| self.turn(x, positions, parts, stride, 1.0));
    }

    /// The backward of [`RopeTable::rotate`]: the rotation by the opposite angle, which is its transpose.
    pub fn rotate_back(&self, team: &Team, dx: &mut [f32], positions: &[u32], heads: usize, stride: usize) {
        self.rotate_parts_back(team, dx, positions, self.heads(heads), stride);
    }

    /// The backward of [`RopeTable::rotate_parts`].
    pub fn rotate_parts_back(&self, team: &Team, dx: &mut [f32], positions: &[u32], parts: Parts, stride: usize) {
        let rows = team.piece(positions.len());
        let pieces = dx.chunks_mut(rows * stride).zip(positions.chunks(rows));
        team.each(pieces, |(dx, positions)| self.turn(dx, positions, parts, stride, -1.0));
    }

    fn turn(&self, x: &mut [f32], positions: &[u32], parts: Parts, stride: usize, sign: f32) {
        let half = self.half;
        if self.pairs == Pairs::Neighbours {
            return self.turn_neighbours(x, positions, parts, stride, sign);
        }
        vectorised(
            #[inline(always)]
            || {
                for (row, &position) in x.chunks_exact_mut(stride).zip(positions) {
                    let cos = &self.cos[position as usize * half..][..half];
                    let sin = &self.sin[position as usize * half..][..half];
                    for part in 0..parts.count {
                        let head = &mut row[parts.first + part * parts.step..][..2 * half];
                        let (first, second) = head.split_at_mut(half);
                        for i in 0..half {
                            let (a, b, s) = (first[i], second[i], sin[i] * sign);
                            first[i] = a * cos[i] - b * s;
                            second[i] = b * cos[i] + a * s;
                        }
                    }
                }
            },
        );
    }

    fn turn_neighbours(&self, x: &mut [f32], positions: &[u32], parts: Parts, stride: usize, sign: f32) {
        for (row, &position) in x.chunks_exact_mut(stride).zip(positions) {
            let cos = &self.cos[position as usize * self.half..][..self.half];
            let sin = &self.sin[position as usize * self.half..][..self.half];
            for part in 0..parts.count {
                let (pairs, _) = row[parts.first + part * parts.step..][..2 * self.half].as_chunks_mut::<2>();
                for (pair, (cos, sin)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
                    let ([a, b], s) = (*pair, sin * sign);
                    *pair = [a * cos - b * s, b * cos + a * s];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_turn_as_halves_do_and_back_again_wherever_they_lie() {
        let angles = [1.0, 0.1];
        let (halves, team) = (RopeTable::new(9, &angles), &Team::alone());
        let neighbours = halves.clone().turning(Pairs::Neighbours).stretched(1.5);
        let mut expected = [1.0, 3.0, 2.0, 4.0, 5.0, 7.0, 6.0, 8.0];
        halves.rotate(team, &mut expected, &[7], 2, 8);
        // One value before each part.
        let before = [9.0, 1.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0, 8.0];
        let (mut row, parts) = (before, Parts { first: 1, step: 5, count: 2 });
        neighbours.rotate_parts(team, &mut row, &[7], parts, 10);
        for (part, expected) in [(1, &expected[..4]), (6, &expected[4..])] {
            for (place, of_halves) in [0, 2, 1, 3].into_iter().enumerate() {
                let (got, expected) = (row[part + place], 1.5 * expected[of_halves]);
                assert!((got - expected).abs() < 1e-5, "{got}, not {expected}");
            }
        }
        neighbours.rotate_parts_back(team, &mut row, &[7], parts, 10);
        for (got, before) in row.iter().zip(before) {
            let expected = if before == 9.0 { 9.0 } else { 2.25 * before };
            assert!((got - expected).abs() < 1e-4, "{got}, not {expected}");
        }
    }
}
