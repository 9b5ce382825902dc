//! Names, shapes and places of a model's weights in one flat buffer.
//!
//! The order puts what is multiplied together side by side: q, k and v (and gate and up) are one matrix to the
//! products and three (two) tensors to the files. Optimizer state and gradients are buffers of the same layout.

use anyhow::Result;
use std::ops::Range;

use super::config::{Family, ModelConfig};

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
}

/// The parts of one decoder layer, listed once for all that has one value for each part: `M` for each matrix that is
/// multiplied, `V` for each vector (the weights of a norm, biases).
///
/// Places in the buffer are a `Layer<Matrix, Range>` ([`LayerLayout`]); what products read is made from them by
/// [`Layer::map`], on a CPU and on a device.
#[derive(Debug, Clone)]
pub struct Layer<M, V> {
    /// Norm before attention `(K)`.
    pub attention_norm: V,
    /// How tokens look at each other.
    pub attention: Attention<M, V>,
    /// Norm before the feed-forward part `(K)`.
    pub mlp_norm: V,
    /// What each token goes through alone.
    pub mlp: Mlp<M>,
}

/// The attention of a layer. A family chooses it layer by layer; what computes a layer matches on it.
#[derive(Debug, Clone)]
pub enum Attention<M, V> {
    /// Query heads in groups that share a key and a value head.
    Grouped(GroupedAttention<M, V>),
}

/// The parts of [`Attention::Grouped`]: `H` query heads and `Hkv` key and value heads of `D` values.
#[derive(Debug, Clone)]
pub struct GroupedAttention<M, V> {
    /// Queries, keys and values `((H + 2 Hkv) D, K)`.
    pub qkv: M,
    /// Their biases `((H + 2 Hkv) D)`: Qwen2.
    pub bias: Option<V>,
    /// Norms over each head: Qwen3.
    pub head_norms: Option<HeadNorms<V>>,
    /// Output `(K, H D)`.
    pub output: M,
}

/// Norms over each head of the queries and of the keys, `(D)` each.
#[derive(Debug, Clone)]
pub struct HeadNorms<V> {
    /// Of the queries.
    pub query: V,
    /// Of the keys.
    pub key: V,
}

/// The feed-forward part of a layer; chosen as [`Attention`] is.
#[derive(Debug, Clone)]
pub enum Mlp<M> {
    /// `down(silu(gate x) * up x)`, the same for every token.
    Dense(DenseMlp<M>),
}

/// The parts of [`Mlp::Dense`].
#[derive(Debug, Clone)]
pub struct DenseMlp<M> {
    /// Gate and up `(2F, K)`.
    pub gate_up: M,
    /// Down `(K, F)`.
    pub down: M,
}

impl<M, V> Layer<M, V> {
    /// The same parts with other values.
    pub fn map<N, W>(&self, mut matrix: impl FnMut(&M) -> N, mut vector: impl FnMut(&V) -> W) -> Layer<N, W> {
        let Attention::Grouped(attention) = &self.attention;
        let Mlp::Dense(mlp) = &self.mlp;
        Layer {
            attention_norm: vector(&self.attention_norm),
            attention: Attention::Grouped(GroupedAttention {
                qkv: matrix(&attention.qkv),
                bias: attention.bias.as_ref().map(&mut vector),
                head_norms: attention
                    .head_norms
                    .as_ref()
                    .map(|norms| HeadNorms { query: vector(&norms.query), key: vector(&norms.key) }),
                output: matrix(&attention.output),
            }),
            mlp_norm: vector(&self.mlp_norm),
            mlp: Mlp::Dense(DenseMlp { gate_up: matrix(&mlp.gate_up), down: matrix(&mlp.down) }),
        }
    }

    /// The matrices, in the order of the buffer.
    pub fn matrices(&self) -> Vec<&M> {
        let Attention::Grouped(GroupedAttention { qkv, output, .. }) = &self.attention;
        let Mlp::Dense(DenseMlp { gate_up, down }) = &self.mlp;
        vec![qkv, output, gate_up, down]
    }

    /// Whether queries and keys have norms of their own.
    pub fn has_head_norms(&self) -> bool {
        let Attention::Grouped(attention) = &self.attention;
        attention.head_norms.is_some()
    }
}

/// Where a matrix lies, which may be several tensors side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Its values, row by row.
    pub range: Range<usize>,
    /// Values in a row (`K`).
    pub inputs: usize,
}

/// Where the parts of one layer lie.
pub type LayerLayout = Layer<Matrix, Range<usize>>;

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
    pub norm: Range<usize>,
    /// Output matrix `(V, K)`: the embedding's place when tied.
    pub lm_head: Matrix,
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
        Matrix { range: start..self.end, inputs }
    }

    fn layer(&mut self, config: &ModelConfig, family: Family, index: usize) -> LayerLayout {
        let heads = config.heads();
        let (k, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let projections = [("q", q), ("k", kv), ("v", kv)];
        let weights = projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.weight")), n));
        let biases = projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.bias")), n));
        // In the order of the buffer: each field is added as it is written down here.
        Layer {
            attention_norm: self.add(name("input_layernorm.weight"), &[k]),
            attention: Attention::Grouped(GroupedAttention {
                qkv: self.matrix(k, &weights),
                bias: (family == Family::Qwen2).then(|| {
                    let places = biases.map(|(name, n)| self.add(name, &[n]));
                    places[0].start..places[2].end
                }),
                head_norms: (family == Family::Qwen3).then(|| HeadNorms {
                    query: self.add(name("self_attn.q_norm.weight"), &[heads.size]),
                    key: self.add(name("self_attn.k_norm.weight"), &[heads.size]),
                }),
                output: self.matrix(q, &[(name("self_attn.o_proj.weight"), k)]),
            }),
            mlp_norm: self.add(name("post_attention_layernorm.weight"), &[k]),
            mlp: Mlp::Dense(DenseMlp {
                gate_up: self.matrix(k, &["gate", "up"].map(|p| (name(&format!("mlp.{p}_proj.weight")), f))),
                down: self.matrix(f, &[(name("mlp.down_proj.weight"), k)]),
            }),
        }
    }
}

impl Layout {
    /// The layout of a model of this shape.
    ///
    /// # Errors
    /// An architecture that is not known.
    pub fn of(config: &ModelConfig) -> Result<Self> {
        Ok(Self::new(config, config.family()?))
    }

    /// The layout of a validated config.
    pub fn new(config: &ModelConfig, family: Family) -> Self {
        let mut builder = Builder::default();
        let (v, k) = (config.vocab_size, config.hidden_size);
        let embedding = builder.matrix(k, &[("model.embed_tokens.weight".into(), v)]);
        let layers = (0..config.num_hidden_layers).map(|i| builder.layer(config, family, i)).collect();
        let norm = builder.add("model.norm.weight".into(), &[k]);
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
        let mut parts = vec![self.embedding.range.clone(), self.norm.clone(), self.lm_head.range.clone()];
        for layer in &self.layers {
            let mut vectors = Vec::new();
            layer.map(|matrix| parts.push(matrix.range.clone()), |range| vectors.push(range.clone()));
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
