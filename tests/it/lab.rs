use std::path::{Path, PathBuf};

use reckon::run::rollouts::{self, SavedRollout};

use crate::program::{fails, records, small_run, succeeds, text};

/// A finished run of a few steps, with `more` in its config.
fn finished(folder: &Path, name: &str, more: &str) -> PathBuf {
    let config = small_run(folder, 4, more);
    let run = folder.join(name);
    succeeds(&["train", text(&config), "--out", text(&run)]);
    run
}

/// All rollouts of the first step whose rollouts were kept, group by group.
fn first_step(run: &Path) -> Vec<Vec<SavedRollout>> {
    let groups = rollouts::read(&rollouts::files(run).unwrap()[0]).unwrap();
    groups.into_iter().map(|group| group.rollouts).collect()
}

#[test]
fn kept_rollouts_have_each_tokens_text_probability_and_entropy() {
    let folder = tempfile::tempdir().unwrap();
    let groups =
        first_step(&finished(folder.path(), "run", "log = {token_groups = 2}\ngrpo = {drop_zero_signal = false}"));
    assert_eq!(groups.iter().map(|group| group[0].by_token.is_some()).collect::<Vec<_>>(), [true, true, false, false]);
    for rollout in groups.iter().flatten() {
        assert!(rollout.passed.is_some() && rollout.advantage.is_some());
        let Some(by) = &rollout.by_token else { continue };
        let count = rollout.tokens.len();
        assert_eq!((by.pieces.len(), by.logprobs.len(), by.entropies.len()), (count, count, count));
        // The pieces are the text, and the stop token's beyond it.
        let (before, last) = by.pieces.split_at(count - 1);
        let all: usize = by.start + before.iter().sum::<usize>() + if rollout.truncated { last[0] } else { 0 };
        assert_eq!(all, rollout.completion.len(), "{}", rollout.completion);
        assert!(
            by.logprobs.iter().all(|logprob| *logprob <= 0.0) && by.entropies.iter().all(|entropy| *entropy >= 0.0)
        );
        assert!(by.entropies.iter().any(|entropy| *entropy > 0.0));
    }
    let dropped = first_step(&finished(folder.path(), "dropped", "log = {token_groups = 0}"));
    assert!(dropped.iter().flatten().all(|rollout| rollout.by_token.is_none()));
    for group in &dropped {
        let has_signal = group.iter().any(|rollout| rollout.reward != group[0].reward);
        assert!(
            group.iter().all(|rollout| rollout.advantage.is_some() == has_signal),
            "a group without signal is left out"
        );
    }
}

#[test]
fn what_is_kept_for_looking_at_changes_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let expected = records(&finished(folder.path(), "bare", "log = {token_groups = 0}"));
    let more = "log = {token_groups = 4, tensorboard = true, wandb = true}\n";
    assert_eq!(records(&finished(folder.path(), "all", more)), expected);
}

#[test]
fn files_of_other_programs_follow_from_the_records_also_in_a_run_that_was_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let more = "log = {tensorboard = true, wandb = true}";
    let run = finished(folder.path(), "run", more);
    let files = |run: &Path| {
        let only = |folder: PathBuf| {
            let entries: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(entries.len(), 1, "{entries:?}");
            entries[0].clone()
        };
        let offline = only(run.join("wandb"));
        let id = offline.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap().1.to_owned();
        let wandb = std::fs::read(offline.join(format!("run-{id}.wandb"))).unwrap();
        (std::fs::read(only(run.join("tensorboard"))).unwrap(), wandb)
    };
    /// How many steps have a value under this name.
    fn times(bytes: &[u8], name: &str) -> usize {
        bytes.windows(name.len()).filter(|window| *window == name.as_bytes()).count()
    }
    let (events, wandb) = files(&run);
    assert_eq!((times(&events, "reward/mean"), times(&events, "eval/pass@1")), (4, 3));
    // The last values stand in the summary once more.
    assert_eq!((times(&wandb, "reward/mean"), times(&wandb, "eval/pass@1")), (5, 4));
    succeeds(&["train", "--resume", text(&run), "--set", "steps=6"]);
    let (events, wandb) = files(&run);
    assert_eq!((times(&events, "reward/mean"), times(&events, "eval/pass@1")), (6, 4));
    assert_eq!((times(&wandb, "reward/mean"), times(&wandb, "eval/pass@1")), (7, 5));
}

#[test]
fn a_report_is_a_page_a_text_a_table_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let run = finished(folder.path(), "run", "");
    for file in ["machine.json", "before.json", "evals/step-000002.json", "evals/step-000004.json", "live.jsonl"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let printed = succeeds(&["report", text(&run), "--text"]);
    assert!(printed.contains("run: seed 0, 4 steps") && printed.contains("McNemar exact"), "{printed}");
    assert!(!folder.path().join("report.html").exists(), "text alone was asked for");
    let (page, pictures) = (folder.path().join("page.html"), folder.path().join("pictures"));
    let printed = succeeds(&["report", text(&run), "--out", text(&page), "--svg", text(&pictures)]);
    assert!(printed.contains("held-out accuracy"), "{printed}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("held-out completions that are correct"), "the meanings of metrics are in it");
    assert!(pictures.join("accuracy.svg").is_file() && pictures.join("reward.svg").is_file());
    let table = succeeds(&["report", text(&run), "--csv"]);
    assert_eq!(table.lines().count(), 1 + 5, "{table}");
    let complaint = fails(&["report", text(&folder.path().join("nothing"))]);
    assert!(complaint.contains("there is no run in") && complaint.trim().lines().count() == 1, "{complaint}");
}

#[test]
#[cfg(feature = "watch")]
fn a_dashboard_wants_a_terminal_and_says_what_to_do_without_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), "steps = 1\n").unwrap();
    let complaint = fails(&["watch", text(folder.path())]);
    assert!(complaint.contains("--text") && complaint.trim().lines().count() == 1, "{complaint}");
    assert!(fails(&["watch", text(&folder.path().join("nothing"))]).contains("holds no run"));
}
