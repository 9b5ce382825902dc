//! Names, shapes and places of a model's weights in one flat buffer.
//!
//! The order puts what is multiplied together side by side: q, k and v (and gate and up) are one matrix to the
//! products and three (two) tensors to the files. Optimizer state and gradients are buffers of the same layout.

use anyhow::Result;
use std::ops::Range;

use super::config::ModelConfig;
use super::delta::DeltaShape;
use super::experts::Experts;
use super::family::{Family, QueryNorms};
use super::latent::LatentShape;
pub use super::layer::{
    Attention, DeltaAttention, DenseMlp, ExpertsMlp, GroupedAttention, HeadNorms, LatentAttention, LatentQuery, Layer,
    Mlp, SharedMlp,
};
use crate::ops::delta::Delta;

/// One named tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Hugging Face name.
    pub name: String,
    /// Shape; one-dimensional for norms and biases.
    pub shape: Vec<usize>,
    /// Where it lies in the flat buffer.
    pub range: Range<usize>,
}

impl Entry {
    /// Whether weight decay applies: to matrices only.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }

    /// Whether it is the bias of a router's choice, which no gradient moves.
    pub fn is_choice_bias(&self) -> bool {
        self.name.ends_with(CHOICE_BIAS)
    }

    /// Whether it stays fp32 wherever it is saved, because small steps of it count: the bias of a choice, and what a
    /// delta net's states decay by and are normed with.
    pub fn stays_fp32(&self) -> bool {
        self.is_choice_bias() || [DECAY, STEP, STATE_NORM].iter().any(|name| self.name.ends_with(name))
    }
}

/// Where a matrix lies, which may be several tensors side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Its values, row by row.
    pub range: Range<usize>,
    /// Values in a row (`K`).
    pub inputs: usize,
    /// Whether its products are of fp32 operands, whatever others are computed in: where a rounding would change a
    /// choice.
    pub exact: bool,
}

/// Where the weights of a norm lie, or biases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Its values.
    pub range: Range<usize>,
    /// Whether its values are how far what multiplies is from one.
    pub around_one: bool,
}

/// Where the parts of one layer lie.
pub type LayerLayout = Layer<Matrix, Vector>;

/// Names, shapes and places of all weights of a shape of model.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Every tensor, in the order of the buffer.
    pub entries: Vec<Entry>,
    /// Embedding `(V, K)`.
    pub embedding: Matrix,
    /// The layers.
    pub layers: Vec<LayerLayout>,
    /// Last norm `(K)`.
    pub norm: Vector,
    /// Output matrix `(V, K)`: the embedding's place when tied.
    pub lm_head: Matrix,
}

/// What a family's layers are made of.
struct Choices {
    family: Family,
    experts: Option<Experts>,
    latent: Option<LatentShape>,
    delta: Option<DeltaShape>,
}

/// Appends entries one after another.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) entries: Vec<Entry>,
    end: usize,
}

impl Builder {
    pub(super) fn add(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let range = self.end..self.end + shape.iter().product::<usize>();
        self.end = range.end;
        self.entries.push(Entry { name, shape: shape.to_vec(), range: range.clone() });
        range
    }

    /// Matrices of `inputs` columns, each with its rows, that together are one.
    fn matrix(&mut self, inputs: usize, parts: &[(String, usize)]) -> Matrix {
        let start = self.end;
        for (name, rows) in parts {
            self.add(name.clone(), &[*rows, inputs]);
        }
        Matrix { range: start..self.end, inputs, exact: false }
    }

    fn vector(&mut self, name: String, n: usize) -> Vector {
        Vector { range: self.add(name, &[n]), around_one: false }
    }

    /// The weights of a norm as the family has them.
    fn norm(&mut self, family: Family, name: String, n: usize) -> Vector {
        Vector { around_one: family.norms_are_around_one(), ..self.vector(name, n) }
    }

    fn layer(&mut self, config: &ModelConfig, choices: &Choices, index: usize) -> LayerLayout {
        let (k, Choices { family, experts, latent, delta }) = (config.hidden_size, choices);
        let delta = delta.as_ref().filter(|delta| delta.in_layer(index));
        let name = |part: &str| format!("model.layers.{index}.{part}");
        // In the order of the buffer: each field is added as it is written down here.
        Layer {
            attention_norm: self.norm(*family, name("input_layernorm.weight"), k),
            attention: match (latent, delta) {
                (_, Some(delta)) => Attention::Delta(self.delta_attention(k, delta.sizes, &name)),
                (Some(latent), None) => Attention::Latent(self.latent_attention(k, latent, &name)),
                (None, None) => Attention::Grouped(self.grouped_attention(config, *family, &name)),
            },
            mlp_norm: self.norm(*family, name("post_attention_layernorm.weight"), k),
            mlp: match experts.as_ref().filter(|experts| experts.in_layer(index)) {
                None => Mlp::Dense(self.dense_mlp(k, config.intermediate_size, &name("mlp"))),
                Some(experts) => Mlp::Experts(self.experts_mlp(k, experts, &name("mlp"))),
            },
        }
    }

    fn grouped_attention(
        &mut self,
        config: &ModelConfig,
        family: Family,
        name: &impl Fn(&str) -> String,
    ) -> GroupedAttention<Matrix, Vector> {
        let (k, heads) = (config.hidden_size, config.heads());
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        let gates = if family.has_output_gates() { q } else { 0 };
        let projections = [("q", q + gates), ("k", kv), ("v", kv)];
        let weights = projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.weight")), n));
        let biases = projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.bias")), n));
        let norms = match family.query_norms() {
            QueryNorms::Absent => None,
            QueryNorms::Heads => Some([heads.size, heads.size]),
            QueryNorms::Rows => Some([q, kv]),
        };
        GroupedAttention {
            qkv: self.matrix(k, &weights),
            bias: family.has_biases().then(|| {
                let places = biases.map(|(name, n)| self.add(name, &[n]));
                Vector { range: places[0].start..places[2].end, around_one: false }
            }),
            head_norms: norms.map(|[query, key]| HeadNorms {
                query: self.norm(family, name("self_attn.q_norm.weight"), query),
                key: self.norm(family, name("self_attn.k_norm.weight"), key),
            }),
            output: self.matrix(q, &[(name("self_attn.o_proj.weight"), k)]),
        }
    }

    fn delta_attention(
        &mut self,
        k: usize,
        s: Delta,
        name: &impl Fn(&str) -> String,
    ) -> DeltaAttention<Matrix, Vector> {
        let part = |part: &str| name(&format!("linear_attn.{part}"));
        let inputs = [("qkv", s.channels()), ("z", s.outputs()), ("b", s.value_heads), ("a", s.value_heads)];
        DeltaAttention {
            input: self.matrix(k, &inputs.map(|(p, n)| (part(&format!("in_proj_{p}.weight")), n))),
            taps: Vector { range: self.add(part("conv1d.weight"), &[s.channels(), 1, s.taps]), around_one: false },
            decay: self.vector(part(DECAY), s.value_heads),
            step: self.vector(part(STEP), s.value_heads),
            norm: self.vector(name(STATE_NORM), s.value),
            output: self.matrix(s.outputs(), &[(part("out_proj.weight"), k)]),
        }
    }

    fn latent_attention(
        &mut self,
        k: usize,
        shape: &LatentShape,
        name: &impl Fn(&str) -> String,
    ) -> LatentAttention<Matrix, Vector> {
        let (s, part) = (shape.sizes, |part: &str| name(&format!("self_attn.{part}.weight")));
        LatentAttention {
            query: match shape.query_rank {
                None => LatentQuery::Plain(self.matrix(k, &[(part("q_proj"), s.queries())])),
                Some(rank) => LatentQuery::Compressed {
                    down: self.matrix(k, &[(part("q_a_proj"), rank)]),
                    norm: self.vector(part("q_a_layernorm"), rank),
                    up: self.matrix(rank, &[(part("q_b_proj"), s.queries())]),
                },
            },
            compress: self.matrix(k, &[(part("kv_a_proj_with_mqa"), s.compressed())]),
            norm: self.vector(part("kv_a_layernorm"), s.rank),
            expand: Matrix {
                exact: true,
                ..self.matrix(s.rank, &[(part("kv_b_proj"), s.heads * (s.plain + s.value))])
            },
            output: self.matrix(s.outputs(), &[(part("o_proj"), k)]),
        }
    }

    /// A feed-forward part whose tensors are called `name`.
    fn dense_mlp(&mut self, k: usize, f: usize, name: &str) -> DenseMlp<Matrix> {
        DenseMlp {
            gate_up: self.matrix(k, &["gate", "up"].map(|p| (format!("{name}.{p}_proj.weight"), f))),
            down: self.matrix(f, &[(format!("{name}.down_proj.weight"), k)]),
        }
    }

    fn experts_mlp(&mut self, k: usize, experts: &Experts, name: &str) -> ExpertsMlp<Matrix, Vector> {
        let count = experts.router.experts;
        let router = self.matrix(k, &[(format!("{name}.gate.weight"), count)]);
        ExpertsMlp {
            router: Matrix { exact: true, ..router },
            bias: experts.biased.then(|| self.vector(format!("{name}.gate.{CHOICE_BIAS}"), count)),
            experts: (0..count).map(|e| self.dense_mlp(k, experts.width, &format!("{name}.experts.{e}"))).collect(),
            shared: (experts.shared > 0).then(|| SharedMlp {
                mlp: self.dense_mlp(k, experts.shared, &format!("{name}.{}", experts.shared_name)),
                gate: experts.gated.then(|| self.matrix(k, &[(format!("{name}.shared_expert_gate.weight"), 1)])),
            }),
        }
    }
}

/// The last part of the name of the bias of a router's choice.
const CHOICE_BIAS: &str = "e_score_correction_bias";
/// The same of the vectors of a delta net.
const DECAY: &str = "A_log";
const STEP: &str = "dt_bias";
const STATE_NORM: &str = "linear_attn.norm.weight";

impl Layout {
    /// The layout of a model of this shape.
    ///
    /// # Errors
    /// An architecture that is not known.
    pub fn of(config: &ModelConfig) -> Result<Self> {
        let (family, experts) = (config.family()?, config.experts()?);
        Ok(Self::new(config, &Choices { family, experts, latent: config.latent()?, delta: config.delta()? }))
    }

    fn new(config: &ModelConfig, choices: &Choices) -> Self {
        let mut builder = Builder::default();
        let (v, k) = (config.vocab_size, config.hidden_size);
        let embedding = builder.matrix(k, &[("model.embed_tokens.weight".into(), v)]);
        let layers = (0..config.num_hidden_layers).map(|i| builder.layer(config, choices, i)).collect();
        let norm = builder.norm(choices.family, "model.norm.weight".into(), k);
        let tied = config.tie_word_embeddings;
        let lm_head = if tied { embedding.clone() } else { builder.matrix(k, &[("lm_head.weight".into(), v)]) };
        Self { entries: builder.entries, embedding, layers, norm, lm_head }
    }

    /// Values of the residual stream (`K`).
    pub fn hidden(&self) -> usize {
        self.embedding.inputs
    }

    /// What is multiplied or added as one, in the order of the buffer; each is one tensor or several.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let mut parts = vec![self.embedding.range.clone(), self.norm.range.clone(), self.lm_head.range.clone()];
        for layer in &self.layers {
            let mut vectors = Vec::new();
            layer.map(|matrix| parts.push(matrix.range.clone()), |vector| vectors.push(vector.range.clone()));
            parts.append(&mut vectors);
        }
        parts.sort_by_key(|range| range.start);
        parts.dedup();
        parts
    }

    /// The tensors of a part.
    pub fn entries_of(&self, part: &Range<usize>) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.range.start < part.start);
        self.entries[first..].iter().take_while(move |entry| entry.range.start < part.end)
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |e| e.range.end)
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
