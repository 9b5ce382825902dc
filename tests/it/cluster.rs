//! What a cluster is given to launch a run, and what `docs/cluster.md` shows of it.

use std::process::Command;

use super::program::{fails, reckon, succeeds};

const SLURM: &[&str] =
    &["launch", "examples/gsm8k/config.toml", "--slurm", "--nodes", "4", "--threads", "16", "--dry-run"];
const K8S: &[&str] = &["launch", "examples/gsm8k/config.toml", "--k8s", "--nodes", "4", "--dry-run"];

#[test]
fn the_document_shows_what_is_printed() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cluster.md")).unwrap();
    for arguments in [SLURM, K8S] {
        let printed = succeeds(arguments);
        assert!(document.contains(&printed), "docs/cluster.md lacks what `reckon {}` prints", arguments.join(" "));
        assert!(document.contains(&format!("reckon {}", arguments.join(" "))), "{arguments:?}");
    }
}

#[test]
fn ranks_on_cards_are_given_a_card_each() {
    let cards = ["--ranks-per-node", "8", "--set", "compute.device=cuda"];
    for (kind, expected) in [(SLURM, "#SBATCH --gpus-per-node=8\n"), (K8S, "nvidia.com/gpu: \"1\"\n")] {
        let (with, without) = (succeeds(&[kind, &cards[..]].concat()), succeeds(&[kind, &cards[..2]].concat()));
        let differing: Vec<&str> = with.lines().filter(|line| !without.contains(line)).collect();
        let [card, set] = differing[..] else { panic!("{with}") };
        assert_eq!(format!("{}\n", if kind == SLURM { card } else { set }.trim_start()), expected, "{with}");
        assert!(with.contains("compute.device=cuda"), "{with}");
    }
}

#[test]
fn a_script_passes_shellcheck_and_does_what_it_says() {
    let odd = ["--set", "rollout.stop=[\"it's over\"]", "--out", "/scratch/my runs/$1", "--partition", "long"];
    // That a dollar in a name is meant as one is no warning.
    for (script, severity) in [(succeeds(SLURM), "style"), (succeeds(&[SLURM, &odd[..]].concat()), "warning")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.sbatch");
        std::fs::write(&path, &script).unwrap();
        assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        match Command::new("shellcheck").args(["-S", severity]).arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(_) => eprintln!("skipped: there is no shellcheck on this machine"),
        }
    }
    // Stand-ins for what Slurm has: the arguments of the program are seen.
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("a run");
    let script = succeeds(&[SLURM, &["--out", run.to_str().unwrap(), "--set", "save.every=5"][..]].concat());
    std::fs::write(folder.path().join("run.sbatch"), script).unwrap();
    let tools = "scontrol() { echo node-7; }; export -f scontrol\nsrun() { printf '[%s]' \"$MASTER_ADDR:$MASTER_PORT\" \"$@\"; }; export -f srun\n";
    let started = || {
        let line = format!("{tools}bash '{}'", folder.path().join("run.sbatch").display());
        let output = Command::new("bash")
            .args(["-c", &line])
            .envs([("SLURM_JOB_ID", "123"), ("SLURM_JOB_NODELIST", "node-[7-10]")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = started();
    assert!(first.starts_with("[node-7:20123][--kill-on-bad-exit=1]"), "{first}");
    let begins = format!("[reckon][train][examples/gsm8k/config.toml][--set][save.every=5][--out][{}]", run.display());
    assert!(first.ends_with(&begins), "{first}");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("config.toml"), "").unwrap();
    let again = started();
    assert!(again.ends_with(&format!("[reckon][train][--resume][{}]", run.display())), "{again}");
}

#[test]
fn what_cannot_be_launched_is_refused_before_it_waits_in_a_queue() {
    for (arguments, expected) in [
        (&["launch", "examples/gsm8k/config.toml", "--slurm", "--name", "My Run"][..], "--name \"My Run\""),
        (&["launch", "no-such.toml", "--k8s"], "no-such.toml"),
        (&["launch", "--slurm", "--set", "steps=0"], "steps = 0"),
    ] {
        let complaint = fails(arguments);
        assert!(complaint.contains(expected) && complaint.trim().lines().count() == 1, "{complaint}");
    }
    assert_eq!(reckon(&["launch"]).output().unwrap().status.code(), Some(2), "one kind is to be named");
}

#[test]
fn what_ranks_do_not_share_is_not_done_by_each_of_them() {
    let output = reckon(&["eval"]).envs([("RANK", "0"), ("WORLD_SIZE", "2")]).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("2 ranks") && complaint.contains("`reckon train` alone"), "{complaint}");
}

#[test]
fn doctor_tells_of_mpi_and_launchers_and_lets_two_ranks_add() {
    let told = succeeds(&["doctor"]);
    for expected in ["nccl     ", "mpi      ", "launcher none", "ranks    two of this machine add 16 MB over TCP in "] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let output =
        reckon(&["doctor"]).envs([("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("launcher mpirun of Open MPI: rank 1 of 4, no MASTER_ADDR"), "{told}");
}
