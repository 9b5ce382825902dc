//! `reckon launch`: a run as what a cluster takes, a script of Slurm or a manifest of Kubernetes.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::ConfigArgs;
use super::arguments::whole;
use crate::config::{DeviceChoice, TrainConfig};
use crate::disk::write_file;
use crate::launch::{Launch, jobset, sbatch};
use crate::output::{note, say};

/// Arguments of `reckon launch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write a script for sbatch.
    #[arg(long, required_unless_present = "k8s")]
    slurm: bool,
    /// Write a manifest of a JobSet of Kubernetes.
    #[arg(long, conflicts_with = "slurm")]
    k8s: bool,
    /// Print it, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Folder of the run, on a file system that all machines see; `/runs/NAME` with --k8s.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What the cluster calls it; the name of the config's folder without it.
    #[arg(long)]
    name: Option<String>,
    /// Machines.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 2)]
    nodes: usize,
    /// Ranks on each of them.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 1)]
    ranks_per_node: usize,
    /// Threads of each rank.
    #[arg(long, value_parser = whole::<usize>(1), default_value_t = 8)]
    threads: usize,
    /// Slurm: how long the job may take before it makes room and goes on later.
    #[arg(long, default_value = "24:00:00")]
    time: String,
    /// Slurm: the partition.
    #[arg(long)]
    partition: Option<String>,
    /// Kubernetes: the image of the container, which has `reckon` and the config.
    #[arg(long, default_value = "reckon:latest")]
    image: String,
    /// Kubernetes: the claim of a volume that all pods read and write.
    #[arg(long, default_value = "runs")]
    claim: String,
    /// The program, as the machines find it.
    #[arg(long, default_value = "reckon")]
    program: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    // A config that could not train is refused before it waits in a queue.
    let config: TrainConfig = args.config.load()?;
    config.validate()?;
    let name = args.name.clone().unwrap_or_else(|| named_by(args));
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(valid) && !name.starts_with('-') && name.len() <= 40,
        "--name {name:?}: take up to 40 small letters, digits and hyphens, which both kinds of cluster allow"
    );
    let (text, file) = written(args, &name, config.compute.device == DeviceChoice::Cuda);
    if args.dry_run {
        return say!("{}", text.trim_end());
    }
    ensure!(!PathBuf::from(&file).exists(), "{file} is there already: remove it, or give another --name");
    write_file(file.as_ref(), text.as_bytes())?;
    let command = if args.slurm { "sbatch" } else { "kubectl apply -f" };
    note!("wrote {file}: look at it, then {command} {file}");
    Ok(())
}

/// The text and the name of its file, where ranks compute on cards or on processors.
fn written(args: &Args, name: &str, cards: bool) -> (String, String) {
    let place = |default: String| args.out.as_ref().map_or(default, |out| out.to_string_lossy().into_owned());
    let mut begin: Vec<String> = args.config.config.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    begin.extend(args.config.sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    let launch = Launch {
        name: name.to_owned(),
        begin,
        run: place(if args.slurm { format!("runs/{name}") } else { format!("/runs/{name}") }),
        ranks_per_node: args.ranks_per_node,
        nodes: args.nodes,
        threads: args.threads,
        cards,
        program: args.program.clone(),
    };
    match args.slurm {
        true => (sbatch(&launch, &args.time, args.partition.as_deref()), format!("{name}.sbatch")),
        false => (jobset(&launch, &args.image, &args.claim), format!("{name}.yaml")),
    }
}

/// `examples/gsm8k/config.toml` is called `gsm8k`.
fn named_by(args: &Args) -> String {
    let path = args.config.config.as_ref();
    let folder = path.and_then(|path| path.parent()?.file_name());
    let stem = path.and_then(|path| path.file_stem());
    let name = folder.or(stem).map_or("countdown".to_owned(), |name| name.to_string_lossy().into_owned());
    name.to_lowercase().replace(['_', '.', ' '], "-")
}
