//! Samples to packed micro-batches, with each token's share of the objective.
//!
//! Knows nothing of rewards and of the model: it lays out tokens so that no padding is computed, and weights so that
//! the cut into micro-batches changes nothing but memory.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::batch::{MicroBatch, PromptLayout, RoutedExperts};
use crate::ops::attention::Segment;

/// What the trainer learns from: a rollout with its advantage, as token ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainSample {
    /// The prompt, then the completion.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are the prompt; at least 1, as the first token has nothing to be predicted from.
    pub prompt_len: usize,
    /// Which completion tokens, counted from the prompt's end, are not the policy's but a tool's: nothing is learned from
    /// them, and what follows has no entries for them.
    pub observed: Vec<Range<usize>>,
    /// For each completion token, the log-probability it was sampled at.
    pub rollout_logprobs: Vec<f32>,
    /// For each completion token, its advantage.
    pub advantages: Vec<f32>,
    /// For each completion token, its log-probability by the policy before the first update of the step; that of
    /// sampling when absent.
    pub old_logprobs: Option<Vec<f32>>,
    /// For each completion token, its log-probability by the reference, where there is one.
    pub ref_logprobs: Option<Vec<f32>>,
    /// For each completion token, what its objective is multiplied by because another policy sampled it; 1 when absent.
    pub corrections: Option<Vec<f32>>,
    /// The experts that its tokens but the last went to when they were sampled, where that is known.
    pub routed: Option<RoutedExperts>,
    /// Left out of the objective, as one that was not judged is and a truncated completion may be.
    pub masked: bool,
}

impl TrainSample {
    /// How many tokens the policy sampled, `|o_i|`.
    pub fn completion_len(&self) -> usize {
        self.tokens.len() - self.prompt_len - self.observed.iter().map(Range::len).sum::<usize>()
    }

    /// Whether each token behind the prompt is the policy's.
    fn is_sampled(&self) -> impl Iterator<Item = bool> {
        (0..self.tokens.len() - self.prompt_len).map(|place| !self.observed.iter().any(|range| range.contains(&place)))
    }

    /// Whether any token of the sample is part of the objective.
    pub fn counts(&self) -> bool {
        !self.masked && self.completion_len() > 0
    }

    fn assert_shape(&self) {
        let length = self.completion_len();
        assert!(self.prompt_len > 0, "a sample has no prompt token to predict its completion from");
        let lengths = [
            Some(&self.rollout_logprobs),
            Some(&self.advantages),
            self.old_logprobs.as_ref(),
            self.ref_logprobs.as_ref(),
            self.corrections.as_ref(),
        ];
        let whole = lengths.iter().flatten().all(|values| values.len() == length);
        assert!(whole, "log-probabilities, advantages and corrections have one entry for each completion token");
        let inputs = self.routed.as_ref().is_none_or(|routed| routed.len() == self.tokens.len() - 1);
        assert!(inputs, "every input has its experts");
    }
}

/// How the losses of tokens become the loss of an update. `N` samples of `|o_i|` completion tokens each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossNorm {
    /// Mean over a sample's tokens, then over samples: `1 / (N |o_i|)`  (GRPO, arXiv:2402.03300).
    ///
    /// A long wrong completion is punished less a token than a short one.
    #[serde(rename = "sequence_mean")]
    Sequence,
    /// Mean over all tokens: `1 / sum_i |o_i|`  (DAPO, arXiv:2503.14476).
    #[serde(rename = "token_mean")]
    Token,
    /// Sum over a sample's tokens by a constant, then mean over samples: `1 / (N L)`  (Dr. GRPO, arXiv:2503.20783).
    #[serde(rename = "constant")]
    Constant {
        /// `L`, usually the longest completion the run allows, in tokens.
        length: usize,
    },
}

/// The weight of each completion token: its share of the objective of `samples`, the samples of one update.
///
/// A masked sample has weight 0 and counts in no denominator: `N` and `sum_i |o_i|` run over the others that have at
/// least one completion token.
pub fn loss_weights(samples: &[TrainSample], norm: LossNorm) -> Vec<Vec<f32>> {
    let counting = || samples.iter().filter(|sample| sample.counts());
    let sample_count = counting().count() as f64;
    let token_count = counting().map(TrainSample::completion_len).sum::<usize>() as f64;
    let weigh = |sample: &TrainSample| {
        let length = sample.completion_len();
        let weight = match norm {
            _ if !sample.counts() => 0.0,
            LossNorm::Sequence => 1.0 / (sample_count * length as f64),
            LossNorm::Token => 1.0 / token_count,
            LossNorm::Constant { length } => 1.0 / (sample_count * length as f64),
        };
        vec![weight as f32; length]
    };
    samples.iter().map(weigh).collect()
}

/// Packs the samples of one update, whole and in order, into micro-batches of at most `max_tokens` inputs.
///
/// A sample longer than `max_tokens` gets a micro-batch of its own. Samples of one prompt share it within a micro-batch
/// where `layout` says so. Samples that are masked or empty are not packed: they would cost a forward and teach nothing.
/// The result depends on the arguments alone; it is empty if nothing is left.
///
/// # Panics
/// If a sample has no prompt, or log-probabilities that do not match its completion.
pub fn micro_batches(
    samples: &[TrainSample],
    norm: LossNorm,
    max_tokens: usize,
    layout: PromptLayout,
) -> Vec<MicroBatch> {
    let weights = loss_weights(samples, norm);
    let mut packed: Vec<MicroBatch> = Vec::new();
    for (index, sample) in samples.iter().enumerate().filter(|(_, sample)| sample.counts()) {
        sample.assert_shape();
        let fits = |micro: &MicroBatch| {
            let shared = if micro.prompt_of(sample).is_some() { sample.prompt_len } else { 0 };
            micro.tokens.len() + sample.tokens.len() - 1 - shared <= max_tokens
        };
        if !packed.last().is_some_and(fits) {
            packed.push(MicroBatch::default());
        }
        if let Some(micro) = packed.last_mut() {
            micro.push(sample, &weights[index], layout);
            micro.places.push(index);
        }
    }
    packed
}

/// How many updates a step of `samples` completions makes with about `per_update` each, 0 for all: the nearest number,
/// at least 1 and no more than there are completions.
pub fn updates(samples: usize, per_update: usize) -> usize {
    let nearest = (samples + per_update / 2).checked_div(per_update).unwrap_or(1);
    nearest.clamp(1, samples.max(1))
}

/// Cuts the samples of a step, in order, into nearly equal parts of about `per_update`, one for each update.
///
/// The first parts are one sample longer where it does not divide. None is empty.
pub fn mini_batches(samples: &[TrainSample], per_update: usize) -> Vec<&[TrainSample]> {
    let count = updates(samples.len(), per_update);
    let (short, longer) = (samples.len() / count, samples.len() % count);
    let mut rest = samples;
    let mut parts = Vec::with_capacity(count);
    for index in 0..count {
        let (part, after) = rest.split_at(short + usize::from(index < longer));
        parts.push(part);
        rest = after;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

impl MicroBatch {
    /// Where the prompt of `sample` lies, if it is that of the sample before and can be shared.
    fn prompt_of(&self, sample: &TrainSample) -> Option<Range<usize>> {
        let prefix = self.segments.last()?.prefix.clone();
        let routed = self.routed.as_ref().zip(sample.routed.as_ref());
        // Two samplings of a prompt may have sent it to different experts, of which each sample is to see its own.
        let same = routed.is_none_or(|(ours, its)| ours.bytes_of(prefix.clone()) == its.bytes_of(0..sample.prompt_len));
        (same && self.tokens[prefix.clone()] == sample.tokens[..sample.prompt_len]).then_some(prefix)
    }

    /// Adds the inputs of `sample` and returns those that predict its completion. Token `t` is predicted by the hidden
    /// state of token `t - 1`.
    fn push_inputs(&mut self, sample: &TrainSample, layout: PromptLayout) -> Vec<u32> {
        let (inputs, prompt) = (sample.tokens.len() - 1, sample.prompt_len);
        if layout == PromptLayout::Repeated {
            let rows = self.push_sequence(&sample.tokens[..inputs]);
            self.push_routed(sample, 0..inputs);
            return (rows.start + prompt - 1..rows.end).map(|row| row as u32).collect();
        }
        let prefix = self.prompt_of(sample).unwrap_or_else(|| {
            self.push_routed(sample, 0..prompt);
            self.push_sequence(&sample.tokens[..prompt])
        });
        let rows = self.push_tokens(&sample.tokens[prompt..inputs], prompt);
        self.push_routed(sample, prompt..inputs);
        let last_of_prompt = prefix.end - 1;
        self.segments.push(Segment { prefix, rows: rows.clone() });
        std::iter::once(last_of_prompt).chain(rows).map(|row| row as u32).collect()
    }

    /// Adds the experts of some inputs of `sample`. All samples of a step have them, or none has.
    fn push_routed(&mut self, sample: &TrainSample, inputs: Range<usize>) {
        if let Some(routed) = &sample.routed {
            self.routed.get_or_insert_with(|| RoutedExperts::new(routed.shape())).extend(routed, inputs);
        }
    }

    fn push(&mut self, sample: &TrainSample, weights: &[f32], layout: PromptLayout) {
        let predicting = self.push_inputs(sample, layout);
        let targets = predicting.into_iter().zip(&sample.tokens[sample.prompt_len..]);
        for ((row, &target), _) in targets.zip(sample.is_sampled()).filter(|(_, sampled)| *sampled) {
            self.rows.push(row);
            self.targets.push(target);
        }
        self.samples.push(self.targets.len() - weights.len()..self.targets.len());
        self.rollout_logprobs.extend_from_slice(&sample.rollout_logprobs);
        self.old_logprobs.extend_from_slice(sample.old_logprobs.as_ref().unwrap_or(&sample.rollout_logprobs));
        self.advantages.extend_from_slice(&sample.advantages);
        self.loss_weights.extend_from_slice(weights);
        if let Some(reference) = &sample.ref_logprobs {
            self.ref_logprobs.get_or_insert_default().extend_from_slice(reference);
        }
        if let Some(corrections) = &sample.corrections {
            self.corrections.extend_from_slice(corrections);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens count up from `first`; the log-probability of the completion token `t` is `-t / 100`.
    fn sample(first: u32, prompt_len: usize, completion_len: usize) -> TrainSample {
        let tokens: Vec<u32> = (first..).take(prompt_len + completion_len).collect();
        let rollout_logprobs: Vec<f32> = tokens[prompt_len..].iter().map(|&token| -(token as f32) / 100.0).collect();
        let advantages = vec![first as f32; completion_len];
        TrainSample { tokens, prompt_len, rollout_logprobs, advantages, ..TrainSample::default() }
    }

    fn masked(sample: TrainSample) -> TrainSample {
        TrainSample { masked: true, ..sample }
    }

    #[test]
    fn weights_are_the_shares_worked_by_hand() {
        // N = 2 samples of 1 and 4 completion tokens; the masked third is in no denominator.
        let samples = [sample(10, 2, 1), sample(20, 3, 4), masked(sample(30, 1, 2))];
        let check = |norm, first: f32, second: f32| {
            assert_eq!(loss_weights(&samples, norm), [vec![first], vec![second; 4], vec![0.0; 2]], "{norm:?}");
        };
        check(LossNorm::Sequence, 0.5, 0.125);
        check(LossNorm::Token, 0.2, 0.2);
        check(LossNorm::Constant { length: 8 }, 0.0625, 0.0625);
    }

    #[test]
    fn samples_are_packed_end_to_end_without_padding() {
        let samples = [sample(10, 2, 2), masked(sample(90, 1, 3)), sample(20, 1, 2)];
        let micro = &micro_batches(&samples, LossNorm::Token, 100, PromptLayout::Repeated)[0];
        assert_eq!(micro.tokens, [10, 11, 12, 20, 21]);
        assert_eq!(micro.positions, [0, 1, 2, 0, 1]);
        assert_eq!(micro.segments, [Segment::alone(0..3), Segment::alone(3..5)]);
        assert_eq!(micro.samples, [0..2, 2..4]);
        assert_eq!(micro.places, [0, 2], "the masked one is not packed");
        assert_eq!(micro.rows, [1, 2, 3, 4]);
        assert_eq!(micro.targets, [12, 13, 21, 22]);
        assert_eq!(micro.old_logprobs, [-0.12, -0.13, -0.21, -0.22]);
        assert_eq!(micro.rollout_logprobs, micro.old_logprobs);
        assert_eq!(micro.advantages, [10.0, 10.0, 20.0, 20.0]);
        assert_eq!(micro.loss_weights, [0.25; 4]);
    }

    #[test]
    fn what_a_tool_said_is_attended_to_and_not_learned() {
        let observed = |sample: TrainSample| TrainSample {
            observed: std::iter::once(1..3).collect(),
            rollout_logprobs: vec![-0.5; 3],
            advantages: vec![1.0; 3],
            ..sample
        };
        // Of the completion 12, 13, 14, 15, 16 a tool said 13 and 14.
        let samples = [observed(sample(10, 2, 5)), sample(20, 2, 1)];
        assert_eq!((samples[0].completion_len(), samples[1].completion_len()), (3, 1));
        assert_eq!(loss_weights(&samples, LossNorm::Token), [vec![0.25; 3], vec![0.25]]);
        for (layout, rows) in [(PromptLayout::Shared, [1, 4, 5, 7]), (PromptLayout::Repeated, [1, 4, 5, 7])] {
            let micro = &micro_batches(&samples, LossNorm::Token, 100, layout)[0];
            assert_eq!(micro.tokens, [10, 11, 12, 13, 14, 15, 20, 21], "{layout:?}");
            assert_eq!(micro.positions, [0, 1, 2, 3, 4, 5, 0, 1]);
            assert_eq!(micro.rows, rows);
            assert_eq!(micro.targets, [12, 15, 16, 22]);
            assert_eq!(micro.samples, [0..3, 3..4]);
        }
    }

    #[test]
    fn a_group_shares_its_prompt_within_a_micro_batch() {
        let of = |completion: &[u32]| TrainSample {
            tokens: [&[1, 2], completion].concat(),
            rollout_logprobs: vec![-0.5; completion.len()],
            advantages: vec![0.0; completion.len()],
            ..sample(0, 2, completion.len())
        };
        let samples = [of(&[5, 6]), of(&[7]), of(&[8, 9, 9]), sample(1, 1, 2)];
        let micros = micro_batches(&samples, LossNorm::Token, 4, PromptLayout::Shared);
        assert_eq!(micros.iter().map(|micro| micro.samples.len()).collect::<Vec<_>>(), [2, 1, 1]);
        let micro = &micro_batches(&samples, LossNorm::Token, 9, PromptLayout::Shared)[0];
        assert_eq!(micro.tokens, [1, 2, 5, 8, 9, 1, 2]);
        assert_eq!(micro.positions, [0, 1, 2, 2, 3, 0, 1]);
        let completion = |rows| Segment { prefix: 0..2, rows };
        let another = [Segment::alone(5..6), Segment { prefix: 5..6, rows: 6..7 }];
        let group = [Segment::alone(0..2), completion(2..3), completion(3..3), completion(3..5)];
        assert_eq!(micro.segments, [&group[..], &another].concat());
        assert_eq!(micro.rows, [1, 2, 1, 1, 3, 4, 5, 6]);
        assert_eq!(micro.targets, [5, 6, 7, 8, 9, 9, 2, 3]);
    }

    #[test]
    fn the_budget_counts_inputs_and_a_longer_sample_stands_alone() {
        // Inputs, tokens but the last: 3, 3, 9, 2, 2.
        let samples = [sample(0, 2, 2), sample(10, 2, 2), sample(20, 2, 8), sample(40, 1, 2), sample(50, 1, 2)];
        let packing = |budget| -> Vec<usize> {
            let micros = micro_batches(&samples, LossNorm::Token, budget, PromptLayout::Shared);
            micros.iter().map(|micro| micro.samples.len()).collect()
        };
        assert_eq!(packing(6), [2, 1, 2]);
        assert_eq!(packing(5), [1, 1, 1, 2]);
        assert_eq!(packing(0), [1; 5]);
        assert_eq!(packing(19), [5]);
    }

    #[test]
    fn nothing_to_learn_from_makes_no_micro_batch() {
        assert!(micro_batches(&[], LossNorm::Sequence, 9, PromptLayout::Shared).is_empty());
        assert!(
            micro_batches(&[masked(sample(0, 1, 2)), sample(5, 3, 0)], LossNorm::Sequence, 9, PromptLayout::Shared)
                .is_empty()
        );
    }

    #[test]
    fn updates_get_nearly_equal_parts_in_order() {
        let samples: Vec<TrainSample> = (0..7).map(|index| sample(index, 1, 1)).collect();
        for (per_update, lengths) in
            [(0, &[7][..]), (1, &[1; 7]), (2, &[2, 2, 2, 1]), (3, &[4, 3]), (4, &[4, 3]), (5, &[7]), (512, &[7])]
        {
            let parts = mini_batches(&samples, per_update);
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), lengths, "{per_update} an update");
            assert_eq!(parts.concat(), samples);
        }
        assert!(mini_batches(&[], 3).is_empty());
        assert_eq!((updates(8192, 512), updates(64, 512), updates(1000, 512)), (16, 1, 2), "DAPO's, and smaller steps");
    }

    fn any_samples() -> impl Strategy<Value = Vec<TrainSample>> {
        let one = (0u32..50, 1usize..6, 0usize..9, any::<bool>()).prop_map(|(first, prompt, completion, masked)| {
            TrainSample { masked, ..sample(first, prompt, completion) }
        });
        prop::collection::vec(one, 0..20)
    }

    proptest! {
        #[test]
        fn any_budget_packs_the_same_rows_in_the_same_order(samples in any_samples(), budget in 0usize..40, shared in any::<bool>()) {
            let layout = if shared { PromptLayout::Shared } else { PromptLayout::Repeated };
            let row_values = |budget| -> Vec<(u32, u32, f32, f32)> {
                let mut values = Vec::new();
                for micro in micro_batches(&samples, LossNorm::Sequence, budget, layout) {
                    for row in 0..micro.rows.len() {
                        let input = micro.rows[row] as usize;
                        // In these samples a token is its predecessor plus one.
                        assert_eq!(micro.tokens[input] + 1, micro.targets[row]);
                        let (weight, old) = (micro.loss_weights[row], micro.old_logprobs[row]);
                        values.push((micro.targets[row], micro.positions[input], weight, old));
                    }
                    let rows: Vec<usize> = micro.segments.iter().flat_map(|s| s.rows.clone()).collect();
                    assert_eq!(rows, (0..micro.tokens.len()).collect::<Vec<_>>());
                    assert!(micro.tokens.len() <= budget || micro.samples.len() == 1);
                }
                values
            };
            prop_assert_eq!(row_values(budget), row_values(usize::MAX));
        }

        #[test]
        fn the_weights_of_a_mean_sum_to_one(samples in any_samples()) {
            for norm in [LossNorm::Sequence, LossNorm::Token] {
                let sum: f32 = loss_weights(&samples, norm).iter().flatten().sum();
                let expected = if samples.iter().any(TrainSample::counts) { 1.0 } else { 0.0 };
                prop_assert!((sum - expected).abs() < 1e-5, "{:?}: {}", norm, sum);
            }
        }
    }
}
