//! The weight of the entropy bonus from update to update.

use serde::{Deserialize, Serialize};

/// A bonus for the entropy of each token's distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntropyBonus {
    /// Its weight, or where there is a target the one that it begins with.
    pub coef: f64,
    /// The entropy that is held, in nats a token  (Skywork-OR1, arXiv:2505.22312).
    pub target: Option<f64>,
    /// By how much the weight moves after each update.
    pub delta: f64,
}

/// Where the weight stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntropyState {
    /// `c_k`, the weight.
    pub coef: f64,
    /// `e_k`, the mean entropy of the update before.
    pub entropy: f64,
}

impl EntropyBonus {
    /// The weight of the next update: with a target `c_k` where `e_k <= target`, else 0. Before the first update nothing
    /// is known of the entropy, and it is what it begins with.
    pub fn weight(&self, state: Option<EntropyState>) -> f64 {
        match (self.target, state) {
            (Some(target), Some(state)) if state.entropy > target => 0.0,
            (Some(_), Some(state)) => state.coef,
            _ => self.coef,
        }
    }

    /// After an update whose tokens had this mean entropy: `c_k` a `delta` up where it was at most the target, else a
    /// `delta` down, and never below 0. `None` without a target.
    pub fn next(&self, state: Option<EntropyState>, entropy: f64) -> Option<EntropyState> {
        let coef = state.map_or(self.coef, |state| state.coef);
        let moved = |target: f64| if entropy <= target { coef + self.delta } else { (coef - self.delta).max(0.0) };
        self.target.map(|target| EntropyState { coef: moved(target), entropy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_rises_while_entropy_is_below_its_target_and_rests_above() {
        let bonus = EntropyBonus { coef: 0.1, target: Some(0.5), delta: 0.25 };
        let mut state = None;
        for (entropy, weight, coef) in
            [(0.4, 0.1, 0.35), (0.5, 0.35, 0.6), (0.7, 0.6, 0.35), (0.3, 0.0, 0.6), (9.0, 0.6, 0.35)]
        {
            assert!((bonus.weight(state) - weight).abs() < 1e-12, "{state:?}");
            state = bonus.next(state, entropy);
            assert!((state.unwrap().coef - coef).abs() < 1e-12, "{state:?}");
        }
        let down = bonus.next(Some(EntropyState { coef: 0.1, entropy: 0.0 }), 1.0).unwrap();
        assert_eq!(down.coef, 0.0, "it is a bonus");
        let constant = EntropyBonus { target: None, ..bonus };
        assert_eq!((constant.weight(None), constant.next(None, 0.0)), (0.1, None));
    }
}
