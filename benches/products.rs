//! GFLOP/s of the products of a real model's layers, forward and both gradients, on one thread and on all: the best of
//! several calls. `scripts/products.py` prints the same table for PyTorch, whose products are oneDNN's.
//!
//! `cargo bench --bench products -- [rows]`
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use reckon::ops::linear::{Epilogue, Linear, PackedMatrix, Precision};
use reckon::ops::team::Team;
use reckon::parallel::default_threads;

/// Outputs and inputs of SmolLM2-135M's matrices.
const SHAPES: [(&str, usize, usize); 5] =
    [("qkv", 960, 576), ("output", 576, 576), ("gate and up", 3072, 576), ("down", 576, 1536), ("head", 49152, 576)];

fn main() {
    let rows = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(512);
    println!("{rows} rows, GFLOP/s: forward, gradient of the input, gradient of the weights");
    for (precision, word) in [(Precision::Fp32, "fp32"), (Precision::Bf16, "bf16")] {
        for threads in [1, default_threads()] {
            for (name, n, k) in SHAPES {
                let [forward, input, weight] = Team::with(threads, |team| measure(team, rows, n, k, precision));
                println!(
                    "{word} {threads} threads  {name:<12} {n:>6} x {k:<5} {forward:>7.0} {input:>7.0} {weight:>7.0}"
                );
            }
        }
    }
}

fn measure(team: &Team, rows: usize, n: usize, k: usize, precision: Precision) -> [f64; 3] {
    let values = |len: usize| (0..len).map(|i| (i % 113) as f32 / 113.0 - 0.5).collect::<Vec<_>>();
    let (x, w, dy) = (values(rows * k), values(n * k), values(rows * n));
    let (mut y, mut dx, mut dw) = (vec![0f32; rows * n], vec![0f32; rows * k], vec![0f32; n * k]);
    let packed = PackedMatrix::new(team, &w, k, precision);
    let layer = Linear::trained(&packed, &w, 0..w.len());
    let rate = |work: &mut dyn FnMut()| {
        let best = (0..8).map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        });
        2.0 * (rows * n * k) as f64 / best.fold(f64::INFINITY, f64::min) / 1e9
    };
    [
        rate(&mut || layer.forward(team, black_box(&x), &mut y, Epilogue::None)),
        rate(&mut || layer.backward_input(team, black_box(&dy), &mut dx)),
        rate(&mut || layer.backward_weight(team, black_box(&x), &dy, &mut dw)),
    ]
}
