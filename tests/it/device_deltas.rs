//! Gated delta nets on a device, their kernels run on this machine's processor, against the CPU's.

use half::bf16;
use reckon::model::DeviceModel;
use reckon::ops::attention::Segment;
use reckon::ops::delta::{self, Delta, Gradients, Inputs, Scratch, device as on_device};
use reckon::ops::device::columns::{self, Rows};
use reckon::ops::device::{Buffer, Class, Device};
use reckon::ops::gate::{self, Gate, Gates};
use reckon::ops::linear::device::Weight;
use reckon::ops::rms_norm::{self, Kept, Vectors};
use reckon::ops::rope::{self, Parts, RopeTable};
use reckon::ops::team::Team;
use reckon::policy::{Model, Policy};
use reckon::rollout::Engine;

use super::device_lora::adapted;
use super::device_model::{TEMPERATURE, assert_gradients_near, distance, loss, rounded};
use super::device_sampling::model;
use super::host_device::{device, device_of};
use super::kernels::{BF16, FP32, check, down, empty, random, to_bf16, up};
use super::models::{DELTA, cpu, cpu_mut, generate_by, micros, prompts, samples, sampling};
use super::sampling::train_samples;

/// Keys that fill what kernels were compiled for and keys that do not, several value heads a key, values of more than a
/// warp and of more than one, a convolution of one token; with the lengths of sequences: one token, more than a stretch.
const CASES: [(Delta, &[usize]); 4] = [
    (Delta { key_heads: 2, value_heads: 4, key: 8, value: 16, taps: 4 }, &[5, 1, 300]),
    (Delta { key_heads: 1, value_heads: 4, key: 24, value: 40, taps: 2 }, &[1, 38]),
    (Delta { key_heads: 4, value_heads: 4, key: 56, value: 72, taps: 1 }, &[13]),
    (Delta { key_heads: 4, value_heads: 8, key: 128, value: 128, taps: 4 }, &[2, 9]),
];

/// What a layer reads; bf16 holds it exactly.
struct Layer {
    s: Delta,
    segments: Vec<Segment>,
    projected: Vec<f32>,
    taps: Vec<f32>,
    decay: Vec<f32>,
    step: Vec<f32>,
}

impl Layer {
    fn random(s: Delta, lengths: &[usize]) -> Self {
        let mut start = 0;
        let segments: Vec<Segment> = lengths
            .iter()
            .map(|length| {
                start += length;
                Segment::alone(start - length..start)
            })
            .collect();
        let half = |name, n| random(name, n).iter().map(|x| 0.5 * x).collect::<Vec<f32>>();
        Self {
            s,
            segments,
            projected: random(1, start * s.row()),
            taps: half(2, s.channels() * s.taps),
            decay: half(3, s.value_heads),
            step: half(4, s.value_heads),
        }
    }

    fn tokens(&self) -> usize {
        self.projected.len() / self.s.row()
    }

    fn weights(&self) -> delta::Weights<'_> {
        delta::Weights { taps: &self.taps, decay: &self.decay, step: &self.step }
    }

    fn outputs(&self) -> Vec<f32> {
        let mut o = vec![f32::NAN; self.tokens() * self.s.outputs()];
        let (team, inputs) = (&Team::alone(), &mut Inputs::default());
        delta::forward(team, self.s, self.weights(), &self.projected, &self.segments, inputs, &mut o);
        o
    }

    /// What it makes of `d_o`, beside gradients that weights have: of what was projected without its gates, and of taps,
    /// decays and steps.
    fn gradients(&self, d_o: &[f32], before: &[Vec<f32>; 3]) -> [Vec<f32>; 4] {
        let (mut d_projected, [mut taps, mut decay, mut step]) = (vec![0f32; self.projected.len()], before.clone());
        let gradients = Gradients { taps: Some(&mut taps), decay: Some(&mut decay), step: Some(&mut step) };
        let (memory, to) = ((&mut Inputs::default(), &mut Scratch::default()), (&mut d_projected[..], gradients));
        let rows = (&self.projected[..], &self.segments[..]);
        delta::backward(&Team::alone(), self.s, self.weights(), rows, memory, d_o, to);
        [without_gates(self.s, &d_projected), taps, decay, step]
    }
}

/// Projected rows without the gates of outputs, whose gradient is another's.
fn without_gates(s: Delta, projected: &[f32]) -> Vec<f32> {
    let gates = s.channels()..s.channels() + s.outputs();
    let rows = projected.chunks(s.row());
    rows.flat_map(|row| [&row[..gates.start], &row[gates.end..]].concat()).collect()
}

/// The weights of a layer on a device, and gradients that they have.
struct Weights {
    values: [Buffer<bf16>; 3],
    gradients: [Buffer<f32>; 3],
}

impl Weights {
    fn new(d: &Device, layer: &Layer, before: &[Vec<f32>; 3]) -> Self {
        let values = [&layer.taps, &layer.decay, &layer.step].map(|values| up(d, &to_bf16(values)));
        Self { values, gradients: before.each_ref().map(|before| up(d, before)) }
    }

    fn net<'a>(
        &'a self,
        s: Delta,
        sequences: &'a on_device::Sequences,
        states: Option<(&'a on_device::States, usize)>,
    ) -> on_device::Net<'a> {
        let [taps, decay, step] = [0, 1, 2].map(|i| Weight::trained(self.values[i].all(), self.gradients[i].all()));
        on_device::Net { s, weights: on_device::Weights { taps, decay, step }, sequences, states }
    }
}

/// Rows of inputs, poisoned.
fn inputs(d: &Device, s: Delta, t: usize) -> [Buffer<f32>; 2] {
    [empty(d, t * s.channels()), empty(d, t * s.gates())]
}

#[test]
fn outputs_of_states_and_all_of_their_gradients_agree_with_their_twin() {
    for (s, lengths) in CASES {
        let layer = Layer::random(s, lengths);
        let t = layer.tokens();
        let d_o = random(5, t * s.outputs());
        let before = [layer.taps.len(), s.value_heads, s.value_heads].map(|n| random(n as u64, n));
        let (o, [d_projected, taps, decay, step]) = (layer.outputs(), layer.gradients(&d_o, &before));
        let expected: [(&[f32], f64); 5] =
            [(&o, BF16), (&d_projected, BF16), (&taps, 1e-4), (&decay, 1e-4), (&step, 1e-4)];
        check(&format!("delta net of {s:?} over {lengths:?}"), &expected, |d| {
            let runs = layer.segments.iter().map(|segment| (segment.rows.clone(), None));
            let sequences = on_device::Sequences::new(d, Class::Activations, runs).unwrap();
            let (weights, projected) = (Weights::new(d, &layer, &before), up(d, &to_bf16(&layer.projected)));
            let (net, o) = (weights.net(s, &sequences, None), empty(d, t * s.outputs()));
            let [rows, gates] = inputs(d, s, t);
            let into = on_device::Inputs { rows: rows.all(), gates: gates.all() };
            net.forward(projected.all(), into, o.all()).unwrap();
            let [errors, gradients, d_gates, partial] =
                [t * s.outputs(), t * on_device::gradients(s), t * s.gates(), on_device::partial_len(s, t)]
                    .map(|len| empty(d, len));
            let scratch = on_device::Scratch {
                errors: errors.all(),
                gradients: gradients.all(),
                gates: d_gates.all(),
                partial: partial.all(),
            };
            let (d_o, d_projected) = (up(d, &to_bf16(&d_o)), empty(d, t * s.row()));
            net.backward(projected.all(), into, scratch, d_o.all(), d_projected.all()).unwrap();
            let d_projected = down(d_projected.all());
            let alone = |row: &[f32]| row[s.channels()..s.channels() + s.outputs()].iter().all(|x| x.is_nan());
            assert!(d_projected.chunks(s.row()).all(alone), "places of gates are left alone");
            let [taps, decay, step] = weights.gradients.each_ref().map(|gradient| gradient.all().read().unwrap());
            vec![down(o.all()), without_gates(s, &d_projected), taps, decay, step]
        });
    }
}

/// Two sequences, in pieces of which some come side by side; one goes on in another slot from a copy.
#[test]
fn a_token_has_the_same_bits_in_whole_sequences_and_in_pieces_that_go_on_from_states() {
    for (s, _) in CASES {
        let layer = Layer::random(s, &[7, 12]);
        let Some(d) = device(0) else { return };
        let weights = Weights::new(&d, &layer, &[1, 1, 1].map(|n| vec![0.0; n]));
        let advance = |rows: &[usize], runs: &[(usize, Option<usize>)], states: Option<(&on_device::States, usize)>| {
            let values = rows.iter().flat_map(|row| &layer.projected[row * s.row()..][..s.row()]);
            let projected = up(&d, &to_bf16(&values.copied().collect::<Vec<f32>>()));
            let mut first = 0;
            let runs = runs.iter().map(|&(count, slot)| {
                first += count;
                (first - count..first, slot)
            });
            let sequences = on_device::Sequences::new(&d, Class::Cache, runs.collect::<Vec<_>>()).unwrap();
            let ([of_rows, gates], o) = (inputs(&d, s, rows.len()), empty(&d, rows.len() * s.outputs()));
            let into = on_device::Inputs { rows: of_rows.all(), gates: gates.all() };
            let weights = on_device::Weights {
                taps: Weight::frozen(weights.values[0].all()),
                decay: Weight::frozen(weights.values[1].all()),
                step: Weight::frozen(weights.values[2].all()),
            };
            on_device::Net { s, weights, sequences: &sequences, states }
                .forward(projected.all(), into, o.all())
                .unwrap();
            let o = down(o.all());
            rows.iter().copied().zip(o.chunks(s.outputs()).map(<[f32]>::to_vec)).collect::<Vec<_>>()
        };
        let all: Vec<usize> = (0..19).collect();
        let whole = advance(&all, &[(7, None), (12, None)], None);
        let states = on_device::States::new(&d, s, 3, 3).unwrap();
        let place = Some((&states, 1));
        [0, 1].into_iter().for_each(|slot| states.clear(slot).unwrap());
        let mut pieces = advance(&all[..3], &[(3, Some(0))], place);
        states.copy(0, 2).unwrap();
        pieces.extend(advance(&[3, 4, 7, 8, 9, 10, 11], &[(2, Some(2)), (5, Some(1))], place));
        for (first, second) in [(5, 12), (6, 13)] {
            pieces.extend(advance(&[second, first], &[(1, Some(1)), (1, Some(2))], place));
        }
        pieces.extend(advance(&all[14..], &[(5, Some(1))], place));
        // The copy did not move what it was made of.
        assert_eq!(advance(&[3, 4], &[(2, Some(0))], place), whole[3..5], "{s:?}");
        pieces.sort_by_key(|(row, _)| *row);
        assert_eq!(pieces, whole, "{s:?}");
    }
}

#[test]
fn gates_multiply_as_their_twins_do_and_rows_come_out_from_between_them_and_go_back() {
    for (t, gate, places) in [
        (1, Gate::Silu, Gates { row: 40, first: 8, step: 16, count: 1, size: 16 }),
        (70, Gate::Silu, Gates { row: 72, first: 24, step: 40, count: 1, size: 40 }),
        (70, Gate::Sigmoid, Gates { row: 3 * 32 + 24, first: 16, step: 32, count: 3, size: 16 }),
    ] {
        let (team, n) = (&Team::alone(), t * places.count * places.size);
        let (gates, x, dy) = (random(1, t * places.row), random(2, n), random(3, n));
        let (mut y, mut d, mut d_gates) = (x.clone(), dy.clone(), gates.clone());
        gate::forward(team, gate, places, &gates, &mut y);
        gate::backward(team, gate, places, &gates, &x, &mut d, &mut d_gates);
        let expected: [(&[f32], f64); 4] = [(&y, BF16), (&y, BF16), (&d, BF16), (&d_gates, BF16)];
        check(&format!("{gate:?} of {t} x {places:?}"), &expected, |device| {
            let [gates, d_gates] = [0, 1].map(|_| up(device, &to_bf16(&gates)));
            let (x, d, y) = (up(device, &to_bf16(&x)), up(device, &to_bf16(&dy)), empty(device, n));
            gate::device::forward(gate, places, gates.all(), x.all(), y.all()).unwrap();
            gate::device::backward(gate, places, gates.all(), x.all(), d.all(), d_gates.all()).unwrap();
            gate::device::forward(gate, places, gates.all(), x.all(), x.all()).unwrap();
            vec![down(y.all()), down(x.all()), down(d.all()), down(d_gates.all())]
        });
    }
    // Three parts with gates behind each, then 24 values.
    let places = Gates { row: 3 * 32 + 24, first: 16, step: 32, count: 3, size: 16 };
    let (projected, width) = (random(4, 5 * places.row), places.row - 48);
    let is_gate = |column: usize| column < 96 && column % 32 >= 16;
    let rows: Vec<f32> =
        projected.iter().enumerate().filter(|(at, _)| !is_gate(at % places.row)).map(|(_, x)| *x).collect();
    let back: Vec<f32> =
        projected.iter().enumerate().map(|(at, x)| if is_gate(at % places.row) { *x } else { 2.0 * *x }).collect();
    let doubled: Vec<f32> = rows.iter().map(|x| 2.0 * x).collect();
    check("rows between gates", &[(&rows, 0.0), (&back, 0.0)], |d| {
        let (projected, taken, put) = (up(d, &to_bf16(&projected)), empty(d, rows.len()), up(d, &to_bf16(&doubled)));
        gate::device::without_gates(places, projected.all(), taken.all(), width).unwrap();
        gate::device::beside_gates(places, put.all(), projected.all(), width).unwrap();
        vec![down(taken.all()), down(projected.all())]
    });
}

#[test]
fn norms_around_one_and_heads_turned_in_part_agree_with_their_twins() {
    let (t, size, eps) = (9, 40, 1e-6);
    let (x, w, dy) = (random(1, t * size), random(2, size), random(3, t * size));
    let around_one: Vec<f32> = w.iter().map(|w| 1.0 + w).collect();
    let (team, vectors) = (&Team::alone(), Vectors::rows(size));
    let (mut y, mut dx, mut dw) = (vec![0f32; t * size], vec![0f32; t * size], vec![0f32; size]);
    rms_norm::forward(team, vectors, &x, &around_one, eps, &mut y);
    rms_norm::backward(team, vectors, Kept { x: &x, w: &around_one, eps }, &dy, &mut dx, Some(&mut dw));
    check("norm around one", &[(&y, BF16), (&dx, BF16), (&dw, FP32)], |d| {
        let (x, w, dy) = (up(d, &to_bf16(&x)), up(d, &to_bf16(&w)), up(d, &to_bf16(&dy)));
        let (y, dx, factors) = (empty(d, t * size), empty(d, t * size), empty(d, t));
        let (dw, partial) = (d.zeros(Class::Gradients, size).unwrap(), empty(d, columns::partial_len(size, t)));
        let (rows, norm) = (Rows::dense(size), Weight { around_one: true, ..Weight::frozen(w.all()) });
        rms_norm::device::forward(rows, x.all(), norm, y.all(), factors.all(), eps).unwrap();
        let kept = rms_norm::device::Kept { x: x.all(), w: norm.into(), factors: factors.all() };
        rms_norm::device::backward(rows, kept, dy.all(), dx.all(), false, Some(dw.all()), partial.all()).unwrap();
        vec![down(y.all()), down(dx.all()), dw.all().read().unwrap()]
    });
    let (row, positions, table) = (3 * 32 + 16, [5u32, 0, 63], RopeTable::new(64, &[1.0, 0.3, 0.1, 0.02]));
    let (x, parts) = (random(4, positions.len() * row), Parts { first: 0, step: 32, count: 3 });
    let mut turned = x.clone();
    table.rotate_parts(team, &mut turned, &positions, parts, row);
    check("a quarter of each head", &[(&turned, BF16)], |d| {
        let (cos, sin) = (up(d, table.tables().0), up(d, table.tables().1));
        let (x, positions) = (up(d, &to_bf16(&x)), up(d, &positions));
        let angles = rope::device::Angles { half: table.half(), pairs: table.pairs(), cos: cos.all(), sin: sin.all() };
        rope::device::rotate(angles, x.all(), positions.all(), parts, row, 1.0).unwrap();
        vec![down(x.all())]
    });
}

/// Of the family with all weights trained, and with an adapter. A norm of outputs near zero makes of what bf16 rounds a
/// tenth of a gradient: with more under its root it does not, and what is computed is the same.
fn policies() -> [(&'static str, Policy, f64); 2] {
    let mut all = [("all weights", rounded(DELTA, true), 0.03), ("an adapter", adapted(DELTA, 4, &["*_proj*"]), 0.04)];
    let targets = |name: &str| cpu(&all[1].1).parameters().trained_entries().iter().any(|e| e.name.contains(name));
    assert!(["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj", "q_proj"].into_iter().all(targets));
    all.iter_mut().for_each(|(_, policy, _)| cpu_mut(policy).decoder.eps = 0.1);
    all
}

#[test]
fn loss_and_gradients_of_a_whole_model_agree_with_the_cpu_whether_layers_are_kept_or_not() {
    for (what, mut policy, limit) in policies() {
        let micros = micros(&samples(4), 30);
        assert!(micros.len() > 1, "gradients of several micro-batches are added");
        let (gradient, losses) = cpu(&policy).gradients(&micros, TEMPERATURE, &loss);
        let mut first: Option<Vec<f32>> = None;
        for recompute in [false, true] {
            cpu_mut(&mut policy).decoder.recompute = recompute;
            let Some(device) = device(0) else { return };
            let model = model(&policy, device);
            for (micro, expected) in micros.iter().zip(&losses) {
                let (loss, expected) = (model.gradient(micro, TEMPERATURE, &loss).unwrap().loss, expected.loss);
                assert!((loss - expected).abs() < 0.01 * expected.abs(), "{what}: loss {loss}, not {expected}");
            }
            let got = model.trainable.gradients.all().read().unwrap();
            assert_gradients_near(what, &policy, &got, &gradient, [0.06, limit]);
            assert!(*first.get_or_insert(got.clone()) == got, "{what}: layers computed again have other bits");
            for (micro, expected) in micros.iter().zip(cpu(&policy).logprobs(None, &micros, TEMPERATURE)) {
                let stats = model.logprobs(None, micro, TEMPERATURE).unwrap();
                assert!(distance(&stats.logprobs, &expected.logprobs) < 0.01, "{what}: log-probabilities");
            }
        }
    }
}

/// Rows enter and leave all the time: there are fewer sequences than completions, and four of them share a prompt.
#[test]
fn log_probabilities_of_a_rollout_through_states_are_those_of_the_trainer_and_capacity_shows_nowhere() {
    // A card's products may add in another order for another number of rows: this holds where they are plain loops.
    let Some(device) = device_of(0, usize::MAX) else { return };
    for (what, policy, _) in policies() {
        let (model, prompts, sampling) = (model(&policy, device.clone()), prompts(4), sampling(9));
        let engine = |capacity| Engine { model: Model::Device(&model), ..Engine::of(&policy, capacity) };
        let completions = generate_by(&engine(5), &prompts, &sampling);
        for (a, b) in completions.iter().zip(generate_by(&engine(2), &prompts, &sampling)) {
            assert_eq!((&a.tokens, &a.logprobs, &a.text), (&b.tokens, &b.logprobs, &b.text), "{what}");
        }
        let micros = micros(&train_samples(&prompts, &completions), 60);
        for (micro, on_cpu) in micros.iter().zip(cpu(&policy).logprobs(None, &micros, sampling.temperature)) {
            let there = model.logprobs(None, micro, sampling.temperature).unwrap();
            for (side, logprobs) in [("the device", &there.logprobs), ("a CPU", &on_cpu.logprobs)] {
                let near = micro.old_logprobs.iter().zip(logprobs).all(|(a, b)| (a - b).abs() < 0.05);
                assert!(near, "{what}, trainer on {side}: {:?}, not {logprobs:?}", micro.old_logprobs);
            }
        }
    }
}

#[test]
fn sizes_of_states_without_kernels_are_refused_by_their_keys() {
    let Some(device) = device(0) else { return };
    let policy = rounded(DELTA, true);
    for (key, change) in [
        ("linear_key_head_dim = 12", (|s: &mut Delta| s.key = 12) as fn(&mut Delta)),
        ("linear_value_head_dim = 136", |s| s.value = 136),
        ("linear_num_value_heads = 2", |s| s.value_heads = 2),
    ] {
        let mut decoder = cpu(&policy).decoder.clone();
        change(decoder.delta.as_mut().unwrap());
        let refused = DeviceModel::new(device.clone(), &decoder, cpu(&policy).parameters());
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("multiple of"), "{error}");
    }
}
