//! Runs whose completions are sampled by servers: here by this program, which takes the weights after every step.

use std::net::TcpListener;
use std::path::Path;

use super::program::{errors, fails, reckon, records, small_run, succeeds, text};
use super::ranks::{assert_same, fail_on, succeeds_on};
use super::serving::Server;

/// A server that takes the weights of a run.
fn server() -> Server {
    Server::start(&["--updates"])
}

/// An address where nobody stays: every connection is closed at once.
fn deaf() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    address
}

fn config(folder: &Path, steps: usize, servers: &[&str]) -> std::path::PathBuf {
    let urls: Vec<String> = servers.iter().map(|address| format!("'http://{address}'")).collect();
    let table = format!(
        "grpo = {{completions_per_update = 8}}\nservers = {{engine = 'reckon', urls = [{}], weights = '{}', timeout_s = 60}}",
        urls.join(", "),
        text(&folder.join("weights"))
    );
    small_run(folder, steps, &table)
}

#[test]
fn a_server_samples_with_the_weights_of_the_step_and_a_run_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let server = server();
    let config = config(folder.path(), 3, &[&server.address]);
    let out = |name: &str| folder.path().join(name);
    succeeds(&["train", text(&config), "--out", text(&out("first"))]);
    let first = records(&out("first"));
    for record in &first[1..] {
        // Equal to the bit: they are those that the trainer has, through the file and the text of an answer.
        assert_eq!(record.get("policy/mismatch_kl"), Some(0.0), "step {}", record.step);
        assert!(record.get("optim/updates") > Some(0.0), "step {}", record.step);
    }
    let held: Vec<_> = std::fs::read_dir(out("weights")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(held.len(), 1, "older weights are gone: {held:?}");
    // A run that stopped gives the server its weights before it goes on.
    succeeds(&["train", text(&config), "--out", text(&out("again")), "--set", "steps=2"]);
    succeeds(&["train", "--resume", text(&out("again")), "--set", "steps=3"]);
    assert_eq!(records(&out("again")), first);
}

#[test]
fn several_ranks_that_share_servers_have_the_bits_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (server(), server());
    let config = config(folder.path(), 2, &[&one.address, &two.address]);
    let out = |name: &str| folder.path().join(name);
    succeeds(&["train", text(&config), "--out", text(&out("alone"))]);
    succeeds_on(2, &["train", text(&config), "--out", text(&out("shared"))]);
    assert_same(&out("shared"), &out("alone"), "two ranks beside two servers");
    assert!(records(&out("shared"))[1..].iter().all(|record| record.get("policy/mismatch_kl") == Some(0.0)));
    // Nobody takes the weights: the first rank says so for all.
    for mut lost in [one, two] {
        lost.child.kill().unwrap();
        lost.child.wait().unwrap();
    }
    let failed = out("failed");
    let complaints = fail_on(2, |_| vec!["train", text(&config), "--out", text(&failed)]);
    assert_eq!(complaints.lines().count(), 1, "{complaints}");
    assert!(complaints.contains("no server takes the weights of version 0"), "{complaints}");
}

#[test]
fn a_server_that_is_lost_costs_nothing_but_its_requests() {
    let folder = tempfile::tempdir().unwrap();
    let (mut lost, other) = (server(), server());
    let alone = folder.path().join("alone");
    let config_of = |name: &str, servers: &[&str]| {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        config(&folder.path().join(name), 2, servers)
    };
    succeeds(&["train", text(&config_of("of-one", &[&other.address])), "--out", text(&alone)]);
    let (both, run) = (config_of("of-two", &[&lost.address, &other.address]), folder.path().join("run"));
    lost.child.kill().unwrap();
    lost.child.wait().unwrap();
    let output = reckon(&["train", text(&both), "--out", text(&run)]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains(&format!("http://{} is left out until the next weights", lost.address)));
    assert_eq!(records(&run), records(&alone), "a completion is the same whichever server gives it");
}

#[test]
fn servers_that_do_not_answer_are_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 2, &[&deaf()]);
    let complaint = fails(&["train", text(&config), "--out", text(&folder.path().join("run"))]);
    assert!(complaint.contains("no server takes the weights of version 0"), "{complaint}");
    for (set, expected) in [
        ("servers.urls=[]", "servers.urls is empty"),
        ("servers.urls=['10.0.0.7:8000']", "an address begins with http://"),
        ("servers.concurrency=0", "servers.concurrency"),
        ("environment.tools=[{kind='calculator'}]", "remove [environment], or [servers]"),
    ] {
        let complaint = fails(&["train", text(&config), "--out", text(&folder.path().join("other")), "--set", set]);
        assert!(complaint.contains(expected), "{set}: {complaint}");
    }
}

#[test]
fn a_server_tells_the_experts_of_its_tokens_and_they_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let config = super::replay::run_of(folder.path(), "rollout");
    let base = folder.path().join("base");
    let server = Server::start(&["--updates", text(&base)]);
    let table = format!(
        "\nservers = {{engine = 'reckon', urls = ['http://{}'], weights = '{}', timeout_s = 60}}",
        server.address,
        text(&folder.path().join("weights"))
    );
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &table).unwrap();
    let run = folder.path().join("run");
    succeeds(&["train", text(&config), "--out", text(&run)]);
    let records = records(&run);
    for record in &records[1..] {
        assert_eq!(record.get("policy/mismatch_kl"), Some(0.0), "step {}", record.step);
        assert_eq!(record.get("router/differ_frac"), Some(0.0), "step {}", record.step);
    }
    assert!(records[1..].iter().any(|record| record.get("router/replayed_frac") > Some(0.0)), "{records:?}");
}
