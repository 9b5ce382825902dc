//! Each objective against its formula written by the book, and its slope against central differences.

use super::{Clip, Numbers, Objective, ObjectiveKind, Selection, Token, select};
use crate::batch::MicroBatch;

fn objective(kind: ObjectiveKind, numbers: &[(&str, f64)]) -> Objective {
    kind.with(&Numbers(&|name| numbers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)))
}

/// What the papers write, with `min`, `clip` and `max`; `held` is the token at which what stands in `sg[]` is taken.
fn by_the_book(kind: ObjectiveKind, token: &Token, held: &Token) -> f64 {
    let (ratio, a) = (token.log_ratio.exp(), token.advantage);
    let (weight, now, old) = (held.log_ratio.exp(), held.logprob.exp(), held.old_logprob.exp());
    let clipped = (ratio * a).min(ratio.clamp(0.8, 1.28) * a);
    let inside = |divergence: f64| {
        let out = divergence > 0.1 && if a > 0.0 { now > old } else { now < old };
        if out { 0.0 } else { weight.min(20.0) * a * token.logprob }
    };
    match kind {
        ObjectiveKind::Clip if a < 0.0 => clipped.max(3.0 * a),
        ObjectiveKind::Clip => clipped,
        ObjectiveKind::Cispo => weight.clamp(0.8, 1.28) * a * token.logprob,
        ObjectiveKind::Sapo => {
            let tau = if a > 0.0 { 1.0 } else { 1.05 };
            4.0 / tau / (1.0 + (-tau * (ratio - 1.0)).exp()) * a
        }
        ObjectiveKind::Reinforce => a * token.logprob,
        ObjectiveKind::DppoTv => inside((now - old).abs()),
        ObjectiveKind::DppoKl => inside(old * (old / now).ln() + (1.0 - old) * ((1.0 - old) / (1.0 - now)).ln()),
        ObjectiveKind::ClipCov if token.selected => 0.0,
        ObjectiveKind::ClipCov => clipped,
        ObjectiveKind::KlCov => ratio * a - if token.selected { 0.7 * token.log_ratio.abs() } else { 0.0 },
    }
}

#[test]
fn values_and_slopes_are_those_of_the_papers() {
    let numbers = [
        ("clip_low", 0.2),
        ("clip_high", 0.28),
        ("dual_clip", 3.0),
        ("divergence_low", 0.1),
        ("divergence_high", 0.1),
        ("covariance_kl", 0.7),
    ];
    let step = 1e-6;
    // Ratios on both sides of 0.8, 1.28, 3 and 20, as near as the differences allow.
    let ratios: [f64; 13] =
        [0.01, 0.5, 0.79999, 0.80001, 0.9, 1.0001, 1.1, 1.27999, 1.28001, 2.0, 2.9999, 3.0001, 22.0];
    for (&kind, ratio, advantage, selected) in ObjectiveKind::ALL.iter().flat_map(|kind| {
        ratios.iter().flat_map(move |&ratio| {
            [-1.5, 0.0, 0.7].into_iter().flat_map(move |a| [false, true].map(|selected| (kind, ratio, a, selected)))
        })
    }) {
        let old_logprob = -4.0;
        let token = |logprob: f64| Token { logprob, old_logprob, log_ratio: logprob + 4.0, advantage, selected };
        let held = token(old_logprob + ratio.ln());
        let at = |logprob| by_the_book(kind, &token(logprob), &held);
        let slope = (at(held.logprob + step) - at(held.logprob - step)) / (2.0 * step);
        let found = objective(kind, &numbers).surrogate(&held);
        let place = format!("{kind:?}, ratio {ratio}, advantage {advantage}, selected {selected}");
        assert!(
            (found.value - at(held.logprob)).abs() < 1e-6,
            "value {} != {}: {place}",
            found.value,
            at(held.logprob)
        );
        assert!((found.slope - slope).abs() < 1e-5, "slope {} != {slope}: {place}", found.slope);
    }
}

#[test]
fn each_bound_holds_on_its_side_only() {
    let dual = objective(ObjectiveKind::Clip, &[("clip_high", 0.28), ("dual_clip", 3.0)]);
    let cispo = objective(ObjectiveKind::Cispo, &[("clip_low", 0.2), ("clip_high", 0.28)]);
    // From a probability of 1/4: down to 1/50, and up to 1/2, 3/4.
    let dppo = objective(ObjectiveKind::DppoTv, &[("weight_max", 2.5)]);
    for (objective, ratio, advantage, expected) in [
        (dual, 1.3, 1.0, Clip::High),
        (dual, 1.3, -1.0, Clip::None),
        (dual, 0.7, -1.0, Clip::Low),
        (dual, 0.7, 1.0, Clip::None),
        (dual, 3.1, -1.0, Clip::Dual),
        (dual, 3.1, 1.0, Clip::High),
        (dual, 3.1, 0.0, Clip::None),
        (cispo, 1.3, 1.0, Clip::High),
        (cispo, 1.3, -1.0, Clip::High),
        (cispo, 0.7, 1.0, Clip::Low),
        (dppo, 0.08, -1.0, Clip::Low),
        (dppo, 0.08, 1.0, Clip::None),
        (dppo, 2.0, 1.0, Clip::High),
        (dppo, 2.0, -1.0, Clip::None),
        (dppo, 3.0, -1.0, Clip::Dual),
    ] {
        let (old_logprob, log_ratio) = (0.25f64.ln(), f64::ln(ratio));
        let token = Token { logprob: old_logprob + log_ratio, old_logprob, log_ratio, advantage, selected: false };
        let found = objective.surrogate(&token).clip;
        assert_eq!(found, expected, "{objective:?}, ratio {ratio}, advantage {advantage}");
    }
    // On the border itself the gradient still flows.
    let token = Token { logprob: 0.0, old_logprob: 0.0, log_ratio: 0.0, advantage: 1.0, selected: false };
    assert_eq!(objective(ObjectiveKind::Clip, &[("clip_high", 0.0)]).surrogate(&token).slope, 1.0);
}

/// Two micro-batches, or one, of tokens with these log-probabilities before the step and these advantages.
fn micros(cut: usize, rows: &[(f32, f32)]) -> Vec<MicroBatch> {
    let micro = |rows: &[(f32, f32)]| MicroBatch {
        old_logprobs: rows.iter().map(|row| row.0).collect(),
        advantages: rows.iter().map(|row| row.1).collect(),
        loss_weights: rows.iter().map(|row| if row.0 < -8.0 { 0.0 } else { 0.1 }).collect(),
        ..MicroBatch::default()
    };
    rows.chunks(cut).map(micro).collect()
}

#[test]
fn tokens_of_a_large_covariance_are_selected_wherever_the_update_is_cut() {
    // Means -1 and 0, the masked token apart: covariances 0.9, -0.9, -1.5, 1.5.
    let rows = [(-0.1, 1.0), (-0.1, -1.0), (-9.0, 99.0), (-1.9, 5.0 / 3.0), (-1.9, -5.0 / 3.0)];
    let clip = super::clip::Clip { low: 0.2, high: 0.2, bound: f64::INFINITY };
    let between = |bounds, share| Selection::Between { bounds, share, clip };
    for (selection, expected) in [
        (Selection::Largest { share: 0.3 }, vec![4]),
        (Selection::Largest { share: 0.5 }, vec![0, 4]),
        (between([0.5, 1.2], 1.0), vec![0]),
        (between([0.5, 2.0], 1.0), vec![0, 4]),
        (between([2.0, 5.0], 1.0), vec![]),
    ] {
        for cut in [5, 2] {
            let mut micros = micros(cut, &rows);
            let now: Vec<Vec<f32>> = micros.iter().map(|micro| micro.old_logprobs.clone()).collect();
            select(&mut micros, &now, selection, &[1]);
            let marks: Vec<bool> = micros.iter().flat_map(|micro| micro.selected.clone()).collect();
            let found: Vec<usize> = (0..5).filter(|&row| marks[row]).collect();
            assert_eq!(found, expected, "{selection:?}, cut at {cut}");
        }
    }
    // One of two at random, another one under another key; none that the clip holds.
    let chosen = |key: u64, moved: f32| {
        let mut micros = micros(5, &rows);
        let now: Vec<f32> = micros[0].old_logprobs.iter().map(|logprob| logprob + moved).collect();
        select(&mut micros, &[now], between([0.5, 2.0], 0.3), &[key]);
        micros[0].selected.iter().position(|&selected| selected)
    };
    let found: Vec<_> = (0..20).map(|key| chosen(key, 0.0)).collect();
    assert!(found.contains(&Some(0)) && found.contains(&Some(4)), "{found:?}");
    assert!(
        (0..20).all(|key| chosen(key, 0.5) == Some(4)),
        "the clip holds the one that rose with a positive advantage"
    );
}
