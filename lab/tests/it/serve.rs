use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use reckon_lab::serve::serve;

use crate::made_up::{ARMS, Size, run};

/// The status and the body of an answer.
fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn a_run_is_served_as_it_goes_on_and_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), ARMS[0], 1, Size { seeds: 1, steps: 10, groups: 2, group_size: 3, problems: 5 });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, folder.path().to_owned(), |name| Some(format!("what {name} is"))).unwrap();
    let get = |path: &str| ask(address, "GET", path, &address.to_string());
    let (status, page) = get("/");
    assert!(status == 200 && page.contains("\"live\":true") && page.contains("what reward/mean is"));
    let (_, version) = get("/version");
    let data = || serde_json::from_str::<serde_json::Value>(&get("/data").1).unwrap();
    assert_eq!(data()["runs"][0]["steps"].as_array().unwrap().len(), 11);
    assert_eq!(get("/transcripts/0").0, 200);
    assert!(get("/problems/0").1.contains("verdicts"));
    // The run goes on.
    let metrics = folder.path().join("metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).unwrap() + "{\"step\":11,\"reward/mean\":0.5}\n";
    std::fs::write(&metrics, text).unwrap();
    assert_ne!(get("/version").1, version);
    assert_eq!(data()["runs"][0]["steps"].as_array().unwrap().len(), 12);

    for (method, path, host, expected) in [
        ("POST", "/", "127.0.0.1", 405),
        ("PUT", "/data", "127.0.0.1", 405),
        ("GET", "/../config.toml", "127.0.0.1", 404),
        ("GET", "/transcripts/7", "127.0.0.1", 404),
        ("GET", "/data", "somewhere.example", 403),
    ] {
        assert_eq!(ask(address, method, path, host).0, expected, "{method} {path} {host}");
    }
}
