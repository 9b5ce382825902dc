//! Each CUDA kernel, run on this machine's processor, against its CPU twin in fp32: sizes that fill no block, a single
//! token, outputs poisoned first, threads in several orders that must give the same bits.

use bytemuck::Pod;
use half::bf16;
use reckon::ops::adamw::{self, Step};
use reckon::ops::attention::packed::device as device_attention;
use reckon::ops::attention::{Heads, Segment, packed};
use reckon::ops::device::columns::{self, Rows};
use reckon::ops::device::{Class, Device, View};
use reckon::ops::linear::device::Weight;
use reckon::ops::linear::{Linear, PackedMatrix, Precision};
use reckon::ops::linear_logprob::device as device_logprob;
use reckon::ops::linear_logprob::distill::{self, Divergence, device as device_distill};
use reckon::ops::rms_norm::{self, Kept, Vectors};
use reckon::ops::rope::{self, RopeTable};
use reckon::ops::team::Team;
use reckon::ops::{embedding, linear, linear_logprob, swiglu};
use reckon_datasets::Counted;

use super::host_device::{ORDERS, device, device_of};

/// Relative error that rounding to bf16 explains.
pub(crate) const BF16: f64 = 1e-2;
/// The same for values that stay in fp32.
pub(crate) const FP32: f64 = 1e-5;

/// Random values that bf16 holds exactly.
pub(crate) fn random(name: u64, n: usize) -> Vec<f32> {
    let mut stream = Counted::new(&[0xc0da, name]);
    (0..n).map(|_| bf16::from_f32(stream.normal() as f32).to_f32()).collect()
}

pub(crate) fn to_bf16(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&v| bf16::from_f32(v)).collect()
}

fn to_f32(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

/// `|got - expected| / |expected|`; a value that is not a number fails.
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f32], limit: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let square = |x: f32| f64::from(x) * f64::from(x);
    let distance: f64 = got.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let size: f64 = expected.iter().map(|&b| square(b)).sum();
    let error = (distance / size.max(1e-30)).sqrt();
    assert!(error <= limit, "{what}: relative error {error:.2e}, at most {limit:.0e}");
}

/// Runs `kernel` with threads in every order; its outputs must not depend on it, and agree with `expected`.
pub(crate) fn check(what: &str, expected: &[(&[f32], f64)], kernel: impl Fn(&Device) -> Vec<Vec<f32>>) {
    let mut first: Option<Vec<Vec<u32>>> = None;
    for order in ORDERS {
        let Some(device) = device(order) else { return };
        let outputs = kernel(&device);
        assert_eq!(outputs.len(), expected.len(), "{what}");
        for (i, (got, (expected, limit))) in outputs.iter().zip(expected).enumerate() {
            assert_close(&format!("{what}, output {i}, order {order}"), got, expected, *limit);
        }
        let bits = outputs.iter().map(|o| o.iter().map(|v| v.to_bits()).collect()).collect();
        match &first {
            None => first = Some(bits),
            Some(first) => assert_eq!(first, &bits, "{what}: the order of threads shows in the result: a race"),
        }
    }
}

pub(crate) fn up<T: Pod>(device: &Device, values: &[T]) -> reckon::ops::device::Buffer<T> {
    device.upload(Class::Activations, values).unwrap()
}

pub(crate) fn empty<T: Pod>(device: &Device, n: usize) -> reckon::ops::device::Buffer<T> {
    // A card's memory holds what was there: here all bits are set, which is NaN.
    let mut poison = vec![T::zeroed(); n];
    bytemuck::cast_slice_mut::<T, u8>(&mut poison).fill(0xff);
    up(device, &poison)
}

pub(crate) fn down(view: View<bf16>) -> Vec<f32> {
    to_f32(&view.read().unwrap())
}

#[test]
fn rms_norm_agrees_with_its_twin() {
    for (t, size) in [(1, 8), (3, 40), (300, 264), (9, 1024)] {
        let (x, w, dy) = (random(1, t * size), random(2, size), random(3, t * size));
        let (before, dw_before) = (random(4, t * size), random(5, size));
        let mut y = vec![0f32; t * size];
        let (team, vectors) = (&Team::alone(), Vectors::rows(size));
        rms_norm::forward(team, vectors, &x, &w, 1e-6, &mut y);
        let (mut dx, mut dw) = (before.clone(), dw_before.clone());
        let kept = Kept { x: &x, w: &w, eps: 1e-6 };
        rms_norm::backward(team, vectors, kept, &dy, &mut dx, Some(&mut dw));
        let expected: [(&[f32], f64); 3] = [(&y, BF16), (&dx, BF16), (&dw, FP32)];
        check(&format!("rms_norm {t} x {size}"), &expected, |d| {
            let (x, w, dy) = (up(d, &to_bf16(&x)), up(d, &to_bf16(&w)), up(d, &to_bf16(&dy)));
            let (dx, dw, y) = (up(d, &to_bf16(&before)), up(d, &dw_before), empty(d, t * size));
            let (factors, partial) = (empty(d, t), empty(d, columns::partial_len(size, t)));
            let rows = Rows::dense(size);
            rms_norm::device::forward(rows, x.all(), w.all(), y.all(), factors.all(), 1e-6).unwrap();
            let kept = rms_norm::device::Kept { x: x.all(), w: w.all().into(), factors: factors.all() };
            rms_norm::device::backward(rows, kept, dy.all(), dx.all(), true, Some(dw.all()), partial.all()).unwrap();
            vec![down(y.all()), down(dx.all()), dw.all().read().unwrap()]
        });
    }
}

#[test]
fn rms_norm_of_heads_leaves_the_rest_of_the_row_alone() {
    let (t, size, heads, row) = (5, 32, 3, 160);
    let (x, w, dy) = (random(1, t * row), random(2, size), random(3, t * row));
    let (mut y, mut dx, mut dw) = (x.clone(), dy.clone(), vec![0f32; size]);
    let (team, vectors) = (&Team::alone(), Vectors { row, first: 0, count: heads });
    rms_norm::forward(team, vectors, &x, &w, 1e-6, &mut y);
    dx.chunks_exact_mut(row).for_each(|row| row[..heads * size].fill(0.0));
    let kept = Kept { x: &x, w: &w, eps: 1e-6 };
    rms_norm::backward(team, vectors, kept, &dy, &mut dx, Some(&mut dw));
    let expected: [(&[f32], f64); 3] = [(&y, BF16), (&dx, BF16), (&dw, FP32)];
    check("rms_norm of heads", &expected, |d| {
        let (x, w, y) = (up(d, &to_bf16(&x)), up(d, &to_bf16(&w)), up(d, &to_bf16(&x)));
        let (dx, dw) = (up(d, &to_bf16(&dy)), d.zeros(Class::Gradients, size).unwrap());
        let (factors, partial) = (empty(d, t * heads), empty(d, columns::partial_len(size, t * heads)));
        let rows = Rows { k: size, heads, stride: row };
        rms_norm::device::forward(rows, x.all(), w.all(), y.all(), factors.all(), 1e-6).unwrap();
        let kept = rms_norm::device::Kept { x: x.all(), w: w.all().into(), factors: factors.all() };
        rms_norm::device::backward(rows, kept, dx.all(), dx.all(), false, Some(dw.all()), partial.all()).unwrap();
        vec![down(y.all()), down(dx.all()), dw.all().read().unwrap()]
    });
}

#[test]
fn biases_swiglu_and_rope_agree_with_their_twins() {
    for (t, f) in [(1, 8), (7, 48), (300, 72)] {
        let (gate_up, dy, sum) = (random(1, t * 2 * f), random(2, t * f), random(3, f));
        let (mut y, mut dgate_up, mut db) = (vec![0f32; t * f], vec![0f32; t * 2 * f], sum.clone());
        swiglu::forward(&Team::alone(), &gate_up, f, &mut y);
        let mut again = vec![f32::NAN; dy.len()];
        swiglu::backward(&Team::alone(), &gate_up, f, &dy, &mut dgate_up, &mut again);
        assert_eq!(again, y, "the backward gives the forward's bits");
        linear::backward_bias(&Team::alone(), &dy, &mut db);
        let filled = sum.repeat(t);
        let expected: [(&[f32], f64); 4] = [(&y, BF16), (&dgate_up, BF16), (&db, FP32), (&filled, 0.0)];
        check(&format!("swiglu {t} x {f}"), &expected, |d| {
            let (gate_up, dy, bias) = (up(d, &to_bf16(&gate_up)), up(d, &to_bf16(&dy)), up(d, &to_bf16(&sum)));
            let (y, filled) = (empty(d, t * f), empty(d, t * f));
            let (db, partial) = (up(d, &sum), empty(d, columns::partial_len(f, t)));
            swiglu::device::forward(gate_up.all(), f, y.all()).unwrap();
            swiglu::device::backward(gate_up.all(), f, dy.all()).unwrap();
            linear::device::bias_backward(dy.all(), db.all(), partial.all()).unwrap();
            linear::device::fill_bias(bias.all(), filled.all()).unwrap();
            vec![down(y.all()), down(gate_up.all()), db.all().read().unwrap(), down(filled.all())]
        });
    }
    let (size, heads, row, positions) = (32usize, 3, 160, [0u32, 5, 63, 1]);
    let frequencies: Vec<f64> = (0..size / 2).map(|i| 0.3f64.powi(i as i32)).collect();
    let (table, x) = (RopeTable::new(64, &frequencies), random(4, positions.len() * row));
    for sign in [1.0, -1.0] {
        let mut turned = x.clone();
        if sign > 0.0 {
            table.rotate(&Team::alone(), &mut turned, &positions, heads, row)
        } else {
            table.rotate_back(&Team::alone(), &mut turned, &positions, heads, row)
        }
        check("rope", &[(&turned, BF16)], |d| {
            let (cos, sin) = (up(d, table.tables().0), up(d, table.tables().1));
            let (x, positions) = (up(d, &to_bf16(&x)), up(d, &positions));
            let pairs = rope::Pairs::Halves;
            let angles = rope::device::Angles { half: size / 2, pairs, cos: cos.all(), sin: sin.all() };
            let parts = rope::Parts { first: 0, step: size, count: heads };
            rope::device::rotate(angles, x.all(), positions.all(), parts, row, sign).unwrap();
            vec![down(x.all())]
        });
    }
}

#[test]
fn rows_are_taken_put_and_summed_by_token() {
    let (v, size) = (11, 24);
    let tokens: Vec<u32> = (0..37).map(|i| i * i % v as u32).collect();
    let (w, dy, before) = (random(1, v * size), random(2, tokens.len() * size), random(3, v * size));
    let (mut y, mut dw) = (vec![0f32; tokens.len() * size], before.clone());
    embedding::forward(&tokens, &w, size, &mut y);
    embedding::backward(&tokens, &dy, size, &mut dw);
    let ids = [4u32, 0, 9];
    let mut put = w.clone();
    ids.iter().zip(dy.chunks(size)).for_each(|(&id, row)| put[id as usize * size..][..size].copy_from_slice(row));
    check("embedding", &[(&y, 0.0), (&dw, FP32), (&put, 0.0)], |d| {
        let (w, dy, dw, y) = (up(d, &to_bf16(&w)), up(d, &to_bf16(&dy)), up(d, &before), empty(d, y.len()));
        embedding::device::take_rows(up(d, &tokens).all(), w.all(), y.all(), size).unwrap();
        embedding::device::backward(&embedding::device::Occurrences::of(&tokens), dy.all(), size, dw.all()).unwrap();
        embedding::device::put_rows(up(d, &ids).all(), dy.part(0..3 * size), w.all(), size).unwrap();
        vec![down(y.all()), dw.all().read().unwrap(), down(w.all())]
    });
}

#[test]
fn log_probabilities_agree_with_their_twin() {
    let cases = [(1, 24), (5, 1000), (3, 513)].into_iter().flat_map(|(r, v)| [(r, v, false), (r, v, true)]);
    for (r, v, with_entropy) in cases {
        let (size, temperature) = (16, 0.7);
        let (h, w, d_logprobs) = (random(1, r * size), random(2, v * size), random(3, r));
        let d_entropies = if with_entropy { random(4, r) } else { Vec::new() };
        let targets: Vec<u32> = (0..r).map(|i| ((i * 7 + 3) % v) as u32).collect();
        let (team, mut logits) = (&Team::alone(), linear_logprob::Logits::default());
        let packed = PackedMatrix::new(team, &w, size, Precision::Fp32);
        let head = Linear::trained(&packed, &w, 0..w.len());
        let rows = linear_logprob::Rows { h: &h, targets: &targets, temperature };
        let (logprobs, entropies) = linear_logprob::forward(team, rows, &head, &mut logits);
        let (mut dh, mut dw) = (vec![0f32; r * size], vec![0f32; v * size]);
        let slopes = linear_logprob::Slopes { logprobs: &d_logprobs, entropies: &d_entropies };
        linear_logprob::backward(team, rows, &head, slopes, &mut logits, &mut dh, &mut dw);
        let expected: [(&[f32], f64); 4] = [(&logprobs, FP32), (&entropies, 1e-4), (&dh, BF16), (&dw, BF16)];
        check(&format!("linear_logprob {r} x {v}, entropy {with_entropy}"), &expected, |d| {
            let (h, w, targets) = (up(d, &to_bf16(&h)), up(d, &to_bf16(&w)), up(d, &targets));
            let (dh, dw) = (empty(d, r * size), d.zeros(Class::Gradients, v * size).unwrap());
            let w = Weight::trained(w.all(), dw.all());
            let head = device_logprob::Head { w, k: size, temperature };
            let mut scratch = device_logprob::Scratch::new(d).unwrap();
            let (logprobs, entropies) = device_logprob::forward(head, h.all(), targets.all(), &mut scratch).unwrap();
            let (g, e) = (up(d, &d_logprobs), with_entropy.then(|| up(d, &d_entropies)));
            let slopes = device_logprob::Slopes { logprobs: g.all(), entropies: e.as_ref().map(|e| e.all()) };
            device_logprob::backward(head, h.all(), targets.all(), slopes, dh.all(), &mut scratch).unwrap();
            vec![logprobs, entropies, down(dh.all()), dw.all().read().unwrap()]
        });
    }
}

#[test]
fn divergences_agree_with_their_twin() {
    let sizes = [(1, 24, 24, 24), (5, 1000, 1016, 990), (3, 513, 513, 513)];
    for (beta, (r, v, teacher_v, known)) in [1.0f32, 0.0, 0.3].into_iter().flat_map(|b| sizes.map(|size| (b, size))) {
        let (size, teacher_size, temperature) = (16, 24, 0.7);
        let (h, w, d_logprobs, slopes) = (random(1, r * size), random(2, v * size), random(3, r), random(4, r));
        let (their_h, their_w) = (random(5, r * teacher_size), random(6, teacher_v * teacher_size));
        let targets: Vec<u32> = (0..r).map(|i| ((i * 7 + 3) % known) as u32).collect();
        let divergence = Divergence { beta, vocab: known };
        let team = &Team::alone();
        let (packed, their_packed) = (
            PackedMatrix::new(team, &w, size, Precision::Fp32),
            PackedMatrix::new(team, &their_w, teacher_size, Precision::Fp32),
        );
        let (head, their_head) = (Linear::trained(&packed, &w, 0..w.len()), Linear::frozen(&their_packed, None));
        let rows = linear_logprob::Rows { h: &h, targets: &targets, temperature };
        let (mut dh, mut dw) = (vec![0f32; r * size], vec![0f32; v * size]);
        let teacher = distill::Teacher { h: &their_h, head: &their_head };
        let both = (divergence, distill::Slopes { logprob: &d_logprobs, divergence: &slopes });
        let [mut a, mut b] = [0; 2].map(|_| linear_logprob::Logits::default());
        let found = distill::backward(team, rows, &head, teacher, both, [&mut a, &mut b], &mut dh, &mut dw);
        let expected: [(&[f32], f64); 3] = [(&found, 1e-4), (&dh, BF16), (&dw, BF16)];
        check(&format!("divergence {r} x {known} of {v} and {teacher_v}, beta {beta}"), &expected, |d| {
            let (h, w, targets) = (up(d, &to_bf16(&h)), up(d, &to_bf16(&w)), up(d, &targets));
            let (their_h, their_w) = (up(d, &to_bf16(&their_h)), up(d, &to_bf16(&their_w)));
            let (dh, dw) = (empty(d, r * size), d.zeros(Class::Gradients, v * size).unwrap());
            let head = |w, k| device_logprob::Head { w, k, temperature };
            let ours = head(Weight::trained(w.all(), dw.all()), size);
            let theirs = head(Weight::frozen(their_w.all()), teacher_size);
            let [mut a, mut b] = [0; 2].map(|_| device_logprob::Scratch::new(d).unwrap());
            device_logprob::forward(ours, h.all(), targets.all(), &mut a).unwrap();
            let (g, s) = (up(d, &d_logprobs), up(d, &slopes));
            let found = device_distill::backward(
                device_distill::Rows { h: h.all(), targets: targets.all() },
                ours,
                device_distill::Teacher { h: their_h.all(), head: theirs, divergence },
                device_distill::Slopes { logprobs: g.all(), divergences: s.all() },
                dh.all(),
                [&mut a, &mut b],
            );
            vec![found.unwrap(), down(dh.all()), dw.all().read().unwrap()]
        });
    }
}

/// Sequences that fill no tile, one token, one more than a tile; grouped heads; all head sizes.
#[test]
fn attention_agrees_with_its_twin() {
    let one_token: &[usize] = &[0, 1];
    for (size, query, key_value, starts) in
        [(32, 4, 2, &[0, 1, 66, 70][..]), (64, 3, 1, &[0, 130, 135]), (128, 2, 2, &[0, 65]), (64, 1, 1, one_token)]
            .into_iter()
            .chain([(256, 2, 1, &[0, 1, 98, 100][..]), (256, 1, 1, one_token)])
    {
        let heads = Heads::alike(query, key_value, size);
        let t = *starts.last().unwrap();
        let segments: Vec<_> = starts.windows(2).map(|s| Segment::alone(s[0]..s[1])).collect();
        let (qkv, d_o) = (random(1, t * heads.row()), random(2, t * heads.output()));
        let (mut o, mut lse, mut d_qkv) = (vec![0f32; d_o.len()], vec![0f32; t * query], vec![0f32; qkv.len()]);
        packed::forward(&Team::alone(), heads, &qkv, &segments, &mut o, &mut lse);
        let kept = packed::Forward { qkv: &qkv, o: &o, lse: &lse };
        packed::backward(&Team::alone(), heads, kept, &segments, &d_o, &mut d_qkv);
        let expected: [(&[f32], f64); 3] = [(&o, BF16), (&lse, 1e-3), (&d_qkv, 2e-2)];
        check(&format!("attention of {heads:?} over {starts:?}"), &expected, |d| {
            let (qkv, d_o, o) = (up(d, &to_bf16(&qkv)), up(d, &to_bf16(&d_o)), empty(d, o.len()));
            let (lse, delta, d_qkv) = (empty(d, t * query), empty(d, t * query), empty(d, qkv.all().len()));
            let tiles = device_attention::upload_tiles(d, &segments).unwrap();
            device_attention::forward(heads, qkv.all(), tiles.all(), o.all(), lse.all()).unwrap();
            let kept = device_attention::Kept { qkv: qkv.all(), o: o.all(), lse: lse.all() };
            device_attention::backward(heads, kept, tiles.all(), d_o.all(), delta.all(), d_qkv.all()).unwrap();
            vec![down(o.all()), lse.all().read().unwrap(), down(d_qkv.all())]
        });
    }
}

fn step(count: u64) -> Step {
    Step { lr: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, scale: 0.5, count }
}

#[test]
fn adamw_agrees_with_its_twin_and_rounds_the_copy() {
    let n = 700;
    let (mut w, mut m, mut v) = (random(1, n), vec![0f32; n], vec![0f32; n]);
    let start = w.clone();
    let gradient = |count: u64| random(10 + count, n);
    (1..=3).for_each(|count| adamw::update(&Team::alone(), step(count), &mut w, &gradient(count), &mut m, &mut v));
    let copy = to_f32(&to_bf16(&w));
    let norm = [adamw::squared_norm(&Team::alone(), &gradient(3)) as f32];
    let expected: [(&[f32], f64); 5] = [(&w, FP32), (&copy, 1e-3), (&m, FP32), (&v, FP32), (&norm, 1e-7)];
    check("adamw", &expected, |d| {
        let (w, copy) = (up(d, &start), empty::<bf16>(d, n));
        let (m, v) = (d.zeros(Class::Optimizer, n).unwrap(), d.zeros(Class::Optimizer, n).unwrap());
        for count in 1..=3 {
            let moments = adamw::device::Moments::Full { m: m.all(), v: v.all() };
            adamw::device::update(step(count), w.all(), copy.all(), up(d, &gradient(count)).all(), moments).unwrap();
        }
        let read = |view: View<f32>| view.read().unwrap();
        let norm = adamw::device::squared_norm(d, up(d, &gradient(3)).all()).unwrap() as f32;
        vec![read(w.all()), down(copy.all()), read(m.all()), read(v.all()), vec![norm]]
    });
}

/// How far updates with moments of eight bits take the weights.
fn eight_bit(d: &Device, start: &[f32], updates: u64, gradient: &dyn Fn(u64) -> Vec<f32>) -> Vec<f32> {
    let n = start.len();
    let (w, copy, blocks) = (up(d, start), empty::<bf16>(d, n), n.div_ceil(adamw::MOMENT_BLOCK));
    let (m, v) = (d.zeros(Class::Optimizer, n).unwrap(), d.zeros(Class::Optimizer, n).unwrap());
    let largest = || d.zeros(Class::Optimizer, blocks).unwrap();
    let (m_largest, v_largest) = (largest(), largest());
    for count in 1..=updates {
        let (m, v) = (m.all(), v.all());
        let moments = adamw::device::Moments::EightBit { m, v, m_largest: m_largest.all(), v_largest: v_largest.all() };
        adamw::device::update(step(count), w.all(), copy.all(), up(d, &gradient(count)).all(), moments).unwrap();
    }
    w.all().read().unwrap().iter().zip(start).map(|(w, s)| w - s).collect()
}

/// The same by the CPU's full optimizer.
fn full(start: &[f32], updates: u64, gradient: &dyn Fn(u64) -> Vec<f32>) -> Vec<f32> {
    let n = start.len();
    let (mut w, mut m, mut v) = (start.to_vec(), vec![0f32; n], vec![0f32; n]);
    (1..=updates)
        .for_each(|count| adamw::update(&Team::alone(), step(count), &mut w, &gradient(count), &mut m, &mut v));
    w.iter().zip(start).map(|(w, s)| w - s).collect()
}

/// Eight bits hold a moment to a few percent, so the weights' way is the full optimizer's to as much: with gradients of
/// very different size side by side, and with ones that shrink by less than a code an update.
#[test]
fn adamw_with_moments_of_eight_bits_stays_near_the_full_one() {
    let start = random(1, 700);
    let uneven = |count: u64| -> Vec<f32> {
        random(10 + count, 700).iter().enumerate().map(|(i, g)| g * 10f32.powi(-(i as i32 % 4))).collect()
    };
    let shrinking =
        |count: u64| -> Vec<f32> { random(9, 700).iter().map(|g| g * 0.99f32.powi(count as i32)).collect() };
    check("uneven gradients", &[(&full(&start, 10, &uneven), 0.05)], |d| vec![eight_bit(d, &start, 10, &uneven)]);
    let expected = full(&start, 300, &shrinking);
    check("shrinking gradients", &[(&expected, 0.05)], |d| vec![eight_bit(d, &start, 300, &shrinking)]);
}

#[test]
fn running_out_of_memory_names_what_grew_and_what_to_set() {
    let Some(device) = device_of(0, 8 << 20) else { return };
    let weights = device.zeros::<f32>(Class::Weights, 1 << 20).unwrap();
    let error = device.zeros::<bf16>(Class::Activations, 3 << 20).unwrap_err().to_string();
    assert!(error.contains("activations asked for 6 MiB more"), "{error}");
    assert!(error.contains("weights 4 MiB") && error.contains("compute.micro_batch_tokens"), "{error}");
    drop(weights);
    assert_eq!(device.held(Class::Weights), 0);
    assert!(device.zeros::<bf16>(Class::Activations, 3 << 20).is_ok());
}

#[test]
fn a_grid_that_no_card_launches_is_refused() {
    let heads = Heads::alike(1 << 16, 1 << 16, 32);
    let Some(d) = device(0) else { return };
    let (qkv, o, lse) = (empty(&d, heads.row()), empty(&d, heads.output()), empty(&d, heads.query));
    let tiles = device_attention::upload_tiles(&d, &[Segment::alone(0..1)]).unwrap();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        device_attention::forward(heads, qkv.all(), tiles.all(), o.all(), lse.all())
    }));
    let message = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("a card launches no grid of"), "{message}");
}
