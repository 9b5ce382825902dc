use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::program::{errors, reckon, small_run, text};

#[test]
fn a_run_shows_itself_in_a_browser_while_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (small_run(folder.path(), 500, ""), folder.path().join("run"));
    let arguments = ["train", text(&config), "--out", text(&run), "--serve=127.0.0.1:0"];
    let mut child = reckon(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("http://")?.1.to_owned())).unwrap();
    lines.find(|line| line.starts_with("train ")).unwrap();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (page, taken) = (ask("/"), reckon(&["train", text(&config), &format!("--serve={address}")]).output().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("\"live\":true"), "{page:.300}");
    assert!(errors(&taken).contains("name another address"), "{}", errors(&taken));
}
