//! Ranks over MPI, where the binary is built with the feature `mpi` and an MPI launcher has started it. Who dies ends
//! all: that is the launcher's to see.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use ferrompi::{Communicator, Mpi, ThreadLevel};

use super::launch::Place;
use super::{Ranks, Transport};
use crate::output::note;

/// The tag of all messages: between two neighbours they come in their order.
const TAG: i32 = 0;

/// How long a message is waited for without giving the core away.
const SPIN: Duration = Duration::from_micros(50);

/// The pause between two looks after that: other threads of this machine have work to do.
const PAUSE: Duration = Duration::from_micros(100);

struct MpiRing {
    world: Communicator,
    place: Place,
    patience: Duration,
}

impl fmt::Debug for MpiRing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "MpiRing({:?})", self.place)
    }
}

/// MPI, until it is dropped at the end of the program.
pub(super) struct Session(#[expect(dead_code, reason = "dropped to end MPI")] Mpi);

/// Begins MPI, and the ring of its ranks; what MPI does not say is as the launcher has it. To be called, and all work to be done, on the main thread.
pub(super) fn join(launched: Place, patience: Duration) -> Result<(Session, Ranks)> {
    let mpi =
        Mpi::init_thread(ThreadLevel::Funneled).context("cannot begin MPI: start the program by mpirun or srun")?;
    let world = mpi.world();
    let (rank, size) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
    let place = Place { rank, size, ..launched };
    Ok((Session(mpi), Ranks::new(place, Box::new(MpiRing { world, place, patience }))))
}

/// The MPI in this binary, for people.
pub(super) fn version() -> String {
    Mpi::library_version().map_or_else(|error| format!("does not answer: {error}"), |version| first_line(&version))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

impl Transport for MpiRing {
    fn exchange(&self, sends: &[(usize, &[u8])], receives: &mut [(usize, &mut [u8])]) -> Result<()> {
        let rank = self.place.rank;
        let from = receives.iter().filter(|(_, into)| !into.is_empty()).map(|(from, _)| *from);
        let to = sends.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(to, _)| *to);
        let others: Vec<usize> = from.chain(to).collect();
        let mut outcome = Ok(());
        ferrompi::scope(|scope| {
            let mut requests = Vec::new();
            for (from, into) in receives.iter_mut().filter(|(_, into)| !into.is_empty()) {
                requests.push(self.world.irecv(scope, into, *from as i32, TAG)?);
            }
            for (to, bytes) in sends.iter().filter(|(_, bytes)| !bytes.is_empty()) {
                requests.push(self.world.isend(scope, bytes, *to as i32, TAG)?);
            }
            let start = Instant::now();
            while !requests.is_empty() {
                let mut left = Vec::new();
                for mut request in requests {
                    if request.test()?.is_none() {
                        left.push(request);
                    }
                }
                requests = left;
                if start.elapsed() > self.patience {
                    // The scope would wait for ever: all ranks end here.
                    let waited = start.elapsed().as_secs();
                    self.fail(&format!("rank {rank} has waited {waited} s for one of the ranks {others:?}"));
                }
                if start.elapsed() > SPIN {
                    std::thread::sleep(PAUSE);
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| outcome = Err(Error::new(error).context("MPI cannot pass on what ranks say")));
        outcome
    }

    fn fail(&self, message: &str) {
        note!("error: {message}");
        self.world.abort(1);
    }

    fn await_end(&self) {
        std::thread::sleep(self.patience);
    }

    fn end(&self) -> Result<()> {
        self.world.barrier().or_else(|error| bail!("MPI cannot end: {error}"))
    }
}
