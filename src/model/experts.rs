//! The experts of a model as `config.json` asks for them: how many, how wide, in which layers, and how a token chooses.
//! The choice itself is [`crate::ops::experts`]'s.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

use super::family::Family;
use super::keys::Keys;
use crate::batch::RoutedShape;
use crate::ops::experts::{GroupScore, Groups, Router, Scores};

/// The experts of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// How a token chooses among them.
    pub router: Router,
    /// Width of each (`F`).
    pub width: usize,
    /// Width of the expert that every token goes through; 0 where there is none.
    pub shared: usize,
    /// What its tensors are called.
    pub shared_name: &'static str,
    /// Whether its output is multiplied by a gate.
    pub gated: bool,
    /// Whether a bias moves the choice.
    pub biased: bool,
    /// The weight of the auxiliary loss for even loads, as the file asks for it; 0 where it does not.
    pub aux_loss_coef: f64,
    layers: Layers,
}

/// Which layers have experts; the others are dense.
#[derive(Debug, Clone, PartialEq)]
struct Layers {
    /// Every so many layers, counted from 1.
    every: usize,
    /// These not.
    dense: Vec<usize>,
    /// Nor the first ones.
    first: usize,
}

/// The experts of a model of this family, where the family has any. `other` are the keys of the file that every family
/// does not have, `intermediate` its `intermediate_size`.
pub(super) fn read(family: Family, other: &Map<String, Value>, intermediate: usize) -> Result<Option<Experts>> {
    let keys = Keys(other);
    let experts = match family {
        Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Qwen3_5 => return Ok(None),
        Family::Qwen2Moe => Experts {
            shared: keys.number("shared_expert_intermediate_size")?,
            gated: true,
            ..keys.of_shares(keys.number("moe_intermediate_size")?)?
        },
        Family::Qwen3Moe => keys.of_shares(keys.number("moe_intermediate_size")?)?,
        Family::Olmoe => keys.of_shares(intermediate)?,
        Family::DeepseekV2 | Family::DeepseekV3 => keys.of_deepseek(family)?,
    };
    experts.validate()?;
    Ok(Some(experts))
}

impl Keys<'_> {
    /// Experts of a layer, under whichever of its names a file has.
    fn count(&self) -> Result<usize> {
        for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
            if let Some(count) = self.optional(key)? {
                return Ok(count);
            }
        }
        bail!("num_experts is missing")
    }

    /// As transformers reads it: `router_aux_loss_coef` counts where `output_router_logits` is true.
    fn aux_loss_coef(&self) -> Result<f64> {
        let asked = self.flag("output_router_logits").unwrap_or(false);
        Ok(if asked { self.decimal("router_aux_loss_coef")?.unwrap_or(1e-3) } else { 0.0 })
    }

    /// Experts of one width that are weighed by their shares: Qwen's and OLMoE's.
    fn of_shares(&self, width: usize) -> Result<Experts> {
        let dense = self.0.get("mlp_only_layers").and_then(Value::as_array).into_iter().flatten();
        Ok(Experts {
            router: Router {
                experts: self.count()?,
                active: self.number("num_experts_per_tok")?,
                scores: Scores::Softmax,
                groups: None,
                normalised: self.flag("norm_topk_prob").unwrap_or(false),
                scale: 1.0,
            },
            width,
            shared: 0,
            shared_name: "shared_expert",
            gated: false,
            biased: false,
            aux_loss_coef: self.aux_loss_coef()?,
            layers: Layers {
                every: self.optional("decoder_sparse_step")?.unwrap_or(1),
                dense: dense.filter_map(Value::as_u64).map(|layer| layer as usize).collect(),
                first: 0,
            },
        })
    }

    /// DeepSeek's: each weighed by itself or by its share, some for every token, behind some dense layers.
    fn of_deepseek(&self, family: Family) -> Result<Experts> {
        let (width, third) = (self.number("moe_intermediate_size")?, family == Family::DeepseekV3);
        let groups = |score| -> Result<Groups> {
            Ok(Groups { count: self.number("n_group")?, kept: self.number("topk_group")?, score })
        };
        let method = self.text("topk_method").unwrap_or(if third { "noaux_tc" } else { "greedy" });
        Ok(Experts {
            router: Router {
                experts: self.count()?,
                active: self.number("num_experts_per_tok")?,
                scores: if third { Scores::Sigmoid } else { Scores::Softmax },
                groups: match (third, method) {
                    (true, "noaux_tc") => Some(groups(GroupScore::TwoLargest)?),
                    (false, "group_limited_greedy") => Some(groups(GroupScore::Largest)?),
                    (false, "greedy") => None,
                    _ => bail!("topk_method = \"{method}\" is not supported for {}", family.name()),
                },
                // The second version's files may ask for it, and no implementation of it does it.
                normalised: third && self.flag("norm_topk_prob").unwrap_or(true),
                scale: self.decimal("routed_scaling_factor")?.unwrap_or(1.0) as f32,
            },
            width,
            shared: width * self.optional("n_shared_experts")?.unwrap_or(0),
            shared_name: "shared_experts",
            gated: false,
            biased: third,
            aux_loss_coef: 0.0,
            layers: Layers {
                every: self.optional("moe_layer_freq")?.unwrap_or(1),
                dense: Vec::new(),
                first: self.optional("first_k_dense_replace")?.unwrap_or(0),
            },
        })
    }
}

impl Experts {
    fn validate(&self) -> Result<()> {
        let Router { experts, active, .. } = self.router;
        ensure!(self.width > 0, "experts of width 0 compute nothing");
        ensure!(
            active > 0 && active <= experts,
            "num_experts_per_tok = {active}: a token goes to at least one of {experts} experts, and to each once"
        );
        ensure!(self.layers.every > 0, "decoder_sparse_step = 0: it must be at least 1");
        let Some(Groups { count, kept, score }) = self.router.groups else { return Ok(()) };
        ensure!(
            count > 0 && experts.is_multiple_of(count) && kept <= count && kept * (experts / count) >= active,
            "n_group = {count} groups of {experts} experts, of which a token may use {kept}, have no {active} for it"
        );
        ensure!(
            score == GroupScore::Largest || experts / count >= 2,
            "n_group = {count}: a group of {experts} experts needs two, whose scores are its own"
        );
        Ok(())
    }

    /// How many experts a token of a model of so many layers goes to.
    pub fn routed(&self, layers: usize) -> RoutedShape {
        let Router { active, experts, .. } = self.router;
        RoutedShape { layers: self.layers(layers).len(), active, experts }
    }

    /// Which of so many layers have experts.
    pub fn layers(&self, count: usize) -> Vec<usize> {
        (0..count).filter(|&layer| self.in_layer(layer)).collect()
    }

    /// Whether a layer has experts.
    pub fn in_layer(&self, index: usize) -> bool {
        let Layers { every, dense, first } = &self.layers;
        index >= *first && (index + 1).is_multiple_of(*every) && !dense.contains(&index)
    }
}
