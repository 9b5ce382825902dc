//! The recurrence against the book in f64, against difference quotients, and against itself in other pieces.

use super::*;
use reckon_datasets::Counted;

/// Two value heads a key, columns that are no whole registers, more than one register together and alone.
const SIZES: [Delta; 3] = [
    Delta { key_heads: 2, value_heads: 4, key: 6, value: 10, taps: 4 },
    Delta { key_heads: 1, value_heads: 2, key: 5, value: 83, taps: 2 },
    Delta { key_heads: 3, value_heads: 3, key: 8, value: 16, taps: 1 },
];

/// A prompt with three branches, one of them empty; a sequence by itself; a prompt with one branch longer than a chunk.
fn segments() -> Vec<Segment> {
    let branch = |prefix, rows| Segment { prefix, rows };
    vec![
        Segment::alone(0..5),
        branch(0..5, 5..8),
        branch(0..5, 8..8),
        branch(0..5, 8..15),
        Segment::alone(15..18),
        Segment::alone(18..20),
        branch(18..20, 20..90),
    ]
}

struct Layer {
    s: Delta,
    projected: Vec<f32>,
    taps: Vec<f32>,
    decay: Vec<f32>,
    step: Vec<f32>,
}

impl Layer {
    fn random(s: Delta, t: usize, seed: u64) -> Self {
        let mut random = Counted::new(&[seed]);
        let mut normal =
            |n: usize, scale: f64| -> Vec<f32> { (0..n).map(|_| (scale * random.normal()) as f32).collect() };
        let [projected, taps] = [normal(t * s.row(), 1.0), normal(s.channels() * s.taps, 0.6)];
        Self { s, projected, taps, decay: normal(s.value_heads, 0.5), step: normal(s.value_heads, 0.5) }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { taps: &self.taps, decay: &self.decay, step: &self.step }
    }

    fn rows(&self) -> usize {
        self.projected.len() / self.s.row()
    }

    fn forward(&self, team: &Team, segments: &[Segment]) -> Vec<f32> {
        let mut o = vec![f32::NAN; self.rows() * self.s.outputs()];
        forward(team, self.s, self.weights(), &self.projected, segments, &mut Inputs::default(), &mut o);
        o
    }

    /// The same values as a sequence of rows by the formulas, in f64.
    fn by_the_book(&self, sequence: &[usize]) -> Vec<Vec<f64>> {
        let s = self.s;
        let x = |row: usize, at: usize| f64::from(self.projected[row * s.row() + at]);
        let (mut states, mut outputs) = (vec![vec![vec![0f64; s.value]; s.key]; s.value_heads], Vec::new());
        for (t, &row) in sequence.iter().enumerate() {
            let channel = |c: usize| {
                let seen = (0..s.taps.min(t + 1))
                    .map(|back| f64::from(self.taps[c * s.taps + s.taps - 1 - back]) * x(sequence[t - back], c));
                let u: f64 = seen.sum();
                u / (1.0 + (-u).exp())
            };
            let all: Vec<f64> = (0..s.channels()).map(channel).collect();
            let unit = |part: &[f64]| {
                let length = (part.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                part.iter().map(|x| x / length).collect::<Vec<_>>()
            };
            let mut out = Vec::new();
            for (h, state) in states.iter_mut().enumerate() {
                let key_head = h / (s.value_heads / s.key_heads) * s.key;
                let query = unit(&all[key_head..][..s.key]);
                let key = unit(&all[s.key_heads * s.key + key_head..][..s.key]);
                let value = &all[2 * s.key_heads * s.key + h * s.value..][..s.value];
                let rate = 1.0 / (1.0 + (-x(row, s.channels() + s.outputs() + h)).exp());
                let step = x(row, s.channels() + s.outputs() + s.value_heads + h) + f64::from(self.step[h]);
                let decay = (-f64::from(self.decay[h]).exp() * step.exp().ln_1p()).exp();
                state.iter_mut().flatten().for_each(|x| *x *= decay);
                for v in 0..s.value {
                    let known: f64 = (0..s.key).map(|k| state[k][v] * key[k]).sum();
                    (0..s.key).for_each(|k| state[k][v] += key[k] * rate * (value[v] - known));
                    out.push((0..s.key).map(|k| state[k][v] * query[k]).sum::<f64>() / (s.key as f64).sqrt());
                }
            }
            outputs.push(out);
        }
        outputs
    }

    fn backward(&self, team: &Team, segments: &[Segment], d_o: &[f32]) -> [Vec<f32>; 4] {
        let s = self.s;
        let mut d_projected = vec![0f32; self.projected.len()];
        let [mut taps, mut decay, mut step] = [&self.taps, &self.decay, &self.step].map(|w| vec![0f32; w.len()]);
        let gradients = Gradients { taps: Some(&mut taps), decay: Some(&mut decay), step: Some(&mut step) };
        let memory = (&mut Inputs::default(), &mut Scratch::default());
        let (rows, to) = ((&self.projected[..], segments), (&mut d_projected[..], gradients));
        backward(team, s, self.weights(), rows, memory, d_o, to);
        [d_projected, taps, decay, step]
    }
}

#[test]
fn outputs_are_those_of_the_book_in_every_segment() {
    for s in SIZES {
        let layer = Layer::random(s, 90, 1);
        let o = layer.forward(&Team::alone(), &segments());
        for Segment { prefix, rows } in segments() {
            let sequence: Vec<usize> = prefix.chain(rows.clone()).collect();
            for (&row, expected) in sequence.iter().zip(layer.by_the_book(&sequence)) {
                for (got, expected) in o[row * s.outputs()..].iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < 2e-5, "{s:?}, row {row}: {got}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_packed_apart_and_token_by_token_on_any_threads() {
    for s in SIZES {
        let layer = Layer::random(s, 90, 2);
        let packed = layer.forward(&Team::alone(), &segments());
        Team::with(3, |team| assert_eq!(layer.forward(team, &segments()), packed));
        for cut in [1, 3, 100] {
            for Segment { prefix, rows } in segments() {
                let sequence: Vec<usize> = prefix.chain(rows).collect();
                let own: Vec<f32> =
                    sequence.iter().flat_map(|row| &layer.projected[row * s.row()..][..s.row()]).copied().collect();
                let mut state = vec![0f32; s.state()];
                let mut got = Vec::new();
                for rows in own.chunks(cut * s.row()) {
                    let count = rows.len() / s.row();
                    let mut o = vec![f32::NAN; count * s.outputs()];
                    let runs = vec![Run { rows: 0..count, state: &mut state }];
                    advance(&Team::alone(), s, layer.weights(), rows, runs, &mut Inputs::default(), &mut o);
                    got.extend(o);
                }
                let expected = sequence.iter().flat_map(|row| &packed[row * s.outputs()..][..s.outputs()]);
                assert_eq!(got, expected.copied().collect::<Vec<_>>(), "{s:?}, {cut} tokens at a time");
            }
        }
    }
}

#[test]
fn runs_side_by_side_move_each_its_own_state() {
    let s = SIZES[0];
    let layer = Layer::random(s, 6, 3);
    let packed = layer.forward(&Team::alone(), &[Segment::alone(0..4), Segment::alone(4..6)]);
    let (mut first, mut second) = (vec![0f32; s.state()], vec![0f32; s.state()]);
    let mut o = vec![f32::NAN; packed.len()];
    let runs = vec![Run { rows: 0..4, state: &mut first }, Run { rows: 4..6, state: &mut second }];
    Team::with(2, |team| {
        advance(team, s, layer.weights(), &layer.projected, runs, &mut Inputs::default(), &mut o);
    });
    assert_eq!(o, packed);
    assert_ne!(first, second);
}

#[test]
fn gradients_are_those_of_difference_quotients() {
    for s in SIZES {
        let mut layer = Layer::random(s, 90, 4);
        let mut random = Counted::new(&[5]);
        let d_o: Vec<f32> = (0..90 * s.outputs()).map(|_| random.normal() as f32).collect();
        let gradients = layer.backward(&Team::alone(), &segments(), &d_o);
        let total = |layer: &Layer| -> f64 {
            let o = layer.forward(&Team::alone(), &segments());
            o.iter().zip(&d_o).map(|(&o, &d)| f64::from(o) * f64::from(d)).sum()
        };
        // Along the gradient itself, so that every value enters; of the projections, for each of their kinds.
        let gates = s.channels() + s.outputs();
        let kinds = [0..s.keys(), s.keys()..2 * s.keys(), 2 * s.keys()..s.channels(), gates..gates + s.value_heads];
        let kinds = kinds.into_iter().chain(std::iter::once(gates + s.value_heads..s.row()));
        let all: Vec<usize> = (0..layer.projected.len()).collect();
        let mut parts: Vec<(usize, Vec<usize>)> =
            kinds.map(|kind| (0, all.iter().copied().filter(|at| kind.contains(&(at % s.row()))).collect())).collect();
        parts.extend((1..4).map(|which| (which, (0..gradients[which].len()).collect())));
        for (which, places) in parts {
            let gradient = &gradients[which];
            let norm = places.iter().map(|&at| f64::from(gradient[at]).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-3, "{s:?}, {which}");
            let step = 3e-3;
            let mut at = |sign: f64| {
                let Layer { projected, taps, decay, step: steps, .. } = &mut layer;
                let values = [projected, taps, decay, steps].into_iter().nth(which).unwrap();
                let saved = values.clone();
                for &place in &places {
                    values[place] += (sign * step / norm * f64::from(gradient[place])) as f32;
                }
                let value = total(&layer);
                *[&mut layer.projected, &mut layer.taps, &mut layer.decay, &mut layer.step][which] = saved;
                value
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            assert!((slope - norm).abs() < 5e-3 * norm, "{s:?}, part {which} of {}: {slope}, not {norm}", places.len());
        }
        Team::with(3, |team| assert_eq!(layer.backward(team, &segments(), &d_o), gradients, "on any threads"));
    }
}

#[test]
fn a_thread_holds_what_is_counted() {
    let s = Delta { key_heads: 1, value_heads: 2, key: 16, value: 32, taps: 2 };
    for (segments, rows) in [
        (vec![Segment::alone(0..300)], 300),
        (vec![Segment::alone(0..40), Segment { prefix: 0..40, rows: 40..300 }], 300),
    ] {
        let layer = Layer::random(s, rows, 6);
        let d_o = vec![1.0; rows * s.outputs()];
        let held = std::thread::scope(|scope| {
            let work = || {
                layer.backward(&Team::alone(), &segments, &d_o);
                backward::held()
            };
            scope.spawn(work).join().unwrap()
        });
        let counted = memory_of_thread(s, rows);
        assert!(held <= counted && held * 10 >= counted * 8, "{held} held, {counted} counted");
    }
}
