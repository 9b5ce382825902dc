//! Which rank a process is, as the launcher that started it says in its environment.
//!
//! mpirun, srun, torchrun and an indexed job of Kubernetes all start the same binary. How ranks then find each other is
//! [`super::tcp`]'s and MPI's.

use anyhow::{Context, Result, bail, ensure};

/// The port that ranks meet at when the launcher names none.
pub const PORT: u16 = 29_500;

/// A rank among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which it is, counted from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// How many of them share this machine, as far as the launcher says; else 1.
    pub local_size: usize,
    /// Which of those it is, counted from 0: the card that it computes on, where there are some.
    pub local_rank: usize,
}

/// Who started the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// torchrun, a JobSet, or whoever sets `RANK` and `WORLD_SIZE`.
    Torchrun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// Those of MPICH and Intel MPI, and srun with PMI.
    Pmi,
    /// srun.
    Slurm,
}

/// What a launcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Who it is.
    pub by: Launcher,
    /// Which rank this process is.
    pub place: Place,
    /// Host and port at which the first rank is met, where it is said.
    pub meeting: Option<(String, u16)>,
}

/// Names of rank, size, ranks of this machine, and rank among those.
type Names = (Launcher, [&'static str; 4]);

/// The variables of each launcher. One that starts others, as srun starts torchrun, comes after them. In an sbatch
/// script itself `SLURM_PROCID` is set and no step is: such a process is alone.
const NAMES: [Names; 4] = [
    (Launcher::Torchrun, ["RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"]),
    (
        Launcher::OpenMpi,
        ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ),
    (Launcher::Pmi, ["PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"]),
    (Launcher::Slurm, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID"]),
];

impl Launcher {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchrun => "torchrun, or RANK and WORLD_SIZE",
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Pmi => "a launcher of MPICH's kind",
            Self::Slurm => "srun",
        }
    }

    /// Whether its ranks can begin MPI.
    pub fn starts_mpi(self) -> bool {
        matches!(self, Self::OpenMpi | Self::Pmi)
    }
}

/// What the variables of the environment say; `None` where nobody has started several ranks.
pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Launched>> {
    // An index of a Kubernetes job is a rank.
    let value = |name: &str| match name {
        "RANK" => variable(name).or_else(|| variable("JOB_COMPLETION_INDEX")),
        _ => variable(name),
    };
    for (by, [rank, size, local, index]) in NAMES {
        let (Some(rank_text), Some(size_text)) = (value(rank), value(size)) else { continue };
        let number = |name: &str, text: &str| -> Result<usize> {
            text.trim().parse().with_context(|| format!("{name}={text} is no number, and says which rank this is"))
        };
        let (number_of, count) = (number(rank, &rank_text)?, number(size, &size_text)?);
        if count <= 1 {
            return Ok(None);
        }
        ensure!(number_of < count, "{rank}={number_of} is no rank of {size}={count}: they count from 0");
        let local_size = value(local).and_then(|text| leading(&text)).unwrap_or(1).clamp(1, count);
        // Launchers place ranks machine by machine unless they are told otherwise, and then most say which is which.
        let local_rank = value(index).and_then(|text| leading(&text)).unwrap_or(number_of) % local_size;
        let place = Place { rank: number_of, size: count, local_size, local_rank };
        return Ok(Some(Launched { by, place, meeting: meeting(variable)? }));
    }
    Ok(None)
}

/// The number that a text begins with: Slurm writes `4(x2)` for four tasks on each of two machines.
fn leading(text: &str) -> Option<usize> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Where the first rank is met.
fn meeting(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(String, u16)>> {
    let Some(host) = variable("MASTER_ADDR").filter(|host| !host.is_empty()) else { return Ok(None) };
    let Some(text) = variable("MASTER_PORT").filter(|text| !text.is_empty()) else { return Ok(Some((host, PORT))) };
    let port: u16 = text.parse().with_context(|| format!("MASTER_PORT={text} is no port"))?;
    // torchrun's own agent listens at the port that it names.
    let taken = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match port.checked_add(u16::from(taken)) {
        Some(port) => Ok(Some((host, port))),
        None => bail!("MASTER_PORT={text}: the port above it is needed, and there is none; name another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_each_launcher_say_which_rank_this_is() {
        let place = |rank, size, [local_rank, local_size]: [usize; 2]| Place { rank, size, local_size, local_rank };
        for (variables, expected) in [
            ("", None),
            ("RANK=0 WORLD_SIZE=1", None),
            ("SLURM_PROCID=0 SLURM_NTASKS=4", None),
            ("RANK=3 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2", Some((Launcher::Torchrun, place(3, 4, [1, 2])))),
            ("JOB_COMPLETION_INDEX=5 WORLD_SIZE=8", Some((Launcher::Torchrun, place(5, 8, [0, 1])))),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                Some((Launcher::OpenMpi, place(1, 2, [1, 2]))),
            ),
            ("PMI_RANK=1 PMI_SIZE=3 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=3", Some((Launcher::Pmi, place(1, 3, [0, 1])))),
            (
                "SLURM_PROCID=6 SLURM_STEP_NUM_TASKS=8 SLURM_STEP_TASKS_PER_NODE=4(x2)",
                Some((Launcher::Slurm, place(6, 8, [2, 4]))),
            ),
            // Ranks that go from machine to machine in turn.
            ("RANK=3 WORLD_SIZE=4 LOCAL_WORLD_SIZE=2 LOCAL_RANK=0", Some((Launcher::Torchrun, place(3, 4, [0, 2])))),
            (
                "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=8 SLURM_STEP_TASKS_PER_NODE=4(x2) SLURM_LOCALID=3",
                Some((Launcher::Slurm, place(1, 8, [3, 4]))),
            ),
            // srun has started torchrun.
            (
                "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 RANK=9 WORLD_SIZE=16 LOCAL_WORLD_SIZE=8",
                Some((Launcher::Torchrun, place(9, 16, [1, 8]))),
            ),
        ] {
            let found = read(environment(variables)).unwrap().map(|launched| (launched.by, launched.place));
            assert_eq!(found, expected, "{variables}");
        }
    }

    fn environment(variables: &str) -> impl Fn(&str) -> Option<String> + Copy {
        move |name| {
            let pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        }
    }

    #[test]
    fn the_first_rank_is_met_where_the_launcher_says() {
        for (variables, expected) in [
            ("", None),
            ("MASTER_ADDR=", None),
            ("MASTER_ADDR=node-1", Some(("node-1", PORT))),
            ("MASTER_ADDR=node-1 MASTER_PORT=7000", Some(("node-1", 7000))),
            ("MASTER_ADDR=node-1 MASTER_PORT=7000 TORCHELASTIC_USE_AGENT_STORE=True", Some(("node-1", 7001))),
        ] {
            let all = format!("RANK=0 WORLD_SIZE=2 {variables}");
            let found = read(environment(&all)).unwrap().unwrap().meeting;
            assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{variables}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (variables, expected) in [
            ("RANK=x WORLD_SIZE=2", "RANK=x is no number"),
            ("RANK=2 WORLD_SIZE=2", "RANK=2 is no rank of WORLD_SIZE=2"),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=99999", "MASTER_PORT=99999 is no port"),
        ] {
            let error = read(environment(variables)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{variables}: {error:#}");
        }
    }
}
