//! Rows in the order of their experts: which place each of a row's choices has, rows copied there and their results
//! added up where they came from.

use std::ops::Range;

use crate::team::Team;
use crate::vector::{copy_row, dot, vectorised};

/// The places of all choices: those of an expert side by side, in the order of the rows.
#[derive(Debug, Default)]
pub struct Dispatch {
    /// Experts of a row (`A`).
    active: usize,
    /// The choice at each place, counted through all rows `(T A)`.
    choices: Vec<u32>,
    /// The place of each choice `(T, A)`.
    places: Vec<u32>,
    /// Places of each expert.
    groups: Vec<Range<usize>>,
}

impl Dispatch {
    /// Sets out what rows chose: `chosen (T, A)` of so many experts.
    pub fn set(&mut self, chosen: &[u32], active: usize, experts: usize) {
        let mut ends = vec![0; experts];
        chosen.iter().for_each(|&expert| ends[expert as usize] += 1);
        self.groups.clear();
        let mut begin = 0;
        for end in &mut ends {
            let count = std::mem::replace(end, begin);
            self.groups.push(begin..begin + count);
            begin += count;
        }
        self.active = active;
        self.choices.resize(chosen.len(), 0);
        self.places.resize(chosen.len(), 0);
        for (choice, &expert) in chosen.iter().enumerate() {
            let next = &mut ends[expert as usize];
            (self.choices[*next], self.places[choice]) = (choice as u32, *next as u32);
            *next += 1;
        }
    }

    /// Places of each expert.
    pub fn groups(&self) -> &[Range<usize>] {
        &self.groups
    }

    /// The row that lies at each place (`T A`).
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        self.choices.iter().map(|&choice| choice / self.active as u32)
    }

    /// The place of each choice `(T, A)`.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// All places (`T A`).
    pub fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether no row was sent anywhere.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// `x (T, K)` -> `out (T A, K)`.
    pub fn gather(&self, team: &Team, x: &[f32], k: usize, out: &mut [f32]) {
        let piece = team.piece(self.len());
        team.each(out.chunks_mut(piece * k).zip(self.choices.chunks(piece)), |(out, choices)| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, &choice) in out.chunks_exact_mut(k).zip(choices) {
                        copy_row(&x[choice as usize / self.active * k..][..k], out);
                    }
                },
            );
        });
    }

    /// What belongs to choices `(T, A)`, by place `(T A)`.
    pub fn by_place(&self, of_choices: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.extend(self.choices.iter().map(|&choice| of_choices[choice as usize]));
    }

    /// What belongs to places `(T A)`, by choice `(T, A)`.
    pub fn by_choice(&self, of_places: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.extend(self.places.iter().map(|&place| of_places[place as usize]));
    }

    /// `out_t += sum over the choices of t of w y`, best first: `y (T A, K)`, `weights (T, A)` or 1.
    pub fn add_up(&self, team: &Team, y: &[f32], weights: Option<&[f32]>, k: usize, out: &mut [f32]) {
        let (active, piece) = (self.active, team.piece(out.len() / k));
        let pieces = out.chunks_mut(piece * k).zip(self.places.chunks(piece * active));
        team.each(pieces.zip((0..).step_by(piece * active)), |((out, places), first)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(k).zip(places.chunks_exact(active));
                    for ((out, places), first) in rows.zip((first..).step_by(active)) {
                        for (choice, &place) in (first..).zip(places) {
                            let y = &y[place as usize * k..][..k];
                            match weights {
                                Some(weights) => {
                                    let weight = weights[choice];
                                    out.iter_mut().zip(y).for_each(|(out, y)| *out = weight.mul_add(*y, *out));
                                }
                                None => out.iter_mut().zip(y).for_each(|(out, y)| *out += y),
                            }
                        }
                    }
                },
            );
        });
    }
}

/// The backward of rows that are weighed behind their last product: `d_weights (R)` is `d_activated` times `activated`
/// `(R, F)`, which then are, with `d_gate_up (R, 2F)`, multiplied by `weights (R)`.
pub fn weigh_back(
    team: &Team,
    weights: &[f32],
    d_activated: &[f32],
    activated: &mut [f32],
    d_gate_up: &mut [f32],
    d_weights: &mut [f32],
) {
    if weights.is_empty() {
        return;
    }
    let (piece, f) = (team.piece(weights.len()), activated.len() / weights.len());
    let inputs = weights.chunks(piece).zip(d_activated.chunks(piece * f));
    let outputs = activated.chunks_mut(piece * f).zip(d_gate_up.chunks_mut(piece * 2 * f));
    team.each(inputs.zip(outputs).zip(d_weights.chunks_mut(piece)), |(((weights, da), (a, dg)), dw)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = a.chunks_exact_mut(f).zip(dg.chunks_exact_mut(2 * f)).zip(da.chunks_exact(f));
                for (((a, dg), da), (weight, dw)) in rows.zip(weights.iter().zip(dw)) {
                    *dw = dot(da, a);
                    a.iter_mut().for_each(|a| *a *= weight);
                    dg.iter_mut().for_each(|dg| *dg *= weight);
                }
            },
        );
    });
}

/// `out_t += w_t y_t`: `y (T, K)`, `weights (T)`.
pub fn add_weighed(team: &Team, y: &[f32], weights: &[f32], out: &mut [f32]) {
    let Some(k) = out.len().checked_div(weights.len()) else { return };
    let piece = team.piece(weights.len());
    team.each(out.chunks_mut(piece * k).zip(y.chunks(piece * k)).zip(weights.chunks(piece)), |((out, y), weights)| {
        vectorised(
            #[inline(always)]
            || {
                for ((out, y), weight) in out.chunks_exact_mut(k).zip(y.chunks_exact(k)).zip(weights) {
                    out.iter_mut().zip(y).for_each(|(out, y)| *out = weight.mul_add(*y, *out));
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_experts_and_sums_come_back_whoever_else_goes_there() {
        let (chosen, weights) = ([2, 0, 0, 2, 2, 1], [0.5, 2.0, 1.0, 3.0, 1.0, 1.0]);
        let mut dispatch = Dispatch::default();
        dispatch.set(&chosen, 2, 4);
        assert_eq!(dispatch.groups(), [0..2, 2..3, 3..6, 6..6], "an expert may have no row");
        let x = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        let mut gathered = [0f32; 12];
        for threads in [1, 3] {
            Team::with(threads, |team| {
                dispatch.gather(team, &x, 2, &mut gathered);
                assert_eq!(gathered, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
                let mut sums = [1f32; 6];
                dispatch.add_up(team, &gathered, Some(&weights), 2, &mut sums);
                assert_eq!(sums, [3.5, 26.0, 9.0, 81.0, 7.0, 61.0]);
                let mut sums = [0f32; 6];
                dispatch.add_up(team, &gathered, None, 2, &mut sums);
                assert_eq!(sums, [2.0, 20.0, 4.0, 40.0, 6.0, 60.0]);
            });
        }
        let (mut by_place, mut back) = (Vec::new(), Vec::new());
        dispatch.by_place(&weights, &mut by_place);
        dispatch.by_choice(&by_place, &mut back);
        assert_eq!((by_place, back), (vec![2.0, 1.0, 1.0, 0.5, 3.0, 1.0], weights.to_vec()));
    }

    #[test]
    fn a_weight_has_the_gradient_of_what_it_weighs() {
        let (mut activated, mut d_gate_up, mut d_weights) = ([1.0, 2.0, 3.0, 4.0], [1f32; 8], [0f32; 2]);
        let d_activated = [1.0, 1.0, 0.5, 0.25];
        weigh_back(&Team::alone(), &[2.0, 10.0], &d_activated, &mut activated, &mut d_gate_up, &mut d_weights);
        assert_eq!((d_weights, activated), ([3.0, 2.5], [2.0, 4.0, 30.0, 40.0]));
        assert_eq!(d_gate_up, [2.0, 2.0, 2.0, 2.0, 10.0, 10.0, 10.0, 10.0]);
    }
}
