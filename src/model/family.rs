//! The families of models that the decoder speaks, and what tells them apart beside sizes.

use anyhow::{Context, Result, bail};

/// The architectures the decoder speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// No biases, no norm of queries and keys.
    Llama,
    /// Biases on queries, keys and values.
    Qwen2,
    /// A norm over each head of the queries and keys.
    Qwen3,
    /// Qwen2's attention; experts, and a gated one for every token.
    Qwen2Moe,
    /// Qwen3's attention; experts.
    Qwen3Moe,
    /// A norm over all queries and one over all keys; experts.
    Olmoe,
    /// Latent attention; experts by their shares.
    DeepseekV2,
    /// Latent attention; experts by scores of their own, with a bias of the choice.
    DeepseekV3,
    /// Gated delta nets, and Qwen3's attention behind gates.
    Qwen3_5,
}

/// What norms queries and keys have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryNorms {
    /// None.
    Absent,
    /// One for the vector of each head, which all heads share.
    Heads,
    /// One over the vectors of all heads together.
    Rows,
}

/// A family as `architectures` names it, and as `model_type` does.
struct Name {
    architecture: &'static str,
    model_type: &'static str,
    family: Family,
}

const NAMES: [Name; 9] = [
    Name { architecture: "LlamaForCausalLM", model_type: "llama", family: Family::Llama },
    Name { architecture: "Qwen2ForCausalLM", model_type: "qwen2", family: Family::Qwen2 },
    Name { architecture: "Qwen3ForCausalLM", model_type: "qwen3", family: Family::Qwen3 },
    Name { architecture: "Qwen2MoeForCausalLM", model_type: "qwen2_moe", family: Family::Qwen2Moe },
    Name { architecture: "Qwen3MoeForCausalLM", model_type: "qwen3_moe", family: Family::Qwen3Moe },
    Name { architecture: "OlmoeForCausalLM", model_type: "olmoe", family: Family::Olmoe },
    Name { architecture: "DeepseekV2ForCausalLM", model_type: "deepseek_v2", family: Family::DeepseekV2 },
    Name { architecture: "DeepseekV3ForCausalLM", model_type: "deepseek_v3", family: Family::DeepseekV3 },
    Name { architecture: "Qwen3_5ForCausalLM", model_type: "qwen3_5_text", family: Family::Qwen3_5 },
];

impl Family {
    /// The one that `architectures` names, or `model_type` where there is none; unknown ones are refused by name.
    pub fn of(architecture: Option<&str>, model_type: Option<&str>) -> Result<Self> {
        let (key, given, known): (_, _, fn(&Name) -> &'static str) = match (architecture, model_type) {
            (Some(name), _) => ("architecture", name, |name| name.architecture),
            (None, Some(name)) => ("model_type", name, |name| name.model_type),
            (None, None) => bail!("neither architectures nor model_type says what kind of model this is"),
        };
        let names = || NAMES.iter().map(known).collect::<Vec<_>>().join(", ");
        let found = NAMES.iter().find(|name| known(name) == given);
        found.map(|name| name.family).with_context(|| format!("{key} \"{given}\" is not known; known are {}", names()))
    }

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|name| name.family == self).map_or("", |name| name.model_type)
    }

    /// Whether queries, keys and values have biases.
    pub fn has_biases(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen2Moe)
    }

    /// Which norms queries and keys have.
    pub fn query_norms(self) -> QueryNorms {
        match self {
            Self::Llama | Self::Qwen2 | Self::Qwen2Moe | Self::DeepseekV2 | Self::DeepseekV3 => QueryNorms::Absent,
            Self::Qwen3 | Self::Qwen3Moe | Self::Qwen3_5 => QueryNorms::Heads,
            Self::Olmoe => QueryNorms::Rows,
        }
    }

    /// Whether keys and values are made of latents.
    pub fn is_latent(self) -> bool {
        matches!(self, Self::DeepseekV2 | Self::DeepseekV3)
    }

    /// Whether some layers are gated delta nets.
    pub fn has_delta_nets(self) -> bool {
        self == Self::Qwen3_5
    }

    /// Whether outputs of heads are multiplied by gates, which stand beside the queries.
    pub fn has_output_gates(self) -> bool {
        self == Self::Qwen3_5
    }

    /// Whether files hold of the weights of norms how far they are from one.
    pub fn norms_are_around_one(self) -> bool {
        self == Self::Qwen3_5
    }

    /// How much of each head is rotated where a file does not say.
    pub fn rotated_part(self) -> f64 {
        if self == Self::Qwen3_5 { 0.25 } else { 1.0 }
    }

    /// Whether its files name a window of attention that `use_sliding_window` must put in use.
    pub fn asks_for_windows(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen3 | Self::Qwen2Moe | Self::Qwen3Moe)
    }
}
