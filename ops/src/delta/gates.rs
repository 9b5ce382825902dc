//! Decays and rates of the recurrence: `a = exp(-exp(A) softplus(x + t))`, `b = sigmoid(y)`, one of each a value head.

use super::{Delta, Weights};
use crate::memory::sized;
use crate::vector::{exp, vectorised};

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { exp(x).ln_1p() }
}

/// What a projected row has of rates and of decays.
fn of_row(s: Delta, row: &[f32]) -> (&[f32], &[f32]) {
    row[s.rates()..s.row()].split_at(s.value_heads)
}

/// `projected (T, row)` -> decays and rates `(T, 2 Hv)`.
pub(super) fn forward(s: Delta, weights: Weights, projected: &[f32], gates: &mut Vec<f32>) {
    let gates = sized(gates, projected.len() / s.row() * s.gates());
    vectorised(
        #[inline(always)]
        || {
            for (row, gates) in projected.chunks_exact(s.row()).zip(gates.chunks_exact_mut(s.gates())) {
                let ((rates, steps), (decay, rate)) = (of_row(s, row), gates.split_at_mut(s.value_heads));
                for (h, (decay, &x)) in decay.iter_mut().zip(steps).enumerate() {
                    *decay = exp(-exp(weights.decay[h]) * softplus(x + weights.step[h]));
                }
                rate.iter_mut().zip(rates).for_each(|(rate, &y)| *rate = sigmoid(y));
            }
        },
    );
}

/// Gradients that are added where weights are trained.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the taps `(C, W)`.
    pub taps: Option<&'a mut [f32]>,
    /// Of `A (Hv)`.
    pub decay: Option<&'a mut [f32]>,
    /// Of `t (Hv)`.
    pub step: Option<&'a mut [f32]>,
}

/// `d_gates (T, 2 Hv)`, of the logarithms of decays and rates -> their columns of `d_projected (T, row)`, written, and the
/// gradients of `A` and `t`. `gates` are the forward's.
pub(super) fn backward(
    s: Delta,
    weights: Weights,
    projected: &[f32],
    gates: &[f32],
    d_gates: &[f32],
    d_projected: &mut [f32],
    gradients: &mut Gradients,
) {
    let mut sums = vec![0f32; s.gates()];
    vectorised(
        #[inline(always)]
        || {
            let rows = projected.chunks_exact(s.row()).zip(d_projected.chunks_exact_mut(s.row()));
            let all = rows.zip(gates.chunks_exact(s.gates()).zip(d_gates.chunks_exact(s.gates())));
            for ((row, d_row), (gates, d_gates)) in all {
                let (_, steps) = of_row(s, row);
                let (d_rates, d_steps) = d_row[s.rates()..].split_at_mut(s.value_heads);
                for h in 0..s.value_heads {
                    let (x, factor) = (steps[h] + weights.step[h], -exp(weights.decay[h]));
                    let slope = d_gates[h];
                    d_steps[h] = slope * factor * sigmoid(x);
                    sums[h] += slope * factor * softplus(x);
                    sums[s.value_heads + h] += d_steps[h];
                    d_rates[h] = d_gates[s.value_heads + h] * (1.0 - gates[s.value_heads + h]);
                }
            }
        },
    );
    for (to, from) in [&mut gradients.decay, &mut gradients.step].into_iter().zip(sums.chunks_exact(s.value_heads)) {
        if let Some(to) = to {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}
