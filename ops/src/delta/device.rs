//! The gated delta net on a device: launches of `kernel.cu`, and the states of sequences that are sampled.
//!
//! A thread takes a column of a head's state through a whole sequence, as in `rule.rs`, in training as in decoding. The
//! backward keeps no states. With `D` the gradient of the state after a token, as in [`backward`](mod@super::backward):
//! the forward once more, of which each token's `e` stays; from the last token to the first, `D` alone, which gives `d_v`,
//! `d_b` and `D e` of the key's gradient; and the states once more, which give `d_q` and the rest, `-b S' d_e`. The
//! gradient of the logarithm of a decay is the next token's plus `q d_q - v d_v`, as in [`chunk`](super::chunk).
#![allow(unsafe_code)] // each launch's lengths are checked before it

use std::ops::Range;

use anyhow::{Result, ensure};
use half::bf16;

use super::Delta;
use crate::device::columns::{self, STRETCH, THREADS, WARP_ROWS, add_stretches};
use crate::device::{Buffer, Class, Device, Launch, Null, View};
use crate::linear::device::Weight;

/// Values of a key that the kernels were compiled for; shorter ones take the next.
const KEYS: [usize; 4] = [16, 32, 64, 128];
/// Columns that a block of the forward takes.
const COLUMNS: usize = 32;
/// Where no state is kept.
const NONE: u32 = u32::MAX;

/// Refuses sizes that no kernel was compiled for, by their names in a model's `config.json`.
pub fn check(s: Delta) -> Result<()> {
    for (name, size) in [("linear_key_head_dim", s.key), ("linear_value_head_dim", s.value)] {
        ensure!(
            size.is_multiple_of(8) && size <= 128,
            "{name} = {size} has no CUDA kernels: it must be a multiple of 8, and at most 128"
        );
    }
    ensure!(
        s.value_heads.is_multiple_of(4),
        "linear_num_value_heads = {} has no CUDA kernels: it must be a multiple of 4",
        s.value_heads
    );
    Ok(())
}

/// Values of a token's gradients between the kernels: of query, key and value of each value head.
pub fn gradients(s: Delta) -> usize {
    s.value_heads * (2 * s.key + s.value)
}

/// Values of scratch that the sums of the gradients of weights over `t` tokens take.
pub fn partial_len(s: Delta, t: usize) -> usize {
    columns::partial_len(s.channels() * s.taps, t).max(2 * columns::partial_len(s.value_heads, t))
}

/// Bytes that a layer's state of a sequence takes.
pub fn state_bytes(s: Delta) -> usize {
    4 * recurrent(s) + 2 * tail(s)
}

/// Values of the states of all heads `(Hv, Dk, Dv)`.
fn recurrent(s: Delta) -> usize {
    s.value_heads * s.key * s.value
}

/// Values that the convolution still sees `(W - 1, C)`.
fn tail(s: Delta) -> usize {
    (s.taps - 1) * s.channels()
}

/// Which rows are of one sequence, on the device.
#[derive(Debug)]
pub struct Sequences {
    /// First row, rows, and where the state is kept.
    runs: Buffer<[u32; 3]>,
    /// Of each row its place among them, and where the state is kept.
    places: Buffer<[u32; 2]>,
}

impl Sequences {
    /// Runs of rows, end to end, each of a sequence that begins with it or goes on from the state in a slot.
    pub fn new(
        device: &Device,
        class: Class,
        runs: impl IntoIterator<Item = (Range<usize>, Option<usize>)>,
    ) -> Result<Self> {
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for (rows, slot) in runs {
            assert_eq!(rows.start, places.len(), "runs lie end to end");
            let slot = slot.map_or(NONE, |slot| slot as u32);
            places.extend((0..rows.len() as u32).map(|place| [place, slot]));
            if !rows.is_empty() {
                all.push([rows.start as u32, rows.len() as u32, slot]);
            }
        }
        Ok(Self { runs: device.upload(class, &all)?, places: device.upload(class, &places)? })
    }

    fn count(&self) -> usize {
        self.runs.all().len()
    }
}

/// The states of sequences in every layer that has some, each in a slot: fp32, and bf16 of what convolutions still see.
#[derive(Debug)]
pub struct States {
    s: Delta,
    layers: usize,
    /// `(slots, layers, Hv, Dk, Dv)`.
    recurrent: Buffer<f32>,
    /// `(slots, layers, W - 1, C)`.
    tails: Buffer<bf16>,
}

impl States {
    /// Slots for `slots` sequences.
    pub fn new(device: &Device, s: Delta, layers: usize, slots: usize) -> Result<Self> {
        let recurrent = device.buffer(Class::Cache, slots * layers * recurrent(s))?;
        Ok(Self { s, layers, recurrent, tails: device.buffer(Class::Cache, slots * layers * tail(s))? })
    }

    fn slot(&self, slot: usize) -> (View<'_, f32>, View<'_, bf16>) {
        let place = |values: usize| slot * self.layers * values..(slot + 1) * self.layers * values;
        (self.recurrent.part(place(recurrent(self.s))), self.tails.part(place(tail(self.s))))
    }

    /// Makes a slot's states those before a sequence.
    pub fn clear(&self, slot: usize) -> Result<()> {
        let (recurrent, tails) = self.slot(slot);
        recurrent.zero()?;
        tails.zero()
    }

    /// Makes the states of slot `to` those of `from`, another.
    pub fn copy(&self, from: usize, to: usize) -> Result<()> {
        assert_ne!(from, to, "a slot is copied to another");
        let ((recurrent, tails), (to_recurrent, to_tails)) = (self.slot(from), self.slot(to));
        to_recurrent.copy(recurrent)?;
        to_tails.copy(tails)
    }

    /// Of a layer: where the states of the first slot begin.
    fn of_layer(&self, layer: usize) -> (View<'_, f32>, View<'_, bf16>) {
        assert!(layer < self.layers, "layer {layer} of {} has states", self.layers);
        let (recurrent, tails) = (self.recurrent.all(), self.tails.all());
        let starts = (layer * self::recurrent(self.s), layer * tail(self.s));
        (recurrent.part(starts.0..recurrent.len()), tails.part(starts.1..tails.len()))
    }
}

/// What beside projections enters.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Taps of each channel `(C, W)`, the oldest first.
    pub taps: Weight<'a>,
    /// `A` of each value head.
    pub decay: Weight<'a>,
    /// `t` of each value head.
    pub step: Weight<'a>,
}

/// What of a layer is computed again where it is needed.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Queries and keys of length one, and values `(T, C)`.
    pub rows: View<'a, f32>,
    /// Decays, then rates `(T, 2 Hv)`.
    pub gates: View<'a, f32>,
}

/// What a backward works in.
#[derive(Debug, Clone, Copy)]
pub struct Scratch<'a> {
    /// What each token writes `(T, Hv Dv)`.
    pub errors: View<'a, f32>,
    /// Of [`gradients`] values a token.
    pub gradients: View<'a, f32>,
    /// Gradients of decays and rates `(T, 2 Hv)`.
    pub gates: View<'a, f32>,
    /// Of [`partial_len`] values.
    pub partial: View<'a, f32>,
}

/// A delta net over sequences.
#[derive(Clone, Copy)]
pub struct Net<'a> {
    /// Its sizes, which [`check`] let pass.
    pub s: Delta,
    /// Its weights.
    pub weights: Weights<'a>,
    /// The sequences.
    pub sequences: &'a Sequences,
    /// The states that they go on from, and which layer this is of them; they are moved.
    pub states: Option<(&'a States, usize)>,
}

impl Net<'_> {
    fn shape(&self) -> [u32; 6] {
        let Delta { key_heads, value_heads, key, value, taps } = self.s;
        [key_heads, value_heads, key, value, taps, self.s.row()].map(|n| n as u32)
    }

    /// How many tokens there are, once the lengths of what is computed in are checked.
    fn tokens(&self, projected: View<bf16>, Inputs { rows, gates }: Inputs) -> usize {
        let (s, t) = (self.s, self.sequences.places.all().len());
        assert_eq!(projected.len(), t * s.row(), "rows that are projected");
        assert_eq!((rows.len(), gates.len()), (t * s.channels(), t * s.gates()), "rows of inputs");
        let Weights { taps, decay, step } = self.weights;
        assert_eq!(
            (taps.values.len(), decay.values.len(), step.values.len()),
            (s.channels() * s.taps, s.value_heads, s.value_heads),
            "weights of the layer's sizes"
        );
        t
    }

    /// `projected (T, row)` -> `o (T, Hv Dv)`; states move, if there are any.
    pub fn forward(&self, projected: View<bf16>, inputs: Inputs, o: View<bf16>) -> Result<()> {
        assert_eq!(o.len() * self.s.row(), projected.len() * self.s.outputs(), "rows of outputs");
        self.prepare(projected, inputs)?;
        let launch = self.advance(inputs).arg(o).arg(Null).arg(self.shape());
        // SAFETY: lengths are checked above; rows and slots are of the sequences.
        unsafe { o.device().launch(&launch)? };
        let Some((states, layer)) = self.states else { return Ok(()) };
        let (_, tails) = states.of_layer(layer);
        let grid = [self.s.channels().div_ceil(THREADS), self.sequences.count(), 1];
        let launch = Launch::new("delta_leave", grid, 256).arg(projected).arg(self.sequences.runs.all());
        let launch = launch.arg(tails).arg((states.layers * tail(self.s)) as u64).arg(self.shape());
        // SAFETY: as above.
        unsafe { o.device().launch(&launch) }
    }

    /// What of a forward is cheap to compute again.
    fn prepare(&self, projected: View<bf16>, inputs: Inputs) -> Result<()> {
        let (s, t, places) = (self.s, self.tokens(projected, inputs), self.sequences.places.all());
        let launch = Launch::new("delta_inputs", self.vectors(t), 128).arg(projected).arg(self.weights.taps.values);
        let launch = match self.states {
            None => launch.arg(places).arg(Null).arg(0u64),
            Some((states, layer)) => {
                launch.arg(places).arg(states.of_layer(layer).1).arg((states.layers * tail(s)) as u64)
            }
        };
        let rows = launch.arg(inputs.rows).arg(t as u32).arg(self.shape());
        let launch = Launch::new("delta_gates", self.heads(t), 256).arg(projected).arg(self.weights.decay.values);
        let gates = launch.arg(self.weights.step.values).arg(inputs.gates).arg(t as u32).arg(self.shape());
        // SAFETY: lengths are checked above.
        unsafe {
            projected.device().launch(&rows)?;
            projected.device().launch(&gates)
        }
    }

    /// The grid of a kernel with a warp for each query, key and value of `t` tokens.
    fn vectors(&self, t: usize) -> [usize; 3] {
        [(t * (2 * self.s.key_heads + self.s.value_heads)).div_ceil(WARP_ROWS), 1, 1]
    }

    /// The grid of one with a thread for each value head of `t` tokens.
    fn heads(&self, t: usize) -> [usize; 3] {
        [(t * self.s.value_heads).div_ceil(THREADS), 1, 1]
    }

    /// The kernel of some that there is for each of [`KEYS`].
    fn kernel(&self, of_keys: [&'static str; KEYS.len()]) -> &'static str {
        let index = KEYS.iter().position(|&key| self.s.key <= key);
        of_keys[index.expect("sizes are checked when the model comes to the device")]
    }

    /// The forward of the states, but for what it writes.
    fn advance(&self, inputs: Inputs) -> Launch {
        let kernels = ["delta_advance_16", "delta_advance_32", "delta_advance_64", "delta_advance_128"];
        let grid = [self.sequences.count(), self.s.value_heads, self.s.value.div_ceil(COLUMNS)];
        let launch = Launch::new(self.kernel(kernels), grid, COLUMNS as u32).arg(inputs.rows).arg(inputs.gates);
        let launch = launch.arg(self.sequences.runs.all());
        match self.states {
            None => launch.arg(Null).arg(0u64),
            Some((states, layer)) => {
                launch.arg(states.of_layer(layer).0).arg((states.layers * recurrent(self.s)) as u64)
            }
        }
    }

    /// `d_o (T, Hv Dv)` -> the channels, rates and decays of `d_projected (T, row)`, written, and the gradients of what is
    /// trained. Of whole sequences.
    pub fn backward(
        &self,
        projected: View<bf16>,
        inputs: Inputs,
        scratch: Scratch,
        d_o: View<bf16>,
        d_projected: View<bf16>,
    ) -> Result<()> {
        assert!(self.states.is_none(), "a backward is of sequences that begin here");
        let (s, t) = (self.s, self.tokens(projected, inputs));
        assert_eq!((d_o.len(), d_projected.len()), (t * s.outputs(), projected.len()), "rows of gradients");
        let lengths = (scratch.errors.len(), scratch.gradients.len(), scratch.gates.len());
        assert_eq!(lengths, (t * s.outputs(), t * gradients(s), t * s.gates()), "rows of scratch");
        assert!(scratch.partial.len() >= partial_len(s, t), "too little scratch for the sums of columns");
        self.prepare(projected, inputs)?;
        self.states_backward(inputs, scratch, d_o)?;
        self.gates_backward(projected, inputs, scratch, d_projected)?;
        self.inputs_backward(projected, inputs, scratch, d_projected)
    }

    /// To gradients of each value head's queries, keys and values, and of the logarithms of decays and rates.
    fn states_backward(&self, inputs: Inputs, scratch: Scratch, d_o: View<bf16>) -> Result<()> {
        let (s, t, runs) = (self.s, d_o.len() / self.s.outputs(), self.sequences.runs.all());
        let Scratch { errors, gradients, gates, .. } = scratch;
        let (across, threads) = ([self.sequences.count(), s.value_heads, 1], s.value.next_multiple_of(32) as u32);
        let both = |kernels| {
            let launch = Launch::new(self.kernel(kernels), across, threads).arg(inputs.rows).arg(inputs.gates);
            launch.arg(runs).arg(errors).arg(d_o).arg(gradients)
        };
        let launches = [
            self.advance(inputs).arg(Null).arg(errors),
            both(["delta_back_16", "delta_back_32", "delta_back_64", "delta_back_128"]).arg(gates),
            both(["delta_again_16", "delta_again_32", "delta_again_64", "delta_again_128"]),
            Launch::new("delta_decay_terms", [(t * s.value_heads).div_ceil(WARP_ROWS), 1, 1], 128)
                .arg(inputs.rows)
                .arg(gradients)
                .arg(gates)
                .arg(t as u32),
            Launch::new("delta_decay_sums", [self.sequences.count(), s.value_heads.div_ceil(WARP_ROWS), 1], 128)
                .arg(gates)
                .arg(runs),
        ];
        for launch in launches {
            // SAFETY: lengths are checked by the caller; rows are of the sequences.
            unsafe { d_o.device().launch(&launch.arg(self.shape()))? };
        }
        Ok(())
    }

    /// From gradients of the logarithms of decays and rates to their columns of `d_projected`, and those of `A` and `t`.
    fn gates_backward(
        &self,
        projected: View<bf16>,
        inputs: Inputs,
        Scratch { gates, partial, .. }: Scratch,
        d_projected: View<bf16>,
    ) -> Result<()> {
        let (s, t, Weights { decay, step, .. }) = (self.s, projected.len() / self.s.row(), self.weights);
        let launch = Launch::new("delta_gates_back", self.heads(t), 256).arg(projected).arg(decay.values);
        let launch = launch.arg(step.values).arg(inputs.gates).arg(gates).arg(d_projected);
        // SAFETY: lengths are checked by the caller.
        unsafe { partial.device().launch(&launch.arg(t as u32).arg(self.shape()))? };
        if decay.gradient.is_none() && step.gradient.is_none() {
            return Ok(());
        }
        let grid = [s.gates().div_ceil(64), t.div_ceil(STRETCH), 1];
        let launch = Launch::new("delta_gates_partials", grid, 64).arg(gates).arg(partial).arg(t as u32);
        // SAFETY: as above.
        unsafe { partial.device().launch(&launch.arg(STRETCH as u32).arg(self.shape()))? };
        let half = columns::partial_len(s.value_heads, t);
        for (gradient, first) in [(decay.gradient, 0), (step.gradient, half)] {
            if let Some(gradient) = gradient {
                add_stretches(partial.part(first..first + half), gradient, t)?;
            }
        }
        Ok(())
    }

    /// From gradients of queries, keys and values to the channels of `d_projected`, and those of taps.
    fn inputs_backward(
        &self,
        projected: View<bf16>,
        inputs: Inputs,
        Scratch { gradients, partial, .. }: Scratch,
        d_projected: View<bf16>,
    ) -> Result<()> {
        let (s, t, taps) = (self.s, projected.len() / self.s.row(), self.weights.taps);
        // What silu took in has the place of what came of it, which is done with.
        let (places, du) = (self.sequences.places.all(), inputs.rows);
        let through = Launch::new("delta_inputs_back", self.vectors(t), 128).arg(projected).arg(taps.values);
        let through = through.arg(places).arg(gradients).arg(du).arg(t as u32).arg(self.shape());
        let channels = Launch::new("delta_channels_back", [(t * s.channels()).div_ceil(THREADS), 1, 1], 256).arg(du);
        let channels = channels.arg(taps.values).arg(places).arg(d_projected).arg(t as u32).arg(self.shape());
        for launch in [through, channels] {
            // SAFETY: lengths are checked by the caller.
            unsafe { du.device().launch(&launch)? };
        }
        let Some(gradient) = taps.gradient else { return Ok(()) };
        let grid = [s.channels().div_ceil(THREADS), t.div_ceil(STRETCH), 1];
        let launch = Launch::new("delta_taps_partials", grid, 256).arg(du).arg(projected).arg(places).arg(partial);
        // SAFETY: as above.
        unsafe { du.device().launch(&launch.arg(t as u32).arg(STRETCH as u32).arg(self.shape()))? };
        add_stretches(partial, gradient, t)
    }
}
