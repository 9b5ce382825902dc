//! The decoder on a device, in bf16 with fp32 master weights: what `decoder.rs` and the head of `policy.rs` do on a
//! CPU, over buffers of a [`Device`]. Gradients are added to one flat fp32 buffer of the weights' layout.

mod layers;
mod workspace;

use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use half::bf16;

use super::{Decoder, Layout, Weights};
use crate::grpo::MicroBatch;
use crate::ops::device::kernels::{self as k, Angles, NormKept, Occurrences, Rows};
use crate::ops::device::linear_logprob::{self, Head};
use crate::ops::device::{Buffer, Class, Device, View, attention, products};
use crate::parallel::lock;
use crate::policy::TokenStats;
use workspace::Workspace;

/// A model whose weights, gradients and activations are on a device.
#[derive(Debug)]
pub struct DeviceModel {
    /// Where it is.
    pub device: Device,
    /// Where each tensor lies in the flat buffers.
    pub layout: Layout,
    /// Master weights.
    pub weights: Buffer<f32>,
    /// What is computed with: the weights rounded to bf16.
    pub rounded: Buffer<bf16>,
    /// Sum of the gradients since the last update.
    pub gradients: Buffer<f32>,
    decoder: Decoder,
    cos: Buffer<f32>,
    sin: Buffer<f32>,
    workspace: Mutex<Option<Reserved>>,
}

/// Buffers with the room they were made for: tokens, and tokens that predict a target.
#[derive(Debug)]
struct Reserved {
    room: (usize, usize),
    buffers: Workspace,
}

/// A micro-batch on the device, with what its layers are computed by.
struct Run<'a> {
    model: &'a DeviceModel,
    /// Tokens.
    t: usize,
    positions: View<'a, u32>,
    tiles: View<'a, [u32; 3]>,
    ws: &'a Workspace,
}

impl DeviceModel {
    /// Brings a model to a device, and refuses one that the kernels cannot compute.
    pub fn new(device: Device, decoder: &Decoder, weights: &Weights) -> Result<Self> {
        attention::check(decoder.heads)?;
        for (name, size) in [("hidden_size", decoder.hidden), ("intermediate_size", decoder.intermediate)] {
            ensure!(size.is_multiple_of(8), "{name} = {size} has no CUDA kernels: it must be a multiple of 8");
        }
        let master = device.upload(Class::Weights, &weights.values)?;
        let rounded = device.buffer(Class::Weights, weights.values.len())?;
        k::round_weights(master.all(), rounded.all())?;
        let (cos, sin) = decoder.rope.tables();
        Ok(Self {
            gradients: device.zeros(Class::Gradients, weights.values.len())?,
            cos: device.upload(Class::Weights, cos)?,
            sin: device.upload(Class::Weights, sin)?,
            layout: weights.layout.clone(),
            weights: master,
            rounded,
            decoder: decoder.clone(),
            workspace: Mutex::new(None),
            device,
        })
    }

    /// The weights as they are now, on the host.
    pub fn download(&self) -> Result<Weights> {
        Ok(Weights { layout: self.layout.clone(), values: self.weights.all().read()? })
    }

    /// Replaces the weights, by a checkpoint's.
    pub fn upload(&self, weights: &Weights) -> Result<()> {
        self.weights.all().write(&weights.values)?;
        k::round_weights(self.weights.all(), self.rounded.all())
    }

    /// Log-probabilities of a micro-batch, without gradients.
    pub fn logprobs(&self, micro: &MicroBatch, temperature: f32) -> Result<TokenStats> {
        self.with_workspace(micro, |ws| Ok(self.forward(micro, temperature, ws)?.1))
    }

    /// Forward, loss and backward of a micro-batch; its gradient is added to [`DeviceModel::gradients`]. `head` turns the
    /// log-probabilities into their gradient and whatever it wants to keep.
    pub fn gradient<S>(
        &self,
        micro: &MicroBatch,
        temperature: f32,
        head: impl Fn(&MicroBatch, &TokenStats) -> (Vec<f32>, S),
    ) -> Result<S> {
        self.with_workspace(micro, |ws| {
            let (input, stats) = self.forward(micro, temperature, ws)?;
            let (d_logprobs, state) = head(micro, &stats);
            self.head_backward(micro, temperature, &input, &d_logprobs, ws)?;
            let run = self.run(&input, ws);
            for index in (0..self.layout.layers.len()).rev() {
                if self.decoder.recompute {
                    run.layer_forward(index)?;
                }
                run.mlp_backward(index)?;
                run.attention_backward(index)?;
            }
            let dx = ws.dx.part(0..run.t * self.decoder.hidden);
            let d_embedding = self.gradients.part(self.layout.embedding.clone());
            k::embedding_backward(&Occurrences::of(&micro.tokens), dx, self.decoder.hidden, d_embedding)?;
            Ok(state)
        })
    }

    /// Runs `body` with buffers that hold the micro-batch.
    fn with_workspace<R>(&self, micro: &MicroBatch, body: impl FnOnce(&mut Workspace) -> Result<R>) -> Result<R> {
        let vocab = self.layout.embedding.len() / self.decoder.hidden;
        let known = |tokens: &[u32]| tokens.iter().all(|&token| (token as usize) < vocab);
        assert!(known(&micro.tokens) && known(&micro.targets), "a token has no row in the embedding");
        let longest = micro.positions.iter().max().map_or(0, |&p| p as usize + 1);
        assert!(longest <= self.decoder.rope.positions(), "a position is beyond the model's longest sequence");
        let mut guard = lock(&self.workspace);
        let (t, r) = (micro.tokens.len(), micro.targets.len());
        let room = guard.as_ref().map_or((0, 0), |reserved| reserved.room);
        if guard.is_none() || t > room.0 || r > room.1 {
            // The old buffers go first: the two need not fit side by side.
            *guard = None;
            let room = (t.max(room.0), r.max(room.1));
            let layers = self.layout.layers.len();
            *guard =
                Some(Reserved { room, buffers: Workspace::new(&self.device, &self.decoder, layers, room.0, room.1)? });
        }
        let Some(reserved) = guard.as_mut() else { unreachable!("made above") };
        body(&mut reserved.buffers)
    }

    fn weight(&self, range: &Range<usize>) -> View<'_, bf16> {
        self.rounded.part(range.clone())
    }

    fn run<'a>(&'a self, input: &'a Input, ws: &'a Workspace) -> Run<'a> {
        let t = input.positions.all().len();
        Run { model: self, t, positions: input.positions.all(), tiles: input.tiles.all(), ws }
    }

    /// Leaves the hidden states and what the backward needs in the workspace.
    fn forward(&self, micro: &MicroBatch, temperature: f32, ws: &mut Workspace) -> Result<(Input, TokenStats)> {
        let input = Input::new(&self.device, micro)?;
        let (t, hidden, layers) = (micro.tokens.len(), self.decoder.hidden, self.layout.layers.len());
        let run = self.run(&input, ws);
        let first = ws.streams[0].part(0..t * hidden);
        k::take_rows(input.tokens.all(), self.weight(&self.layout.embedding), first, hidden)?;
        for index in 0..layers {
            run.layer_forward(index)?;
            run.layer_output(index)?;
        }
        let (last, normed) = (ws.streams[layers].part(0..t * hidden), ws.hidden.part(0..t * hidden));
        let (norm, factors) = (self.weight(&self.layout.norm), ws.last_factors.part(0..t));
        k::rms_norm(Rows::dense(hidden), last, norm, normed, factors, self.decoder.eps)?;
        let h = ws.predicting.part(0..micro.rows.len() * hidden);
        k::take_rows(input.rows.all(), normed, h, hidden)?;
        let head = self.head(temperature);
        let (logprobs, entropies) = linear_logprob::forward(head, h, input.targets.all(), &mut ws.logprob)?;
        Ok((input, TokenStats { logprobs, entropies }))
    }

    fn head(&self, temperature: f32) -> Head<'_> {
        Head { w: self.weight(&self.layout.head), k: self.decoder.hidden, temperature }
    }

    /// From the gradient of the log-probabilities to that of the last layer's output, in `dx`.
    fn head_backward(
        &self,
        micro: &MicroBatch,
        temperature: f32,
        input: &Input,
        d_logprobs: &[f32],
        ws: &mut Workspace,
    ) -> Result<()> {
        let (t, r, hidden) = (micro.tokens.len(), micro.rows.len(), self.decoder.hidden);
        let (h, dh) = (ws.predicting.part(0..r * hidden), ws.d_predicting.part(0..r * hidden));
        let d_logprobs = self.device.upload(Class::Activations, d_logprobs)?;
        let (head, dw) = (self.head(temperature), self.gradients.part(self.layout.head.clone()));
        linear_logprob::backward(head, h, input.targets.all(), d_logprobs.all(), dh, dw, &mut ws.logprob)?;
        let (d_hidden, dx) = (ws.hidden.part(0..t * hidden), ws.dx.part(0..t * hidden));
        d_hidden.zero()?;
        k::put_rows(input.rows.all(), dh, d_hidden, hidden)?;
        let kept = NormKept {
            x: ws.streams[self.layout.layers.len()].part(0..t * hidden),
            w: self.weight(&self.layout.norm),
            factors: ws.last_factors.part(0..t),
        };
        let d_norm = self.gradients.part(self.layout.norm.clone());
        k::rms_norm_backward(Rows::dense(hidden), kept, d_hidden, dx, false, d_norm, ws.partial.all())
    }
}

/// What of a micro-batch the kernels read.
struct Input {
    tokens: Buffer<u32>,
    positions: Buffer<u32>,
    rows: Buffer<u32>,
    targets: Buffer<u32>,
    tiles: Buffer<[u32; 3]>,
}

impl Input {
    fn new(device: &Device, micro: &MicroBatch) -> Result<Self> {
        let upload = |values: &[u32]| device.upload(Class::Activations, values);
        Ok(Self {
            tokens: upload(&micro.tokens)?,
            positions: upload(&micro.positions)?,
            rows: upload(&micro.rows)?,
            targets: upload(&micro.targets)?,
            tiles: attention::upload_tiles(device, &micro.cu_seqlens)?,
        })
    }
}
