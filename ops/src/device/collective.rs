//! Devices of several processes that add up and hand around what they hold without a way through the host, as cards do
//! with NCCL (`nccl.rs`). Who the processes are, and what becomes of a run when one of them goes, is left to the caller.

use std::fmt::Debug;
use std::ops::Range;

use anyhow::Result;

use super::{Device, View};

/// What lets devices of several processes work together.
pub trait Collectives {
    /// Makes what the others need to find this one: the first rank makes it, and all get it.
    fn meeting(&self) -> Result<Vec<u8>>;

    /// Joins as rank `rank` of `size`; waits for all of them.
    fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<Box<dyn Collective>>;
}

/// One of the devices that work together. All make the same calls in the same order; work is queued in its device's
/// stream. Addresses are the device's own, and shares follow each other, one for each rank.
#[allow(unsafe_code)] // addresses cannot be checked
pub trait Collective: Debug + Send + Sync {
    /// Queues: what lies in each of the `shares` of the values at `address` becomes, on the rank whose it is, its sum
    /// over all ranks. Elsewhere it stays.
    ///
    /// # Safety
    /// The memory at `address` is allocated and as long as the shares.
    unsafe fn sum_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()>;

    /// Queues: all ranks get each of the `shares` of the values at `address` from the rank whose it is.
    ///
    /// # Safety
    /// The memory at `address` is allocated and as long as the shares.
    unsafe fn spread_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()>;
}

/// A device that works together with those of other ranks.
#[derive(Debug)]
pub struct Together {
    device: Device,
    collective: Box<dyn Collective>,
}

#[allow(unsafe_code)] // views lie within their buffers, and lengths are checked
impl Together {
    /// `device`, which is that of the `collective`.
    pub(super) fn new(device: &Device, collective: Box<dyn Collective>) -> Self {
        Self { device: device.clone(), collective }
    }

    /// Queues: each rank gets the sum of what all have in its own of the `shares` of `values`.
    pub fn sum_shares(&self, values: View<f32>, shares: &[Range<usize>]) -> Result<()> {
        self.check(values, shares);
        // SAFETY: within the view.
        unsafe { self.collective.sum_shares(values.address(), shares) }
    }

    /// Queues: all ranks get what each has in its own of the `shares` of `values`.
    pub fn spread_shares(&self, values: View<f32>, shares: &[Range<usize>]) -> Result<()> {
        self.check(values, shares);
        // SAFETY: within the view.
        unsafe { self.collective.spread_shares(values.address(), shares) }
    }

    fn check(&self, values: View<f32>, shares: &[Range<usize>]) {
        assert!(values.device().is(&self.device), "the values are on another device");
        let end = shares.iter().fold(0, |end, share| {
            assert_eq!(share.start, end, "shares follow each other");
            share.end
        });
        assert_eq!(end, values.len(), "shares are of all values");
    }
}
