//! What all ranks of a run must have alike before its first step: binary, config, data, and weights.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

use crate::config::PrecisionChoice;
use crate::model::Fingerprint;
use crate::ops::bf16::Unit;
use crate::policy::Model;
use crate::strict;
use crate::train::Trainer;

/// What a rank has for itself.
const OWN: &str = "compute.threads";
/// Bytes of the binary that are read at a time.
const PIECE: usize = 1 << 20;

/// Refuses ranks that would not make the same steps, and names what differs.
pub(super) fn check(trainer: &Trainer) -> Result<()> {
    if trainer.ranks.size() == 1 {
        return Ok(());
    }
    let mut facts = vec![
        ("the version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("the binary's fingerprint".to_owned(), binary()?),
    ];
    facts.extend(strict::flat(&trainer.config)?.into_iter().filter(|(key, _)| key != OWN));
    let data = trainer.prompts().fingerprints().into_iter();
    facts.extend(data.map(|(source, fingerprint)| (format!("the fingerprint of data source {source}"), fingerprint)));
    if trainer.config.compute.precision == PrecisionChoice::Bf16 {
        facts.push(("the processor's unit for bf16".to_owned(), Unit::of_this_machine().name().to_owned()));
    }
    let base = trainer.policy.learner.base_fingerprint().unwrap_or("none").to_owned();
    facts.push(("the base's fingerprint".to_owned(), base));
    facts.push(("the weights' fingerprint".to_owned(), weights(trainer)));
    facts.push(("the last step".to_owned(), trainer.progress.step.to_string()));
    trainer.ranks.check_alike(facts)
}

fn binary() -> Result<String> {
    let path = std::env::current_exe().context("cannot find this binary")?;
    let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut fingerprint = Fingerprint::default();
    loop {
        // Whole but for the last one, however short the reads are: the hash of a file follows from its pieces.
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        fingerprint.add_bytes(&piece);
        if piece.len() < PIECE {
            return Ok(fingerprint.text());
        }
    }
}

fn weights(trainer: &Trainer) -> String {
    let Model::Cpu(model) = trainer.policy.learner.model() else { return "elsewhere".to_owned() };
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(model.parameters().trained_values());
    fingerprint.text()
}
