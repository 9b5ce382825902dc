//! With the feature `cuda`: compiles every `.cu` file below `src` for sm_80 and sm_90 (newer cards compile the PTX
//! that goes along), and lists the results for `src/device/cuda.rs`. Without the feature nothing is needed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const ARCHITECTURES: [&str; 2] = ["arch=compute_80,code=sm_80", "arch=compute_90,code=[sm_90,compute_90]"];

fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-env-changed=NVCC");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut list = String::from("[\n");
    for source in sources(Path::new("src")) {
        let name = source.with_extension("fatbin").to_string_lossy().replace(['/', '\\'], "_");
        compile(&source, &out.join(&name));
        writeln!(list, "    include_bytes!({:?}),", out.join(name)).expect("a string grows");
    }
    list.push(']');
    std::fs::write(out.join("kernels.rs"), list).expect("cargo's folder can be written to");
}

/// Every `.cu` file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the sources are here").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|e| e == "cu") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn compile(source: &Path, out: &Path) {
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v"]);
    command.args(ARCHITECTURES.iter().flat_map(|a| ["-gencode", a]));
    let Ok(output) = command.arg(source).arg("-o").arg(out).output() else {
        panic!(
            "the feature cuda needs NVIDIA's compiler, and \"{nvcc}\" does not run: install a CUDA toolkit (12 or 13), or \
             run scripts/cuda-toolkit target/cuda and set NVCC=target/cuda/bin/nvcc"
        );
    };
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{nvcc} {}:\n{report}", source.display());
    // A kernel that spills registers to memory is several times slower, and only this report says so.
    let spills =
        report.lines().find(|l| l.contains("spill") && !l.contains(" 0 bytes spill stores, 0 bytes spill loads"));
    assert!(spills.is_none(), "{}: a kernel spills:\n{report}", source.display());
}
