//! `reckon doctor`: what this binary and this machine can do, and what to do about each lack.

use anyhow::Result;

use super::compute;
use crate::config::{ComputeConfig, DeviceChoice, Target};
use crate::ops::bf16::Unit;
use crate::output::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<()> {
    say!("reckon {}", env!("CARGO_PKG_VERSION"))?;
    say!("{}", compute::place(&ComputeConfig { device: DeviceChoice::Cpu, ..ComputeConfig::default() }))?;
    say!("bf16     compute.precision = \"bf16\" on the CPU: {}", Unit::of_this_machine().name())?;
    for line in cuda() {
        say!("{line}")?;
    }
    let target = if ComputeConfig::default().target() == Target::Cuda { "cuda" } else { "cpu" };
    say!("auto     compute.device = {target:?}")?;
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Vec<String> {
    vec![format!("cuda     {}", compute::describe())]
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
    vec!["cuda     in this binary".into(), driver, cublas, format!("card     {}", compute::describe())]
}
