//! The bytes that a run will take, by class, before it takes them, and the settings under which they fit.
//!
//! Counted at the worst step: every prompt and completion as long as can be. What a CPU and a card hold is counted in
//! `cpu` and `cuda`, in the order of the buffers there; how much memory there is, the caller knows.

mod cpu;
mod cuda;
mod fit;
mod layers;
mod ranks;

use anyhow::{Result, ensure};

pub use fit::{Free, fit};
pub use ranks::{Alone, Link, StepTime, Work};

use layers::PartSizes;

use crate::config::{DistilConfig, DistilObjective, Target, TrainConfig};
use crate::grpo::updates;
use crate::model::device::{AttentionKinds, AttentionWidths, MlpWidths};
use crate::model::layout::{Attention, LayerLayout};
use crate::model::{AdapterLayout, Layout, ModelConfig, Phases, Sharing};
use crate::ops::attention::Heads;
use crate::ops::delta::Delta;
use crate::ops::experts::Router;
use crate::ops::linear::Precision;
use crate::optim::MomentKind;

/// What of a model decides its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// All weights.
    weights: usize,
    /// Those that are packed for products: the layers' matrices and the output matrix.
    packed: usize,
    layers: usize,
    hidden: usize,
    /// What parts of layers take on a CPU, and on a card.
    attention: PartSizes,
    mlp: PartSizes,
    card: CardSizes,
    delta: Option<Delta>,
    /// Layers that have states in place of keys and values.
    states: usize,
    vocab: usize,
    heads: Heads,
    positions: usize,
    /// Angles of a position.
    angles: usize,
}

/// What layers take on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CardSizes {
    /// Of any layer.
    attention: AttentionWidths,
    mlp: MlpWidths,
    /// Bytes a token that all of them keep.
    kept: usize,
}

impl CardSizes {
    fn of(layers: &[LayerLayout], kinds: &AttentionKinds, router: Option<&Router>) -> Self {
        let attention = layers.iter().map(|layer| AttentionWidths::of(layer, kinds));
        let mlps = layers.iter().map(|layer| MlpWidths::of(layer, router));
        let kept = attention.clone().map(AttentionWidths::kept_bytes).chain(mlps.clone().map(MlpWidths::kept_bytes));
        Self { kept: kept.sum(), attention: AttentionWidths::widest(attention), mlp: MlpWidths::widest(mlps) }
    }
}

impl Sizes {
    /// How many weights there are, which decides how a CPU's threads share the work.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// Those of a model's shape.
    pub fn of(config: &ModelConfig) -> Result<Self> {
        let layout = Layout::of(config)?;
        let experts = config.experts()?;
        let kinds = AttentionKinds {
            heads: config.heads(),
            gated: config.family()?.has_output_gates(),
            delta: config.delta()?.map(|delta| delta.sizes),
            latent: config.latent()?.map(|latent| latent.sizes),
        };
        let has_states = |layer: &&LayerLayout| matches!(layer.attention, Attention::Delta(_));
        let matrices = layout.layers.iter().flat_map(|layer| layer.matrices()).chain([&layout.lm_head]);
        Ok(Self {
            weights: layout.len(),
            packed: matrices.map(|matrix| matrix.range.len()).sum(),
            layers: layout.layers.len(),
            hidden: config.hidden_size,
            attention: PartSizes::of_attention(config, &layout.layers)?,
            mlp: PartSizes::of_mlps(config, &layout.layers)?,
            card: CardSizes::of(&layout.layers, &kinds, experts.as_ref().map(|experts| &experts.router)),
            delta: kinds.delta,
            states: layout.layers.iter().filter(has_states).count(),
            vocab: config.vocab_size,
            heads: kinds.heads,
            positions: config.max_position_embeddings,
            angles: config.rope_frequencies()?.len(),
        })
    }
}

/// What of a run with an adapter decides its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lora {
    /// Values of the adapter, which alone learn.
    pub values: usize,
    /// The largest hidden width of an addition: `rank` times the modules that share one matrix.
    pub lora_hidden: usize,
    /// Bytes of the frozen base on a CPU that multiplies fp32; bf16 products and a card take 2 a weight.
    pub base_bytes: usize,
}

impl Lora {
    /// Those of an adapter on a base that takes so many bytes.
    pub fn of(adapter: &AdapterLayout, base_bytes: usize) -> Self {
        Self { values: adapter.values(), lora_hidden: adapter.widest(), base_bytes }
    }
}

/// What of a teacher decides its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taught {
    /// Of its model.
    sizes: Sizes,
    /// Bytes of its weights on a CPU; a card takes 2 for each.
    base_bytes: usize,
    /// Whether the policy learns of its whole distributions.
    full: bool,
}

impl Taught {
    /// A teacher of such a shape, whose weights take so many bytes.
    pub fn of(config: &DistilConfig, shape: &ModelConfig, base_bytes: usize) -> Result<Self> {
        Ok(Self { sizes: Sizes::of(shape)?, base_bytes, full: config.objective == DistilObjective::Full })
    }
}

/// What decides the memory of a run beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Where it computes.
    pub device: Target,
    /// Ranks that have a share of the moments each.
    pub ranks: usize,
    /// Micro-batches under way at a time; 1 on a card.
    pub threads: usize,
    /// What a CPU multiplies.
    pub precision: Precision,
    /// Most tokens of a micro-batch of several sequences. A longer sequence is a micro-batch of its own.
    pub micro_batch_tokens: usize,
    /// Whether layers are computed again in the backward.
    pub recompute: bool,
    /// Completions sampled at a time.
    pub rows: usize,
    /// Longest prompt, in tokens.
    pub prompt: usize,
    /// Longest prompt and completion together, in tokens.
    pub sequence: usize,
    /// Tokens of all completions of an update, each at its longest.
    pub update_tokens: usize,
    /// Whether the objective has a reference policy.
    pub reference: bool,
    /// What is trained, if it is not all weights.
    pub lora: Option<Lora>,
    /// How a card keeps the optimizer's moments.
    pub moments: MomentKind,
    /// Who teaches beside the rewards.
    pub teacher: Option<Taught>,
    /// Bytes of the experts that are recorded of the tokens of a step, and laid out for an update.
    pub routed: usize,
    /// Whether the next step is sampled while this one updates.
    pub ahead: bool,
}

impl Job {
    /// The run of `config` with a model of such a shape, which takes `base_bytes` as a frozen base, and prompts of up to
    /// `prompt` tokens.
    pub fn of(config: &TrainConfig, shape: &ModelConfig, base_bytes: usize, prompt: usize) -> Result<Self> {
        let (r, grpo, device) = (&config.rollout, &config.grpo, config.compute.target());
        let (completions, sequence) = (r.prompts_per_step * r.group_size, prompt + r.max_new_tokens);
        ensure!(
            sequence <= shape.max_position_embeddings,
            "prompts of {prompt} tokens and rollout.max_new_tokens = {} are more than the model's context of {}",
            r.max_new_tokens,
            shape.max_position_embeddings
        );
        let lora = config.lora.as_ref().map(|lora| {
            let layout = lora.layout(&Layout::of(shape)?)?;
            Ok::<_, anyhow::Error>(Lora::of(&layout, base_bytes))
        });
        let (sizes, mut compute) = (Sizes::of(shape)?, config.compute.clone());
        compute.suit(sizes.weights, config.lora.is_some());
        let threads = if device == Target::Cpu { compute.threads() } else { 1 };
        let near = match device {
            Target::Cpu => Sharing::of(sizes.weights).rows(threads, cpu::sequence_bytes(&sizes, sequence)),
            Target::Cuda => usize::MAX,
        };
        let update_tokens = completions.div_ceil(updates(completions, grpo.completions_per_update)) * sequence;
        let sampled = completions * (1 + grpo.resample_max) * sequence;
        let routed = shape.experts()?.map_or(0, |experts| experts.routed(shape.num_hidden_layers).token_bytes());
        Ok(Self {
            device,
            ranks: 1,
            threads,
            precision: config.compute.precision.into(),
            micro_batch_tokens: compute.micro_batch_tokens,
            recompute: config.compute.recompute,
            rows: r.capacity.min(completions.max(config.eval.problems * config.eval.samples)).min(near),
            prompt,
            sequence,
            update_tokens,
            reference: grpo.needs_reference(),
            lora: lora.transpose()?,
            moments: config.optim.moments,
            teacher: None,
            routed: routed * (sampled * (1 + r.ahead) + update_tokens),
            ahead: r.ahead > 0,
        })
    }

    /// Tokens of the largest micro-batch.
    pub fn tokens(&self) -> usize {
        self.micro_batch_tokens.max(self.sequence)
    }
}

/// Bytes by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// fp32 weights, which the optimizer moves: an adapter's where there is one.
    pub weights: usize,
    /// The weights as products read them: packed matrices on a CPU, bf16 on a card. A frozen base is there alone.
    pub copy: usize,
    /// Frozen weights of the KL term; none if it is the base of an adapter.
    pub reference: usize,
    /// Both moments of AdamW; of several ranks, this one's share.
    pub optimizer: usize,
    /// Sums over the update, and on a CPU those of the micro-batches under way.
    pub gradients: usize,
    /// What the micro-batches under way keep for their backward, and work in.
    pub activations: usize,
    /// Logits that an update has at a time.
    pub logits: usize,
    /// A frozen teacher, and what it works in.
    pub teacher: usize,
    /// The experts that the tokens of a step went to.
    pub routed: usize,
    /// What sampling takes beside its cache: the layer at hand, and logits.
    pub prefill: usize,
    /// Keys and values, and states, of the rows being sampled.
    pub cache: usize,
    /// The copy that the next step is sampled from while this one updates, and what it samples in.
    pub ahead: usize,
    phases: Phases,
}

impl Plan {
    /// What `job` takes with a model of such sizes.
    pub fn new(sizes: &Sizes, job: &Job) -> Self {
        match job.device {
            Target::Cpu => cpu::plan(sizes, job),
            Target::Cuda => cuda::plan(sizes, job),
        }
    }

    /// Each class by name.
    pub fn classes(&self) -> [(&'static str, usize); 12] {
        [
            ("weights", self.weights),
            ("weights, as multiplied", self.copy),
            ("reference", self.reference),
            ("optimizer", self.optimizer),
            ("gradients", self.gradients),
            ("activations", self.activations),
            ("logits", self.logits),
            ("teacher", self.teacher),
            ("experts, recorded", self.routed),
            ("prefill", self.prefill),
            ("cache", self.cache),
            ("sampling ahead", self.ahead),
        ]
    }

    /// Bytes that the run holds from beginning to end.
    fn standing(&self) -> usize {
        let trained = self.weights + self.copy + self.reference + self.optimizer + self.gradients;
        trained + self.teacher + self.routed + self.ahead
    }

    /// The most that the run holds at a time.
    pub fn peak(&self) -> usize {
        let (sampling, updating) = (self.cache + self.prefill, self.activations + self.logits);
        self.standing()
            + match self.phases {
                Phases::SideBySide => sampling + updating,
                Phases::InTurn => sampling.max(updating),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Qwen2.5-0.5B's.
    pub(super) fn sizes() -> Sizes {
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32768, "tie_word_embeddings": true,
        });
        Sizes::of(&serde_json::from_value(config).unwrap()).unwrap()
    }

    pub(super) const JOB: Job = Job {
        device: Target::Cuda,
        ranks: 1,
        threads: 1,
        precision: Precision::Fp32,
        micro_batch_tokens: 8192,
        recompute: false,
        rows: 256,
        prompt: 256,
        sequence: 1024,
        update_tokens: 1 << 18,
        reference: true,
        lora: None,
        moments: MomentKind::Full,
        teacher: None,
        routed: 0,
        ahead: false,
    };

    #[test]
    fn the_bytes_of_a_known_model_are_those_counted_by_hand() {
        let weights = 494_032_768;
        let card = Plan::new(&sizes(), &JOB);
        let tables = 32768 * 32 * 2;
        assert_eq!((card.weights, card.copy), (4 * weights + 4 * tables, 2 * weights));
        assert_eq!((card.reference, card.optimizer, card.gradients), (2 * weights, 8 * weights, 4 * weights));
        assert_eq!(card.cache, 257 * 1024 * 12_288, "12 KiB a token: 24 layers x 2 x 2 heads x 64 values x 2 bytes");
        let threads = Job { device: Target::Cpu, threads: 2, ..JOB };
        let cpu = Plan::new(&sizes(), &threads);
        let biases_and_norms = 24 * (1152 + 2 * 896) + 896;
        assert_eq!((cpu.weights, cpu.copy), (4 * weights, 4 * (weights - biases_and_norms)), "the tied head is packed");
        assert_eq!(cpu.gradients, 4 * weights, "one for all threads");
        let small = Plan::new(&Sizes { weights: 1 << 20, ..sizes() }, &threads);
        assert_eq!(small.gradients, 16 << 20, "two threads, one that waits, and the sum");
        assert!(cpu.cache >= 2 * card.cache, "fp32");
        for (moments, of_three) in
            [(MomentKind::Full, 8 * 164_677_590), (MomentKind::EightBit, 2 * 164_677_590 + 5_146_176)]
        {
            let shared = Plan::new(&sizes(), &Job { ranks: 3, moments, ..threads });
            assert_eq!(shared.optimizer, of_three, "a third of the moments");
            assert_eq!(Plan { optimizer: cpu.optimizer, ..shared }, cpu, "and all of the rest");
        }
    }

    #[test]
    fn beside_a_frozen_base_only_the_adapter_is_held_several_times() {
        let job = Job { lora: Some(Lora { values: 1000, lora_hidden: 48, base_bytes: 2 * 494_032_768 }), ..JOB };
        let plan = Plan::new(&sizes(), &Job { device: Target::Cpu, threads: 2, ..job });
        assert_eq!((plan.weights, plan.copy, plan.reference), (4000, 2 * 494_032_768 + 4000, 0));
        assert_eq!((plan.optimizer, plan.gradients), (8000, 4000));
        let (card, full) = (Plan::new(&sizes(), &job), Plan::new(&sizes(), &JOB));
        let tables = 32768 * 32 * 2;
        assert_eq!((card.weights, card.copy, card.reference), (4000 + 4 * tables, 2 * 494_032_768 + 2000, 0));
        assert_eq!((card.optimizer, card.gradients), (8000, 4000));
        assert_eq!(card.activations, full.activations + 8192 * 48 * 4, "bf16, and its gradient");
    }

    #[test]
    fn a_large_vocabulary_costs_a_card_less_than_256_mib_beside_its_weights() {
        let sizes = |vocab| Sizes { vocab, ..sizes() };
        for (vocab, tokens) in [151_936, 262_144, 1_000_000].into_iter().flat_map(|v| [(v, 1 << 14), (v, 1 << 20)]) {
            let job = Job { micro_batch_tokens: tokens, ..JOB };
            let (large, tiny) = (Plan::new(&sizes(vocab), &job), Plan::new(&sizes(1), &job));
            assert!(large.logits < 256 << 20, "{vocab}: {}", large.logits);
            assert!(large.prefill - tiny.prefill < 256 << 20, "{vocab}: {}", large.prefill);
            let rest = |plan| Plan { logits: 0, prefill: 0, ..plan };
            assert_eq!(rest(large), rest(tiny), "nothing else knows the vocabulary");
        }
    }

    #[test]
    fn one_phase_is_held_at_a_time_but_both_of_a_small_model_on_a_cpu() {
        let (card, cpu) = (Plan::new(&sizes(), &JOB), Plan::new(&sizes(), &Job { device: Target::Cpu, ..JOB }));
        let small = Plan::new(&Sizes { weights: 1 << 20, ..sizes() }, &Job { device: Target::Cpu, ..JOB });
        let sum = |plan: &Plan| plan.classes().iter().map(|(_, bytes)| bytes).sum::<usize>();
        for plan in [card, cpu] {
            let (sampling, updating) = (plan.cache + plan.prefill, plan.activations + plan.logits);
            assert_eq!(plan.peak(), sum(&plan) - sampling.min(updating));
        }
        assert_eq!(small.peak(), sum(&small));
    }

    #[test]
    fn a_teacher_is_held_frozen_and_its_logits_a_chunk_at_a_time() {
        let teacher = |full| Some(Taught { sizes: sizes(), base_bytes: 2 * 494_032_768, full });
        let cpu = Job { device: Target::Cpu, ..JOB };
        let (none, sampled, full) = (
            Plan::new(&sizes(), &cpu),
            Plan::new(&sizes(), &Job { teacher: teacher(false), ..cpu }),
            Job { teacher: teacher(true), ..cpu },
        );
        let full = Plan::new(&sizes(), &full);
        assert_eq!(none.teacher, 0);
        assert!(sampled.teacher > 2 * 494_032_768 && sampled.teacher < 5 * 494_032_768, "{}", sampled.teacher);
        assert!(full.teacher >= sampled.teacher && full.peak() - none.peak() == full.teacher);
    }

    /// Qwen3.5-0.8B's sizes, with a vocabulary and layers of one's own.
    fn delta_nets(vocab: usize, layers: usize) -> Sizes {
        let config = json!({
            "architectures": ["Qwen3_5ForCausalLM"], "vocab_size": vocab, "hidden_size": 1024,
            "intermediate_size": 3584, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 2,
            "head_dim": 256, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "tie_word_embeddings": true,
            "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
        });
        Sizes::of(&serde_json::from_value(config).unwrap()).unwrap()
    }

    #[test]
    fn states_of_delta_nets_are_counted_for_each_row_and_do_not_grow() {
        let sizes = delta_nets(248_320, 24);
        assert_eq!(sizes.weights, 752_393_024);
        let cache =
            |rows, sequence| Plan::new(&sizes, &Job { device: Target::Cpu, prompt: 1024, rows, sequence, ..JOB }).cache;
        assert_eq!(cache(64, 2048) - cache(64, 1024), 64 * 1024 * 24_576, "24 KiB a token: 6 layers x 2 x 2 x 256 x 4");
        let states = 4 * 18 * (16 * 128 * 128 + 3 * 6144);
        assert_eq!(cache(64, 1024), 65 * (1024 * 24_576 + states), "of the rows, and of the prompt at hand");
        let card = Plan::new(&sizes, &Job { prompt: 1024, rows: 64, sequence: 1024, ..JOB });
        let states = 18 * (4 * 16 * 128 * 128 + 2 * 3 * 6144);
        assert_eq!(card.cache, 65 * (1024 * 12_288 + states), "bf16, but for states");
    }

    #[test]
    fn what_threads_keep_of_states_in_a_backward_is_counted_for_each_and_grows_with_the_length() {
        let sizes = delta_nets(1000, 4);
        let activations = |threads, sequence| {
            let job = Job { device: Target::Cpu, threads, sequence, reference: false, ..JOB };
            Plan::new(&sizes, &job).activations
        };
        let of_thread = |sequence| activations(2, sequence) - activations(1, sequence);
        assert!(of_thread(1024) > 4 * (32 * 128 * 128 + 1024 * 128), "a state for 32 tokens, and what each writes");
        assert_eq!(of_thread(4096) - of_thread(2048), 4 * 2048 * (128 * 128 / 32 + 128));
        let dense = |threads| Plan::new(&self::sizes(), &Job { device: Target::Cpu, threads, ..JOB }).activations;
        assert_eq!(dense(1), dense(2), "other layers share theirs");
    }

    #[test]
    fn sampling_ahead_takes_a_copy_of_what_is_trained_and_a_second_place_to_sample_in() {
        let lora = Some(Lora { values: 1000, lora_hidden: 48, base_bytes: 2 * 494_032_768 });
        for (lora, copy) in [(None, 4 * 494_032_768 + 4 * sizes().packed), (lora, 8 * 1000)] {
            for weights in [1 << 20, sizes().weights] {
                let copy = if lora.is_none() { copy - 4 * (sizes().weights - weights) } else { copy };
                let (s, job) = (Sizes { weights, ..sizes() }, Job { device: Target::Cpu, threads: 2, lora, ..JOB });
                let (plain, ahead) = (Plan::new(&s, &job), Plan::new(&s, &Job { ahead: true, ..job }));
                assert_eq!((plain.ahead, ahead.ahead), (0, copy + plain.cache + plain.prefill));
                assert_eq!(ahead.peak(), plain.peak() + ahead.ahead);
            }
        }
    }

    #[test]
    fn a_sequence_longer_than_a_micro_batch_is_one() {
        let plan = |micro_batch_tokens| Plan::new(&sizes(), &Job { micro_batch_tokens, ..JOB }).activations;
        assert_eq!(plan(512), plan(1024));
        assert!(plan(1024) < plan(2048));
    }
}
