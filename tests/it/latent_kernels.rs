//! The operations of latent attention on a device, their kernels run on this machine's processor, against their CPU twins
//! in fp32; as in `kernels.rs`, whose helpers these are.

use std::ops::Range;

use half::bf16;
use reckon::ops::attention::cached::device::{Cache, Slot, Slots};
use reckon::ops::attention::latent::{self, Latent, device as on_device};
use reckon::ops::attention::{Segment, packed};
use reckon::ops::device::{Class, Device};
use reckon::ops::linear::device::{self as device_linear, Flat, LoraHidden, Weight};
use reckon::ops::linear::{Linear, LowRank, LowRankPlaces, PackedMatrix, Precision};
use reckon::ops::rope::{self, Pairs, Parts, RopeTable};
use reckon::ops::team::Team;

use super::host_device::device;
use super::kernels::{BF16, check, down, empty, random, to_bf16, up};

/// Sums in fp32 of what was rounded to bf16 between two products, which takes more than rounding a result.
const TWICE: f64 = 2e-2;

/// One head, heads that fill no warp, more values than a warp takes at a time.
const SIZES: [Latent; 3] = [
    Latent { heads: 1, plain: 8, rotated: 8, rank: 8, value: 8 },
    Latent { heads: 3, plain: 16, rotated: 8, rank: 24, value: 40 },
    Latent { heads: 6, plain: 24, rotated: 16, rank: 80, value: 16 },
];

#[test]
fn parts_of_rows_turn_on_a_device_as_on_a_cpu_whichever_pairs_they_are_of() {
    let (positions, row) = ([0u32, 5, 63, 1], 96);
    let frequencies: Vec<f64> = (0..8).map(|i| 0.3f64.powi(i)).collect();
    let x_before = random(4, positions.len() * row);
    for pairs in [Pairs::Halves, Pairs::Neighbours] {
        let table = RopeTable::new(64, &frequencies).turning(pairs).stretched(1.25);
        for (count, sign) in [(1, 1.0), (2, -1.0), (3, 1.0)] {
            let parts = Parts { first: 8, step: 32, count };
            let mut turned = x_before.clone();
            match sign > 0.0 {
                true => table.rotate_parts(&Team::alone(), &mut turned, &positions, parts, row),
                false => table.rotate_parts_back(&Team::alone(), &mut turned, &positions, parts, row),
            }
            check(&format!("{parts:?} of {pairs:?}"), &[(&turned, BF16)], |d| {
                let (cos, sin) = (up(d, table.tables().0), up(d, table.tables().1));
                let (x, positions) = (up(d, &to_bf16(&x_before)), up(d, &positions));
                let (half, pairs) = (table.half(), table.pairs());
                let angles = rope::device::Angles { half, pairs, cos: cos.all(), sin: sin.all() };
                rope::device::rotate(angles, x.all(), positions.all(), parts, row, sign).unwrap();
                let got = down(x.all());
                for (at, (got, before)) in got.iter().zip(&x_before).enumerate() {
                    let turned = (0..count).any(|part| (8 + 32 * part..24 + 32 * part).contains(&(at % row)));
                    assert!(turned || got == before, "value {at} is of no part");
                }
                vec![got]
            });
        }
    }
}

/// What is trained of the matrix that expands latents: all of it, nothing, or an addition to it of some rank.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trained {
    All,
    Nothing,
    Addition(usize),
}

const FACTOR: f32 = 0.75;
const SCALE: f32 = 0.5;

/// The matrix with what is trained of it, and inputs of both directions for some tokens.
struct Case {
    s: Latent,
    t: usize,
    trained: Trained,
    w: Vec<f32>,
    adapter: Vec<f32>,
    before: Vec<f32>,
    inputs: Vec<f32>,
}

impl Case {
    fn new(s: Latent, t: usize, trained: Trained) -> Self {
        let w = random(1, s.heads * (s.plain + s.value) * s.rank);
        let rank = if let Trained::Addition(rank) = trained { rank } else { 0 };
        let adapter = random(2, rank * (s.rank + s.heads * (s.plain + s.value)));
        let before = random(3, if trained == Trained::All { w.len() } else { adapter.len() });
        let inputs = random(4, t * s.heads * (3 * s.rank + s.plain + 2 * s.rotated + s.value + 100));
        Self { s, t, trained, w, adapter, before, inputs }
    }

    fn places(&self, rank: usize) -> LowRankPlaces {
        let a = 0..rank * self.s.rank;
        LowRankPlaces { a: a.clone(), parts: vec![(0, a.end..self.adapter.len())] }
    }

    /// `width` values a token, which differ from name to name.
    fn input(&self, name: usize, width: usize) -> &[f32] {
        &self.inputs[name * 8..][..self.t * width]
    }

    fn queries(&self) -> &[f32] {
        self.input(0, self.s.queries())
    }

    fn d_absorbed(&self) -> &[f32] {
        self.input(1, self.s.heads * self.s.compressed())
    }

    fn attended(&self) -> &[f32] {
        self.input(2, self.s.heads * self.s.rank)
    }

    fn d_values(&self) -> &[f32] {
        self.input(3, self.s.outputs())
    }

    /// Absorbed queries, the gradient of queries, outputs of heads, the gradient of sums, and that of what is trained.
    fn on_cpu(&self) -> [Vec<f32>; 5] {
        let (team, s, t) = (&Team::alone(), self.s, self.t);
        let packed = PackedMatrix::new(team, &self.w, s.rank, Precision::Fp32);
        let expand = match self.trained {
            Trained::All => Linear::trained(&packed, &self.w, 0..self.w.len()),
            Trained::Nothing => Linear::frozen(&packed, None),
            Trained::Addition(rank) => {
                let places = self.places(rank);
                let adapter = LowRank::new(&self.adapter, &places, rank, SCALE, Precision::Fp32);
                Linear::frozen(&packed, Some(adapter))
            }
        };
        let (row, absorbed) = (s.attention().row(), s.heads * s.compressed());
        let queries: Vec<f32> = self.queries().iter().map(|x| x * FACTOR).collect();
        let (compressed, mut rows) = (vec![0f32; t * s.compressed()], vec![0f32; t * row]);
        latent::absorb(team, s, &expand, &queries, &compressed, &mut rows);
        let mut d_rows = vec![0f32; t * row];
        for (to, from) in d_rows.chunks_mut(row).zip(self.d_absorbed().chunks(absorbed)) {
            to[..absorbed].copy_from_slice(from);
        }
        let (mut d_queries, mut d_compressed, mut g) =
            (vec![0f32; queries.len()], compressed.clone(), self.before.clone());
        latent::absorb_backward(team, s, &expand, (&queries, &d_rows), &mut d_queries, &mut d_compressed, &mut g);
        d_queries.iter_mut().for_each(|d| *d *= FACTOR);
        let (mut values, mut d_attended) = (vec![0f32; t * s.outputs()], vec![0f32; self.attended().len()]);
        latent::expand(team, s, &expand, self.attended(), &mut values);
        latent::expand_backward(team, s, &expand, (self.attended(), self.d_values()), &mut d_attended, &mut g);
        let rows = rows.chunks(row).flat_map(|row| row[..absorbed].to_vec()).collect();
        [rows, d_queries, values, d_attended, g]
    }

    fn on(&self, d: &Device) -> Vec<Vec<f32>> {
        let (s, bf16s) = (self.s, |values: &[f32]| up(d, &to_bf16(values)));
        let (w, adapter, g) = (bf16s(&self.w), bf16s(&self.adapter), up(d, &self.before));
        let expand = match self.trained {
            Trained::All => device_linear::Linear::new(Weight::trained(w.all(), g.all()), s.rank, None),
            Trained::Nothing => device_linear::Linear::new(Weight::frozen(w.all()), s.rank, None),
            Trained::Addition(rank) => {
                let flat = Flat { values: adapter.all(), gradients: Some(g.all()) };
                let addition = device_linear::LowRank::new(flat, &self.places(rank), rank, SCALE);
                device_linear::Linear::new(Weight::frozen(w.all()), s.rank, Some(addition))
            }
        };
        // Room for all heads of an addition of rank 3, and for two of rank 8.
        let (hidden, d_hidden) = (empty(d, self.t * 20), empty(d, self.t * 20));
        let lora = LoraHidden { values: hidden.all(), gradient: d_hidden.all() };
        let (queries, d_absorbed) = (bf16s(self.queries()), bf16s(self.d_absorbed()));
        let (attended, d_values) = (bf16s(self.attended()), bf16s(self.d_values()));
        let (absorbed, d_queries) = (empty(d, self.d_absorbed().len()), empty(d, self.queries().len()));
        let (values, d_attended) = (empty(d, self.d_values().len()), empty(d, self.attended().len()));
        on_device::absorb(s, &expand, FACTOR, queries.all(), absorbed.all(), hidden.all()).unwrap();
        let both = (queries.all(), d_absorbed.all());
        on_device::absorb_backward(s, &expand, FACTOR, both, d_queries.all(), lora).unwrap();
        on_device::expand(s, &expand, attended.all(), values.all(), hidden.all()).unwrap();
        on_device::expand_backward(s, &expand, (attended.all(), d_values.all()), d_attended.all(), lora).unwrap();
        let bf16s = [&absorbed, &d_queries, &values, &d_attended].map(|buffer| down(buffer.all()));
        bf16s.into_iter().chain([g.all().read().unwrap()]).collect()
    }
}

#[test]
fn queries_are_absorbed_and_sums_expanded_as_on_a_cpu_whatever_is_trained_of_the_matrix() {
    for (s, t) in SIZES.into_iter().flat_map(|s| [1, 7, 40].map(|t| (s, t))) {
        for trained in [Trained::All, Trained::Nothing, Trained::Addition(3), Trained::Addition(8)] {
            let case = Case::new(s, t, trained);
            let expected = case.on_cpu();
            let limits = [BF16, BF16, BF16, BF16, if trained == Trained::All { 1e-5 } else { TWICE }];
            let expected: Vec<(&[f32], f64)> = expected.iter().map(Vec::as_slice).zip(limits).collect();
            check(&format!("{s:?}, {t} tokens, {trained:?}"), &expected, |d| case.on(d));
        }
    }
}

/// Queries and keys of `t` tokens, and the rows of the attention that have them as a CPU takes them.
fn rows(s: Latent, t: usize) -> [Vec<f32>; 3] {
    let (size, absorbed) = (s.compressed(), s.heads * s.compressed());
    let (queries, keys) = (random(1, t * absorbed), random(2, t * size));
    let all = queries.chunks(absorbed).zip(keys.chunks(size));
    let rows = all.flat_map(|(queries, key)| [queries, key, &key[..s.rank]].concat()).collect();
    [queries, keys, rows]
}

fn alone(lengths: &[usize]) -> Vec<Segment> {
    let starts = lengths.iter().scan(0, |start, &length| {
        *start += length;
        Some(*start - length)
    });
    starts.zip(lengths).map(|(start, length)| Segment::alone(start..start + length)).collect()
}

fn attended(s: Latent, rows: &[f32], segments: &[Segment]) -> [Vec<f32>; 2] {
    let (heads, t) = (s.attention(), rows.len() / s.attention().row());
    let (mut o, mut lse) = (vec![0f32; t * heads.output()], vec![0f32; t * heads.query]);
    packed::forward(&Team::alone(), heads, rows, segments, &mut o, &mut lse);
    [o, lse]
}

#[test]
fn attention_over_latents_agrees_with_the_packed_one_however_many_queries_there_is_room_for() {
    for (s, lengths) in SIZES.into_iter().zip([&[1usize][..], &[70, 1, 33], &[17, 40]]) {
        let (t, heads, size) = (lengths.iter().sum::<usize>(), s.attention(), s.compressed());
        let ([queries, keys, qkv], segments) = (rows(s, t), alone(lengths));
        let ([o, lse], d_o) = (attended(s, &qkv, &segments), random(3, t * heads.output()));
        let mut d_rows = vec![0f32; qkv.len()];
        let kept = packed::Forward { qkv: &qkv, o: &o, lse: &lse };
        packed::backward(&Team::alone(), heads, kept, &segments, &d_o, &mut d_rows);
        let absorbed = s.heads * size;
        let d_queries: Vec<f32> = d_rows.chunks(heads.row()).flat_map(|row| row[..absorbed].to_vec()).collect();
        let d_keys = d_rows.chunks(heads.row()).flat_map(|row| {
            let (key, value) = row[absorbed..].split_at(size);
            let both = key.iter().enumerate().map(|(i, d)| d + value.get(i).unwrap_or(&0.0));
            both.collect::<Vec<f32>>()
        });
        let d_keys: Vec<f32> = d_keys.collect();
        let expected: [(&[f32], f64); 4] = [(&o, BF16), (&lse, 1e-3), (&d_queries, TWICE), (&d_keys, TWICE)];
        let longest = *lengths.iter().max().unwrap();
        for room in [1, 3, 16, longest] {
            check(&format!("{s:?} over {lengths:?}, {room} queries at a time"), &expected, |d| {
                let len = on_device::scratch_len(s, room, longest);
                let [scores, gradients] = [0; 2].map(|_| on_device::Scratch::new(d, Class::Activations, len).unwrap());
                let (queries, keys, d_o) = (up(d, &to_bf16(&queries)), up(d, &to_bf16(&keys)), up(d, &to_bf16(&d_o)));
                let (o, lse) = (empty(d, o.len()), empty(d, lse.len()));
                let (d_queries, d_keys) = (empty(d, t * absorbed), empty(d, t * size));
                let (delta, wide) = (empty(d, t * s.heads), empty(d, t * size));
                let both = (queries.all(), keys.all());
                on_device::forward(s, both, &segments, &scores, o.all(), lse.all()).unwrap();
                let kept = on_device::Kept { queries: queries.all(), keys: keys.all(), o: o.all(), lse: lse.all() };
                let scratch = on_device::BackwardScratch {
                    scores: &scores,
                    gradients: &gradients,
                    delta: delta.all(),
                    keys: wide.all(),
                };
                let gradients = (d_queries.all(), d_keys.all());
                on_device::backward(s, kept, &segments, d_o.all(), scratch, gradients).unwrap();
                vec![down(o.all()), lse.all().read().unwrap(), down(d_queries.all()), down(d_keys.all())]
            });
        }
    }
}

/// Puts whole sequences into the cache, one copied from another, and attends from the last tokens of those that `tails`
/// names.
fn attend(d: &Device, s: Latent, lengths: &[usize], tails: &[(usize, Range<usize>)], room: usize) -> Vec<f32> {
    let (layers, layer, longest) = (2, 1, *lengths.iter().max().unwrap());
    let ([queries, keys, _], segments) = (rows(s, lengths.iter().sum()), alone(lengths));
    let cache = Cache::of_latents(d, s, layers, lengths.len() + 1, longest + 3).unwrap();
    // The first sequence comes to its place by way of another.
    let place = |sequence: usize| if sequence == 0 { lengths.len() } else { sequence };
    let slots = |sequence: usize, positions: Range<usize>| positions.map(move |position| (sequence, position));
    let all = lengths.iter().enumerate().flat_map(|(sequence, &length)| slots(place(sequence), 0..length));
    let all: Vec<Slot> = all.map(|(sequence, position)| cache.slot(sequence, position)).collect();
    cache.put_latents(layer, up(d, &to_bf16(&keys)).all(), up(d, &all).all()).unwrap();
    cache.copy(place(0), 0, lengths[0]).unwrap();
    let (mut of_rows, mut known) = (Vec::<bf16>::new(), Vec::<Slot>::new());
    for (sequence, tail) in tails {
        let width = s.heads * s.compressed();
        let start = segments[*sequence].rows.start;
        of_rows.extend(to_bf16(&queries[(start + tail.start) * width..(start + tail.end) * width]));
        known.extend(slots(*sequence, tail.clone()).map(|(sequence, position)| cache.slot(sequence, position)));
    }
    let scratch = on_device::Scratch::new(d, Class::Cache, on_device::scratch_len(s, room, longest)).unwrap();
    let (queries, there, o) = (up(d, &of_rows), up(d, &known), empty(d, known.len() * s.heads * s.rank));
    let slots = Slots { known: &known, there: there.all() };
    on_device::cached(s, (&cache, layer), queries.all(), slots, &scratch, o.all()).unwrap();
    down(o.all())
}

#[test]
fn a_row_over_cached_latents_is_the_packed_one_alone_or_with_others_or_with_those_before_it() {
    for (s, lengths) in SIZES.into_iter().zip([&[1usize, 3][..], &[70, 1, 33], &[300, 16, 40]]) {
        let [_, _, qkv] = rows(s, lengths.iter().sum());
        let ([o, _], width) = (attended(s, &qkv, &alone(lengths)), s.heads * s.rank);
        // The last token of each sequence, and two more of the last one before.
        let mut tails: Vec<(usize, Range<usize>)> =
            lengths.iter().enumerate().map(|(sequence, &length)| (sequence, length - 1..length)).collect();
        tails.last_mut().unwrap().1.start -= 2;
        let starts: Vec<usize> = alone(lengths).iter().map(|segment| segment.rows.start).collect();
        let expected: Vec<f32> = tails
            .iter()
            .flat_map(|(sequence, tail)| {
                let start = starts[*sequence];
                o[(start + tail.start) * width..(start + tail.end) * width].to_vec()
            })
            .collect();
        check(&format!("cached latents of {s:?} over {lengths:?}"), &[(&expected, BF16)], |d| {
            let together = attend(d, s, lengths, &tails, 16);
            assert_eq!(attend(d, s, lengths, &tails, 1), together, "a row at a time");
            let rows = tails.iter().flat_map(|(sequence, tail)| tail.clone().map(|at| (*sequence, at..at + 1)));
            for (row, together) in rows.zip(together.chunks(width)) {
                assert_eq!(attend(d, s, lengths, std::slice::from_ref(&row), 2), together, "{row:?} alone");
            }
            vec![together]
        });
    }
}

#[test]
fn a_cache_of_latents_on_a_device_holds_one_latent_and_its_rotated_part_a_token_and_layer() {
    let Some(d) = device(0) else { return };
    for (s, layers, sequences, length) in [(SIZES[1], 3, 5, 70), (SIZES[2], 2, 1, 9)] {
        let before = d.held(Class::Cache);
        let _cache = Cache::of_latents(&d, s, layers, sequences, length).unwrap();
        let bytes = 2 * layers * sequences * length * (s.rank + s.rotated);
        assert_eq!(d.held(Class::Cache) - before, bytes, "{s:?}");
    }
}
