//! A model behind OpenAI's protocol, as a client sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::program::{errors, reckon, succeeds, text};
use super::recipes::write_model;

/// What a client says of a body.
const JSON: &str = "Content-Type: application/json\r\n";

/// A server, which ends with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let all = [&["serve", "--address", "127.0.0.1:0", "--threads", "1", "--device", "cpu"], arguments].concat();
        let mut child = reckon(&all).env("KEY_OF_TEST", "sesame").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches("/v1").to_owned()));
        Self { child, address: address.unwrap() }
    }

    /// Status and body of an answer; `headers` are further lines.
    fn ask(&self, head: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (host, length) = (&self.address, body.len());
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn complete(&self, body: &Value) -> Value {
        let (status, answer) = self.ask("POST /v1/completions", JSON, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is behind `data: ` in the lines of a streamed answer, whatever pieces it came in.
fn events(answer: &str) -> Vec<String> {
    answer.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

#[test]
fn completions_are_those_of_the_engine_whole_and_in_pieces() {
    let server = Server::start(&["--name", "tiny"]);
    let prompt = "Make 24 from 4, 6: ";
    let asked =
        json!({ "prompt": prompt, "n": 3, "seed": 7, "max_tokens": 24, "logprobs": 0, "return_token_ids": true });
    let found = server.complete(&asked);
    // The same prompt, seed and place have the same random numbers on the command line.
    let line =
        ["sample", prompt, "--samples", "3", "--seed", "7", "--max-new-tokens", "24", "--json", "--device", "cpu"];
    let mut expected: Vec<Value> = succeeds(&line).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    expected.sort_by_key(|line| line["sample"].as_u64());
    for (choice, line) in found["choices"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&choice["text"], &choice["token_ids"]), (&line["completion"], &line["tokens"]));
        assert_eq!(
            (&choice["logprobs"]["token_logprobs"], &choice["finish_reason"]),
            (&line["logprobs"], &line["finish"])
        );
    }
    let made: usize = expected.iter().map(|line| line["tokens"].as_array().unwrap().len()).sum();
    assert_eq!((found["usage"]["completion_tokens"].as_u64(), &found["model"]), (Some(made as u64), &json!("tiny")));

    // Token ids in place of the text, beside a client that asks for other things.
    let ids = found["choices"][0]["prompt_token_ids"].clone();
    let again = json!({ "prompt": ids, "n": 3, "seed": 7, "max_tokens": 24 });
    let others = json!({ "prompt": [prompt, "another"], "temperature": 0.5, "max_tokens": 50 });
    std::thread::scope(|scope| {
        let (server, others) = (&server, &others);
        scope.spawn(move || server.complete(others));
        let texts = |answer: &Value| -> Vec<Value> {
            answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect()
        };
        assert_eq!(texts(&server.complete(&again)), texts(&found));
    });

    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let (status, answer) = server.ask("POST /v1/completions", JSON, &streamed.to_string());
    assert_eq!(status, 200);
    let mut pieces = events(&answer);
    assert_eq!(pieces.pop().as_deref(), Some("[DONE]"), "{answer}");
    let (mut texts, mut ended) = (vec![String::new(); 3], 0);
    for piece in pieces.iter().map(|piece| serde_json::from_str::<Value>(piece).unwrap()) {
        let choice = &piece["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        ended += usize::from(!choice["finish_reason"].is_null());
    }
    assert!(ended == 3 && pieces.len() > 3, "{answer}");
    for (text, line) in texts.iter().zip(&expected) {
        assert_eq!(line["completion"], json!(text), "the pieces are the whole");
    }
}

#[test]
fn a_chat_is_written_by_the_models_template_and_ends_where_a_turn_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    write_model(&model);
    let server = Server::start(&[text(&model)]);
    let body =
        json!({ "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 8, "return_token_ids": true });
    let (status, answer) = server.ask("POST /v1/chat/completions", JSON, &body.to_string());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")), "{answer}");
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
    assert!(answer["choices"][0]["prompt_token_ids"].as_array().unwrap().len() > 3, "{answer}");
}

#[test]
fn who_may_not_ask_and_what_makes_no_sense_is_refused() {
    let server = Server::start(&["--key-env", "KEY_OF_TEST"]);
    let key = "Content-Type: application/json\r\nAuthorization: Bearer sesame\r\n";
    let body = r#"{"prompt": "a", "max_tokens": 4}"#;
    let long = format!("{{\"prompt\": [{}]}}", vec!["1"; 5000].join(","));
    for (head, headers, body, status, expected) in [
        ("GET /health", "", "", 200, ""),
        ("GET /v1/models", "", "", 401, "the key is missing or wrong"),
        ("GET /v1/models", key, "", 200, "builtin:countdown"),
        ("POST /v1/completions", "Authorization: Bearer sesame\r\n", body, 415, "application/json"),
        (
            "POST /v1/completions",
            "Content-Type: application/json\r\nAuthorization: Bearer other\r\n",
            body,
            401,
            "the key is missing or wrong",
        ),
        ("POST /v1/completions", key, body, 200, "\"text\""),
        ("POST /v1/completions", key, "{}", 400, "there is no prompt"),
        ("POST /v1/completions", key, &long, 400, "the model room for"),
        ("POST /v1/completions", key, r#"{"prompt": [4000000]}"#, 400, "none of the model's"),
        (
            "POST /v1/chat/completions",
            key,
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            400,
            "no chat template",
        ),
        ("GET /v1/completions", key, "", 405, ""),
    ] {
        let (got, answer) = server.ask(head, headers, body);
        assert!(got == status && answer.contains(expected), "{head} {body:.60}: {got} {answer}");
    }
    let taken = reckon(&["serve", "--address", &server.address]).output().unwrap();
    assert!(errors(&taken).contains("name another --address"), "{}", errors(&taken));
}
