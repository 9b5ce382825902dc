//! What a low-rank adapter is to be, as a config says it. The adapter itself is [`crate::model::lora`]'s.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::model::Layout;
use crate::model::files::peft;
use crate::model::lora::{self, Adapter, AdapterLayout};

/// Training of a low-rank adapter on a frozen base, in place of all weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the addition to each matrix, at least 1.
    pub rank: usize,
    /// Additions are multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Which linear layers of the decoder are added to: ends of their names, in which `*` stands for anything.
    pub targets: Vec<String>,
    /// A folder with an adapter in PEFT's files to begin with; it is to have this rank, alpha and these targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        Self { rank: 16, alpha: 32.0, targets: all.map(str::to_owned).to_vec(), adapter: None }
    }
}

impl LoraConfig {
    /// Refuses an adapter that could not learn, naming the key.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.rank > 0, "lora.rank = 0: an addition needs a rank of at least 1");
        ensure!(
            self.alpha > 0.0 && self.alpha.is_finite(),
            "lora.alpha = {}: additions are multiplied by alpha / rank, which must be positive",
            self.alpha
        );
        ensure!(!self.targets.is_empty(), "lora.targets is empty: nothing would be trained");
        Ok(())
    }

    /// Names, shapes and places of the adapter on a model of this layout.
    pub fn layout(&self, layout: &Layout) -> Result<AdapterLayout> {
        let chosen = lora::chosen(layout, &self.targets)?;
        Ok(AdapterLayout::new(layout, self.rank, self.alpha, |module| chosen.contains(&module)))
    }

    /// The adapter that training begins with, for the model that files call `base`.
    pub fn start(&self, layout: &Layout, base: &str, seed: u64) -> Result<Adapter> {
        let (wanted, targets, base) = (self.layout(layout)?, self.targets.clone(), base.to_owned());
        let Some(folder) = &self.adapter else { return Ok(Adapter::new(wanted, targets, base, seed)) };
        let found = peft::read(folder, layout)?;
        let AdapterLayout { rank, alpha, .. } = found.layout;
        let other = || format!("lora.adapter = {}", folder.display());
        ensure!(rank == self.rank, "{} has rank {rank}: set lora.rank = {rank}", other());
        ensure!(alpha == self.alpha, "{} has alpha {alpha}: set lora.alpha = {alpha}", other());
        let differs = wanted.modules().find(|module| !found.layout.modules().any(|known| known == *module));
        let extra = found.layout.modules().find(|module| !wanted.modules().any(|known| known == *module));
        ensure!(
            differs.is_none(),
            "{} adds nothing to {}: take it out of lora.targets",
            other(),
            differs.unwrap_or("")
        );
        ensure!(extra.is_none(), "{} adds to {}: name it in lora.targets", other(), extra.unwrap_or(""));
        Ok(Adapter { layout: wanted, values: found.values, targets, base })
    }
}
