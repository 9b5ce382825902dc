//! What a low-rank adapter is to be, as a config says it. The adapter itself is [`crate::model::lora`]'s.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use reckon_datasets::Range::{Above, AtLeast};
use reckon_datasets::{Table, table};

use crate::model::files::peft;
use crate::model::lora::{self, Adapter, AdapterLayout};
use crate::model::{BaseType, Layout};

table! {
    /// Training of a low-rank adapter on a frozen base, in place of all weights.
    pub struct LoraConfig {
        /// Rank of the adapter's matrices.
        pub rank: usize = 16 => AtLeast(1.0),
        /// What an adapter adds is multiplied by `alpha / rank`.
        pub alpha: f64 = 32.0 => Above(0.0),
        /// Which linear layers of the decoder get an adapter: ends of their names, in which `*` stands for anything. When
        /// absent, those of attention, of feed-forward parts and of delta nets, but for what makes rates and decays.
        pub targets: Option<Vec<String>> = None,
        /// What the matrices of the frozen base are kept in on a CPU: `q8_0` (8.5 bits a weight), `q4_k` (4.5, and 8.5 in
        /// the embedding and the output matrix), `bf16`; the type of the file when absent, quantized blocks of a GGUF file
        /// among them.
        pub base: Option<BaseType> = None,
        /// A folder with an adapter in PEFT's files to begin with; it is to have this rank, alpha and these targets.
        pub adapter: Option<PathBuf> = None,
    }
}

/// The modules that get an adapter where a config names none, as far as a model has them.
const USUAL: [&str; 14] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "q_a_proj",
    "q_b_proj",
    "kv_a_proj_with_mqa",
    "kv_b_proj",
    "in_proj_qkv",
    "in_proj_z",
    "out_proj",
];

impl LoraConfig {
    /// Refuses an adapter that could not learn, naming the key.
    pub fn validate(&self) -> Result<()> {
        self.check("lora.").map_err(anyhow::Error::msg)?;
        let is_empty = self.targets.as_ref().is_some_and(Vec::is_empty);
        ensure!(!is_empty, "lora.targets is empty: nothing would be trained");
        Ok(())
    }

    /// The patterns that choose modules of a model of this layout.
    fn patterns(&self, layout: &Layout) -> Vec<String> {
        self.targets.clone().unwrap_or_else(|| {
            let of_model = USUAL.into_iter().filter(|name| lora::has_module(layout, name));
            of_model.map(str::to_owned).collect()
        })
    }

    /// Names, shapes and places of the adapter on a model of this layout.
    pub fn layout(&self, layout: &Layout) -> Result<AdapterLayout> {
        let patterns = self.patterns(layout);
        let chosen = lora::chosen(layout, &patterns)?;
        Ok(AdapterLayout::new(layout, self.rank, self.alpha as f32, |module| chosen.contains(&module)))
    }

    /// The adapter that training begins with, for the model that files call `base`.
    pub fn start(&self, layout: &Layout, base: &str, seed: u64) -> Result<Adapter> {
        let (wanted, targets, base) = (self.layout(layout)?, self.patterns(layout), base.to_owned());
        let Some(folder) = &self.adapter else { return Ok(Adapter::new(wanted, targets, base, seed)) };
        let found = peft::read(folder, layout)?;
        let AdapterLayout { rank, alpha, .. } = found.layout;
        let other = || format!("lora.adapter = {}", folder.display());
        ensure!(rank == self.rank, "{} has rank {rank}: set lora.rank = {rank}", other());
        ensure!(alpha == self.alpha as f32, "{} has alpha {alpha}: set lora.alpha = {alpha}", other());
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
