//! Finds the other ranks, where a launcher has started several.

use std::time::Duration;

use anyhow::{Result, bail};

use super::launch::{self, Launched, Launcher};
use super::{Ranks, tcp};

/// The ranks of this program, until it ends.
pub struct Session {
    ranks: Ranks,
    how: Option<String>,
    /// Dropped last: it ends MPI.
    #[cfg(feature = "mpi")]
    _mpi: Option<super::mpi::Session>,
}

impl Session {
    /// A process that no launcher has started.
    fn alone() -> Self {
        Self::over(Ranks::alone(), None)
    }

    fn over(ranks: Ranks, how: Option<String>) -> Self {
        Self {
            ranks,
            how,
            #[cfg(feature = "mpi")]
            _mpi: None,
        }
    }

    /// Joins the ranks that the launcher of this process started. One that is waited for longer than `patience` ends
    /// all.
    pub fn begin(patience: Duration) -> Result<Self> {
        let Some(launched) = launch::read(|name| std::env::var(name).ok())? else { return Ok(Self::alone()) };
        let Launched { by, place, .. } = &launched;
        let started = format!("{} ranks, started by {}", place.size, by.name());
        if by.starts_mpi() && has_mpi() {
            return Self::over_mpi(&launched, &started, patience);
        }
        let Some(meeting) = &launched.meeting else { bail!("{started}: {}", way_out(*by)) };
        let how = format!("{started}, over TCP by way of {}:{}", meeting.0, meeting.1);
        Ok(Self::over(tcp::join(*place, meeting, patience)?, Some(how)))
    }

    #[cfg(feature = "mpi")]
    fn over_mpi(launched: &Launched, started: &str, patience: Duration) -> Result<Self> {
        let (mpi, ranks) = super::mpi::join(launched.place, patience)?;
        Ok(Self { ranks, how: Some(format!("{started}, over MPI")), _mpi: Some(mpi) })
    }

    #[cfg(not(feature = "mpi"))]
    fn over_mpi(_: &Launched, started: &str, _: Duration) -> Result<Self> {
        bail!("{started}: there is no MPI in this binary")
    }

    /// All of them.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// How many there are, and by what means they speak, for people.
    pub fn how(&self) -> Option<&str> {
        self.how.as_deref()
    }
}

/// Whether ranks can speak over MPI.
pub fn has_mpi() -> bool {
    cfg!(feature = "mpi")
}

/// The MPI of this binary, for people.
pub fn mpi_version() -> String {
    #[cfg(feature = "mpi")]
    return super::mpi::version();
    #[cfg(not(feature = "mpi"))]
    "not in this binary: build it with cargo build --release --features mpi (docs/cluster.md)".to_owned()
}

/// What to do where ranks do not know how to find each other.
fn way_out(by: Launcher) -> &'static str {
    match by {
        Launcher::Torchrun => "set MASTER_ADDR to the machine of rank 0, and MASTER_PORT to a free port there",
        Launcher::OpenMpi | Launcher::Pmi => {
            "build with --features mpi, or set MASTER_ADDR to the machine of rank 0 and MASTER_PORT to a free port there, \
             which mpirun passes on by -x MASTER_ADDR -x MASTER_PORT"
        }
        Launcher::Slurm => "set MASTER_ADDR and MASTER_PORT as the script of `reckon launch --slurm` does",
    }
}
