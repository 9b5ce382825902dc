//! Several processes make one run: its bits are those of one process, and it ends on all of them when one fails.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reckon::model::{CpuModel, Sharing};
use reckon::ops::linear::Precision;
use reckon::policy::{CpuLearner, Learner};
use reckon::ranks::tcp::ring_of_threads;
use reckon_datasets::Counted;

use super::deltas;
use super::killing::{ends_well_on, kill};
use super::models::{FAMILIES, cpu, cpu_mut, rising, samples, shared_micros, tiny};
use super::probes::probing_run;
use super::program::{errors, fails, reckon, records, small_run, succeeds, text};

/// The program as each of `size` ranks, as a launcher would start it, with these arguments for rank `rank`.
fn launched<'a>(size: usize, arguments: impl Fn(usize) -> Vec<&'a str>) -> Vec<Command> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let command = |rank: usize| {
        let mut command = reckon(&arguments(rank));
        let variables =
            [("RANK", rank.to_string()), ("WORLD_SIZE", size.to_string()), ("MASTER_PORT", port.to_string())];
        command.envs(variables).env("MASTER_ADDR", "127.0.0.1").env("LOCAL_WORLD_SIZE", size.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    (0..size).map(command).collect()
}

fn spawned<'a>(size: usize, arguments: impl Fn(usize) -> Vec<&'a str>) -> Vec<Child> {
    launched(size, arguments).iter_mut().map(|command| command.spawn().unwrap()).collect()
}

fn ended(ranks: Vec<Child>) -> Vec<Output> {
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

/// Runs it on `size` ranks to its end.
pub(crate) fn succeeds_on(size: usize, arguments: &[&str]) {
    for (rank, output) in ended(spawned(size, |_| arguments.to_vec())).iter().enumerate() {
        assert!(output.status.success(), "rank {rank} of {size}: {}", errors(output));
        assert!(rank == 0 || errors(output).is_empty(), "rank {rank} of {size} has nothing to say: {}", errors(output));
    }
}

/// What all ranks complained of, which ends with exit code 1 on each.
pub(crate) fn fail_on<'a>(size: usize, arguments: impl Fn(usize) -> Vec<&'a str>) -> String {
    let outputs = ended(spawned(size, arguments));
    assert!(outputs.iter().all(|output| output.status.code() == Some(1)), "{outputs:?}");
    outputs
        .iter()
        .flat_map(|output| errors(output).lines().map(str::to_owned).collect::<Vec<_>>())
        .fold(String::new(), |all, line| if line.starts_with("error: ") { all + &line + "\n" } else { all })
}

/// The weights and moments of the last checkpoint of a run.
fn state(run: &Path) -> Vec<Vec<u8>> {
    let (_, last) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
    let values = ["model.safetensors", "adapter_model.safetensors", "trainer.safetensors"];
    let found: Vec<Vec<u8>> = values.iter().filter_map(|name| std::fs::read(last.join(name)).ok()).collect();
    assert_eq!(found.len(), 2, "{}", last.display());
    found
}

/// The config of a run that goes through most of what ranks share: reference, several updates, evaluations.
fn run_of(folder: &Path, kind: &str) -> PathBuf {
    match kind {
        "whole" => {
            small_run(folder, 3, "grpo = {kl_coef = 0.01, completions_per_update = 8}\nlog = {token_groups = 2}")
        }
        "adapter" => small_run(folder, 3, "lora = {rank = 4}\ngrpo = {kl_coef = 0.01}"),
        "eight bits" => small_run(folder, 3, "optim = {moments = 'eight_bit'}\ngrpo = {completions_per_update = 8}"),
        "delta nets" => deltas::run(folder, 2, 32, ""),
        "delta nets of four bits" => deltas::run(folder, 2, 256, "lora = {rank = 4, base = 'q4_k'}"),
        "resampled" => small_run(folder, 2, "grpo = {drop_zero_signal = true, resample_max = 2}"),
        probed => probing_run(folder, 2, probed),
    }
}

/// Records, weights and moments are those of one process.
pub(crate) fn assert_same(run: &Path, alone: &Path, what: &str) {
    assert_eq!(records(run), records(alone), "{what}");
    assert!(state(run) == state(alone), "{what}: weights or moments differ");
}

#[test]
fn a_run_on_several_ranks_has_the_bits_of_one_process() {
    for (kind, sizes) in [
        ("whole", &[2, 3, 4][..]),
        ("adapter", &[2, 3, 4]),
        ("eight bits", &[2, 3]),
        ("delta nets", &[2]),
        ("delta nets of four bits", &[2]),
        ("resampled", &[3]),
        ("mixed", &[2]),
        ("flat", &[2]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = run_of(folder.path(), kind);
        let alone = folder.path().join("alone");
        succeeds(&["train", text(&config), "--out", text(&alone)]);
        for &size in sizes {
            let run = folder.path().join(format!("on-{size}"));
            succeeds_on(size, &["train", text(&config), "--out", text(&run)]);
            assert_same(&run, &alone, &format!("{kind} on {size} ranks"));
            assert!(records(&run)[1..].iter().all(|record| record.get("policy/mismatch_kl") == Some(0.0)), "{kind}");
            let kept = |run: &Path| std::fs::read_to_string(run.join("live.jsonl")).unwrap();
            assert_eq!(kept(&run), kept(&alone), "{kind} on {size} ranks: what is kept of rollouts");
            let last = reckon::metrics::read(&run.join("metrics.jsonl")).unwrap().pop().unwrap();
            let busy = |rank: usize| last.get(&format!("time/rank_busy_s/{rank}"));
            assert!((0..size).all(|rank| busy(rank).is_some_and(|s| s > 0.0)) && busy(size).is_none(), "{last:?}");
        }
    }
}

#[test]
fn a_checkpoint_of_some_ranks_is_gone_on_from_by_others() {
    for kind in ["whole", "eight bits"] {
        let folder = tempfile::tempdir().unwrap();
        let config = run_of(folder.path(), kind);
        // The last step of a run is evaluated.
        let every = std::fs::read_to_string(&config).unwrap().replace("every = 2}", "every = 1}");
        std::fs::write(&config, every).unwrap();
        let (alone, run) = (folder.path().join("alone"), folder.path().join("run"));
        succeeds(&["train", text(&config), "--out", text(&alone)]);
        succeeds_on(3, &["train", text(&config), "--out", text(&run), "--set", "steps=1"]);
        succeeds_on(2, &["train", "--resume", text(&run), "--set", "steps=2"]);
        succeeds(&["train", "--resume", text(&run), "--set", "steps=3"]);
        assert_same(&run, &alone, kind);
    }
}

#[test]
fn a_large_models_gradient_in_parts_has_the_same_bits_on_any_ranks() {
    let learner = |ranks: &reckon::ranks::Ranks, parts: usize| {
        let mut policy = tiny(FAMILIES[0], true);
        let model = cpu_mut(&mut policy);
        *model = CpuModel::new(model.decoder.clone(), model.parameters().clone(), 1, Precision::Fp32);
        model.sharing = Sharing::Operations;
        let mut learner = CpuLearner::new(cpu(&policy).clone());
        learner.join(ranks, parts).unwrap();
        learner
    };
    let micros = shared_micros(&samples(24), 60);
    assert!(micros.len() > 4, "{}", micros.len());
    let gradient = |ranks: &reckon::ranks::Ranks, parts: usize| {
        let mut learner = learner(ranks, parts);
        let stats = learner.gradients(&micros, 0.9, &rising).unwrap();
        let share = learner.shares[ranks.rank()].clone();
        (share.clone(), learner.gradients[share].to_vec(), stats)
    };
    let alone = gradient(&reckon::ranks::Ranks::alone(), 4);
    let whole = gradient(&reckon::ranks::Ranks::alone(), 1);
    assert_eq!(alone.2, whole.2);
    assert!(alone.1.iter().zip(&whole.1).all(|(a, b)| (a - b).abs() < 1e-4), "parts change the rounding alone");
    for size in [2, 3, 4] {
        std::thread::scope(|scope| {
            for ranks in ring_of_threads(size).unwrap() {
                let (gradient, alone) = (&gradient, &alone);
                scope.spawn(move || {
                    let (share, own, stats) = gradient(&ranks, 4);
                    assert!(share.len() > alone.1.len() / (size + 1), "{share:?}, on {size} ranks");
                    assert_eq!((own.as_slice(), &stats), (&alone.1[share], &alone.2), "on {size} ranks");
                    ranks.finish(Ok(())).unwrap();
                });
            }
        });
    }
}

#[test]
fn ranks_that_are_not_alike_are_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 3, "");
    for (set, expected) in [
        ("optim.lr=0.5", "optim.lr is 0.5 on rank 1 and"),
        ("seed=7", "seed is 7 on rank 1 and 0 on rank 0"),
        ("rubric.max_error_share=0.25", "rubric.max_error_share is 0.25 on rank 1 and 0.5 on rank 0"),
    ] {
        let run = folder.path().join(format!("differs-{}", set.len()));
        let complaint = fail_on(2, |rank| {
            let own = ["train", text(&config), "--out", text(&run)].to_vec();
            if rank == 1 { [own, vec!["--set", set]].concat() } else { own }
        });
        assert!(complaint.contains(expected) && complaint.lines().count() == 1, "{set}: {complaint}");
        assert!(!run.exists(), "nothing is written");
    }
}

#[test]
fn ranks_that_cannot_meet_are_told_how() {
    let run = |variables: &[(&str, &str)]| {
        let output = reckon(&["train"]).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        errors(&output)
    };
    for (variables, expected) in [
        (&[("RANK", "0"), ("WORLD_SIZE", "2")][..], "set MASTER_ADDR"),
        (&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2")], "`reckon launch --slurm`"),
        (&[("RANK", "4"), ("WORLD_SIZE", "2")], "RANK=4 is no rank of WORLD_SIZE=2"),
        (&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "192.0.2.1")], "cannot listen at 192.0.2.1:29500"),
    ] {
        let complaint = run(variables);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{variables:?}: {complaint}");
    }
    assert!(fails(&["train", "--out", "/dev/null/run"]).contains("cannot create"), "a process alone needs none of it");
}

/// Waits until a step is saved.
fn await_step(run: &Path, step: u64) {
    while !run.join("checkpoints").join(reckon::checkpoint::step_name(step)).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_rank_that_is_killed_ends_all_in_ten_seconds_and_the_run_goes_on_as_if_nothing_had_happened() {
    let kills: u64 = std::env::var("RECKON_KILLS").map_or(4, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = small_run(folder.path(), 6, "grpo = {kl_coef = 0.01, completions_per_update = 8}");
    let straight = folder.path().join("straight");
    let start = Instant::now();
    succeeds_on(2, &["train", text(&config), "--out", text(&straight)]);
    let (length, mut random) = (start.elapsed(), Counted::new(&[44]));
    for point in 0..kills {
        let run = folder.path().join(format!("killed-{point}"));
        let mut ranks = spawned(3, |_| vec!["train", text(&config), "--out", text(&run)]);
        await_step(&run, 0);
        let victim = (point % 3) as usize;
        let mut child = ranks.remove(victim);
        // While a checkpoint is written, the others hand over their moments.
        if !kill(&mut child, &run, length.mul_f64(0.5 * random.unit()), point % 2 == 1) {
            assert!(ended(ranks).iter().all(|output| output.status.success()));
            continue;
        }
        let killed = Instant::now();
        let outputs = ended(ranks);
        assert!(killed.elapsed() < Duration::from_secs(10), "they took {:?}", killed.elapsed());
        assert!(outputs.iter().all(|output| output.status.code() == Some(1)), "{outputs:?}");
        let said: String = outputs.iter().map(errors).collect();
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(
            told,
            [format!("error: rank {victim} is gone, so the run ends on all; go on with --resume")],
            "{said}"
        );
        succeeds_on(2, &["train", "--resume", text(&run)]);
        assert_eq!(records(&run), records(&straight), "after rank {victim} was killed");
    }
}

#[test]
fn a_rank_that_hangs_ends_all_in_the_time_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (small_run(folder.path(), 100_000, ""), folder.path().join("run"));
    let mut ranks = spawned(2, |_| vec!["train", text(&config), "--out", text(&run), "--rank-timeout", "3"]);
    await_step(&run, 1);
    let mut hung = ranks.pop().unwrap();
    let signal = |name: &str| Command::new("kill").args([name, &hung.id().to_string()]).status().unwrap();
    assert!(signal("-STOP").success());
    let stopped = Instant::now();
    let output = ended(ranks).pop().unwrap();
    let (took, said) = (stopped.elapsed(), errors(&output));
    assert!(signal("-CONT").success());
    assert_eq!(hung.wait().unwrap().code(), Some(1), "it ends too, once it goes on");
    assert!(took < Duration::from_secs(10) && output.status.code() == Some(1), "{took:?}: {said}");
    assert!(said.contains("rank 0 has waited 3 s for rank 1"), "{said}");
}

#[test]
fn ranks_asked_to_stop_finish_their_step_and_save_also_where_one_alone_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (small_run(folder.path(), 100_000, ""), folder.path().join("run"));
    let mut ranks = spawned(2, |_| vec!["train", text(&config), "--out", text(&run)]);
    await_step(&run, 1);
    ends_well_on("-TERM", ranks.remove(0));
    assert!(ended(ranks)[0].status.success());
    let (last, _) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
    assert_eq!(records(&run).last().unwrap().step, last, "nothing after the last save is lost");

    let mut ranks = spawned(2, |_| vec!["train", "--resume", text(&run)]);
    await_step(&run, last + 1);
    assert!(Command::new("kill").args(["-TERM", &ranks[1].id().to_string()]).status().unwrap().success());
    assert!(ended(std::mem::take(&mut ranks)).iter().all(|output| output.status.success()));
}

#[test]
fn a_verifier_that_breaks_on_one_rank_stops_all_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // Judges twelve completions on the second rank, and no more, also by a worker that is started again.
    let script = r#"echo '{"ready": true}'
        while IFS= read -r call; do
            echo >> "$0.$RANK"; id=${call#*\"id\":}; id=${id%%,*}
            if [ "$RANK" = 1 ] && [ "$(wc -l < "$0.1")" -gt 12 ]; then echo "{\"id\": $id, \"error\": \"the disk is full\"}"
            else echo "{\"id\": $id, \"reward\": 1}"; fi
        done"#;
    let verifier = folder.path().join("verifier.sh");
    std::fs::write(&verifier, script).unwrap();
    let config = small_run(folder.path(), 20, "audit = {rows = 0}");
    let judged = format!("kind = 'command', command = ['sh', '{}'], process = {{env = ['RANK']}}", text(&verifier));
    let told = std::fs::read_to_string(&config).unwrap().replace("kind = 'countdown'", &judged);
    std::fs::write(&config, told).unwrap();
    let run = folder.path().join("run");
    let complaint = fail_on(2, |_| vec!["train", text(&config), "--out", text(&run), "--set", "eval.problems=0"]);
    let named = ["its last state is saved", "rank 1: ", "the disk is full"];
    assert!(named.iter().all(|part| complaint.contains(part)), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let (last, _) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
    assert_eq!(records(&run).last().unwrap().step, last);
}

/// `mpirun`, which is there where the feature could be built.
#[cfg(feature = "mpi")]
fn mpirun(size: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    let allowed = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"];
    command.envs(allowed.map(|name| (name, "1")));
    command.args(["--bind-to", "none", "-n", &size.to_string(), env!("CARGO_BIN_EXE_reckon")]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[cfg(feature = "mpi")]
#[test]
fn a_run_over_mpi_has_the_bits_of_one_process() {
    for (kind, sizes) in [("whole", &[2, 4][..]), ("adapter", &[3])] {
        let folder = tempfile::tempdir().unwrap();
        let config = run_of(folder.path(), kind);
        let alone = folder.path().join("alone");
        succeeds(&["train", text(&config), "--out", text(&alone)]);
        for &size in sizes {
            let run = folder.path().join(format!("on-{size}"));
            let output = mpirun(size, &["train", text(&config), "--out", text(&run)]).output().unwrap();
            assert!(output.status.success(), "{}", errors(&output));
            assert!(errors(&output).contains(&format!("{size} ranks, started by mpirun of Open MPI, over MPI")));
            assert_same(&run, &alone, &format!("{kind} on {size} ranks"));
        }
    }
}

#[cfg(feature = "mpi")]
#[test]
fn a_rank_that_is_killed_under_mpi_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (small_run(folder.path(), 100_000, ""), folder.path().join("run"));
    let child = mpirun(2, &["train", text(&config), "--out", text(&run)]).spawn().unwrap();
    await_step(&run, 2);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let last = children.split_whitespace().last().unwrap();
    assert!(Command::new("kill").args(["-9", last]).status().unwrap().success());
    let killed = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let (last, _) = reckon::checkpoint::latest(&run.join("checkpoints")).unwrap().unwrap();
    let more = format!("steps={}", last + 1);
    succeeds(&["train", "--resume", text(&run), "--set", &more]);
}
