//! `reckon doctor`: what this binary and this machine can do, and what to do about each lack.

use std::time::Instant;

use anyhow::{Error, Result, ensure};

use super::compute;
use crate::config::{ComputeConfig, DeviceChoice, Target};
use crate::ops::bf16::Unit;
use crate::output::say;
use crate::ranks::launch::{self, Launched};
use crate::ranks::tcp::ring_of_threads;
use crate::ranks::{Ranks, mpi_version};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<()> {
    say!("reckon {}", env!("CARGO_PKG_VERSION"))?;
    say!("{}", compute::place(&ComputeConfig { device: DeviceChoice::Cpu, ..ComputeConfig::default() }))?;
    say!("bf16     compute.precision = \"bf16\" on the CPU: {}", Unit::of_this_machine().name())?;
    for line in cuda() {
        say!("{line}")?;
    }
    for line in ranks()? {
        say!("{line}")?;
    }
    let target = if ComputeConfig::default().target() == Target::Cuda { "cuda" } else { "cpu" };
    say!("auto     compute.device = {target:?}")?;
    Ok(())
}

/// What MPI and launcher there are, and whether two ranks of this machine add up what they have.
fn ranks() -> Result<Vec<String>> {
    let launcher = match launch::read(|name| std::env::var(name).ok())? {
        None => "none: this process is alone; mpirun, srun, torchrun and a JobSet start several (docs/cluster.md)"
            .to_owned(),
        Some(Launched { by, place, meeting }) => {
            let meeting =
                meeting.map_or("no MASTER_ADDR".to_owned(), |(host, port)| format!("they meet at {host}:{port}"));
            format!("{}: rank {} of {}, {meeting}", by.name(), place.rank, place.size)
        }
    };
    let outcome = two_ranks().unwrap_or_else(|error| format!("two of this machine cannot add: {error:#}"));
    Ok(vec![format!("mpi      {}", mpi_version()), format!("launcher {launcher}"), format!("ranks    {outcome}")])
}

/// Two ranks add a gradient over this machine's network.
fn two_ranks() -> Result<String> {
    const VALUES: usize = 1 << 22;
    let part = |rank: usize| vec![1.0 + rank as f32; VALUES];
    let start = Instant::now();
    let sums: Vec<Result<bool>> = std::thread::scope(|scope| {
        let add = |ranks: Ranks| {
            let sum = ranks.sum(vec![part(ranks.rank())], VALUES)?;
            ranks.finish(Ok(()))?;
            Ok(sum.iter().all(|&sum| sum == 3.0))
        };
        let threads: Vec<_> = ring_of_threads(2)?.into_iter().map(|ranks| scope.spawn(move || add(ranks))).collect();
        Ok::<_, Error>(threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(false))).collect())
    })?;
    let right = sums.into_iter().collect::<Result<Vec<bool>>>()?.iter().all(|right| *right);
    ensure!(right, "their sum is wrong");
    let (megabytes, seconds) = (4 * VALUES / 1_000_000, start.elapsed().as_secs_f64());
    Ok(format!("two of this machine add {megabytes} MB over TCP in {seconds:.2} s"))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Vec<String> {
    vec![format!("cuda     {}", compute::describe()), format!("nccl     {}", compute::nccl())]
}

#[cfg(feature = "cuda")]
fn cuda() -> Vec<String> {
    use crate::ops::device::cuda;
    if !cuda::driver_present() {
        return vec![
            "cuda     in this binary".into(),
            "driver   not found: libcuda.so.1 comes with NVIDIA's driver; install one of version 580 or later".into(),
        ];
    }
    let driver = match cuda::driver_version() {
        Ok((major, minor)) if major >= 13 => format!("driver   CUDA {major}.{minor}"),
        Ok((major, minor)) => format!(
            "driver   CUDA {major}.{minor}: kernels built by nvcc 13 ask for CUDA 13; update the driver to 580 or later, \
             or build with a toolkit of CUDA {major}"
        ),
        Err(error) => format!("driver   does not answer: {error}"),
    };
    let cublas = if cuda::cublas_present() {
        "cublas   found".into()
    } else {
        "cublas   not found: install the CUDA toolkit or the Python package nvidia-cublas, and set \
                  LD_LIBRARY_PATH to its folder"
            .to_owned()
    };
    let (card, nccl) = (format!("card     {}", compute::describe()), format!("nccl     {}", compute::nccl()));
    vec!["cuda     in this binary".into(), driver, cublas, card, nccl]
}
