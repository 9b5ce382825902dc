//! AdamW on this machine, over the flat values of what is trained.

use super::{AdamWConfig, MomentKind, Optimizer, Stretch, Update, stretches};
use crate::model::{Entry, Trainable};
use crate::ops::adamw::{self, eight_bit};
use crate::ops::team::Team;
use crate::tensor::Tensor;

/// The optimizer with its state, of the layout of what is trained.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates made.
    pub count: u64,
    moments: State,
    stretches: Vec<Stretch>,
}

#[derive(Debug, Clone)]
enum State {
    Full { m: Vec<f32>, v: Vec<f32> },
    EightBit { m: Vec<i8>, v: Vec<u8>, m_largest: Vec<f32>, v_largest: Vec<f32> },
}

impl AdamW {
    /// An optimizer with empty moments for what is trained.
    pub fn new(config: AdamWConfig, kind: MomentKind, entries: &[Entry]) -> Self {
        let stretches = stretches(entries);
        let (n, blocks) = stretches.last().map_or((0, 0), |last| (last.range.end, last.blocks.end));
        let moments = match kind {
            MomentKind::Full => State::Full { m: vec![0.0; n], v: vec![0.0; n] },
            MomentKind::EightBit => State::EightBit {
                m: vec![0; n],
                v: vec![0; n],
                m_largest: vec![0.0; blocks],
                v_largest: vec![0.0; blocks],
            },
        };
        Self { config, count: 0, moments, stretches }
    }

    /// One update with the gradient `g`, of the layout of what is trained, at learning rate `lr`.
    pub fn update(&mut self, team: &Team, trained: Trainable, g: &[f32], lr: f64) -> Update {
        let grad_norm = adamw::squared_norm(team, g).sqrt();
        if !grad_norm.is_finite() {
            return Update::Skipped;
        }
        self.count += 1;
        for Stretch { range, decays, blocks } in &self.stretches {
            let step = self.config.step(lr, grad_norm, *decays, self.count);
            let (r, blocks) = (range.clone(), blocks.clone());
            let (w, g) = (&mut trained.values[r.clone()], &g[r.clone()]);
            match &mut self.moments {
                State::Full { m, v } => adamw::update(team, step, w, g, &mut m[r.clone()], &mut v[r]),
                State::EightBit { m, v, m_largest, v_largest } => {
                    let (m, v) = (&mut m[r.clone()], &mut v[r]);
                    let (m_largest, v_largest) = (&mut m_largest[blocks.clone()], &mut v_largest[blocks]);
                    eight_bit::update(team, step, w, g, eight_bit::EightBit { m, v, m_largest, v_largest });
                }
            }
        }
        Update::Applied { grad_norm }
    }
}

impl Optimizer for AdamW {
    fn count(&self) -> u64 {
        self.count
    }

    fn set_count(&mut self, count: u64) {
        self.count = count;
    }

    fn tensors(&self) -> Vec<(&'static str, &dyn Tensor)> {
        match &self.moments {
            State::Full { m, v } => vec![("m", m), ("v", v)],
            State::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }

    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        match &mut self.moments {
            State::Full { m, v } => vec![("m", m), ("v", v)],
            State::EightBit { m, v, m_largest, v_largest } => {
                vec![("m", m), ("v", v), ("m_largest", m_largest), ("v_largest", v_largest)]
            }
        }
    }
}
