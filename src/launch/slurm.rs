//! A script for `sbatch`.

use super::{LEAD_S, Launch, quoted, words};

/// The script of a run that may take `time` at a stretch (`D-HH:MM:SS`, as Slurm writes it), in a partition if one is
/// named.
///
/// Before its time is up, Slurm tells the script, which tells the ranks: they finish their step and save, and the job
/// is put back into the queue, to go on from there. So it is when a machine fails, or the job is preempted.
pub fn sbatch(launch: &Launch, time: &str, partition: Option<&str>) -> String {
    let Launch { name, begin, run, ranks_per_node, nodes, threads, cards, program } = launch;
    let partition = partition.map_or_else(String::new, |partition| format!("#SBATCH --partition={partition}\n"));
    // All of a machine's cards are shown to all of its ranks, which take one each: so NCCL finds its way between them.
    let cards = if *cards { format!("#SBATCH --gpus-per-node={ranks_per_node}\n") } else { String::new() };
    let (begin, run, program) = (words(begin), quoted(run), quoted(program));
    format!(
        r#"#!/bin/bash
#SBATCH --job-name={name}
{partition}#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={ranks_per_node}
#SBATCH --cpus-per-task={threads}
{cards}#SBATCH --time={time}
#SBATCH --signal=B:TERM@{LEAD_S}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log
set -uo pipefail

# The ranks meet on the first machine, at a port that no other job there has.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

run={run}
if [ -e "$run/config.toml" ]; then
    set -- --resume "$run"
else
    set -- {begin} --out "$run"
fi

# Slurm says {LEAD_S} s ahead that the time is up, or that another job comes first.
again=
trap 'again=yes; kill -TERM "$step"' TERM
srun --kill-on-bad-exit=1 --cpu-bind=cores --cpus-per-task={threads} {program} train "$@" &
step=$!
wait "$step"
code=$?
if [ -n "$again" ]; then
    wait "$step"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"#
    )
}
