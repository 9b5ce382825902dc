//! `reckon doctor`: what this binary and this machine can do, and what to do about each lack.

use anyhow::Result;

use crate::parallel::default_threads;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Result<()> {
    println!("reckon {}", env!("CARGO_PKG_VERSION"));
    println!("cpu      {} threads, {}", default_threads(), crate::ops::instruction_set());
    for line in cuda() {
        println!("{line}");
    }
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Vec<String> {
    vec!["cuda     not in this binary: build it with cargo build --release --features cuda (docs/gpu.md)".into()]
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
    let cublas = match cuda::cublas_present() {
        true => "cublas   found".into(),
        false => "cublas   not found: install the CUDA toolkit or the Python package nvidia-cublas, and set \
                  LD_LIBRARY_PATH to its folder"
            .to_owned(),
    };
    vec!["cuda     in this binary".into(), driver, cublas, card()]
}

#[cfg(feature = "cuda")]
fn card() -> String {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    match crate::ops::device::cuda::card(0) {
        Ok(card) => {
            let (major, minor) = card.capability;
            let lack = if major < 8 { ": too old, kernels need 8.0 or higher" } else { "" };
            let (free, total) = (gib(card.free), gib(card.total));
            format!(
                "card     {}, compute capability {major}.{minor}{lack}, {free:.1} of {total:.1} GiB free",
                card.name
            )
        }
        Err(error) => format!("card     none can be used ({error}): check nvidia-smi and CUDA_VISIBLE_DEVICES"),
    }
}
