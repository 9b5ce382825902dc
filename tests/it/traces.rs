//! Traces of a teacher: what is kept and what becomes of the rest, here and behind a URL that misbehaves.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::killing::{kill, spawn};
use crate::program::{errors, fails, reckon, succeeds, text};

/// A config of the embedded model as the teacher of countdown, with `more` in it.
fn config(folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("traces.toml");
    let text = format!(
        "{more}\nproblems = 40\nsamples = 4\ndata = {{dataset = 'countdown'}}\nprompt = {{template = '{{question}} '}}\n\
         rollout = {{max_new_tokens = 100, capacity = 16}}\nrubric = {{verifiers = [{{kind = 'countdown'}}]}}\n\
         compute = {{device = 'cpu', threads = 1}}\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn local(folder: &Path) -> PathBuf {
    config(folder, "teacher = {path = 'builtin:countdown'}")
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The number before `words` in what was printed.
fn count(printed: &str, words: &str) -> usize {
    let line = printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words} in {printed}"));
    line.split(words).next().unwrap().split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn what_passes_is_kept_with_its_provenance_and_all_else_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (local(folder.path()), folder.path().join("traces.jsonl"));
    let printed = succeeds(&["traces", text(&config), "--out", text(&out)]);
    let rows = rows(&out);
    assert_eq!(count(&printed, " traces of"), rows.len());
    let dropped: usize = printed
        .lines()
        .filter_map(|line| line.strip_prefix("dropped"))
        .map(|line| line.split_whitespace().next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!((rows.len() + dropped, count(&printed, " completions sampled")), (160, 160), "{printed}");
    assert!(count(&printed, " wrong") > 0 && rows.len() > 5, "{printed}");
    for row in &rows {
        let provenance = &row["provenance"];
        assert_eq!((&provenance["teacher"], &provenance["reward"]), (&json!("builtin:countdown"), &json!(1.0)));
        assert_eq!(provenance["verdicts"], json!({"countdown": "pass"}), "{row}");
        assert!(row["completion"].as_str().unwrap().ends_with("</answer>") && row["target"].is_number());
    }
    assert!(fails(&["traces", text(&config), "--out", text(&out)]).contains("is there already"));

    // What was written is learned from, and the verifier still passes it.
    let parquet = folder.path().join("traces.parquet");
    succeeds(&["traces", text(&config), "--out", text(&parquet)]);
    for (name, file) in [("a", &out), ("b", &parquet)] {
        let sft = folder.path().join(format!("{name}.toml"));
        fs::write(&sft, format!(
            "steps = 2\nsamples_per_step = 4\nmodel = {{path = 'builtin:countdown'}}\nprompt = {{template = '{{question}} '}}\n\
             data = {{dataset = 'file', path = '{}', held_out = 0}}\ncompute = {{threads = 1}}", file.display()
        )).unwrap();
        succeeds(&["sft", text(&sft), "--out", text(&folder.path().join(name))]);
    }
    let model = |name: &str| fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(model("a"), model("b"), "both files hold the same rows");
}

#[test]
fn the_order_and_the_number_of_what_is_kept_are_the_configs_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let config = local(folder.path());
    let run = |name: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let out = folder.path().join(name);
        succeeds(&[&["traces", text(&config), "--out", text(&out)], &sets[..]].concat());
        rows(&out)
    };
    let all = run("all.jsonl", &["most=99"]);
    let one = run("one.jsonl", &["most=1", "keep=shortest"]);
    let tokens = |row: &Value| row["provenance"]["tokens"].as_u64().unwrap();
    for row in &one {
        let shortest = all.iter().filter(|other| other["id"] == row["id"]).map(tokens).min().unwrap();
        assert_eq!(tokens(row), shortest, "{row}");
    }
    let ids: std::collections::BTreeSet<_> = all.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(one.len(), ids.len());

    let unverified = run("unverified.jsonl", &["control=unverified", "most=99"]);
    assert!(unverified.len() > all.len() && unverified.iter().any(|row| row["provenance"]["reward"] == json!(0.0)));
    let shuffled = run("shuffled.jsonl", &["control=shuffled", "most=99"]);
    let completions = |rows: &[Value]| {
        let mut all: Vec<String> = rows.iter().map(|row| row["completion"].to_string()).collect();
        all.sort();
        all
    };
    assert_eq!(completions(&shuffled), completions(&all));
    let same = shuffled.iter().zip(&all).filter(|(a, b)| a["completion"] == b["completion"]).count();
    assert!(same < all.len() / 2, "{same} of {}", all.len());
}

#[test]
fn work_that_is_killed_goes_on_and_another_config_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = local(folder.path());
    let (straight, killed) = (folder.path().join("straight.jsonl"), folder.path().join("killed.jsonl"));
    let sets = ["--set", "rollout.capacity=4"];
    let start = Instant::now();
    let printed = succeeds(&[&["traces", text(&config), "--out", text(&straight)], &sets[..]].concat());
    let length = start.elapsed();
    for share in [0.3, 0.6] {
        let mut child = spawn(&[&["traces", text(&config), "--out", text(&killed)], &sets[..]].concat());
        kill(&mut child, folder.path(), length.mul_f64(share), false);
    }
    let progress = folder.path().join("killed.jsonl.progress");
    if !progress.exists() && !killed.exists() {
        fs::write(&progress, "").unwrap();
    }
    if !killed.exists() {
        let other =
            ["traces", text(&config), "--out", text(&killed), "--set", "samples=2", "--set", "rollout.capacity=4"];
        if fs::read_to_string(&progress).unwrap().lines().count() > 0 {
            assert!(fails(&other).contains("its problems were asked with samples = 4, which now is 2"));
        }
        // A line that a kill cut in two.
        fs::OpenOptions::new().append(true).open(&progress).unwrap().write_all(b"{\"id\": \"count").unwrap();
        let again = succeeds(&[&["traces", text(&config), "--out", text(&killed)], &sets[..]].concat());
        assert_eq!(again.lines().next(), printed.lines().next());
    }
    assert_eq!(fs::read(&killed).unwrap(), fs::read(&straight).unwrap());
    assert!(!progress.exists());
}

/// What the service does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Answers,
    Fails,
    Busy,
    Breaks,
    Says(&'static str),
    Stalls,
    Refuses,
}

/// The path and the body of a request.
type Request = (String, Value);

/// A service that does one thing after the other, and then answers. Returns its address and the requests it got.
fn service(acts: Vec<Act>) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (acts, seen) = (Arc::new(Mutex::new(acts.into_iter())), requests.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (acts, seen) = (acts.clone(), seen.clone());
            std::thread::spawn(move || serve(stream, &acts, &seen));
        }
    });
    (format!("http://{address}/v1"), requests)
}

fn serve(mut stream: TcpStream, acts: &Mutex<std::vec::IntoIter<Act>>, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    if length == 0 || reader.read_exact(&mut body).is_err() {
        return;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = body["messages"][0]["content"].as_str().unwrap_or_default().len();
    seen.lock().unwrap().push((head, body));
    let act = acts.lock().unwrap().next().unwrap_or(Act::Answers);
    let answer = |role: &str| {
        let content = format!("<think>{number} letters</think><answer>1</answer>");
        json!({ "choices": [{ "message": { "role": role, "content": content }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 10, "completion_tokens": 7 } })
        .to_string()
    };
    let (status, text) = match act {
        Act::Answers => ("200 OK", answer("assistant")),
        Act::Fails => ("500 Oops", "the model fell over".to_owned()),
        Act::Busy => ("429 Busy\r\nRetry-After: 0", "{}".to_owned()),
        Act::Breaks => ("200 OK", answer("assistant")[..40].to_owned()),
        Act::Says(role) => ("200 OK", answer(role)),
        Act::Refuses => ("401 No", "{\"error\": \"no such key\"}".to_owned()),
        Act::Stalls => {
            std::thread::sleep(Duration::from_secs(3));
            return;
        }
    };
    let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    let _ = stream.write_all(reply.as_bytes());
}

/// Rows of questions whose answer is 1, asked of a service.
fn asked(folder: &Path, url: &str, more: &str) -> std::process::Output {
    let rows: String =
        (0..3).map(|n| json!({"question": format!("what is {n}?"), "answer": "1"}).to_string() + "\n").collect();
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let config = format!(
        "samples = 2\nfilter = {{duplicates = 1.0, thought = true}}\nrubric = {{verifiers = [{{kind = 'numeric'}}]}}\n\
         teacher = {{url = '{url}', model = 'big', key_env = 'RECKON_TEST_KEY', concurrency = 2, backoff_s = 0.01, timeout_s = 1.0{more}}}\n\
         data = {{dataset = 'file', path = '{}', held_out = 0}}\nrollout = {{max_new_tokens = 9, temperature = 0.6}}\n\
         prompt = {{system = 'Be brief.', user = 'Say {{question}}', template = 'chat'}}\n",
        folder.join("rows.jsonl").display()
    );
    fs::write(folder.join("url.toml"), config).unwrap();
    let out = folder.join("out.jsonl");
    let config = folder.join("url.toml");
    reckon(&["traces", text(&config), "--out", text(&out)]).env("RECKON_TEST_KEY", "sesame").output().unwrap()
}

#[test]
fn a_service_that_fails_stalls_or_talks_nonsense_is_asked_again_and_nothing_is_lost() {
    use Act::{Breaks, Busy, Fails, Says, Stalls};
    let folder = tempfile::tempdir().unwrap();
    let (url, requests) = service(vec![Fails, Breaks, Says("user"), Stalls, Busy]);
    let output = asked(folder.path(), &url, "");
    assert!(output.status.success(), "{}", errors(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    // Both completions of a question are the same text: the second is a copy.
    assert!(printed.starts_with("3 traces of 3 problems; 3 were asked, 6 completions sampled"), "{printed}");
    assert!(printed.contains("60 tokens read, 42 written") && count(&printed, " copies") == 3, "{printed}");
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 6 + 5, "six answers, five of them at the second or a later time");
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /v1/chat/completions ") && head.contains("Bearer sesame"), "{head}");
    assert_eq!((&body["model"], &body["max_tokens"], &body["temperature"]), (&json!("big"), &json!(9), &json!(0.6)));
    let system = json!({"role": "system", "content": "Be brief."});
    let words = |body: &Value| body["messages"][1]["content"].as_str().unwrap().to_owned();
    assert!(requests.iter().all(|(_, body)| body["messages"][0] == system && words(body).starts_with("Say what is ")));
    let row = &rows(&folder.path().join("out.jsonl"))[0];
    assert_eq!((&row["prompt"], &row["provenance"]["teacher"]), (&json!("what is 0?"), &json!("big")));
}

#[test]
fn a_service_that_will_not_answer_stops_the_work_which_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let (url, requests) = service(vec![Act::Refuses; 6]);
    let output = asked(folder.path(), &url, "");
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(
        told.contains("6 of 6 requests to") && told.contains("status 401") && told.contains("no such key"),
        "{told}"
    );
    assert_eq!(requests.lock().unwrap().len(), 6, "what is refused is not asked again");
    assert!(!folder.path().join("out.jsonl").exists());
    let output = asked(folder.path(), &url, "");
    assert!(output.status.success(), "{}", errors(&output));

    // A few that fail may be left out, and are counted.
    let folder = tempfile::tempdir().unwrap();
    let (url, _) = service(vec![Act::Refuses]);
    let output = asked(folder.path(), &url, ", max_failed = 0.5");
    assert!(output.status.success(), "{}", errors(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(count(&printed, " no answer"), 1, "{printed}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 of 6 requests failed and are left out"));
}
