//! `distill` on a device: the formulas of `mod.rs`, in the chunks of `linear_logprob` there, for both models.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use std::ops::Range;

use anyhow::Result;
use half::bf16;

use super::super::device::{Head, Scratch, chunk_rows};
use super::Divergence;
use crate::device::products::{backward_input, backward_weight, forward as product};
use crate::device::{Class, Launch, View};

/// Rows of the student: hidden states `(R, K)` and the tokens that they are to predict `(R)`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Hidden states.
    pub h: View<'a, bf16>,
    /// Targets.
    pub targets: View<'a, u32>,
}

/// What a teacher makes of the same rows, and which divergence from it is taken.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// Hidden states `(R, K)` of its own width.
    pub h: View<'a, bf16>,
    /// Output matrix; that of the student's temperature.
    pub head: Head<'a>,
    /// Which divergence, over which tokens.
    pub divergence: Divergence,
}

/// What is taken the gradient of, a value for each row `(R)`.
#[derive(Clone, Copy)]
pub struct Slopes<'a> {
    /// Of the target's log-probability.
    pub logprobs: View<'a, f32>,
    /// Of the divergence.
    pub divergences: View<'a, f32>,
}

impl Slopes<'_> {
    fn part(self, rows: Range<usize>) -> Self {
        Self { logprobs: self.logprobs.part(rows.clone()), divergences: self.divergences.part(rows) }
    }
}

/// As `linear_logprob`'s backward does after its forward of the same rows, with the gradient of the divergence from a
/// teacher beside that of the targets' log-probabilities. `scratch` is the student's and the teacher's. Returns the
/// divergence of each row.
pub fn backward(
    rows: Rows,
    head: Head,
    teacher: Teacher,
    slopes: Slopes,
    dh: View<bf16>,
    [scratch, theirs]: [&mut Scratch; 2],
) -> Result<Vec<f32>> {
    let (count, v, teacher_v) = (rows.targets.len(), head.columns(), teacher.head.columns());
    let at_a_time = chunk_rows(v).min(chunk_rows(teacher_v)).min(count.max(1));
    let divergences = dh.device().buffer(Class::Activations, count)?;
    let lses = scratch.lses.sized(count)?;
    let (logits, d_logits) = (scratch.logits.sized(at_a_time * v)?, scratch.d_logits.sized(at_a_time * v)?);
    let teacher_logits = theirs.logits.sized(at_a_time * teacher_v)?;
    for start in (0..count).step_by(at_a_time) {
        let range = start..count.min(start + at_a_time);
        let (places, n) = (range.start * head.k..range.end * head.k, range.len());
        let (z, dz) = (logits.part(0..n * v), d_logits.part(0..n * v));
        product(rows.h.part(places.clone()), head.w.values, z, head.k, false)?;
        let their_places = range.start * teacher.head.k..range.end * teacher.head.k;
        let zt = teacher_logits.part(0..n * teacher_v);
        product(teacher.h.part(their_places), teacher.head.w.values, zt, teacher.head.k, false)?;
        let targets = rows.targets.part(range.clone());
        Chunk { z, zt, targets, lses: lses.part(range.clone()) }.backward(
            (teacher.divergence, head.temperature),
            slopes.part(range.clone()),
            divergences.part(range),
            dz,
        )?;
        backward_input(dz, head.w.values, dh.part(places.clone()), head.k, false)?;
        if let Some(dw) = head.w.gradient {
            backward_weight(dz, rows.h.part(places), dw, head.k)?;
        }
    }
    divergences.all().read()
}

/// A chunk of both models' logits, with what is known of the student's.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    /// `(R, V)` of the student.
    z: View<'a, f32>,
    /// `(R, V)` of the teacher.
    zt: View<'a, f32>,
    /// `(R)`; the caller has checked that each is a column.
    targets: View<'a, u32>,
    /// `(R)` over all of the student's columns.
    lses: View<'a, f32>,
}

impl Chunk<'_> {
    /// The divergence `(R)` of each row and `dz (R, V)`.
    fn backward(
        self,
        (divergence, temperature): (Divergence, f32),
        slopes: Slopes,
        divergences: View<f32>,
        dz: View<bf16>,
    ) -> Result<()> {
        let (rows, known) = (self.targets.len(), divergence.vocab);
        let (v, teacher_v) = (self.z.len() / rows, self.zt.len() / rows);
        assert_eq!((self.lses.len(), slopes.logprobs.len(), slopes.divergences.len()), (rows, rows, rows));
        assert_eq!((divergences.len(), dz.len()), (rows, self.z.len()));
        assert!(0 < known && known <= v.min(teacher_v), "{known} tokens of {v} and {teacher_v}");
        let launch = Launch::new("divergence_backward", [rows, 1, 1], 512).arg(self.z).arg(self.zt).arg(self.targets);
        let launch = launch.arg(self.lses).arg(slopes.logprobs).arg(slopes.divergences).arg(divergences).arg(dz);
        let launch = launch.arg(v as u32).arg(teacher_v as u32).arg(known as u32).arg(temperature).arg(divergence.beta);
        // SAFETY: lengths are checked above.
        unsafe { dz.device().launch(&launch) }
    }
}
