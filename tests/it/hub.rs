//! Models and data by their names on the hub, against a small server that speaks the hub's paths.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::program::{errors, reckon, text};
use crate::recipes::write_model;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with files of repositories, under names such as `org/tiny/config.json`; knows what it was asked.
struct Hub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (endpoint, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::default());
        let (files, log) = (Arc::new(files), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (Arc::clone(&files), Arc::clone(&log));
                std::thread::spawn(move || answer(stream, &files, &log));
            }
        });
        Self { endpoint, asked }
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

/// Answers one request: a list of files, or a range of one.
fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
    };
    let token = header("authorization").map_or("no token", |(_, value)| value);
    log.lock().unwrap().push(format!("{request}, {token}"));
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (status, extra, body) = match path.strip_prefix("api/") {
        Some(repository) => {
            let (name, revision) = repository.split_once("/revision/").unwrap();
            let root = name.strip_prefix("models/").unwrap_or(name).to_owned() + "/";
            let names = files.keys().filter_map(|file| file.strip_prefix(&root));
            let siblings: Vec<_> = names.map(|name| json!({ "rfilename": name })).collect();
            let known = !siblings.is_empty() && ["main", "v1", COMMIT].contains(&revision);
            let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string().into_bytes();
            (if known { "200 OK" } else { "404 Not Found" }, String::new(), body)
        }
        None => match files.get(&path.replace(&format!("/resolve/{COMMIT}/"), "/")) {
            Some(content) => {
                let range = header("range").map_or("0-", |(_, range)| range.trim_start_matches("bytes="));
                let (from, to) = range.split_once('-').unwrap();
                let end = to.parse().map_or(content.len(), |to: usize| (to + 1).min(content.len()));
                let start = from.parse::<usize>().unwrap();
                let extra = format!(
                    "ETag: \"{:x}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{}\r\n",
                    path.len() * 1000 + content.len(),
                    end.max(1) - 1,
                    content.len()
                );
                ("206 Partial Content", extra, content[start..end].to_vec())
            }
            None => ("404 Not Found", String::new(), Vec::new()),
        },
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// The files of a folder as those of a repository.
fn upload(folder: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let file = entry.file_name().into_string().unwrap();
        files.insert(format!("{name}/{file}"), fs::read(entry.path()).unwrap());
    }
}

/// A hub with `org/tiny` and `datasets/org/sums`, and a folder with a config that names both.
fn hub() -> (Hub, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("tiny"));
    let mut files = BTreeMap::new();
    upload(&folder.path().join("tiny"), "org/tiny", &mut files);
    files.insert("org/tiny/pytorch_model.bin".into(), b"not wanted".to_vec());
    fs::remove_dir_all(folder.path().join("tiny")).unwrap();
    for part in 0..2i32 {
        let row = |n: i32| {
            json!({ "question": format!("{part} + {n}"), "answer": (part + n).to_string() }).to_string() + "\n"
        };
        let rows: String = (0..4).map(row).collect();
        files.insert(format!("datasets/org/sums/main/train-{part}.jsonl"), rows.into_bytes());
    }
    let config = "steps = 1\nmodel = {path = 'org/tiny', revision = 'v1'}\neval = {problems = 0}
        data = {dataset = 'file', path = 'hf://datasets/org/sums/main/train-*.jsonl', held_out = 0.3}
        rollout = {prompts_per_step = 2, group_size = 2, max_new_tokens = 4}
        rubric = {verifiers = [{kind = 'exact'}]}\naudit = {rows = 0}\n";
    fs::write(folder.path().join("config.toml"), config).unwrap();
    (Hub::new(files), folder)
}

fn command(arguments: &[&str], folder: &Path, endpoint: &str) -> Command {
    let mut command = reckon(arguments);
    command.current_dir(folder).env("HF_HOME", folder.join("home")).env("HF_ENDPOINT", endpoint);
    for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn complaint(mut command: Command) -> String {
    let output: Output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    let line = errors(&output);
    assert_eq!(line.trim().lines().count(), 1, "{line}");
    line
}

#[test]
fn a_run_by_names_of_the_hub_downloads_once_and_then_needs_no_hub() {
    let (hub, folder) = hub();
    let folder = folder.path();
    let mut check = command(&["data", "check", "config.toml"], folder, &hub.endpoint);
    check.env("HF_TOKEN", "hf_secret");
    assert!(succeeds(check).contains("question and answer"));
    assert_eq!(hub.asked("Bearer hf_secret"), hub.asked("GET"), "the token goes with every request");
    assert_eq!(hub.asked("model.safetensors"), 0, "rows and prompts need no weights");
    succeeds(command(&["train", "config.toml", "--out", "run"], folder, &hub.endpoint));
    assert_eq!(hub.asked("pytorch_model.bin"), 0);
    let downloads = hub.asked("/resolve/");
    succeeds(command(&["train", "config.toml", "--out", "again"], folder, &hub.endpoint));
    assert_eq!(hub.asked("/resolve/"), downloads, "what the cache holds is not downloaded again");

    let asked = hub.asked("GET");
    let mut offline = command(&["train", "config.toml", "--out", "offline"], folder, &hub.endpoint);
    offline.env("HF_HUB_OFFLINE", "1");
    succeeds(offline);
    assert_eq!(hub.asked("GET"), asked);
    succeeds(command(&["train", "config.toml", "--out", "unplugged"], folder, "http://127.0.0.1:9"));
    let metrics = |run: &str| crate::program::records(&folder.join(run));
    assert_eq!(metrics("run"), metrics("unplugged"));
}

#[test]
fn what_cannot_be_downloaded_is_told_with_what_to_do() {
    let (hub, folder) = hub();
    let folder = folder.path();
    let data = |path: &str| format!("data.path={path}");
    let (missing, foreign) = (data("hf://datasets/org/sums/other/*.jsonl"), data("hf://org/sums"));
    for (arguments, endpoint, expected) in [
        (vec!["sample", "a", "--model", "org/absent"], &*hub.endpoint, "`hf download org/absent`"),
        (vec!["sample", "a", "--model", "org/tiny@v2"], &hub.endpoint, "`hf download org/tiny --revision v2`"),
        (vec!["sample", "a", "--model", "org/tiny"], "http://127.0.0.1:9", "where there is a network"),
        (vec!["train", "config.toml"], "http://127.0.0.1:9", "`hf download org/tiny --revision v1`"),
        (vec!["data", "check", "config.toml", "--set", &missing], &hub.endpoint, "it has no such file"),
        (vec!["data", "check", "config.toml", "--set", &foreign], &hub.endpoint, "write hf://datasets/owner/name/path"),
    ] {
        let line = complaint(command(&arguments, folder, endpoint));
        assert!(line.contains(expected), "{line}");
    }
    let mut offline = command(&["sample", "a", "--model", "org/tiny"], folder, &hub.endpoint);
    offline.env("HF_HUB_OFFLINE", "1");
    let line = complaint(offline);
    assert!(line.contains("HF_HUB_OFFLINE is set") && line.contains(text(&folder.join("home/hub"))), "{line}");
    assert_eq!(hub.asked("org/tiny/revision/main"), 0);
}
