//! The one integration crate.
#![allow(missing_docs, clippy::unwrap_used)]

/// The next step sampled while this one updates.
mod ahead;
/// The loss that makes the loads of experts even.
mod auxiliary;
/// Products of bf16 operands on a CPU.
mod bf16;
/// Chat templates in prompts, in training and in samples.
mod chat;
/// Runs with each choice of an objective.
mod choices;
/// Runs for clusters.
mod cluster;
/// Every command works, and complains clearly.
mod commands;
/// Rows that are remembered.
mod curriculum;
/// Data mixtures, wrong data, and looking at data.
mod data;
/// Gated delta nets.
mod deltas;
/// Gated delta nets on such a device.
mod device_deltas;
/// Experts there.
mod device_experts;
/// Models with latent attention there.
mod device_latent;
/// An adapter there agrees with the CPU.
mod device_lora;
/// A whole model on such a device agrees with the CPU.
mod device_model;
/// Sampling there: its kernels, and whole rollouts.
mod device_sampling;
/// Training on such a device.
mod device_training;
/// Evaluations that decide, and how long a run is.
mod evaluating;
/// Arms by seeds from one file, and what rollouts show.
mod experiments;
/// Model folders read back, and damaged ones are refused.
mod folders;
/// Models of families that are not trained.
mod foreign;
/// Models in GGUF files.
mod gguf;
/// What `scripts/gpu-check` makes of its figures.
mod gpu_check;
/// Every weight gets the gradient that finite differences say.
mod gradients;
/// A device whose kernels run on this machine's processor.
mod host_device;
/// Models and data by their names on the hub.
mod hub;
/// Each kernel agrees with its CPU twin.
mod kernels;
/// A killed run resumes exactly.
mod killing;
/// Reports, dashboards, and files of other programs.
mod lab;
/// The operations of latent attention on such a device.
mod latent_kernels;
/// Adapters on a frozen base.
mod lora;
/// Completions of shells, and pages of the manual.
mod manual;
/// Experts and latent attention.
mod mixtures;
/// Models and batches that several tests use.
mod models;
/// Objectives beside other trainers' code.
mod objectives;
/// Logits equal those of candle's own models.
mod oracle;
/// The losses of TRL and transformers.
mod outside;
/// Verifiers of one's own.
mod own_verifiers;
/// The numbers and texts of transformers.
mod parity;
/// A reader of the output who goes away.
mod pipes;
/// What a plan counts is what a run holds.
mod plan;
/// Groups that are made smaller or larger as they are known.
mod probes;
/// The program, run as a user would.
mod program;
/// The commands and paths in the documents.
mod quickstart;
/// Several processes that make one run.
mod ranks;
/// The recipes of `examples/`.
mod recipes;
/// Updates that send tokens to the experts of sampling.
mod replay;
/// Damaged checkpoints, and configs changed on the way.
mod resuming;
/// Sampling does not depend on how it is batched, and agrees with training to the bit.
mod sampling;
/// A run that is shown in a browser while it goes on.
#[cfg(feature = "serve")]
mod served;
/// Completions that servers sample.
#[cfg(feature = "serve")]
mod servers;
/// A model behind a protocol.
#[cfg(feature = "serve")]
mod serving;
/// Supervised runs: conversations, adapters, epochs, resume.
mod sft;
/// Two ways to share a model's work among threads.
mod sharing;
/// Stages one after the other.
mod stages;
/// Steps with known rewards: signal, losses, lost completions.
mod steps;
/// A broken verifier stops a run with a checkpoint.
mod stopping;
/// No circles, short files, short functions.
mod structure;
/// Policies taught by a model.
mod teaching;
/// Completions of several turns.
mod tools;
/// Traces of teachers, here and behind a URL.
mod traces;
/// Audits, replays and measured verdicts.
mod verify;
