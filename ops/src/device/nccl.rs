//! Cards that work together by NCCL, loaded at run time as the driver is. Shares are of unequal lengths, so a sum is a
//! group of reductions, one to each rank, and what goes to all a group of broadcasts, one from each.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use cudarc::driver::{CudaContext, CudaStream};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::sys::{ncclComm_t, ncclDataType_t, ncclGetErrorString, ncclRedOp_t, ncclUniqueId};
use cudarc::nccl::{result, sys};

use super::collective::{Collective, Collectives};

/// Whether NCCL is on this machine.
pub fn present() -> bool {
    // SAFETY: loading the library runs its start-up code, as any program that uses it does.
    unsafe { sys::is_culib_present() }
}

/// NCCL's version, such as (2, 28, 3); `None` where there is none on this machine.
pub fn version() -> Result<Option<(i32, i32, i32)>> {
    if !present() {
        return Ok(None);
    }
    let version = result::get_nccl_version().map_err(|error| told("ncclGetVersion", &error))?;
    Ok(Some((version / 10_000, version % 10_000 / 100, version % 100)))
}

/// A card as NCCL takes it.
#[derive(Debug, Clone)]
pub(super) struct Nccl {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
}

/// What ranks find each other by.
fn unique_id() -> Result<Vec<u8>> {
    let id = result::get_uniqueid().map_err(|error| told("ncclGetUniqueId", &error))?;
    Ok(id.internal.iter().map(|&byte| byte as u8).collect())
}

impl Collectives for Nccl {
    fn meeting(&self) -> Result<Vec<u8>> {
        unique_id()
    }

    fn join(&self, meeting: &[u8], rank: usize, size: usize) -> Result<Box<dyn Collective>> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        ensure!(meeting.len() == id.internal.len(), "{} bytes are no name of NCCL's", meeting.len());
        id.internal.iter_mut().zip(meeting).for_each(|(to, &byte)| *to = byte as _);
        self.context.bind_to_thread()?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: writes the one handle.
        unsafe { result::comm_init_rank(&raw mut comm, size as c_int, id, rank as c_int) }
            .map_err(|error| told("ncclCommInitRank", &error))?;
        Ok(Box::new(Member { card: self.clone(), comm: Comm(comm) }))
    }
}

/// A handle of NCCL's. It is used by one call at a time: that of its device's stream.
#[derive(Debug)]
struct Comm(ncclComm_t);

// SAFETY: a communicator may be used by any thread, one at a time; the learner that has it is behind `&mut` where it sums.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

/// A card among those of other ranks.
#[derive(Debug)]
struct Member {
    card: Nccl,
    comm: Comm,
}

impl Member {
    /// Queues `each` for every share that is not empty, as one operation: its place, its length, and whose it is.
    fn grouped(
        &self,
        name: &str,
        address: u64,
        shares: &[Range<usize>],
        each: impl Fn(*mut c_void, usize, c_int) -> Result<result::NcclStatus, NcclError>,
    ) -> Result<()> {
        self.card.context.bind_to_thread()?;
        result::group_start().map_err(|error| told("ncclGroupStart", &error))?;
        let queued = shares.iter().enumerate().filter(|(_, share)| !share.is_empty()).try_for_each(|(rank, share)| {
            let place = (address + (share.start * size_of::<f32>()) as u64) as *mut c_void;
            each(place, share.len(), rank as c_int).map(drop)
        });
        // Ended also where a call failed, or the next group would go on with this one.
        let ended = result::group_end();
        queued.map_err(|error| told(name, &error))?;
        ended.map(drop).map_err(|error| told(name, &error))
    }
}

impl Collective for Member {
    unsafe fn sum_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()> {
        let (stream, float, sum) = (self.card.stream.cu_stream(), ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum);
        self.grouped("ncclReduce", address, shares, |place, len, owner| {
            // SAFETY: the caller's; in place, as NCCL allows.
            unsafe { result::reduce(place, place, len, float, sum, owner, self.comm.0, stream.cast()) }
        })
    }

    unsafe fn spread_shares(&self, address: u64, shares: &[Range<usize>]) -> Result<()> {
        let (stream, float) = (self.card.stream.cu_stream(), ncclDataType_t::ncclFloat32);
        self.grouped("ncclBroadcast", address, shares, |place, len, owner| {
            // SAFETY: the caller's; in place, as NCCL allows.
            unsafe { result::broadcast(place, place, len, float, owner, self.comm.0, stream.cast()) }
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Ended and not waited for: a rank that has gone would be waited for without end.
        // SAFETY: the handle is this member's alone.
        let _ = unsafe { result::comm_abort(self.comm.0) };
    }
}

/// An error in NCCL's own words.
fn told(what: &str, error: &NcclError) -> anyhow::Error {
    // SAFETY: a text of the library's that stays.
    let text = unsafe { CStr::from_ptr(ncclGetErrorString(error.0)) };
    anyhow!("{what}: {}; NCCL_DEBUG=INFO tells more", text.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nccl_says_without_a_card_is_read() {
        if !present() {
            eprintln!("skipped: there is no libnccl.so on this machine");
            return;
        }
        assert!(version().unwrap() >= Some((2, 18, 0)), "{:?}", version());
        let ids = [unique_id().unwrap(), unique_id().unwrap()];
        assert!(ids.iter().all(|id| id.len() == 128) && ids[0] != ids[1]);
        let error = told("ncclCommInitRank", &NcclError(sys::ncclResult_t::ncclInvalidArgument)).to_string();
        assert!(error.starts_with("ncclCommInitRank: invalid argument"), "{error}");
    }
}
