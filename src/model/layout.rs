//! Names, shapes and places of a model's weights in one flat buffer.
//!
//! The order puts what is multiplied together side by side: q, k and v (and gate and up) are one matrix to the
//! products and three (two) tensors to the files. Optimizer state and gradients are buffers of the same layout.

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

/// Where the parts of one layer lie. Ranges of biases and head norms are empty where the family has none.
#[derive(Debug, Clone, Default)]
pub struct LayerLayout {
    /// Norm before attention `(K)`.
    pub attention_norm: Range<usize>,
    /// Queries, keys and values `((H + 2 Hkv) D, K)`.
    pub qkv: Range<usize>,
    /// Their biases.
    pub qkv_bias: Range<usize>,
    /// Norm of each query head `(D)`.
    pub query_norm: Range<usize>,
    /// Norm of each key head `(D)`.
    pub key_norm: Range<usize>,
    /// Output of attention `(K, H D)`.
    pub output: Range<usize>,
    /// Norm before the feed-forward layer `(K)`.
    pub mlp_norm: Range<usize>,
    /// Gate and up `(2F, K)`.
    pub gate_up: Range<usize>,
    /// Down `(K, F)`.
    pub down: Range<usize>,
}

impl LayerLayout {
    /// The matrices that are multiplied, each one or several tensors side by side.
    pub fn matrices(&self) -> [&Range<usize>; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }
}

/// Names, shapes and places of all weights of a shape of model.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Every tensor, in the order of the buffer.
    pub entries: Vec<Entry>,
    /// Embedding `(V, K)`.
    pub embedding: Range<usize>,
    /// The layers.
    pub layers: Vec<LayerLayout>,
    /// Last norm `(K)`.
    pub norm: Range<usize>,
    /// Output matrix `(V, K)`: the embedding's range when tied.
    pub head: Range<usize>,
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

    /// Entries that together are one range.
    fn add_all(&mut self, parts: &[(String, Vec<usize>)]) -> Range<usize> {
        let start = self.end;
        for (name, shape) in parts {
            self.add(name.clone(), shape);
        }
        start..self.end
    }

    fn layer(&mut self, config: &ModelConfig, family: Family, index: usize) -> LayerLayout {
        let heads = config.heads();
        let (k, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (heads.query * heads.size, heads.key_value * heads.size);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let projections = [("q", q), ("k", kv), ("v", kv)];
        let mut layer = LayerLayout {
            attention_norm: self.add(name("input_layernorm.weight"), &[k]),
            qkv: self.add_all(&projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.weight")), vec![n, k]))),
            ..LayerLayout::default()
        };
        if family == Family::Qwen2 {
            layer.qkv_bias =
                self.add_all(&projections.map(|(p, n)| (name(&format!("self_attn.{p}_proj.bias")), vec![n])));
        }
        if family == Family::Qwen3 {
            layer.query_norm = self.add(name("self_attn.q_norm.weight"), &[heads.size]);
            layer.key_norm = self.add(name("self_attn.k_norm.weight"), &[heads.size]);
        }
        layer.output = self.add(name("self_attn.o_proj.weight"), &[k, q]);
        layer.mlp_norm = self.add(name("post_attention_layernorm.weight"), &[k]);
        layer.gate_up = self.add_all(&["gate", "up"].map(|p| (name(&format!("mlp.{p}_proj.weight")), vec![f, k])));
        layer.down = self.add(name("mlp.down_proj.weight"), &[k, f]);
        layer
    }
}

impl Layout {
    /// The layout of a validated config.
    pub fn new(config: &ModelConfig, family: Family) -> Self {
        let mut builder = Builder::default();
        let (v, k) = (config.vocab_size, config.hidden_size);
        let embedding = builder.add("model.embed_tokens.weight".into(), &[v, k]);
        let layers = (0..config.num_hidden_layers).map(|i| builder.layer(config, family, i)).collect();
        let norm = builder.add("model.norm.weight".into(), &[k]);
        let tied = config.tie_word_embeddings;
        let head = if tied { embedding.clone() } else { builder.add("lm_head.weight".into(), &[v, k]) };
        Self { entries: builder.entries, embedding, layers, norm, head }
    }

    /// What is multiplied or added as one, in the order of the buffer; each is one tensor or several.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let of_layer = |l: &LayerLayout| {
            let vectors = [&l.attention_norm, &l.qkv_bias, &l.query_norm, &l.key_norm, &l.mlp_norm];
            vectors.into_iter().chain(l.matrices()).cloned().collect::<Vec<_>>()
        };
        let ends = [&self.embedding, &self.norm, &self.head].map(Clone::clone);
        let mut parts: Vec<Range<usize>> = self.layers.iter().flat_map(of_layer).chain(ends).collect();
        parts.retain(|range| !range.is_empty());
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
