//! Time of one call of each operation, on one thread, at the sizes of a small model's micro-batch: 512 tokens in
//! sequences of 128, width 128, 4 heads of 32, feed-forward 384. Products, attention and the head also tell what they
//! compute a second (multiply-adds); `reckon bench` measures whole steps.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reckon::ops::attention::{Heads, Segment, packed};
use reckon::ops::linear::{Epilogue, Linear, PackedMatrix, Precision};
use reckon::ops::rms_norm::{self, Kept, Vectors};
use reckon::ops::rope::RopeTable;
use reckon::ops::team::Team;
use reckon::ops::{adamw, linear_logprob, swiglu};
use reckon::rollout::Sampling;
use reckon_datasets::Counted;

const T: usize = 512;
const WIDTH: usize = 128;
const FFN: usize = 384;
const VOCAB: usize = 4096;
const HEADS: Heads = Heads::alike(4, 4, 32);

fn random(stream: u64, n: usize) -> Vec<f32> {
    let mut random = Counted::new(&[0x0b5, stream]);
    (0..n).map(|_| random.normal() as f32).collect()
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    for (n, k) in [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (2 * FFN, WIDTH), (WIDTH, FFN)] {
        let (x, w, dy) = (random(1, T * k), random(2, n * k), random(3, T * n));
        let (mut y, mut dx, mut dw) = (vec![0f32; T * n], vec![0f32; T * k], vec![0f32; n * k]);
        let team = &Team::alone();
        let packed = PackedMatrix::new(team, &w, k, Precision::Fp32);
        let layer = Linear::trained(&packed, &w, 0..w.len());
        group.throughput(Throughput::Elements((T * n * k) as u64));
        group.bench_function(format!("forward {n} x {k}"), |b| {
            b.iter(|| layer.forward(team, black_box(&x), &mut y, Epilogue::None));
        });
        group.throughput(Throughput::Elements(2 * (T * n * k) as u64));
        group.bench_function(format!("backward {n} x {k}"), |b| {
            b.iter(|| {
                layer.backward_input(team, black_box(&dy), &mut dx);
                layer.backward_weight(team, &x, black_box(&dy), &mut dw);
            });
        });
    }
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let segments: Vec<_> = (0..T).step_by(128).map(|start| Segment::alone(start..start + 128)).collect();
    let (qkv, d_o) = (random(1, T * HEADS.row()), random(2, T * HEADS.output()));
    let (mut o, mut lse, mut d_qkv) = (vec![0f32; d_o.len()], vec![0f32; T * HEADS.query], vec![0f32; qkv.len()]);
    // Two products forward and five backward, over half of each square.
    let products = (segments.len() * 128 * 128 / 2 * HEADS.output()) as u64;
    group.throughput(Throughput::Elements(2 * products));
    group.bench_function("forward", |b| {
        b.iter(|| packed::forward(&Team::alone(), HEADS, black_box(&qkv), &segments, &mut o, &mut lse));
    });
    group.throughput(Throughput::Elements(5 * products));
    group.bench_function("backward", |b| {
        let kept = packed::Forward { qkv: &qkv, o: &o, lse: &lse };
        b.iter(|| packed::backward(&Team::alone(), HEADS, kept, &segments, black_box(&d_o), &mut d_qkv));
    });
}

fn head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear_logprob");
    let (h, w, dlogprob) = (random(1, T * WIDTH), random(2, VOCAB * WIDTH), random(3, T));
    let targets: Vec<u32> = (0..T as u32).map(|t| t * 7 % VOCAB as u32).collect();
    let (team, mut logits) = (&Team::alone(), linear_logprob::Logits::default());
    let packed = PackedMatrix::new(team, &w, WIDTH, Precision::Fp32);
    let layer = Linear::trained(&packed, &w, 0..w.len());
    let rows = linear_logprob::Rows { h: &h, targets: &targets, temperature: 1.0 };
    let slopes = linear_logprob::Slopes { logprobs: &dlogprob, entropies: &[] };
    let (mut dh, mut dw) = (vec![0f32; h.len()], vec![0f32; w.len()]);
    group.throughput(Throughput::Elements((T * VOCAB * WIDTH) as u64));
    group.bench_function("forward", |b| {
        b.iter(|| linear_logprob::forward(team, black_box(rows), &layer, &mut logits));
    });
    group.throughput(Throughput::Elements(3 * (T * VOCAB * WIDTH) as u64));
    group.bench_function("backward", |b| {
        b.iter(|| linear_logprob::backward(team, rows, &layer, black_box(slopes), &mut logits, &mut dh, &mut dw));
    });
}

fn elementwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elementwise");
    let (team, rows) = (&Team::alone(), Vectors::rows(WIDTH));
    let (gate_up, x, w) = (random(1, T * 2 * FFN), random(2, T * WIDTH), random(3, WIDTH));
    let (mut y, mut d_gate_up) = (vec![0f32; T * FFN], vec![0f32; gate_up.len()]);
    let (mut normed, mut dx, mut dw) = (vec![0f32; x.len()], vec![0f32; x.len()], vec![0f32; WIDTH]);
    group.throughput(Throughput::Elements(T as u64));
    group.bench_function("swiglu forward", |b| b.iter(|| swiglu::forward(team, black_box(&gate_up), FFN, &mut y)));
    group.bench_function("swiglu backward", |b| {
        let mut again = vec![0f32; y.len()];
        b.iter(|| swiglu::backward(team, black_box(&gate_up), FFN, &y, &mut d_gate_up, &mut again));
    });
    group.bench_function("rms_norm forward", |b| {
        b.iter(|| rms_norm::forward(team, rows, black_box(&x), &w, 1e-6, &mut normed))
    });
    group.bench_function("rms_norm backward", |b| {
        let kept = Kept { x: &x, w: &w, eps: 1e-6 };
        b.iter(|| rms_norm::backward(team, rows, black_box(kept), &normed, &mut dx, Some(&mut dw)));
    });
    let frequencies: Vec<f64> = (0..HEADS.size / 2).map(|i| 0.5f64.powi(i as i32)).collect();
    let (rope, positions) = (RopeTable::new(T, &frequencies), (0..T as u32).collect::<Vec<_>>());
    let mut qkv = random(4, T * HEADS.row());
    group.bench_function("rope", |b| b.iter(|| rope.rotate(team, black_box(&mut qkv), &positions, 8, HEADS.row())));
}

fn optimizer_and_sampler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one");
    let n = 1 << 20;
    let (mut w, g, mut m, mut v) = (random(1, n), random(2, n), vec![0f32; n], vec![0f32; n]);
    let step = adamw::Step { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, scale: 1.0, count: 1 };
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("adamw", |b| {
        b.iter(|| adamw::update(&Team::alone(), step, &mut w, black_box(&g), &mut m, &mut v))
    });
    let logits = random(3, VOCAB);
    group.throughput(Throughput::Elements(VOCAB as u64));
    for (name, top_p, top_k) in [("draw", 1.0, 0), ("draw top_p 0.95", 0.95, 0), ("draw top_k 50", 1.0, 50)] {
        let sampling = Sampling {
            temperature: 1.0,
            top_p,
            top_k,
            min_p: 0.0,
            max_new_tokens: 1,
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
        };
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || logits.clone(),
                |logits| sampling.sample(black_box(logits), 0.5),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, products, attention, head, elementwise, optimizer_and_sampler);
criterion_main!(benches);
