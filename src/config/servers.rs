//! The `[servers]` table of `reckon train`: who samples in place of this program. How they are spoken to is
//! [`crate::servers`]'s.

use std::path::PathBuf;

use anyhow::{Error, Result, ensure};
use reckon_datasets::Range::{Above, AtLeast};
use reckon_datasets::{Table, table};
use serde::{Deserialize, Serialize};

table! {
    /// Servers that sample in place of this program, over the weights that it hands them after every step.
    /// `docs/cluster.md` says how each is started, and what was tried.
    pub struct ServersConfig {
        /// What they speak.
        pub engine: ServerEngine,
        /// Where they are, such as `["http://10.0.0.7:8000"]`.
        pub urls: Vec<String>,
        /// The folder that weights are handed over in, which this program and all servers see under this name.
        pub weights: PathBuf,
        /// What requests call the model.
        #[serde(default = "model")]
        pub model: String,
        /// Hand over the output matrix of a tied model as a tensor of its own, for servers started on a model from
        /// `reckon export --untied`: vLLM on a processor reads a tied one at its start alone.
        #[serde(default)]
        pub untied: bool,
        /// Requests at a time, over all servers.
        #[serde(default = "concurrency")]
        pub concurrency: usize => AtLeast(1.0),
        /// Seconds that an answer may take, or new weights.
        #[serde(default = "timeout_s")]
        pub timeout_s: f64 => Above(0.0),
        /// How often a completion is asked for, of one server after the other, before the run stops.
        #[serde(default = "attempts")]
        pub attempts: usize => AtLeast(1.0),
    }
}

fn model() -> String {
    "policy".to_owned()
}

fn concurrency() -> usize {
    64
}

fn timeout_s() -> f64 {
    600.0
}

fn attempts() -> usize {
    4
}

/// What servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerEngine {
    /// vLLM: token ids by `/v1/completions`, weights read anew by its workers.
    Vllm,
    /// SGLang: token ids by `/generate`, weights by `/update_weights_from_disk`.
    Sglang,
    /// `reckon serve --updates`.
    Reckon,
}

impl ServersConfig {
    /// Refuses a value out of its range.
    pub fn validate(&self) -> Result<()> {
        self.check("servers.").map_err(Error::msg)?;
        ensure!(!self.urls.is_empty(), "servers.urls is empty: say where they are, or remove the table");
        let strange = self.urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://"));
        ensure!(strange.is_none(), "servers.urls has {strange:?}: an address begins with http:// or https://");
        Ok(())
    }
}
