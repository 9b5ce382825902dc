//! Rows of numbers on devices that ranks add, share and pass on: by the devices' own way, as NCCL is for cards, or by way
//! of their hosts, where they have none.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::Ranks;
use crate::ops::device::collective::Together;
use crate::ops::device::{Device, View};

/// The ranks of a run, each with a device of its own.
#[derive(Debug, Clone, Default)]
pub struct DeviceRanks {
    ranks: Ranks,
    /// None where rows go by way of the hosts.
    together: Option<Arc<Together>>,
}

impl DeviceRanks {
    /// Brings the devices of all ranks together; waits for all of them.
    pub fn join(ranks: &Ranks, device: &Device) -> Result<Self> {
        let alone = Self { ranks: ranks.clone(), together: None };
        if ranks.size() == 1 {
            return Ok(alone);
        }
        let joins = ranks.gather(device.joins())?;
        if joins.iter().all(|joins| !joins) {
            return Ok(alone);
        }
        ranks.same(match joins.iter().position(|joins| !joins) {
            Some(rank) => Err(anyhow!("rank {rank} finds no NCCL, and others do: let all find libnccl.so, or none")),
            None => Ok(()),
        })?;
        let meeting = if ranks.is_first() { device.meeting() } else { Ok(None) };
        let meeting =
            ranks.agree(meeting)?.into_iter().flatten().next().context("the first rank's card names no meeting")?;
        let together = device.join(&meeting, ranks.rank(), ranks.size())?;
        Ok(Self { together: Some(Arc::new(together)), ..alone })
    }

    /// All of them.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Gives each rank the sum of what all have in its own of the `shares` of `values`, one for each rank. What it has
    /// elsewhere is of no use after it.
    pub fn sum_shares(&self, values: View<f32>, shares: &[Range<usize>]) -> Result<()> {
        match &self.together {
            _ if self.ranks.size() == 1 => Ok(()),
            Some(together) => together.sum_shares(values, shares),
            None => {
                let own = shares[self.ranks.rank()].clone();
                let sum = self.ranks.sum_shares(vec![values.read()?], shares)?;
                values.part(own.clone()).write(&sum[own])
            }
        }
    }

    /// Gives all ranks what each of them has in its own of the `shares` of `values`.
    pub fn spread_shares(&self, values: View<f32>, shares: &[Range<usize>]) -> Result<()> {
        match &self.together {
            _ if self.ranks.size() == 1 => Ok(()),
            Some(together) => together.spread_shares(values, shares),
            None => {
                let mut all = values.read()?;
                self.ranks.spread_shares(&mut all, shares)?;
                values.write(&all)
            }
        }
    }
}
