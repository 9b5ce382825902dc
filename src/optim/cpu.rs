//! AdamW on this machine, over the flat values of what is trained. Of several ranks each has the moments of its share and
//! moves that share's values, which then go to all.

use std::ops::Range;

use anyhow::Result;

use super::sharded::{Moments, Zeros};
use super::{AdamWConfig, MomentKind, Optimizer, Stretch, Update, shares, stretches};
use crate::model::{Entry, Trainable};
use crate::ops::adamw::{self, eight_bit};
use crate::ops::team::Team;
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// The optimizer with its state, of the layout of what is trained.
#[derive(Debug, Clone)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates made.
    pub count: u64,
    moments: Moments<Vec<f32>, Vec<i8>, Vec<u8>>,
    stretches: Vec<Stretch>,
    ranks: Ranks,
    /// Which of the trained values each rank moves.
    shares: Vec<Range<usize>>,
}

impl AdamW {
    /// An optimizer with empty moments for what is trained, of which each of the ranks moves its
    /// [share](super::shares).
    pub fn new(config: AdamWConfig, kind: MomentKind, entries: &[Entry], ranks: &Ranks) -> Result<Self> {
        let (stretches, shares) = (stretches(entries), shares(entries, ranks.size()));
        let zeros = Zeros { floats: &|n| Ok(vec![0.0; n]), signed: &|n| Ok(vec![0; n]), unsigned: &|n| Ok(vec![0; n]) };
        let moments = Moments::empty(kind, &stretches, &shares, ranks, &zeros)?;
        Ok(Self { config, count: 0, moments, stretches, ranks: ranks.clone(), shares })
    }

    /// One update with the gradient `g`, of the layout of what is trained, at learning rate `lr`. Of several ranks the
    /// last one has the whole gradient, others that of their share at least; all have all values after it.
    pub fn update(&mut self, team: &Team, trained: Trainable, g: &[f32], lr: f64) -> Result<Update> {
        let grad_norm = self.ranks.from_last(|| adamw::squared_norm(team, g))?.sqrt();
        if !grad_norm.is_finite() {
            return Ok(Update::Skipped);
        }
        self.count += 1;
        self.move_share(team, trained.values, g, (lr, grad_norm));
        self.ranks.spread_shares(trained.values, &self.shares)?;
        Ok(Update::Applied { grad_norm })
    }

    /// Moves the values of this rank's share.
    fn move_share(&mut self, team: &Team, values: &mut [f32], g: &[f32], (lr, grad_norm): (f64, f64)) {
        let share = &self.shares[self.ranks.rank()];
        for whole in &self.stretches {
            let Some(Stretch { range, decays, blocks }) = whole.within(share) else { continue };
            let step = self.config.step(lr, grad_norm, decays, self.count);
            let (w, g) = (&mut values[range.clone()], &g[range.clone()]);
            match &mut self.moments {
                Moments::Full { m, v } => adamw::update(team, step, w, g, m.at(range.clone()), v.at(range)),
                Moments::EightBit { m, v, m_largest, v_largest } => {
                    let moments = eight_bit::EightBit {
                        place: range.start - whole.range.start,
                        m: m.at(range.clone()),
                        v: v.at(range),
                        m_largest: m_largest.at(blocks.clone()),
                        v_largest: v_largest.at(blocks),
                    };
                    eight_bit::update(team, step, w, g, moments);
                }
            }
        }
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
        self.moments.tensors()
    }

    fn tensors_mut(&mut self) -> Vec<(&'static str, &mut dyn Tensor)> {
        self.moments.tensors_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::tcp::ring_of_threads;
    use reckon_datasets::Counted;

    /// Values and moments after three updates of one of several ranks; the gradient is what this one would have of it.
    fn updated(kind: MomentKind, entries: &[Entry], ranks: &Ranks) -> (Vec<f32>, Vec<Vec<u8>>) {
        let config = AdamWConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, max_grad_norm: 0.5 };
        let (mut optimizer, shares) =
            (AdamW::new(config, kind, entries, ranks).unwrap(), shares(entries, ranks.size()));
        let n = shares.last().unwrap().end;
        let (mut values, mut random) = (vec![1f32; n], Counted::new(&[3]));
        for _ in 0..3 {
            let mut g: Vec<f32> = (0..n).map(|_| random.normal() as f32).collect();
            if ranks.rank() + 1 < ranks.size() {
                let own = &shares[ranks.rank()];
                g.iter_mut().enumerate().filter(|(place, _)| !own.contains(place)).for_each(|(_, g)| *g = f32::NAN);
            }
            let trained = Trainable { entries, values: &mut values };
            let update = optimizer.update(&Team::alone(), trained, &g, 1e-2).unwrap();
            assert!(matches!(update, Update::Applied { grad_norm } if grad_norm > 0.5), "{update:?}");
        }
        let whole = |(_, tensor): (&str, &dyn Tensor)| tensor.read(0..tensor.count()).unwrap();
        (values, optimizer.tensors().into_iter().map(whole).collect())
    }

    #[test]
    fn ranks_that_update_a_share_each_have_the_values_and_moments_of_one_process() {
        let matrix = |range: Range<usize>| Entry { name: String::new(), shape: vec![1, range.len()], range };
        let vector = |range: Range<usize>| Entry { name: String::new(), shape: vec![range.len()], range };
        let entries = [matrix(0..1000), vector(1000..1100), matrix(1100..3000)];
        for kind in [MomentKind::Full, MomentKind::EightBit] {
            let alone = updated(kind, &entries, &Ranks::alone());
            for size in [2, 3, 4] {
                std::thread::scope(|scope| {
                    for ranks in ring_of_threads(size).unwrap() {
                        let (alone, entries) = (&alone, &entries);
                        scope.spawn(move || {
                            let (values, moments) = updated(kind, entries, &ranks);
                            assert_eq!(values, alone.0, "{kind:?} on {size} ranks");
                            assert!(!ranks.is_first() || moments == alone.1, "{kind:?} on {size} ranks: moments");
                            ranks.finish(Ok(())).unwrap();
                        });
                    }
                });
            }
        }
    }
}
