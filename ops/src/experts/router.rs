//! The router: from one score for each expert to the few that a row goes to, and their weights; forward and backward.
//!
//! `s = softmax(z)` or `sigmoid(z)`; the `A` largest of `s + b` are chosen, where wanted from the best groups of
//! experts alone (DeepSeek-V3, arXiv:2412.19437); their weights are `c s_a`, or `c s_a / sum over the chosen of s`. The
//! bias `b` moves the choice and no weight, so that it has no gradient.

use crate::team::Team;
use crate::vector::exp;

/// What makes scores of a router's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Shares of all experts.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
}

/// By what a group of experts is compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// Its largest score.
    Largest,
    /// The sum of its two largest.
    TwoLargest,
}

/// Experts side by side in groups, of which a row may use some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many there are; divides the experts.
    pub count: usize,
    /// How many of them a row may use.
    pub kept: usize,
    /// What decides which.
    pub score: GroupScore,
}

/// How rows choose experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// All experts (`E`).
    pub experts: usize,
    /// Experts of a row (`A`).
    pub active: usize,
    /// What their scores are.
    pub scores: Scores,
    /// Groups that limit the choice.
    pub groups: Option<Groups>,
    /// Whether the weights of a row's experts are divided by their sum.
    pub normalised: bool,
    /// What every weight is multiplied by.
    pub scale: f32,
}

/// What a router made of rows.
#[derive(Debug, Default)]
pub struct Routing {
    /// The router's products, then scores `(T, E)`.
    pub scores: Vec<f32>,
    /// Experts of each row, best first `(T, A)`.
    pub chosen: Vec<u32>,
    /// Their weights `(T, A)`.
    pub weights: Vec<f32>,
}

/// How often experts were chosen, and how undecided their router was. Whole numbers, so that sums have no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Rows of each expert.
    pub rows: Vec<u64>,
    /// Entropies of the rows' scores, in [`Load::NATS`]ths of a nat.
    pub entropy: u64,
}

impl Load {
    /// What a nat is counted as.
    pub const NATS: f64 = (1u64 << 20) as f64;

    /// Adds that of other rows.
    pub fn add(&mut self, other: &Self) {
        self.rows.resize(self.rows.len().max(other.rows.len()), 0);
        self.rows.iter_mut().zip(&other.rows).for_each(|(sum, rows)| *sum += rows);
        self.entropy += other.entropy;
    }
}

/// Kept out of a sum that may be zero.
const TINY: f32 = 1e-20;

impl Router {
    /// From the products that `routing` holds as scores to all else in it. `bias (E)` moves the choice.
    pub fn forward(&self, team: &Team, bias: Option<&[f32]>, routing: &mut Routing) {
        let (e, a) = (self.experts, self.active);
        let rows = routing.scores.len() / e;
        routing.chosen.resize(rows * a, 0);
        routing.weights.resize(rows * a, 0.0);
        let piece = team.piece(rows);
        let outputs = routing.chosen.chunks_mut(piece * a).zip(routing.weights.chunks_mut(piece * a));
        team.each(routing.scores.chunks_mut(piece * e).zip(outputs), |(scores, (chosen, weights))| {
            let mut open = vec![0f32; e];
            let rows = scores.chunks_exact_mut(e).zip(chosen.chunks_exact_mut(a)).zip(weights.chunks_exact_mut(a));
            for ((scores, chosen), weights) in rows {
                self.score(scores);
                open.copy_from_slice(scores);
                if let Some(bias) = bias {
                    open.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                }
                // NaN is what a choice leaves behind.
                open.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = f32::MIN);
                self.close_groups(&mut open);
                chosen.fill_with(|| take_largest(&mut open));
                self.weigh(scores, chosen, weights);
            }
        });
    }

    /// Sends rows to the experts that `chosen (T, A)` names in place of those that [`Router::forward`] chose, weighed by
    /// their scores as they are.
    pub fn replay(&self, chosen: &[u32], routing: &mut Routing) {
        routing.chosen.copy_from_slice(chosen);
        let choices = chosen.chunks_exact(self.active).zip(routing.weights.chunks_exact_mut(self.active));
        for (scores, (chosen, weights)) in routing.scores.chunks_exact(self.experts).zip(choices) {
            self.weigh(scores, chosen, weights);
        }
    }

    fn score(&self, row: &mut [f32]) {
        match self.scores {
            Scores::Softmax => {
                let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
                row.iter_mut().for_each(|z| *z = exp(*z - largest));
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|p| *p /= sum);
            }
            Scores::Sigmoid => row.iter_mut().for_each(|z| *z = sigmoid(*z)),
        }
    }

    /// Takes the experts of all but the best groups out of the choice.
    fn close_groups(&self, open: &mut [f32]) {
        let Some(groups) = self.groups else { return };
        let size = self.experts / groups.count;
        let score = |group: &[f32]| {
            let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            for &score in group {
                if score > first {
                    (first, second) = (score, first);
                } else if score > second {
                    second = score;
                }
            }
            match groups.score {
                GroupScore::Largest => first,
                GroupScore::TwoLargest => first + second,
            }
        };
        let mut scores: Vec<f32> = open.chunks_exact(size).map(score).collect();
        let kept: Vec<u32> = (0..groups.kept).map(|_| take_largest(&mut scores)).collect();
        for (index, group) in open.chunks_exact_mut(size).enumerate() {
            if !kept.contains(&(index as u32)) {
                group.fill(f32::NEG_INFINITY);
            }
        }
    }

    fn weigh(&self, scores: &[f32], chosen: &[u32], weights: &mut [f32]) {
        weights.iter_mut().zip(chosen).for_each(|(weight, &expert)| *weight = scores[expert as usize]);
        let sum = if self.normalised { weights.iter().sum::<f32>() + TINY } else { 1.0 };
        weights.iter_mut().for_each(|weight| *weight = *weight / sum * self.scale);
    }

    /// `d_weights (T, A)` -> the gradient of the router's products `(T, E)`, written.
    pub fn backward(&self, team: &Team, routing: &Routing, d_weights: &[f32], d_products: &mut [f32]) {
        let (e, a) = (self.experts, self.active);
        let piece = team.piece(d_products.len() / e);
        let chosen = routing.chosen.chunks(piece * a).zip(routing.weights.chunks(piece * a));
        let inputs = routing.scores.chunks(piece * e).zip(chosen).zip(d_weights.chunks(piece * a));
        team.each(inputs.zip(d_products.chunks_mut(piece * e)), |(((scores, (chosen, weights)), dw), dz)| {
            let choices = chosen.chunks_exact(a).zip(weights.chunks_exact(a)).zip(dw.chunks_exact(a));
            for ((scores, dz), ((chosen, weights), dw)) in
                scores.chunks_exact(e).zip(dz.chunks_exact_mut(e)).zip(choices)
            {
                self.backward_row(scores, chosen, weights, dw, dz);
            }
        });
    }

    fn backward_row(&self, scores: &[f32], chosen: &[u32], weights: &[f32], dw: &[f32], dz: &mut [f32]) {
        let sum = chosen.iter().map(|&expert| scores[expert as usize]).sum::<f32>() + TINY;
        let mean: f32 = dw.iter().zip(weights).map(|(dw, weight)| dw * weight).sum();
        dz.fill(0.0);
        for (&expert, dw) in chosen.iter().zip(dw) {
            let slope = self.scale * dw;
            dz[expert as usize] = if self.normalised { (slope - mean) / sum } else { slope };
        }
        match self.scores {
            Scores::Sigmoid => dz.iter_mut().zip(scores).for_each(|(dz, s)| *dz *= s * (1.0 - s)),
            Scores::Softmax => {
                let mean: f32 = dz.iter().zip(scores).map(|(dz, p)| dz * p).sum();
                dz.iter_mut().zip(scores).for_each(|(dz, p)| *dz = p * (*dz - mean));
            }
        }
    }

    /// How often each expert was chosen, and how undecided the router was: the entropy of a row's scores as shares of
    /// their sum.
    pub fn load(&self, routing: &Routing) -> Load {
        let mut rows = vec![0; self.experts];
        routing.chosen.iter().for_each(|&expert| rows[expert as usize] += 1);
        let entropy = |scores: &[f32]| {
            let sum: f64 = scores.iter().map(|&s| f64::from(s)).sum();
            let terms = scores.iter().map(|&s| f64::from(s) / sum).filter(|p| *p > 0.0);
            // What is not finite counts as nothing: it has stopped the update already.
            (terms.map(|p| -p * p.ln()).sum::<f64>() * Load::NATS).round() as u64
        };
        Load { rows, entropy: routing.scores.chunks_exact(self.experts).map(entropy).sum() }
    }
}

/// `1 / (1 + e^-z)`.
pub fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + exp(-z))
}

/// The place of the largest value, the first of equal ones; it is not chosen again.
fn take_largest(open: &mut [f32]) -> u32 {
    let mut best = 0;
    for (place, &value) in open.iter().enumerate() {
        if value > open[best] || open[best].is_nan() {
            best = place;
        }
    }
    open[best] = f32::NAN;
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use reckon_datasets::Counted;

    const V3: Router = Router {
        experts: 6,
        active: 2,
        scores: Scores::Sigmoid,
        groups: Some(Groups { count: 3, kept: 2, score: GroupScore::TwoLargest }),
        normalised: true,
        scale: 2.5,
    };

    fn route(router: &Router, products: &[f32], bias: Option<&[f32]>) -> Routing {
        let mut routing = Routing { scores: products.to_vec(), ..Routing::default() };
        router.forward(&Team::alone(), bias, &mut routing);
        routing
    }

    #[test]
    fn experts_come_from_the_best_groups_also_where_all_biased_scores_are_negative() {
        // Groups by the sum of their two largest: 0.9 + 0.5, 0.88 + 0.45, 0.95 + 0.01; the best expert is in none.
        let logit = |p: f32| (p / (1.0 - p)).ln();
        let products = [0.9, 0.5, 0.88, 0.45, 0.95, 0.01].map(logit);
        for bias in [None, Some([-2.0; 6])] {
            let routing = route(&V3, &products, bias.as_ref().map(|bias| &bias[..]));
            assert_eq!(routing.chosen, [0, 2], "{bias:?}");
            let expected = [0.9, 0.88].map(|s| 2.5 * s / 1.78);
            let near = routing.weights.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5);
            assert!(near, "{:?}, whatever the bias", routing.weights);
        }
        let by_largest = Groups { score: GroupScore::Largest, ..V3.groups.unwrap() };
        assert_eq!(route(&Router { groups: Some(by_largest), ..V3 }, &products, None).chosen, [4, 0]);
        assert_eq!(route(&Router { groups: None, ..V3 }, &products, None).chosen, [4, 0]);
        let bias = [0.0, 0.0, 0.0, 0.6, 0.0, 0.0];
        assert_eq!(route(&V3, &products, Some(&bias)).chosen, [3, 0], "a bias moves the choice");
    }

    #[test]
    fn equal_and_broken_scores_choose_experts_that_differ() {
        let plain = Router { groups: None, ..V3 };
        assert_eq!(route(&plain, &[0.5; 6], None).chosen, [0, 1]);
        let mut broken = route(&plain, &[f32::NAN; 6], None).chosen;
        broken.dedup();
        assert_eq!(broken.len(), 2, "{broken:?}");
    }

    #[test]
    fn the_gradient_is_that_of_difference_quotients() {
        let mut random = Counted::new(&[3]);
        let mut draw = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<_>>();
        for (scores, normalised) in [Scores::Softmax, Scores::Sigmoid].into_iter().flat_map(|s| [(s, false), (s, true)])
        {
            let router = Router { scores, normalised, ..V3 };
            let (products, slopes) = (draw(4 * 6), draw(4 * 2));
            let routing = route(&router, &products, None);
            let mut gradient = vec![f32::NAN; products.len()];
            Team::with(2, |team| router.backward(team, &routing, &slopes, &mut gradient));
            for (place, got) in gradient.iter().enumerate() {
                let at = |step: f32| {
                    let mut moved = products.clone();
                    moved[place] += step;
                    let moved = route(&router, &moved, None);
                    assert_eq!(moved.chosen, routing.chosen);
                    moved.weights.iter().zip(&slopes).map(|(w, s)| f64::from(*w) * f64::from(*s)).sum::<f64>()
                };
                let expected = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((f64::from(*got) - expected).abs() < 2e-3, "{scores:?}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn loads_are_counted_and_a_router_that_does_not_care_has_the_entropy_of_all_experts() {
        let plain = Router { groups: None, ..V3 };
        let routing = route(&plain, &[0.0; 18], None);
        let mut load = plain.load(&routing);
        assert_eq!(load.rows, [3, 3, 0, 0, 0, 0]);
        load.add(&load.clone());
        assert_eq!(load.rows[0], 6);
        assert!((load.entropy as f64 / Load::NATS / 6.0 - 6f64.ln()).abs() < 1e-5);
    }
}
