//! Values multiplied by a function of gates that were projected beside them: `y = x silu(g)` or `y = x sigmoid(g)`.

pub mod device;

use super::team::Team;
use super::vector::{exp, vectorised};

/// What a gate goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `g / (1 + e^-g)`.
    Silu,
    /// `1 / (1 + e^-g)`.
    Sigmoid,
}

impl Gate {
    /// The value, and its slope.
    #[inline(always)]
    fn at(self, g: f32) -> (f32, f32) {
        let sigmoid = 1.0 / (1.0 + exp(-g));
        match self {
            Self::Silu => (g * sigmoid, sigmoid * (1.0 + g * (1.0 - sigmoid))),
            Self::Sigmoid => (sigmoid, sigmoid * (1.0 - sigmoid)),
        }
    }
}

/// Where in rows of `row` values the gates lie: `count` parts of `size` of them, `step` from one to the next. The values
/// that they are for lie end to end.
#[derive(Debug, Clone, Copy)]
pub struct Gates {
    /// Values of a row.
    pub row: usize,
    /// Where in it the first part begins.
    pub first: usize,
    /// From the beginning of a part to that of the next.
    pub step: usize,
    /// Parts of a row.
    pub count: usize,
    /// Gates of a part.
    pub size: usize,
}

impl Gates {
    /// Values that they are for, in a row.
    fn values(&self) -> usize {
        self.count * self.size
    }

    /// Where each part begins.
    fn starts(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |part| self.first + part * self.step)
    }
}

/// Multiplies `x (T, count * size)` by its gates in `gates (T, row)`.
pub fn forward(team: &Team, gate: Gate, places: Gates, gates: &[f32], x: &mut [f32]) {
    let (rows, width) = (team.piece(gates.len() / places.row), places.values());
    team.each(gates.chunks(rows * places.row).zip(x.chunks_mut(rows * width)), |(gates, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (gates, x) in gates.chunks_exact(places.row).zip(x.chunks_exact_mut(width)) {
                    for (start, x) in places.starts().zip(x.chunks_exact_mut(places.size)) {
                        x.iter_mut().zip(&gates[start..]).for_each(|(x, &g)| *x *= gate.at(g).0);
                    }
                }
            },
        );
    });
}

/// The backward of [`forward`] over `x` as it was: `d (T, count * size)`, that of the product, becomes that of `x`, and
/// that of the gates is written to their places in `d_gates (T, row)`.
pub fn backward(team: &Team, gate: Gate, places: Gates, gates: &[f32], x: &[f32], d: &mut [f32], d_gates: &mut [f32]) {
    let (rows, width) = (team.piece(gates.len() / places.row), places.values());
    let inputs = gates.chunks(rows * places.row).zip(x.chunks(rows * width));
    let outputs = d.chunks_mut(rows * width).zip(d_gates.chunks_mut(rows * places.row));
    team.each(inputs.zip(outputs), |((gates, x), (d, d_gates))| {
        vectorised(
            #[inline(always)]
            || {
                let inputs = gates.chunks_exact(places.row).zip(x.chunks_exact(width));
                let outputs = d.chunks_exact_mut(width).zip(d_gates.chunks_exact_mut(places.row));
                for ((gates, x), (d, d_gates)) in inputs.zip(outputs) {
                    let parts = x.chunks_exact(places.size).zip(d.chunks_exact_mut(places.size));
                    for (start, (x, d)) in places.starts().zip(parts) {
                        let both = gates[start..].iter().zip(&mut d_gates[start..]);
                        for ((&x, d), (&g, d_gate)) in x.iter().zip(d).zip(both) {
                            let (value, slope) = gate.at(g);
                            *d_gate = *d * x * slope;
                            *d *= value;
                        }
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_multiply_and_their_slopes_are_those_of_difference_quotients() {
        let (team, places) = (&Team::alone(), Gates { row: 9, first: 1, step: 4, count: 2, size: 2 });
        let gates: Vec<f32> = (0..18).map(|i| 0.7 * ((i * 5 % 11) as f32 - 5.0)).collect();
        let x: Vec<f32> = (0..8).map(|i| 1.0 - 0.3 * i as f32).collect();
        for gate in [Gate::Silu, Gate::Sigmoid] {
            let product = |gates: &[f32]| {
                let mut y = x.clone();
                forward(team, gate, places, gates, &mut y);
                y
            };
            let (g, expected) = (f64::from(gates[9 + 6]), f64::from(x[7]));
            let of_gate = 1.0 / (1.0 + (-g).exp()) * if gate == Gate::Silu { g } else { 1.0 };
            assert!((f64::from(product(&gates)[7]) - expected * of_gate).abs() < 1e-6);
            let (mut d, mut d_gates) = (vec![1f32; 8], vec![f32::NAN; 18]);
            backward(team, gate, places, &gates, &x, &mut d, &mut d_gates);
            for row in 0..2 {
                for (value, place) in [1, 2, 5, 6].into_iter().enumerate() {
                    let at = |step: f32| {
                        let mut moved = gates.clone();
                        moved[row * 9 + place] += step;
                        product(&moved)[row * 4 + value]
                    };
                    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                    let got = d_gates[row * 9 + place];
                    assert!((slope - got).abs() < 1e-3, "{gate:?}: {slope}, not {got}");
                    let index = row * 4 + value;
                    assert!((d[index] * x[index] - product(&gates)[index]).abs() < 1e-6);
                }
            }
            assert!(d_gates[0].is_nan() && d_gates[3].is_nan(), "places beside the gates are left alone");
        }
    }
}
