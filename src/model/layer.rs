//! The parts of a decoder layer, listed once for all that has one value for each part: places in a buffer, packed
//! matrices, views on a device. A layer is a choice of attention and of feed-forward part; each choice is an arm here.

/// The parts of one decoder layer: `M` for each matrix that is multiplied, `V` for each vector (the weights of a norm,
/// biases).
///
/// Places in the buffer are a [`super::layout::LayerLayout`]; what products read is made from them by [`Layer::map`],
/// on a CPU and on a device.
#[derive(Debug, Clone)]
pub struct Layer<M, V> {
    /// Norm before attention `(K)`.
    pub attention_norm: V,
    /// How tokens look at each other.
    pub attention: Attention<M, V>,
    /// Norm before the feed-forward part `(K)`.
    pub mlp_norm: V,
    /// What each token goes through alone.
    pub mlp: Mlp<M, V>,
}

/// The attention of a layer. A family chooses it layer by layer; what computes a layer matches on it.
#[derive(Debug, Clone)]
pub enum Attention<M, V> {
    /// Query heads in groups that share a key and a value head.
    Grouped(GroupedAttention<M, V>),
    /// Query heads over latents of which keys and values are made: DeepSeek.
    Latent(LatentAttention<M, V>),
    /// A state for each head in place of keys and values: Qwen3.5.
    Delta(DeltaAttention<M, V>),
}

/// The parts of [`Attention::Grouped`]: `H` query heads and `Hkv` key and value heads of `D` values.
#[derive(Debug, Clone)]
pub struct GroupedAttention<M, V> {
    /// Queries, keys and values `((H + 2 Hkv) D, K)`; the query of each head before `D` rows of its gates, where outputs
    /// have gates.
    pub qkv: M,
    /// Their biases `((H + 2 Hkv) D)`: Qwen2.
    pub bias: Option<V>,
    /// Norms of queries and keys.
    pub head_norms: Option<HeadNorms<V>>,
    /// Output `(K, H D)`.
    pub output: M,
}

/// The parts of [`Attention::Latent`]: latents of `L` values, of which the keys and values of `H` heads are made, with
/// `R` values that are rotated.
#[derive(Debug, Clone)]
pub struct LatentAttention<M, V> {
    /// Queries.
    pub query: LatentQuery<M, V>,
    /// Latents, and the rotated part of their keys `(L + R, K)`.
    pub compress: M,
    /// Norm of latents `(L)`.
    pub norm: V,
    /// Keys and values of all heads, of latents `(H (keys + values), L)`.
    pub expand: M,
    /// Output `(K, H values)`.
    pub output: M,
}

/// How queries are made.
#[derive(Debug, Clone)]
pub enum LatentQuery<M, V> {
    /// By one matrix.
    Plain(M),
    /// By way of fewer values, which are normed.
    Compressed {
        /// To fewer values.
        down: M,
        /// Their norm.
        norm: V,
        /// To the queries of all heads.
        up: M,
    },
}

/// The parts of [`Attention::Delta`]: a gated delta net of `C` channels, which are queries, keys and values, and `H`
/// states that have `D` columns.
#[derive(Debug, Clone)]
pub struct DeltaAttention<M, V> {
    /// Channels, gates of outputs, and what rates and decays are made of `(C + H D + 2 H, K)`.
    pub input: M,
    /// Taps of the convolution of each channel `(C, W)`.
    pub taps: V,
    /// How fast states decay `(H)`.
    pub decay: V,
    /// What is added for the decay of a token `(H)`.
    pub step: V,
    /// Norm of the outputs of heads `(D)`.
    pub norm: V,
    /// Output `(K, H D)`.
    pub output: M,
}

/// Norms of the queries and of the keys: over each head, `(D)` each (Qwen3), or over all of them, `(H D)` and `(Hkv D)`
/// (OLMoE).
#[derive(Debug, Clone)]
pub struct HeadNorms<V> {
    /// Of the queries.
    pub query: V,
    /// Of the keys.
    pub key: V,
}

/// The feed-forward part of a layer; chosen as [`Attention`] is.
#[derive(Debug, Clone)]
pub enum Mlp<M, V> {
    /// `down(silu(gate x) * up x)`, the same for every token.
    Dense(DenseMlp<M>),
    /// The weighed sum of a few of many such parts, which a router chooses for each token, and of one for all tokens.
    Experts(ExpertsMlp<M, V>),
}

/// The parts of [`Mlp::Dense`], and of each expert.
#[derive(Debug, Clone)]
pub struct DenseMlp<M> {
    /// Gate and up `(2F, K)`.
    pub gate_up: M,
    /// Down `(K, F)`.
    pub down: M,
}

/// The parts of [`Mlp::Experts`]: `E` experts.
#[derive(Debug, Clone)]
pub struct ExpertsMlp<M, V> {
    /// Scores of the experts `(E, K)`.
    pub router: M,
    /// What is added to the scores for the choice alone `(E)`: DeepSeek-V3.
    pub bias: Option<V>,
    /// The experts.
    pub experts: Vec<DenseMlp<M>>,
    /// The expert of every token.
    pub shared: Option<SharedMlp<M>>,
}

/// An expert that every token goes through.
#[derive(Debug, Clone)]
pub struct SharedMlp<M> {
    /// The expert.
    pub mlp: DenseMlp<M>,
    /// Its output is multiplied by the sigmoid of this `(1, K)`: Qwen2.
    pub gate: Option<M>,
}

impl<M> DenseMlp<M> {
    fn map<N>(&self, matrix: &mut impl FnMut(&M) -> N) -> DenseMlp<N> {
        DenseMlp { gate_up: matrix(&self.gate_up), down: matrix(&self.down) }
    }
}

impl<M, V> Attention<M, V> {
    fn map<N, W>(&self, matrix: &mut impl FnMut(&M) -> N, vector: &mut impl FnMut(&V) -> W) -> Attention<N, W> {
        match self {
            Self::Grouped(grouped) => Attention::Grouped(GroupedAttention {
                qkv: matrix(&grouped.qkv),
                bias: grouped.bias.as_ref().map(&mut *vector),
                head_norms: grouped
                    .head_norms
                    .as_ref()
                    .map(|norms| HeadNorms { query: vector(&norms.query), key: vector(&norms.key) }),
                output: matrix(&grouped.output),
            }),
            Self::Latent(latent) => Attention::Latent(LatentAttention {
                query: match &latent.query {
                    LatentQuery::Plain(query) => LatentQuery::Plain(matrix(query)),
                    LatentQuery::Compressed { down, norm, up } => {
                        LatentQuery::Compressed { down: matrix(down), norm: vector(norm), up: matrix(up) }
                    }
                },
                compress: matrix(&latent.compress),
                norm: vector(&latent.norm),
                expand: matrix(&latent.expand),
                output: matrix(&latent.output),
            }),
            Self::Delta(delta) => Attention::Delta(DeltaAttention {
                input: matrix(&delta.input),
                taps: vector(&delta.taps),
                decay: vector(&delta.decay),
                step: vector(&delta.step),
                norm: vector(&delta.norm),
                output: matrix(&delta.output),
            }),
        }
    }

    /// The matrices, in the order of the buffer.
    fn matrices(&self) -> Vec<&M> {
        match self {
            Self::Grouped(GroupedAttention { qkv, output, .. }) => vec![qkv, output],
            Self::Latent(LatentAttention { query, compress, expand, output, .. }) => {
                let queries = match query {
                    LatentQuery::Plain(query) => vec![query],
                    LatentQuery::Compressed { down, up, .. } => vec![down, up],
                };
                queries.into_iter().chain([compress, expand, output]).collect()
            }
            Self::Delta(DeltaAttention { input, output, .. }) => vec![input, output],
        }
    }
}

impl<M, V> Mlp<M, V> {
    fn map<N, W>(&self, matrix: &mut impl FnMut(&M) -> N, vector: &mut impl FnMut(&V) -> W) -> Mlp<N, W> {
        match self {
            Self::Dense(dense) => Mlp::Dense(dense.map(matrix)),
            Self::Experts(ExpertsMlp { router, bias, experts, shared }) => Mlp::Experts(ExpertsMlp {
                router: matrix(router),
                bias: bias.as_ref().map(vector),
                experts: experts.iter().map(|expert| expert.map(matrix)).collect(),
                shared: shared.as_ref().map(|shared| SharedMlp {
                    mlp: shared.mlp.map(matrix),
                    gate: shared.gate.as_ref().map(&mut *matrix),
                }),
            }),
        }
    }

    /// The matrices but a router, in the order of the buffer.
    fn linears(&self) -> Vec<&M> {
        match self {
            Self::Dense(DenseMlp { gate_up, down }) => vec![gate_up, down],
            Self::Experts(ExpertsMlp { experts, shared, .. }) => {
                let all = experts.iter().chain(shared.as_ref().map(|shared| &shared.mlp));
                let gate = shared.as_ref().and_then(|shared| shared.gate.as_ref());
                all.flat_map(|mlp| [&mlp.gate_up, &mlp.down]).chain(gate).collect()
            }
        }
    }
}

impl<M, V> Layer<M, V> {
    /// The same parts with other values.
    pub fn map<N, W>(&self, mut matrix: impl FnMut(&M) -> N, mut vector: impl FnMut(&V) -> W) -> Layer<N, W> {
        Layer {
            attention_norm: vector(&self.attention_norm),
            attention: self.attention.map(&mut matrix, &mut vector),
            mlp_norm: vector(&self.mlp_norm),
            mlp: self.mlp.map(&mut matrix, &mut vector),
        }
    }

    /// The matrices that an adapter may add to, in the order of the buffer: all but a router.
    pub fn linears(&self) -> Vec<&M> {
        self.attention.matrices().into_iter().chain(self.mlp.linears()).collect()
    }

    /// All matrices.
    pub fn matrices(&self) -> Vec<&M> {
        let router = match &self.mlp {
            Mlp::Dense(_) => None,
            Mlp::Experts(experts) => Some(&experts.router),
        };
        self.linears().into_iter().chain(router).collect()
    }

    /// Whether queries and keys have norms of their own.
    pub fn has_head_norms(&self) -> bool {
        match &self.attention {
            Attention::Grouped(grouped) => grouped.head_norms.is_some(),
            Attention::Latent(_) | Attention::Delta(_) => false,
        }
    }
}
