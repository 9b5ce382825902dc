//! Advantages worked by hand, and what holds for all kinds.

use super::*;
use AdvantageKind::{
    BatchStd, Decoupled, Greedy, GroupWhitened, LeaveOneOut, LengthWeighted, MaxAtK, MaxRl, Mean, MeanStd, PassAtK,
    Whitened,
};

/// Those that compare within a group alone.
const KINDS: [AdvantageKind; 8] = [MeanStd, Mean, LeaveOneOut, BatchStd, LengthWeighted, PassAtK, MaxAtK, MaxRl];

fn judged(rewards: &[f32]) -> Vec<Option<f32>> {
    rewards.iter().copied().map(Some).collect()
}

/// A group whose completions have two tokens each.
fn outcomes(rewards: &[Option<f32>]) -> Outcomes {
    let rollouts = rewards.iter().map(|&reward| Outcome { reward, length: 2, ..Outcome::default() }).collect();
    Outcomes { rollouts, ..Outcomes::default() }
}

/// The advantage of each rollout's first token, after seeing that its others have the same.
fn advantages(groups: &[Vec<Option<f32>>], kind: AdvantageKind) -> Vec<Vec<f32>> {
    let groups: Vec<Outcomes> = groups.iter().map(|group| outcomes(group)).collect();
    let first = |tokens: Vec<f32>| {
        assert!(tokens.len() == 2 && tokens[0].to_bits() == tokens[1].to_bits());
        tokens[0]
    };
    super::advantages(&groups, kind, 2).into_iter().map(|group| group.into_iter().map(first).collect()).collect()
}

fn check(groups: &[&[f32]], kind: AdvantageKind, expected: &[&[f32]]) {
    let groups: Vec<Vec<Option<f32>>> = groups.iter().map(|group| judged(group)).collect();
    let found = advantages(&groups, kind);
    assert_eq!(found.len(), expected.len(), "{kind:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{kind:?}");
        for (a, b) in found.iter().zip(*expected) {
            assert!((a - b).abs() < 1e-5, "{kind:?}: {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn each_kind_gives_the_numbers_worked_by_hand() {
    // One right of four: mean 1/4; squares 9/16 + 3/16 = 3/4; over three, 1/4; std 1/2.
    let one_of_four: &[f32] = &[1.0, 0.0, 0.0, 0.0];
    check(&[one_of_four], MeanStd, &[&[1.5, -0.5, -0.5, -0.5]]);
    check(&[one_of_four], Mean, &[&[0.75, -0.25, -0.25, -0.25]]);
    check(&[one_of_four], LeaveOneOut, &[&[1.0, -1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0]]);
    check(&[one_of_four], BatchStd, &[&[1.5, -0.5, -0.5, -0.5]]);
    check(&[one_of_four], LengthWeighted, &[&[0.75, -0.25, -0.25, -0.25]]);
    check(&[one_of_four], MaxAtK, &[&[1.0, 0.0, 0.0, 0.0]]);
    check(&[one_of_four], MaxRl, &[&[3.0, -1.0, -1.0, -1.0]]);
    // Of the 6 pairs 3 have the right one: p = 1/2, deviation 1/2. A wrong one is right with 1 of its 3 partners.
    check(&[one_of_four], PassAtK, &[&[1.0, -1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0]]);
    // Two wrong of five: 9 of 10 pairs pass; a wrong one passes with 3 of 4.
    let (p, deviation) = (0.9f32, 0.3f32);
    let (right, wrong) = ((1.0 - p) / deviation, (0.75 - p) / deviation);
    check(&[&[1.0, 0.0, 1.0, 0.0, 1.0]], PassAtK, &[&[right, wrong, right, wrong, right]]);
    // Every pair passes: nothing to gain.
    check(&[&[1.0, 0.0, 1.0]], PassAtK, &[&[0.0; 3]]);
    check(&[&[0.5, 2.0, 2.0]], MaxAtK, &[&[0.0; 3]]);
    check(&[&[-1.0, 0.5, 2.0]], MaxAtK, &[&[0.0, 0.0, 1.5]]);
    check(&[&[-1.0, 0.0]], MaxRl, &[&[0.0; 2]]);
}

#[test]
fn batch_std_divides_every_group_by_the_spread_of_the_batch() {
    // All eight rewards: mean 1/2; eight squares of 1/4 make 2; over seven; std sqrt(2/7).
    let std = (2.0f32 / 7.0).sqrt();
    check(
        &[&[1.0, 0.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 0.0]],
        BatchStd,
        &[&[0.75 / std, -0.25 / std, -0.25 / std, -0.25 / std], &[0.25 / std, 0.25 / std, 0.25 / std, -0.75 / std]],
    );
}

#[test]
fn a_group_of_one_an_empty_group_and_equal_rewards_give_exactly_zero() {
    for kind in KINDS {
        let groups = [vec![1.0], vec![], vec![0.1; 7], vec![0.0; 3]].map(|group| judged(&group));
        let expected = vec![vec![0.0], vec![], vec![0.0; 7], vec![0.0; 3]];
        assert_eq!(advantages(&groups, kind), expected, "{kind:?}");
    }
}

#[test]
fn only_differing_rewards_are_a_signal() {
    for (rewards, signal) in [
        (&[Some(0.0), Some(1.0), Some(0.0)][..], true),
        (&[Some(1.0), Some(1.0), Some(0.0)], true),
        (&[None, Some(1.0), None, Some(0.0)], true),
        (&[Some(1.0), Some(1.0)], false),
        (&[None, Some(1.0), Some(1.0), Some(1.0)], false),
        (&[Some(1.0), None], false),
        (&[None, None], false),
        (&[Some(0.0)], false),
        (&[], false),
    ] {
        assert_eq!(has_signal(rewards), signal, "{rewards:?}");
    }
}

#[test]
fn a_rollout_that_was_not_judged_has_advantage_zero_and_changes_no_other() {
    let groups = [vec![Some(1.0), Some(0.0), Some(0.0), Some(0.0)], vec![Some(0.25), Some(0.75)]];
    let holed = [
        vec![None, Some(1.0), Some(0.0), None, Some(0.0), Some(0.0), None],
        vec![Some(0.25), None, Some(0.75)],
        vec![None, None],
    ];
    for kind in KINDS {
        let whole = advantages(&groups, kind);
        for (found, (group, expected)) in advantages(&holed, kind).iter().zip(holed.iter().zip(&whole)) {
            let kept: Vec<f32> = found
                .iter()
                .zip(group)
                .filter(|(_, reward)| reward.is_some())
                .map(|(advantage, _)| *advantage)
                .collect();
            assert_eq!(&kept, expected, "{kind:?}");
            let mut left_out = found.iter().zip(group).filter(|(_, reward)| reward.is_none());
            assert!(left_out.all(|(advantage, _)| advantage.to_bits() == 0), "{kind:?}: {found:?}");
        }
        for equal in [vec![None, Some(1.0), Some(1.0), Some(1.0)], vec![Some(0.1), None], vec![None; 3]] {
            let found = &advantages(std::slice::from_ref(&equal), kind)[0];
            assert!(found.iter().all(|advantage| *advantage == 0.0), "{kind:?}: {found:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn the_advantages_of_a_group_sum_to_zero(rewards in proptest::collection::vec(-2.0f32..2.0, 2..20)) {
        for kind in [MeanStd, Mean, LeaveOneOut] {
            let sum: f32 = advantages(&[judged(&rewards)], kind)[0].iter().sum();
            proptest::prop_assert!(sum.abs() < 1e-4, "{:?}: {}", kind, sum);
        }
    }
}

/// Two groups: rewards, tokens, and what two verifiers say.
fn two_groups() -> [Outcomes; 2] {
    let rollout = |reward: f32, length: usize, parts: [f32; 2]| Outcome {
        reward: Some(reward),
        parts: parts.map(Some).to_vec(),
        length,
        kl: Vec::new(),
    };
    let weights = vec![1.0, 0.5];
    let first = vec![rollout(1.0, 1, [1.0, 0.0]), rollout(0.0, 3, [0.0, 0.0])];
    let second = vec![rollout(1.5, 2, [1.0, 1.0]), rollout(1.5, 2, [1.0, 1.0])];
    [
        Outcomes { rollouts: first, weights: weights.clone(), greedy: Some(0.25) },
        Outcomes { rollouts: second, weights, greedy: Some(1.0) },
    ]
}

fn near(found: &[Vec<Vec<f32>>], expected: &[&[&[f32]]]) {
    let flat: Vec<f32> = found.iter().flatten().flatten().copied().collect();
    let expected: Vec<f32> = expected.iter().copied().flatten().copied().flatten().copied().collect();
    assert_eq!(flat.len(), expected.len());
    let close = flat.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close, "{flat:?}, expected {expected:?}");
}

#[test]
fn baselines_beyond_the_mean_give_the_numbers_worked_by_hand() {
    let groups = two_groups();
    let of = |kind| super::advantages(&groups, kind, 2);
    // Tokens weigh: (1 * 1 + 3 * 0) / 4.
    near(&of(LengthWeighted), &[&[&[0.75], &[-0.25; 3]], &[&[0.0; 2], &[0.0; 2]]]);
    near(&of(Greedy), &[&[&[0.75], &[-0.25; 3]], &[&[0.5; 2], &[0.5; 2]]]);
    let [first, second] = two_groups();
    let unknown = super::advantages(&[Outcomes { greedy: None, ..first }, second], Greedy, 2);
    near(&unknown, &[&[&[0.0], &[0.0; 3]], &[&[0.5; 2], &[0.5; 2]]]);
}

#[test]
fn whitening_is_over_the_tokens_of_the_batch() {
    let groups = two_groups();
    // Eight tokens: 1, three of 0, four of 1.5: mean 7/8, squares 1/64 + 3 * 49/64 + 4 * 25/64 = 248/64; over seven.
    let std = (248f32 / 64.0 / 7.0).sqrt();
    let of = |value: f32| (value - 0.875) / std;
    near(&super::advantages(&groups, Whitened, 2), &[&[&[of(1.0)], &[of(0.0); 3]], &[&[of(1.5); 2], &[of(1.5); 2]]]);
    // Relative to their groups: 1/2, three of -1/2, four of 0: mean -1/8, squares 25/64 + 3 * 9/64 + 4 / 64 = 56/64.
    let std = (56f32 / 64.0 / 7.0).sqrt();
    let of = |value: f32| (value + 0.125) / std;
    let expected: &[&[&[f32]]] = &[&[&[of(0.5)], &[of(-0.5); 3]], &[&[of(0.0); 2], &[of(0.0); 2]]];
    near(&super::advantages(&groups, GroupWhitened, 2), expected);
    // One that was not judged changes no other.
    let [mut first, second] = groups;
    first.rollouts.push(Outcome { reward: None, length: 2, ..Outcome::default() });
    let found = super::advantages(&[first, second], GroupWhitened, 2);
    near(&[vec![found[0][0].clone(), found[0][1].clone()], found[1].clone()], expected);
    assert_eq!(found[0][2], [0.0, 0.0]);
}

#[test]
fn each_verifier_is_normalised_apart_and_their_sum_over_the_batch() {
    // Of the first group: right against wrong is 1/sqrt(2) each way; the second verifier says the same of all.
    // The sums 0.7071, -0.7071, 0, 0 have mean 0 and the deviation sqrt(1/3).
    let (side, std) = (0.5f32.sqrt(), (1.0f32 / 3.0).sqrt());
    let found = super::advantages(&two_groups(), Decoupled, 2);
    near(&found, &[&[&[side / std], &[-side / std; 3]], &[&[0.0; 2], &[0.0; 2]]]);
    // One that was not judged, and a part that did not judge, are in no mean.
    let [mut first, second] = two_groups();
    first.rollouts.push(Outcome { reward: None, parts: vec![Some(9.0), Some(9.0)], length: 1, kl: Vec::new() });
    first.rollouts[0].parts[1] = None;
    let found = super::advantages(&[first, second], Decoupled, 2);
    near(&found, &[&[&[side / std], &[-side / std; 3], &[0.0]], &[&[0.0; 2], &[0.0; 2]]]);
}

#[test]
fn kl_terms_are_taken_from_the_reward_of_a_completion_or_of_each_token() {
    let rollout =
        |reward, kl: &[f32]| Outcome { reward: Some(reward), length: 2, kl: kl.to_vec(), ..Outcome::default() };
    let rollouts = vec![rollout(1.0, &[0.25, 0.25]), rollout(0.0, &[0.0, -0.5])];
    let groups = [Outcomes { rollouts, ..Outcomes::default() }];
    // 1 - 1/2 and 0 + 1/2: equal.
    near(&super::advantages(&groups, Mean, 2), &[&[&[0.0; 2], &[0.0; 2]]]);
    // From each token on: 1/2, 3/4; 1/2, 1/2: mean 9/16, squares (1 + 9 + 1 + 1) / 256, over three.
    let std = (12f32 / 256.0 / 3.0).sqrt();
    let of = |value: f32| (value - 0.5625) / std;
    near(&super::advantages(&groups, Whitened, 2), &[&[&[of(0.5), of(0.75)], &[of(0.5); 2]]]);
}
