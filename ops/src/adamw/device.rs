//! Launches of `kernel.cu`.
#![allow(unsafe_code)] // each launch's lengths are checked before it

use anyhow::Result;
use half::bf16;

use super::{MOMENT_BLOCK, Step};
use crate::device::columns::THREADS;
use crate::device::{Class, Device, Launch, View};

/// Blocks that a norm is summed in: enough for every card, and the same on all.
const NORM_BLOCKS: usize = 1024;

/// Moments of AdamW for a stretch of weights.
#[derive(Clone, Copy)]
pub enum Moments<'a> {
    /// Four bytes each.
    Full {
        /// First.
        m: View<'a, f32>,
        /// Second.
        v: View<'a, f32>,
    },
    /// A byte each, and a largest magnitude for every 256.
    EightBit {
        /// First.
        m: View<'a, i8>,
        /// Second.
        v: View<'a, u8>,
        /// Largest first moment of each block.
        m_largest: View<'a, f32>,
        /// Largest second moment of each block.
        v_largest: View<'a, f32>,
    },
}

/// One update of a stretch of weights, and of their bf16 copy.
pub fn update(step: Step, w: View<f32>, copy: View<bf16>, g: View<f32>, moments: Moments) -> Result<()> {
    let n = w.len();
    assert_eq!((copy.len(), g.len()), (n, n));
    let [correct1, correct2] = step.corrections();
    let settings = [step.lr, step.beta1, step.beta2, step.eps, step.weight_decay, step.scale, correct1, correct2];
    let start = |kernel| Launch::new(kernel, [n.div_ceil(THREADS), 1, 1], 256).arg(w).arg(copy).arg(g);
    let launch = match moments {
        Moments::Full { m, v } => {
            assert_eq!((m.len(), v.len()), (n, n));
            start("adamw_update").arg(m).arg(v)
        }
        Moments::EightBit { m, v, m_largest, v_largest } => {
            let blocks = n.div_ceil(MOMENT_BLOCK);
            assert_eq!((m.len(), v.len(), m_largest.len(), v_largest.len()), (n, n, blocks, blocks));
            start("adamw_update_8bit").arg(m).arg(v).arg(m_largest).arg(v_largest)
        }
    };
    let launch = launch.arg(n as u64).arg(settings.map(f32::to_bits));
    let launch = if matches!(moments, Moments::EightBit { .. }) { launch.arg(step.count as u32) } else { launch };
    // SAFETY: lengths are checked above.
    unsafe { w.device().launch(&launch) }
}

/// `sum of g²` in f64; waits for the work queued before.
pub fn squared_norm(device: &Device, g: View<f32>) -> Result<f64> {
    let partial = device.zeros::<f64>(Class::Gradients, NORM_BLOCKS)?;
    let launch = Launch::new("squared_norm", [NORM_BLOCKS, 1, 1], 256).arg(g).arg(partial.all()).arg(g.len() as u64);
    // SAFETY: a partial sum a block.
    unsafe { device.launch(&launch)? };
    Ok(partial.all().read()?.iter().sum())
}

/// Writes the bf16 copy of `w`.
pub fn round_weights(w: View<f32>, copy: View<bf16>) -> Result<()> {
    assert_eq!(w.len(), copy.len());
    let launch = Launch::new("round_weights", [w.len().div_ceil(THREADS), 1, 1], 256).arg(w).arg(copy);
    // SAFETY: lengths are checked above.
    unsafe { w.device().launch(&launch.arg(w.len() as u64)) }
}
