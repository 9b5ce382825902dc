use std::fs;
use std::path::Path;

use reckon_lab::arms::Study;

/// Makes a run with this config.
fn run(root: &Path, name: &str, config: &str) {
    let folder = root.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), config).unwrap();
    fs::write(folder.join("metrics.jsonl"), "{\"step\":1,\"reward/mean\":0.5}\n").unwrap();
}

/// The arms of these runs, each with its seeds.
fn arms(root: &Path, names: &[&str]) -> Vec<(String, Vec<i64>)> {
    let names: Vec<String> = names
        .iter()
        .map(|name| match name.split_once('=') {
            Some((arm, folder)) => format!("{arm}={}", root.join(folder).display()),
            None => root.join(name).display().to_string(),
        })
        .collect();
    let study = Study::read(&names).unwrap();
    study.arms.iter().map(|arm| (arm.name.clone(), study.of(arm).map(|run| run.seed()).collect())).collect()
}

#[test]
fn runs_that_differ_in_their_seed_alone_are_one_arm() {
    let root = tempfile::tempdir().unwrap();
    for seed in [2, 1, 10] {
        run(
            root.path(),
            &format!("primed/seed-{seed}"),
            &format!("seed = {seed}\nsteps = 9\n[model]\npath = \"a-{seed}\""),
        );
        run(root.path(), &format!("flat-{seed}"), &format!("seed = {seed}\n[optim]\nlr = 0.1\n[save]\nevery = {seed}"));
    }
    run(root.path(), "other", "seed = 1\n[optim]\nlr = 0.2");
    let expect = |names: &[&str], expected: &[(&str, &[i64])]| {
        let expected: Vec<(String, Vec<i64>)> =
            expected.iter().map(|(name, seeds)| (name.to_string(), seeds.to_vec())).collect();
        assert_eq!(arms(root.path(), names), expected, "{names:?}");
    };
    expect(&["primed"], &[("primed", &[1, 2, 10])]);
    expect(&["primed/seed-2"], &[("primed", &[2])]);
    expect(&["flat-1", "flat-2", "flat-10", "other"], &[("flat", &[1, 2, 10]), ("other", &[1])]);
    expect(&[""], &[("flat", &[1, 2, 10]), ("other", &[1]), ("primed", &[1, 2, 10])]);
    expect(&["mine=flat-1", "yours=flat-2", "mine=other"], &[("mine", &[1, 1]), ("yours", &[2])]);
}

#[test]
fn what_differs_between_arms_is_told_and_the_seed_is_not() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), "a", "seed = 1\n[optim]\nlr = 0.1\nbeta = 1");
    run(root.path(), "b", "seed = 2\n[optim]\nlr = 0.2\nbeta = 1\n[lora]\nrank = 4");
    let names = ["a", "b"].map(|name| root.path().join(name).display().to_string());
    let study = Study::read(&names).unwrap();
    let expected = [
        ("optim.lr".to_owned(), vec!["0.1".to_owned(), "0.2".to_owned()]),
        ("lora.rank".to_owned(), vec!["not set".to_owned(), "4".to_owned()]),
    ];
    assert_eq!(study.differences(), expected);
}
