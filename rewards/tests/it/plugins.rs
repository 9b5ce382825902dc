//! Plug-ins of every kind that judge as they should, and whose errors say what to change.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use reckon_datasets::Example;
use reckon_rewards::{Outcome, Submission, Verdict, VerifierError};
use serde_json::{Value, json};

use super::common::{example, verifier};

/// The verdicts on a batch by the function of a file in `tests/plugins`.
pub(crate) fn python(
    kind: &str,
    entry: &str,
    keys: &str,
    example: &Example,
    batch: &[&str],
) -> Result<Vec<Verdict>, VerifierError> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins");
    let config = format!("kind = '{kind}'\nentry = '{folder}/{entry}'\npool = {{workers = 1, retries = 0}}\n{keys}");
    let tokens = [5, 6, 7];
    let batch: Vec<_> =
        batch.iter().map(|completion| Submission { tokens: &tokens, ..Submission::new(example, completion) }).collect();
    verifier(&config).verify_batch(&batch)
}

pub(crate) fn rewards(kind: &str, entry: &str, keys: &str, example: &Example, batch: &[&str]) -> Vec<f32> {
    python(kind, entry, keys, example, batch).unwrap().iter().map(|verdict| verdict.reward).collect()
}

fn error(kind: &str, entry: &str, example: &Example) -> String {
    python(kind, entry, "", example, &["a", "b"]).unwrap_err().to_string()
}

#[test]
fn a_python_function_judges_a_dict_and_may_print_and_read() {
    let four = example("4", json!({"share": 0.25}));
    assert_eq!(rewards("python", "mine.py:verify", "", &four, &["4", " 4\n", "5", "é\u{2028}\"\\"]), [1., 1., 0., 0.]);
    let verdict = &python("python", "mine.py:partial", "kwargs = {scale = 2.0}", &four, &["x"]).unwrap()[0];
    assert_eq!((verdict.reward, verdict.outcome, &*verdict.reason), (0.5, Outcome::Fail, "as the row says"));
    assert_eq!(verdict.parsed.as_deref(), Some("x"));
}

#[test]
fn a_python_function_may_judge_a_whole_group() {
    let row = example("", json!({}));
    assert_eq!(
        rewards("python", "mine.py:shortest", "scope = 'group'", &row, &["abc", "a", "b", "ab"]),
        [0., 1., 1., 0.]
    );
    let error = python("python", "mine.py:one_too_few", "scope = 'group'", &row, &["a", "b"]).unwrap_err().to_string();
    assert!(error.contains("ValueError: `one_too_few` returned 1 rewards for 2 completions"), "{error}");
}

#[test]
fn a_function_that_draws_gives_the_same_reward_to_the_same_completion() {
    let drawn = rewards("python", "mine.py:draws", "", &example("", json!({})), &["a"; 3]);
    assert!(drawn.iter().all(|reward| *reward == drawn[0] && *reward > 0.0), "{drawn:?}");
}

#[test]
fn secrets_in_the_environment_reach_a_worker_only_when_asked_for() {
    let (row, batch) = (example("", json!({})), ["PATH", "CARGO_MANIFEST_DIR"]);
    assert_eq!(rewards("python", "mine.py:sees", "", &row, &batch), [1.0, 0.0]);
    assert_eq!(rewards("python", "mine.py:sees", "process = {env = ['CARGO_MANIFEST_DIR']}", &row, &batch), [1.0, 1.0]);
}

#[test]
fn an_exception_is_an_error_with_its_last_line_and_never_a_reward() {
    let row = example("", json!({}));
    let message = error("python", "mine.py:raises", &row);
    assert!(message.contains("`row-9`: KeyError: 'a' (mine.py, line 33)"), "{message}");
    for (entry, expected) in [
        ("broken.py:verify", "RuntimeError: no licence for the solver (broken.py, line 1)"),
        ("mine.py:verfy", "AttributeError: module 'mine' has no attribute 'verfy'"),
        ("absent.py:verify", "FileNotFoundError"),
        ("mine.py", "is not file.py:function or module:function"),
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugins");
        let config = json!({"kind": "python", "entry": format!("{folder}/{entry}")});
        let config: reckon_rewards::VerifierConfig = serde_json::from_value(config).unwrap();
        let error = config.build().err().unwrap().to_string();
        assert!(error.starts_with("verifier `python` is misconfigured") && error.contains(expected), "{error}");
    }
}

#[test]
fn reward_functions_of_trl_run_unchanged() {
    let row = |task: &str| example("4", json!({"task": task, "prompt": [{"role": "user", "content": "2 + 2?"}]}));
    let math = row("math");
    assert_eq!(
        rewards("python_trl", "trl.py:reward_len", "conversational = false", &math, &["abcde", "12345678901234567890"]),
        [-15.0, 0.0]
    );
    let good = "<think>a</think><answer>4</answer>";
    let conversational = "conversational = true";
    assert_eq!(rewards("python_trl", "trl.py:format_reward", conversational, &math, &[good, "4"]), [1.0, 0.0]);
    assert_eq!(rewards("python_trl", "trl.py:asks_for_messages", conversational, &math, &["x"]), [1.0]);
    assert_eq!(rewards("python_trl", "trl.py:by_tokens", "", &math, &["x", "y"]), [3.0, 3.0]);
    let keys = "answer_column = 'solution'\nconversational = false";
    assert_eq!(rewards("python_trl", "trl.py:math_only", keys, &math, &["4", "5"]), [1.0, 0.0]);
    assert_eq!(
        rewards("python_trl", "trl.py:math_only", &format!("{keys}\nscope = 'completion'"), &math, &["4", "5"]),
        [1.0, 0.0]
    );
    let code = python("python_trl", "trl.py:math_only", keys, &row("code"), &["4"]).unwrap();
    assert_eq!(code[0].outcome, Outcome::Skipped, "None: the function does not apply");
    assert!(error("python_trl", "trl.py:too_few", &math).contains("returned 1 rewards for 2 completions"));
}

#[test]
fn reward_functions_of_verl_run_unchanged() {
    let row = example("4", json!({"data_source": "openai/gsm8k"}));
    assert_eq!(rewards("python_verl", "verl.py:compute_score", "", &row, &["4", "5"]), [1.0, 0.1]);
    assert_eq!(rewards("python_verl", "verl.py:with_kwargs", "kwargs = {bonus = 0.5}", &row, &["4", "5"]), [1.5, 0.5]);
    let row =
        example("", json!({"data_source": "mine", "extra_info": {"index": 3}, "reward_model": {"ground_truth": "7"}}));
    assert_eq!(rewards("python_verl", "verl.py:compute_score", "", &row, &["4"]), [3.0]);
    assert_eq!(rewards("python_verl", "verl.py:with_kwargs", "", &row, &["7", "4"]), [1.0, 0.0]);
    assert_eq!(rewards("python_verl", "verl.py:batched", "", &row, &["7", "4"]), [1.0, 0.0]);
}

/// Answers the calls of one connection as their completions say.
fn serve(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let call: Value = serde_json::from_slice(&body).ok()?;
        let (status, reply) = match call["completion"].as_str() {
            Some("right") => ("200 OK", json!({"id": call["id"], "reward": true})),
            Some("wrong") => ("200 OK", json!({"reward": 0.5})),
            Some("slow") => {
                std::thread::sleep(std::time::Duration::from_secs(2));
                return None;
            }
            Some("another") => ("200 OK", json!({"id": 1_000_000, "reward": 1})),
            Some("junk") => ("200 OK", json!("hello")),
            Some("broken") => ("500 Internal Server Error", json!({})),
            _ => ("200 OK", json!({"verdicts": vec![json!({"reward": 1}); call["batch"].as_array()?.len()]})),
        };
        let reply = reply.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", reply.len());
        (&stream).write_all((head + &reply).as_bytes()).ok()?;
    }
}

#[test]
fn a_url_judges_and_its_faults_follow_the_same_rules() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| serve(stream))))
    });
    let row = example("", json!({}));
    let judge = |url: &str, keys: &str, batch: &[&str]| {
        let config =
            format!("kind = 'http'\nurl = '{url}'\npool = {{workers = 2, timeout_s = 0.5, retries = 1}}\n{keys}");
        let batch: Vec<_> = batch.iter().map(|completion| Submission::new(&row, completion)).collect();
        verifier(&config).verify_batch(&batch)
    };
    let verdicts = judge(&url, "", &["right", "wrong", "slow", "right"]).unwrap();
    let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
    assert_eq!(outcomes, [Outcome::Pass, Outcome::Fail, Outcome::Timeout, Outcome::Pass]);
    assert_eq!(verdicts[1].reward, 0.5);
    assert_eq!(judge(&url, "scope = 'group'", &["a", "b", "c"]).unwrap().len(), 3);
    for (fault, expected) in
        [("another", "answered with another id"), ("junk", "junk: \"hello\""), ("broken", "http status: 500")]
    {
        let error = judge(&url, "", &["right", fault]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("(2 attempts)"), "{fault}: {error}");
    }
    let error = judge("http://127.0.0.1:1/", "", &["right"]).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
