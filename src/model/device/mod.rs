//! The decoder on a device, in bf16: what `model/cpu` does on a CPU, over buffers of a
//! [`Device`]. What is trained has fp32 master values, and its gradients are added to one flat fp32 buffer of their layout;
//! a frozen base is held in bf16 alone.

mod decoder;
mod decoding;
mod delta;
mod experts;
mod grouped;
mod latent;
mod mlp;
mod reference;
mod routers;
mod states;
mod trainable;
mod upload;
mod weights;
mod widths;
mod workspace;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use half::bf16;

use super::decoder::Decoder;
use super::files::Source;
use super::layout::Layout;
use super::lora::{Adapter, AdapterLayout};
use super::parameters::Parameters;
use super::routing::{FROZEN_BIASES, balanced_layers, choice_biases, even_out};
use crate::batch::{Beside, Choices, Loss, LossStats, MicroBatch, Teaching, TokenLosses, TokenStats};
use crate::ops::attention::Segment;
use crate::ops::attention::packed::device as attention;
use crate::ops::delta::device::Sequences;
use crate::ops::device::columns::Rows;
use crate::ops::device::{Buffer, Class, Device};
use crate::ops::embedding::device as embedding;
use crate::ops::experts::{Load, LoadBalance};
use crate::ops::linear::device::Flat;
use crate::ops::linear_logprob::device::{self as linear_logprob, Head, Slopes};
use crate::ops::linear_logprob::distill::device as distill;
use crate::ops::rms_norm::device as rms_norm;
use crate::parallel::lock;
use decoder::{Backward, Context, Run};
pub use decoding::{Decoding, DecodingRoom};
pub use reference::DeviceReference;
use routers::{Notes, RouterRecord};
use states::Memory;
pub use trainable::DeviceTrainable;
use upload::{biases_of, check, upload_rounded};
use weights::DeviceWeights;
pub use widths::{AttentionKinds, AttentionWidths, LatentWidths, MlpWidths};
use workspace::{Forward, Room, Shape, Workspace};

/// A model whose weights, gradients and activations are on a device.
#[derive(Debug)]
pub struct DeviceModel {
    /// Where it is.
    pub device: Device,
    /// What is trained: all weights, or an adapter's.
    pub trainable: DeviceTrainable,
    /// Threads of the host, on which routers choose; changes no result.
    pub threads: usize,
    base: Option<FrozenBase>,
    layout: Layout,
    decoder: Decoder,
    cos: Buffer<f32>,
    sin: Buffer<f32>,
    workspace: Mutex<Option<Reserved>>,
    /// What the routers of the layers chose in micro-batches whose gradients were taken.
    choices: Mutex<Choices>,
}

/// Weights that are not trained, and which of them what is trained adds to.
#[derive(Debug)]
struct FrozenBase {
    values: Buffer<bf16>,
    /// Of each layer the biases of its router's choice, fp32, where it has some.
    choice_biases: Vec<Option<Vec<f32>>>,
    adapter: Option<AdapterLayout>,
}

impl FrozenBase {
    fn flat(&self) -> Flat<'_> {
        Flat { values: self.values.all(), gradients: None }
    }
}

/// Buffers with the room they were made for.
#[derive(Debug)]
struct Reserved {
    room: Room,
    buffers: Workspace,
}

impl DeviceModel {
    /// Brings a model to a device, and refuses one that the kernels cannot compute.
    pub fn new(device: Device, decoder: &Decoder, parameters: &Parameters) -> Result<Self> {
        match parameters {
            Parameters::Full(weights) => {
                check(decoder, &weights.layout)?;
                let trainable = DeviceTrainable::new(&device, &weights.layout.entries, &weights.values)?;
                Self::with(device, decoder, &weights.layout, None, trainable)
            }
            Parameters::Frozen(base, adapter) => Self::frozen(device, decoder, &base.layout, base, adapter.as_ref()),
        }
    }

    /// A model whose weights are those of `base` and do not learn, with an adapter that does. Weights go to the device a
    /// piece at a time: the host need not hold them all.
    pub fn frozen(
        device: Device,
        decoder: &Decoder,
        layout: &Layout,
        base: &dyn Source,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        check(decoder, layout)?;
        let values = upload_rounded(&device, layout, base)?;
        let trainable = match adapter {
            Some(adapter) => DeviceTrainable::new(&device, &adapter.layout.entries, &adapter.values)?,
            None => DeviceTrainable::new(&device, &[], &[])?,
        };
        let choice_biases = biases_of(layout, base)?;
        let base = FrozenBase { values, choice_biases, adapter: adapter.map(|adapter| adapter.layout.clone()) };
        Self::with(device, decoder, layout, Some(base), trainable)
    }

    fn with(
        device: Device,
        decoder: &Decoder,
        layout: &Layout,
        base: Option<FrozenBase>,
        trainable: DeviceTrainable,
    ) -> Result<Self> {
        let (cos, sin) = decoder.rope.tables();
        Ok(Self {
            trainable,
            threads: 1,
            base,
            cos: device.upload(Class::Weights, cos)?,
            sin: device.upload(Class::Weights, sin)?,
            layout: layout.clone(),
            decoder: decoder.clone(),
            workspace: Mutex::new(None),
            choices: Mutex::default(),
            device,
        })
    }

    /// The weights as they are now.
    fn weights(&self) -> Result<DeviceWeights<'_>> {
        let (values, gradients) = (self.trainable.rounded.all(), self.trainable.gradients.all());
        self.weights_with(Flat { values, gradients: Some(gradients) }, || self.trained_biases())
    }

    /// The weights as `reference` is.
    fn weights_as<'a>(&'a self, reference: &'a DeviceReference) -> Result<DeviceWeights<'a>> {
        match (reference, &self.base) {
            (DeviceReference::Values(copy), _) => {
                let flat = Flat { values: copy.values.all(), gradients: None };
                self.weights_with(flat, || Ok(copy.choice_biases(self)))
            }
            (DeviceReference::Base, Some(base)) => {
                Ok(DeviceWeights::new(&self.layout, base.flat(), Cow::Borrowed(&base.choice_biases), None))
            }
            (DeviceReference::Base, None) => self.weights(),
        }
    }

    /// The weights with `trained` as what is trained, the biases of choices among it.
    fn weights_with<'a>(
        &'a self,
        trained: Flat<'a>,
        biases: impl FnOnce() -> Result<Vec<Option<Vec<f32>>>>,
    ) -> Result<DeviceWeights<'a>> {
        let Some(base) = &self.base else {
            return Ok(DeviceWeights::new(&self.layout, trained, Cow::Owned(biases()?), None));
        };
        let adapter = base.adapter.as_ref().map(|adapter| (adapter, trained));
        Ok(DeviceWeights::new(&self.layout, base.flat(), Cow::Borrowed(&base.choice_biases), adapter))
    }

    /// Of each layer the biases of its router's choice as they are trained, where it has some.
    fn trained_biases(&self) -> Result<Vec<Option<Vec<f32>>>> {
        let read = |place: &Range<usize>| self.trainable.values.part(place.clone()).read();
        choice_biases(&self.layout).map(|place| place.map(read).transpose()).collect()
    }

    /// Log-probabilities of a micro-batch, without gradients: the model's own, or those of `reference`.
    pub fn logprobs(
        &self,
        reference: Option<&DeviceReference>,
        micro: &MicroBatch,
        temperature: f32,
    ) -> Result<TokenStats> {
        let (weights, routers) = match reference {
            None => (self.weights()?, routers(micro)),
            Some(reference) => (self.weights_as(reference)?, RouterRecord::default()),
        };
        self.with_workspace(micro, |ws| Ok(self.forward(&weights, &routers, micro, temperature, ws)?.1))
    }

    /// Forward, loss and backward of a micro-batch; its gradient is added to that of [`DeviceModel::trainable`].
    pub fn gradient(&self, micro: &MicroBatch, temperature: f32, loss: &Loss) -> Result<LossStats> {
        self.taught(micro, temperature, loss, Beside::default())
    }

    /// The same, with the gradients of what there is beside the loss.
    pub fn taught(
        &self,
        micro: &MicroBatch,
        temperature: f32,
        loss: &Loss,
        beside: Beside<'_, DeviceModel>,
    ) -> Result<LossStats> {
        let (weights, routers) = (self.weights()?, routers(micro));
        let stats = self.with_workspace(micro, |ws| {
            let (input, now) = self.forward(&weights, &routers, micro, temperature, ws)?;
            let mut losses = loss(micro, &now);
            let head = Head { w: weights.lm_head, k: self.decoder.hidden, temperature };
            match beside.teaching {
                None => self.head_backward(head, micro, &input, &losses, ws)?,
                Some(teaching) => {
                    let divergences = self.taught_head_backward(head, (micro, &input), &losses, teaching, ws)?;
                    teaching.add_to(&mut losses.stats, micro, &divergences);
                }
            }
            self.last_norm_backward(&weights, micro, &input, ws)?;
            let run = self.run(&weights, &routers, &input, &ws.forward)?;
            let (segments, tiles) = (&input.segments, input.tiles.all());
            let back = Backward { run, segments, tiles, ws, balance_slopes: beside.balance_slopes };
            for index in (0..weights.layers.len()).rev() {
                if self.decoder.recompute {
                    back.run.layer_forward(index)?;
                }
                back.layer(index)?;
            }
            if let Some(gradient) = weights.embedding.gradient {
                let dx = ws.dx.part(0..micro.tokens.len() * self.decoder.hidden);
                embedding::backward(&embedding::Occurrences::of(&micro.tokens), dx, self.decoder.hidden, gradient)?;
            }
            Ok(losses.stats)
        })?;
        if self.decoder.router.is_some() {
            let Notes { differ, choices: layers, .. } = routers.notes.into_inner();
            let mut choices = Choices { layers, ..Choices::default() };
            choices.compare(&differ, micro.router_replay);
            lock(&self.choices).add(&choices);
        }
        Ok(stats)
    }

    /// Experts that a token goes to in each layer that has some; 0 for a dense model.
    pub fn active_experts(&self) -> usize {
        self.decoder.router.map_or(0, |router| router.active)
    }

    /// What the routers of the layers chose since this was asked last, in micro-batches whose gradients were taken.
    pub fn take_choices(&self) -> Choices {
        std::mem::take(&mut lock(&self.choices))
    }

    /// What the auxiliary loss of routers is made of in a micro-batch, by a forward.
    pub fn load_balance(&self, micro: &MicroBatch) -> Result<LoadBalance> {
        let (weights, routers) = (self.weights()?, routers(micro));
        routers.notes.borrow_mut().balance = Some(LoadBalance::default());
        self.with_workspace(micro, |ws| self.predict(&weights, &routers, &Input::new(&self.device, micro)?, ws))?;
        Ok(routers.notes.into_inner().balance.unwrap_or_default())
    }

    /// Moves the bias of each expert by `step` toward the mean of its layer's loads.
    pub fn balance(&self, loads: &[Load], step: f32) -> Result<()> {
        ensure!(self.base.is_none(), FROZEN_BIASES);
        for (layer, place) in balanced_layers(&self.layout)? {
            if let Some(load) = loads.get(layer) {
                self.trainable.change(place.clone(), |biases| even_out(biases, load, step))?;
            }
        }
        Ok(())
    }

    /// Gives back what forwards and backwards work in; the next one takes it anew.
    pub fn free_workspace(&self) {
        *lock(&self.workspace) = None;
    }

    /// Of a forward whose backward finds what it needs, or of one that keeps nothing.
    fn shape(&self, keep: bool) -> Shape {
        let adapter = self.base.as_ref().and_then(|base| base.adapter.as_ref());
        let (kinds, router) = (kinds(&self.decoder), &self.decoder.router);
        let layers = self.layout.layers.iter();
        let attention = layers.clone().map(|layer| AttentionWidths::of(layer, &kinds));
        let mlps = layers.map(|layer| MlpWidths::of(layer, router.as_ref()));
        let layers = match keep && !self.decoder.recompute {
            true => attention.zip(mlps).collect(),
            false => vec![(AttentionWidths::widest(attention), MlpWidths::widest(mlps))],
        };
        let inputs = if keep { self.layout.layers.len() } else { 0 };
        Shape { layers, inputs, lora_hidden: adapter.map_or(0, AdapterLayout::widest) }
    }

    fn vocabulary(&self) -> usize {
        self.layout.embedding.range.len() / self.decoder.hidden
    }

    fn check_tokens(&self, tokens: &[u32]) {
        let known = tokens.iter().all(|&token| (token as usize) < self.vocabulary());
        assert!(known, "a token has no row in the embedding");
    }

    /// Runs `body` with buffers that hold the micro-batch. They grow to the largest micro-batch and stay.
    fn with_workspace<R>(&self, micro: &MicroBatch, body: impl FnOnce(&mut Workspace) -> Result<R>) -> Result<R> {
        self.check_tokens(&micro.tokens);
        self.check_tokens(&micro.targets);
        let longest = micro.positions.iter().max().map_or(0, |&p| p as usize + 1);
        assert!(longest <= self.decoder.rope.positions(), "a position is beyond the model's longest sequence");
        let mut guard = lock(&self.workspace);
        let (t, r) = (micro.tokens.len(), micro.targets.len());
        let room = guard.as_ref().map_or_else(Room::default, |reserved| reserved.room);
        if guard.is_none() || t > room.t || r > room.r {
            // The old buffers go first: the two need not fit side by side.
            *guard = None;
            let room = Room { t: t.max(room.t), r: r.max(room.r) };
            let buffers = Workspace::new(&self.device, &self.decoder, &self.shape(true), room)?;
            *guard = Some(Reserved { room, buffers });
        }
        let Some(reserved) = guard.as_mut() else { unreachable!("made above") };
        body(&mut reserved.buffers)
    }

    fn run<'a>(
        &'a self,
        weights: &'a DeviceWeights<'a>,
        routers: &'a RouterRecord<'a>,
        input: &'a Input,
        ws: &'a Forward,
    ) -> Result<Run<'a>> {
        let (positions, segments) = (input.positions.all(), &input.segments);
        let context = Context::Segments { segments, tiles: input.tiles.all() };
        let sequences = self.decoder.delta.map(|_| input.sequences(&self.device)).transpose()?;
        let memory = sequences.map(|sequences| Memory { sequences, states: None });
        Ok(Run { model: self, weights, t: positions.len(), positions, context, memory, routers, ws })
    }

    /// Leaves the hidden states and what the backward needs in the workspace.
    fn forward(
        &self,
        weights: &DeviceWeights,
        routers: &RouterRecord,
        micro: &MicroBatch,
        temperature: f32,
        ws: &mut Workspace,
    ) -> Result<(Input, TokenStats)> {
        let input = Input::new(&self.device, micro)?;
        let head = Head { w: weights.lm_head, k: self.decoder.hidden, temperature };
        self.predict(weights, routers, &input, ws)?;
        let h = ws.predicting.part(0..micro.rows.len() * head.k);
        let (logprobs, entropies) = linear_logprob::forward(head, h, input.targets.all(), &mut ws.logprob)?;
        Ok((input, TokenStats { logprobs, entropies }))
    }

    /// Leaves the hidden states that predict a target, those of all tokens, and what the backward needs.
    fn predict(&self, weights: &DeviceWeights, routers: &RouterRecord, input: &Input, ws: &Workspace) -> Result<()> {
        let (hidden, rows) = (self.decoder.hidden, input.rows.all());
        let all = self.run(weights, routers, input, &ws.forward)?.hidden(input.tokens.all())?;
        embedding::take_rows(rows, all, ws.predicting.part(0..rows.len() * hidden), hidden)
    }

    /// From the gradient of the log-probabilities to that of the hidden states that predict, in `d_predicting`.
    fn head_backward(
        &self,
        head: Head,
        micro: &MicroBatch,
        input: &Input,
        losses: &TokenLosses,
        ws: &mut Workspace,
    ) -> Result<()> {
        let places = 0..micro.rows.len() * self.decoder.hidden;
        let upload = |slopes: &[f32]| self.device.upload(Class::Activations, slopes);
        let d_logprobs = upload(&losses.gradient)?;
        let with_entropy = !losses.entropy_gradient.is_empty();
        let d_entropies = with_entropy.then(|| upload(&losses.entropy_gradient)).transpose()?;
        let slopes = Slopes { logprobs: d_logprobs.all(), entropies: d_entropies.as_ref().map(Buffer::all) };
        let (h, dh) = (ws.predicting.part(places.clone()), ws.d_predicting.part(places));
        linear_logprob::backward(head, h, input.targets.all(), slopes, dh, &mut ws.logprob)
    }

    /// The same, with the gradient of the divergence from a teacher. Returns the divergence of each row.
    fn taught_head_backward(
        &self,
        head: Head,
        (micro, input): (&MicroBatch, &Input),
        losses: &TokenLosses,
        teaching: Teaching<'_, DeviceModel>,
        ws: &mut Workspace,
    ) -> Result<Vec<f32>> {
        let Teaching { teacher, divergence, coef } = teaching;
        let places = 0..micro.rows.len() * self.decoder.hidden;
        let upload = |slopes: &[f32]| self.device.upload(Class::Activations, slopes);
        let by_divergence: Vec<f32> = micro.loss_weights.iter().map(|weight| coef * weight).collect();
        let (d_logprobs, d_divergences) = (upload(&losses.gradient)?, upload(&by_divergence)?);
        let slopes = distill::Slopes { logprobs: d_logprobs.all(), divergences: d_divergences.all() };
        let rows = distill::Rows { h: ws.predicting.part(places.clone()), targets: input.targets.all() };
        let dh = ws.d_predicting.part(places);
        let weights = teacher.weights()?;
        teacher.with_workspace(micro, |theirs| {
            teacher.predict(&weights, &RouterRecord::default(), input, theirs)?;
            let their_head = Head { w: weights.lm_head, k: teacher.decoder.hidden, temperature: head.temperature };
            let h = theirs.predicting.part(0..micro.rows.len() * their_head.k);
            let taught = distill::Teacher { h, head: their_head, divergence };
            distill::backward(rows, head, taught, slopes, dh, [&mut ws.logprob, &mut theirs.logprob])
        })
    }

    /// From the gradient of the hidden states that predict to that of the last layer's output, in `dx`.
    fn last_norm_backward(
        &self,
        weights: &DeviceWeights,
        micro: &MicroBatch,
        input: &Input,
        ws: &Workspace,
    ) -> Result<()> {
        let (t, r, hidden) = (micro.tokens.len(), micro.rows.len(), self.decoder.hidden);
        let (d_hidden, dx) = (ws.forward.hidden.part(0..t * hidden), ws.dx.part(0..t * hidden));
        d_hidden.zero()?;
        embedding::put_rows(input.rows.all(), ws.d_predicting.part(0..r * hidden), d_hidden, hidden)?;
        let kept = rms_norm::Kept {
            x: ws.forward.stream(self.layout.layers.len()).part(0..t * hidden),
            w: weights.norm.into(),
            factors: ws.forward.last_factors.part(0..t),
        };
        rms_norm::backward(Rows::dense(hidden), kept, d_hidden, dx, false, weights.norm.gradient, ws.partial.all())
    }
}

/// What of a micro-batch the kernels read.
struct Input {
    tokens: Buffer<u32>,
    positions: Buffer<u32>,
    rows: Buffer<u32>,
    targets: Buffer<u32>,
    segments: Vec<Segment>,
    tiles: Buffer<[u32; 3]>,
    /// Made when a model with delta nets reads it, the policy or its teacher.
    sequences: OnceCell<Sequences>,
}

impl Input {
    fn new(device: &Device, micro: &MicroBatch) -> Result<Self> {
        let upload = |values: &[u32]| device.upload(Class::Activations, values);
        Ok(Self {
            tokens: upload(&micro.tokens)?,
            positions: upload(&micro.positions)?,
            rows: upload(&micro.rows)?,
            targets: upload(&micro.targets)?,
            segments: micro.segments.clone(),
            tiles: attention::upload_tiles(device, &micro.segments)?,
            sequences: OnceCell::new(),
        })
    }

    /// The sequences as delta nets go through them.
    fn sequences(&self, device: &Device) -> Result<&Sequences> {
        if let Some(sequences) = self.sequences.get() {
            return Ok(sequences);
        }
        let runs = self.segments.iter().map(|segment| (segment.rows.clone(), None));
        let sequences = Sequences::new(device, Class::Activations, runs)?;
        Ok(self.sequences.get_or_init(|| sequences))
    }
}

/// The routers of a micro-batch of the model that sampled it.
fn routers(micro: &MicroBatch) -> RouterRecord<'_> {
    RouterRecord::of(micro.routed.as_ref().map(|routed| (routed, micro.router_replay)), micro.tokens.len())
}

/// Which kinds of attention the layers of a model may have.
fn kinds(decoder: &Decoder) -> AttentionKinds {
    let Decoder { heads, gated, delta, latent, .. } = *decoder;
    AttentionKinds { heads, gated, delta, latent: latent.map(|(sizes, _)| sizes) }
}
