//! The auxiliary loss that makes the loads of experts even (Shazeer et al. 2017, arXiv:1701.06538; GShard,
//! arXiv:2006.16668; Switch Transformers, arXiv:2101.03961, equations 4 to 6), for routers whose scores are shares.
//!
//! `E sum over e of f_e p_e`, `f_e` the choices of expert `e` and `p_e` the sum of its scores, both over the number of
//! rows, all layers' rows together. It is `A` where loads are even. `f` has no gradient, so the loss is a sum over rows
//! once the choices of all are counted: what micro-batches add up to does not depend on how they are cut.

use super::router::{Router, Routing};
use crate::team::Team;

/// The sums that the loss is made of, in whole numbers, so that they have no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalance {
    /// Choices of each expert `(E)`.
    pub choices: Vec<u64>,
    /// Sums of their scores `(E)`, in 2^-32ths.
    pub scores: Vec<u64>,
    /// Rows of all layers.
    pub rows: u64,
}

/// What 1 is counted as.
const ONE: f64 = (1u64 << 32) as f64;

impl LoadBalance {
    /// Adds the rows of a layer, each counted so many times.
    pub fn add_rows(&mut self, router: &Router, routing: &Routing, times: &[u32]) {
        self.choices.resize(router.experts, 0);
        self.scores.resize(router.experts, 0);
        let rows = routing.scores.chunks_exact(router.experts).zip(routing.chosen.chunks_exact(router.active));
        for ((scores, chosen), &times) in rows.zip(times) {
            let times = u64::from(times);
            chosen.iter().for_each(|&expert| self.choices[expert as usize] += times);
            // What is not finite counts as nothing: it stops the update by itself.
            let whole = scores.iter().map(|&score| (f64::from(score) * ONE).round() as u64);
            self.scores.iter_mut().zip(whole).for_each(|(sum, score)| *sum += times * score);
            self.rows += times;
        }
    }

    /// Adds the sums of other rows.
    pub fn add(&mut self, other: &Self) {
        for (sums, others) in [(&mut self.choices, &other.choices), (&mut self.scores, &other.scores)] {
            sums.resize(sums.len().max(others.len()), 0);
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        self.rows += other.rows;
    }

    /// The loss; 0 without rows.
    pub fn loss(&self) -> f64 {
        let rows = self.rows.max(1) as f64;
        let terms = self.choices.iter().zip(&self.scores).map(|(&f, &p)| f as f64 / rows * (p as f64 / ONE / rows));
        self.choices.len() as f64 * terms.sum::<f64>()
    }

    /// The derivative of `coef` times the loss with respect to the score of each expert in a row `(E)`.
    pub fn slopes(&self, coef: f64) -> Vec<f32> {
        let (rows, experts) = (self.rows.max(1) as f64, self.choices.len() as f64);
        self.choices.iter().map(|&f| (coef * experts * f as f64 / (rows * rows)) as f32).collect()
    }
}

/// Adds to `d_products (T, E)` the gradient of a loss whose slopes by a row's shares are `slopes (E)`, each row `times`
/// over `(T)`.
pub fn balance_backward(team: &Team, routing: &Routing, slopes: &[f32], times: &[u32], d_products: &mut [f32]) {
    let (e, piece) = (slopes.len(), team.piece(times.len()));
    let inputs = routing.scores.chunks(piece * e).zip(times.chunks(piece));
    team.each(inputs.zip(d_products.chunks_mut(piece * e)), |((scores, times), dz)| {
        for ((p, dz), &times) in scores.chunks_exact(e).zip(dz.chunks_exact_mut(e)).zip(times) {
            let mean: f32 = p.iter().zip(slopes).map(|(p, slope)| p * slope).sum();
            dz.iter_mut()
                .zip(p.iter().zip(slopes))
                .for_each(|(dz, (p, slope))| *dz += times as f32 * p * (slope - mean));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::router::Scores;
    use super::*;
    use reckon_datasets::Counted;

    const ROUTER: Router =
        Router { experts: 4, active: 2, scores: Scores::Softmax, groups: None, normalised: true, scale: 1.0 };

    fn route(products: &[f32]) -> Routing {
        let mut routing = Routing { scores: products.to_vec(), ..Routing::default() };
        ROUTER.forward(&Team::alone(), None, &mut routing);
        routing
    }

    fn sums(routing: &Routing, times: &[u32]) -> LoadBalance {
        let mut sums = LoadBalance::default();
        sums.add_rows(&ROUTER, routing, times);
        sums
    }

    #[test]
    fn an_even_load_costs_the_experts_of_a_row_and_one_that_is_not_costs_more() {
        // Rows choose 0 and 1, 2 and 3: each expert once of two rows, and a mean share of a quarter.
        let even = sums(&route(&[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), &[1, 1]);
        assert!((even.loss() - 2.0).abs() < 1e-6, "{}", even.loss());
        let uneven = sums(&route(&[1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), &[1, 1]);
        // f = 1, 1, 0, 0; p = e / (2 e + 2) for the first two.
        let expected = 4.0 * 2.0 * 1f64.exp() / (2.0 * 1f64.exp() + 2.0);
        assert!((uneven.loss() - expected).abs() < 1e-6, "{}", uneven.loss());
    }

    #[test]
    fn a_row_counted_twice_is_two_rows_and_sums_have_no_order() {
        let products = [0.3, -0.2, 0.9, 0.1, 0.5, 0.4, -0.7, 0.2];
        let twice = sums(&route(&products), &[2, 1]);
        let (first, second) = (sums(&route(&products[..4]), &[1]), sums(&route(&products[4..]), &[1]));
        let mut sum = second;
        sum.add(&first);
        sum.add(&first);
        assert_eq!(sum, twice);
    }

    #[test]
    fn the_gradient_is_that_of_difference_quotients() {
        let mut random = Counted::new(&[3]);
        let products: Vec<f32> = (0..5 * 4).map(|_| random.normal() as f32).collect();
        let (routing, times, coef) = (route(&products), [1, 3, 1, 2, 1], 0.7);
        let slopes = sums(&routing, &times).slopes(coef);
        for threads in [1, 3] {
            let mut gradient = vec![1f32; products.len()];
            Team::with(threads, |team| balance_backward(team, &routing, &slopes, &times, &mut gradient));
            for (place, got) in gradient.iter().enumerate() {
                let at = |step: f32| {
                    let mut moved = products.clone();
                    moved[place] += step;
                    let moved = route(&moved);
                    assert_eq!(moved.chosen, routing.chosen);
                    coef * sums(&moved, &times).loss()
                };
                let expected = 1.0 + (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((f64::from(*got) - expected).abs() < 1e-4, "{got}, not {expected}");
            }
        }
    }
}
