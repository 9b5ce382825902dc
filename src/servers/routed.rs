//! The experts of tokens as servers tell them: `routed_experts` in a choice of vLLM (0.32, started with
//! `--enable-return-routed-experts`) and of this program, or in what SGLang says of a completion.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::batch::RoutedExperts;
use crate::config::ServerEngine;
use crate::model::ModelConfig;
use crate::model::experts::Experts;

/// Reads the experts of the tokens of a model.
pub(super) struct Reader {
    experts: Experts,
    /// All layers.
    layers: usize,
}

impl Reader {
    /// That of a model, where it has experts.
    pub(super) fn of(config: &ModelConfig) -> Option<Self> {
        Some(Self { experts: config.experts().ok()??, layers: config.num_hidden_layers })
    }

    /// The experts of the `tokens` tokens that a server took in, of its answer.
    pub(super) fn read(&self, engine: ServerEngine, body: &Value, tokens: usize) -> Result<RoutedExperts> {
        let text = match engine {
            ServerEngine::Sglang => &body["meta_info"]["routed_experts"],
            ServerEngine::Vllm | ServerEngine::Reckon => &body["choices"][0]["routed_experts"],
        };
        let text = text.as_str().context(
            "the answer has no routed_experts: start vLLM or SGLang with --enable-return-routed-experts, or set \
             grpo.router_replay = \"none\"",
        )?;
        let (shape, layers) = (self.experts.routed(self.layers), self.experts.layers(self.layers));
        RoutedExperts::from_text(text, tokens, shape, (&layers, self.layers))
    }
}
