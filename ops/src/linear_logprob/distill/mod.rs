//! The divergence between two models' distributions over a whole vocabulary, and its gradient, in chunks of rows: neither
//! model's `(T, V)` logits ever exist.
//!
//! With `p` the student's distribution and `q` the teacher's, both over the first `vocab` tokens at the same temperature:
//!
//! ```text
//! beta = 1        KL(p || q) = sum p log(p / q)             dz = p (log(p / q) - KL)        reverse
//! beta = 0        KL(q || p) = sum q log(q / p)             dz = p - q                      forward
//! 0 < beta < 1    beta KL(q || m) + (1 - beta) KL(p || m),  m = (1 - beta) p + beta q
//!                                                           dz = (1 - beta) p (log(p / m) - KL(p || m))
//! ```
//! The last is the generalized Jensen-Shannon divergence of arXiv:2306.13649, equation 1. `dz` is the derivative with
//! respect to the student's logits over the temperature.

pub mod device;

use super::super::linear::{Epilogue, Linear};
use super::super::memory;
use super::super::team::Team;
use super::super::vector::{LANES, exp, reduce, vectorised};
use super::{Logits, Rows, chunk_values, normalise};

/// Which divergence is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// 1 is the reverse KL divergence, 0 the forward one, and between them lies the generalized Jensen-Shannon one.
    pub beta: f32,
    /// Tokens that both models know, from the first on. What lies behind them pads a matrix, and is of no distribution.
    pub vocab: usize,
}

/// What a teacher makes of the same rows: its hidden states `(R, K)` of its own width, and its output matrix.
#[derive(Debug, Clone, Copy)]
pub struct Teacher<'a> {
    /// Hidden states.
    pub h: &'a [f32],
    /// Output matrix.
    pub head: &'a Linear<'a>,
}

/// What is taken the gradient of, a value for each row `(R)`.
#[derive(Debug, Clone, Copy)]
pub struct Slopes<'a> {
    /// Of the target's log-probability.
    pub logprob: &'a [f32],
    /// Of the divergence.
    pub divergence: &'a [f32],
}

/// As [`super::backward`] does, with the gradient of the divergence from a teacher beside that of the targets'
/// log-probabilities. Returns the divergence of each row.
#[expect(clippy::too_many_arguments, reason = "a backward of two heads: both sides' rows, weights and memory")]
pub fn backward(
    team: &Team,
    rows: Rows,
    head: &Linear,
    teacher: Teacher,
    (divergence, slopes): (Divergence, Slopes),
    [logits, teacher_logits]: [&mut Logits; 2],
    dh: &mut [f32],
    gradients: &mut [f32],
) -> Vec<f32> {
    let (v, k) = (head.outputs(), head.inputs());
    let (tv, tk) = (teacher.head.outputs(), teacher.head.inputs());
    let at_a_time = (chunk_values(v) / v).min(chunk_values(tv) / tv);
    let mut divergences = vec![0f32; rows.targets.len()];
    for first in (0..rows.targets.len()).step_by(at_a_time) {
        let range = first..rows.targets.len().min(first + at_a_time);
        let (h, dh) = (&rows.h[range.start * k..range.end * k], &mut dh[range.start * k..range.end * k]);
        logits.of(team, h, head, rows.temperature, &mut vec![(); range.len()], |_, _, _| ());
        teacher_logits.scaled(team, &teacher.h[range.start * tk..range.end * tk], teacher.head, rows.temperature);
        let piece = team.piece(range.len());
        let student = logits.values.chunks_mut(piece * v).zip(logits.lse.chunks(piece));
        let teachers = teacher_logits.values.chunks(piece * tv);
        let outs = divergences[range.clone()].chunks_mut(piece);
        let pieces = student.zip(teachers).zip(outs.zip((range.start..).step_by(piece)));
        team.each(pieces, |(((z, lse), teachers), (outs, first))| {
            let each = z.chunks_exact_mut(v).zip(lse).zip(teachers.chunks_exact(tv));
            for (row, (((z, &lse), zt), out)) in each.zip(outs).enumerate() {
                let row = first + row;
                let (g, w) = (slopes.logprob[row] / rows.temperature, slopes.divergence[row] / rows.temperature);
                *out = row_gradient(z, lse, zt, divergence, w, g);
                z[rows.targets[row] as usize] += g;
            }
        });
        head.backward_input(team, &logits.values, dh);
        head.backward_weight(team, h, &logits.values, gradients);
    }
    divergences
}

impl Logits {
    /// Leaves the scaled logits of rows `h`.
    fn scaled(&mut self, team: &Team, h: &[f32], head: &Linear, temperature: f32) {
        let v = head.outputs();
        memory::sized(&mut self.values, h.len() / head.inputs() * v);
        head.forward(team, h, &mut self.values, Epilogue::None);
        let piece = team.piece(h.len() / head.inputs()) * v;
        team.each(self.values.chunks_mut(piece), |z| z.iter_mut().for_each(|z| *z /= temperature));
    }
}

/// Turns the scaled logits `z` of a row into `w d(divergence) - g p`, and returns the divergence. `lse` is that of all of
/// `z`, padding included, as the target's log-probability is.
fn row_gradient(z: &mut [f32], lse: f32, zt: &[f32], divergence: Divergence, w: f32, g: f32) -> f32 {
    let Divergence { beta, vocab } = divergence;
    let (known, padding) = z.split_at_mut(vocab);
    let zt = &zt[..vocab];
    let ls = if padding.is_empty() { lse } else { log_sum_exp(known) };
    let lt = log_sum_exp(zt);
    vectorised(
        #[inline(always)]
        || padding.iter_mut().for_each(|z| *z = -g * exp(*z - lse)),
    );
    let row = Row { zt, ls, lt, lse, w, g };
    match beta {
        1.0 => row.reverse(known),
        0.0 => row.forward(known),
        beta => row.between(known, beta),
    }
}

fn log_sum_exp(z: &[f32]) -> f32 {
    normalise(&mut z.to_vec(), 1.0).lse
}

/// A row's teacher, normalisers and slopes.
#[derive(Clone, Copy)]
struct Row<'a> {
    zt: &'a [f32],
    /// Log-sum-exp of the student's logits over the known tokens.
    ls: f32,
    /// The same of the teacher's.
    lt: f32,
    /// The student's over all tokens.
    lse: f32,
    w: f32,
    g: f32,
}

impl Row<'_> {
    fn reverse(self, z: &mut [f32]) -> f32 {
        let Self { zt, ls, lt, lse, w, g } = self;
        let kl = sum(z, zt, |z, t| exp(z - ls) * ((z - ls) - (t - lt)));
        vectorised(
            #[inline(always)]
            || {
                for (z, t) in z.iter_mut().zip(zt) {
                    let log_p = *z - ls;
                    *z = w * exp(log_p) * (log_p - (t - lt) - kl) - g * exp(*z - lse);
                }
            },
        );
        kl
    }

    fn forward(self, z: &mut [f32]) -> f32 {
        let Self { zt, ls, lt, lse, w, g } = self;
        let kl = sum(z, zt, |z, t| exp(t - lt) * ((t - lt) - (z - ls)));
        vectorised(
            #[inline(always)]
            || {
                for (z, t) in z.iter_mut().zip(zt) {
                    *z = w * (exp(*z - ls) - exp(t - lt)) - g * exp(*z - lse);
                }
            },
        );
        kl
    }

    fn between(self, z: &mut [f32], beta: f32) -> f32 {
        let Self { zt, ls, lt, lse, w, g } = self;
        // From the larger of the two, so that neither underflows.
        let log_m = |z: f32, t: f32| {
            let (a, b) = ((z - ls) + (1.0 - beta).ln(), (t - lt) + beta.ln());
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            high + (low - high).exp().ln_1p()
        };
        let student = sum(z, zt, |z, t| exp(z - ls) * ((z - ls) - log_m(z, t)));
        let teacher = sum(z, zt, |z, t| exp(t - lt) * ((t - lt) - log_m(z, t)));
        for (z, &t) in z.iter_mut().zip(zt) {
            let log_p = *z - ls;
            *z = w * (1.0 - beta) * exp(log_p) * (log_p - log_m(*z, t) - student) - g * exp(*z - lse);
        }
        beta * teacher + (1.0 - beta) * student
    }
}

/// `sum term(z, t)` in lanes.
#[inline(always)]
fn sum(z: &[f32], zt: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let mut sums = [0f32; LANES];
            let ((z, z_rest), (t, t_rest)) = (z.as_chunks::<LANES>(), zt.as_chunks::<LANES>());
            for (z, t) in z.iter().zip(t) {
                for l in 0..LANES {
                    sums[l] += term(z[l], t[l]);
                }
            }
            sums.iter_mut().zip(z_rest.iter().zip(t_rest)).for_each(|(sum, (&z, &t))| *sum += term(z, t));
            reduce(sums)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{PackedMatrix, Precision};
    use crate::linear_logprob;

    /// Numbers between -1 and 1, the same every time.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    const K: usize = 5;
    const TK: usize = 7;
    const V: usize = 37;
    const TV: usize = 41;
    const R: usize = 6;
    const TEMPERATURE: f32 = 0.8;

    struct Case {
        h: Vec<f32>,
        w: Vec<f32>,
        teacher_h: Vec<f32>,
        teacher_w: Vec<f32>,
        targets: Vec<u32>,
        divergence: Divergence,
        g: Vec<f32>,
        slope: Vec<f32>,
    }

    fn case(beta: f32) -> Case {
        Case {
            h: numbers(R * K, 1),
            w: numbers(V * K, 2),
            teacher_h: numbers(R * TK, 3),
            teacher_w: numbers(TV * TK, 4),
            targets: vec![3, 0, 34, 7, 7, 20],
            divergence: Divergence { beta, vocab: 35 },
            g: numbers(R, 5),
            slope: vec![0.3, 0.0, 0.5, -0.1, 1.0, 0.2],
        }
    }

    fn log_softmax(z: &[f64]) -> Vec<f64> {
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z - sum.ln()).collect()
    }

    fn logits(h: &[f32], w: &[f32], k: usize, row: usize) -> Vec<f64> {
        let product = |w: &[f32]| -> f64 { h[row * k..][..k].iter().zip(w).map(|(a, b)| f64::from(a * b)).sum() };
        w.chunks(k).map(|w| product(w) / f64::from(TEMPERATURE)).collect()
    }

    /// The divergence of a row as it is written, in double precision.
    fn divergence_by_the_book(case: &Case, row: usize) -> f64 {
        let (beta, n) = (f64::from(case.divergence.beta), case.divergence.vocab);
        let p = log_softmax(&logits(&case.h, &case.w, K, row)[..n]);
        let q = log_softmax(&logits(&case.teacher_h, &case.teacher_w, TK, row)[..n]);
        let kl = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum::<f64>();
        if beta == 0.0 {
            return kl(&q, &p);
        }
        if beta == 1.0 {
            return kl(&p, &q);
        }
        let m: Vec<f64> = p.iter().zip(&q).map(|(p, q)| ((1.0 - beta) * p.exp() + beta * q.exp()).ln()).collect();
        beta * kl(&q, &m) + (1.0 - beta) * kl(&p, &m)
    }

    /// What the gradients are those of.
    fn objective(case: &Case) -> f64 {
        let row = |row: usize| {
            let logprob = log_softmax(&logits(&case.h, &case.w, K, row))[case.targets[row] as usize];
            f64::from(case.g[row]) * logprob + f64::from(case.slope[row]) * divergence_by_the_book(case, row)
        };
        (0..R).map(row).sum()
    }

    fn computed(case: &Case, team: &Team) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let packed = PackedMatrix::new(team, &case.w, K, Precision::Fp32);
        let head = Linear::trained(&packed, &case.w, 0..V * K);
        let teacher_packed = PackedMatrix::new(team, &case.teacher_w, TK, Precision::Fp32);
        let teacher_head = Linear::frozen(&teacher_packed, None);
        let rows = Rows { h: &case.h, targets: &case.targets, temperature: TEMPERATURE };
        let (mut dh, mut dw) = (vec![0.0; R * K], vec![0.0; V * K]);
        let (mut a, mut b) = (Logits::default(), Logits::default());
        let slopes = Slopes { logprob: &case.g, divergence: &case.slope };
        let teacher = Teacher { h: &case.teacher_h, head: &teacher_head };
        let both = (case.divergence, slopes);
        let found = backward(team, rows, &head, teacher, both, [&mut a, &mut b], &mut dh, &mut dw);
        (found, dh, dw)
    }

    #[test]
    fn divergence_and_gradients_are_those_of_the_formulas() {
        for beta in [1.0, 0.0, 0.5, 0.1] {
            let case = case(beta);
            let (found, dh, dw) = computed(&case, &Team::alone());
            for (row, found) in found.iter().enumerate() {
                let expected = divergence_by_the_book(&case, row);
                assert!((f64::from(*found) - expected).abs() < 1e-5, "beta {beta}, row {row}: {found}, not {expected}");
            }
            let step = 1e-3;
            type Part = fn(&mut Case) -> &mut Vec<f32>;
            let parts: [(Part, &[f32]); 2] = [(|case| &mut case.h, &dh), (|case| &mut case.w, &dw)];
            for (part, gradient) in parts {
                for (at, found) in gradient.iter().enumerate() {
                    let shifted = |by: f32| {
                        let mut shifted = self::case(beta);
                        part(&mut shifted)[at] += by;
                        (objective(&shifted), f64::from(part(&mut shifted)[at]))
                    };
                    let ((up, high), (down, low)) = (shifted(step), shifted(-step));
                    let expected = (up - down) / (high - low);
                    assert!((f64::from(*found) - expected).abs() < 2e-4, "beta {beta}, {at}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn without_a_slope_it_is_the_backward_of_logprobs_and_threads_change_no_bit() {
        let mut case = case(1.0);
        let whole = Team::with(3, |team| computed(&case, team));
        assert_eq!(whole, computed(&case, &Team::alone()));
        case.slope.fill(0.0);
        let (_, dh, dw) = computed(&case, &Team::alone());
        let team = Team::alone();
        let packed = PackedMatrix::new(&team, &case.w, K, Precision::Fp32);
        let head = Linear::trained(&packed, &case.w, 0..V * K);
        let rows = Rows { h: &case.h, targets: &case.targets, temperature: TEMPERATURE };
        let (mut logits, mut expected_dh, mut expected_dw) = (Logits::default(), vec![0.0; R * K], vec![0.0; V * K]);
        linear_logprob::forward(&team, rows, &head, &mut logits);
        let slopes = linear_logprob::Slopes { logprobs: &case.g, entropies: &[] };
        linear_logprob::backward(&team, rows, &head, slopes, &mut logits, &mut expected_dh, &mut expected_dw);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&dh, &expected_dh) && near(&dw, &expected_dw));
    }

    #[test]
    fn a_teacher_that_is_the_student_gives_nothing_to_learn() {
        for beta in [1.0, 0.0, 0.5] {
            let mut case = case(beta);
            case.g.fill(0.0);
            let team = Team::alone();
            let packed = PackedMatrix::new(&team, &case.w, K, Precision::Fp32);
            let (head, same) = (Linear::trained(&packed, &case.w, 0..V * K), Linear::frozen(&packed, None));
            let rows = Rows { h: &case.h, targets: &case.targets, temperature: TEMPERATURE };
            let (mut dh, mut dw) = (vec![0.0; R * K], vec![0.0; V * K]);
            let slopes = Slopes { logprob: &case.g, divergence: &case.slope };
            let teacher = Teacher { h: &case.h, head: &same };
            let (mut a, mut b) = (Logits::default(), Logits::default());
            let both = (case.divergence, slopes);
            let found = backward(&team, rows, &head, teacher, both, [&mut a, &mut b], &mut dh, &mut dw);
            assert!(found.iter().chain(&dh).chain(&dw).all(|value| value.abs() < 1e-6), "{beta}: {found:?}");
        }
    }
}
