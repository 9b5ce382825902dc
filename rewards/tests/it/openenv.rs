//! Environments behind a WebSocket: a game on a server of the test's own, which has every fault on demand. That the real
//! server says the same, `scripts/environments.py` shows.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reckon_datasets::Example;
use reckon_rewards::{Memory, ToolAnswer, ToolError, ToolOptions, Toolbox};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tungstenite::{Message, WebSocket};

#[derive(Deserialize)]
struct Tables {
    tools: Vec<ToolOptions>,
}

fn toolbox(urls: &[&str], keys: &str) -> Result<Toolbox, ToolError> {
    let tables: Tables = toml::from_str(&format!("[[tools]]\nkind = 'openenv'\nurls = {urls:?}\n{keys}")).unwrap();
    Toolbox::new(&tables.tools)
}

/// Calls say something; the row's answer is the secret; a step takes half a second at most.
const TALK: &str = "
action = {say = '{input}'}
reset = {secret = '{answer}', level = '{level}'}
show = ['/observation/text', '/reward']
timeout_s = 0.5
open_s = 0.5
";

fn example() -> Example {
    let info = Map::from_iter([("level".to_owned(), json!(2))]);
    Example { id: "row".into(), question: "guess".into(), answer: "42".into(), info, ..Example::default() }
}

/// What servers saw.
#[derive(Default)]
struct Seen {
    open: AtomicUsize,
    closed: AtomicUsize,
    pongs: AtomicUsize,
}

/// A server on a port of its own; `each` gets its connections, with their number.
fn server(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let each = Arc::clone(&each);
            std::thread::spawn(move || each(number, stream));
        }
    });
    url
}

/// A server of games that holds `most` sessions at a time.
fn games(most: usize) -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    let url = server(move |_, stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        if counted.open.fetch_add(1, Ordering::SeqCst) < most {
            let _ = play(&mut socket, &counted);
        } else {
            let _ = socket.send(error("no room", "CAPACITY_REACHED"));
            let _ = socket.close(None);
            // A server that goes with something unread takes back what it said.
            while socket.read().is_ok() {}
        }
        counted.open.fetch_sub(1, Ordering::SeqCst);
    });
    (url, seen)
}

fn error(message: &str, code: &str) -> Message {
    Message::text(json!({"type": "error", "data": {"message": message, "code": code}}).to_string())
}

fn observation(text: &str, reward: Option<f64>, done: bool) -> Message {
    let data = json!({"observation": {"text": text}, "reward": reward, "done": done});
    Message::text(json!({"type": "observation", "data": data}).to_string())
}

/// One session, until it ends in any way. What a call says may be a fault.
fn play(socket: &mut WebSocket<TcpStream>, seen: &Seen) -> Option<()> {
    let (mut secret, mut guesses) = (String::new(), 0);
    loop {
        let told: Value = match socket.read().ok()? {
            Message::Text(text) => serde_json::from_str(&text).ok()?,
            message => {
                seen.pongs.fetch_add(usize::from(message.is_pong()), Ordering::SeqCst);
                continue;
            }
        };
        let (kind, data) = (told["type"].as_str()?, &told["data"]);
        let answer = match (kind, data["say"].as_str().unwrap_or_default()) {
            ("reset", _) => {
                secret = data["secret"].as_str()?.to_owned();
                observation(&format!("a number of {} digits", data["level"]), None, false)
            }
            ("state", _) => Message::text(json!({"type": "state", "data": {"guesses": guesses}}).to_string()),
            ("close", _) => {
                seen.closed.fetch_add(1, Ordering::SeqCst);
                return Some(());
            }
            (_, "stall") => return std::io::copy(socket.get_mut(), &mut std::io::sink()).ok().map(|_| ()),
            (_, "drop") => return None,
            (_, "close") => return socket.close(None).and_then(|()| socket.flush()).ok(),
            (_, "ping") => {
                socket.send(Message::Ping("?".into())).ok()?;
                observation("pinged", None, false)
            }
            (_, "twice") => {
                socket.send(observation("one", None, false)).ok()?;
                observation("two", None, false)
            }
            (_, "junk") => Message::text("hello"),
            (_, "else") => Message::text(json!({"type": "observation", "data": {"text": "?"}}).to_string()),
            (_, "state") => Message::text(json!({"type": "state", "data": {"observation": "?"}}).to_string()),
            (_, "flood") => loop {
                socket.send(Message::Ping("?".into())).ok()?;
            },
            (_, "bytes") => Message::binary(vec![0; 3]),
            (_, "huge") => observation(&"x".repeat(1 << 20), None, false),
            (_, "raise") => error("the environment raised", "EXECUTION_ERROR"),
            (_, "unfit") => {
                let errors = json!([{"loc": ["say", 0], "msg": "Input should be a number"}]);
                let data = json!({"message": "Invalid message", "code": "VALIDATION_ERROR", "errors": errors});
                Message::text(json!({"type": "error", "data": data}).to_string())
            }
            (_, say) if say.starts_with("pay ") => {
                let reward: Value = serde_json::from_str(&say[4..]).ok()?;
                let data = json!({"observation": {"text": "paid"}, "reward": reward, "done": false});
                Message::text(json!({"type": "observation", "data": data}).to_string())
            }
            (_, say) => {
                guesses += 1;
                let right = say == secret;
                observation(&format!("{right} after {guesses}"), Some(f64::from(u8::from(right))), right)
            }
        };
        socket.send(answer).ok()?;
    }
}

/// What calls get behind one that cost the session, and then why.
const OVER: &str = "error: the session is over: ";

/// Waits for other threads.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_completion_has_a_session_from_its_first_call_to_its_end() {
    let (url, seen) = games(8);
    let tools = toolbox(&[&url], TALK).unwrap();
    until("the server was asked once, and left", || seen.closed.load(Ordering::SeqCst) == 1);
    let mut memories = [Memory::new(), Memory::new()];
    for (completion, call, expected, given) in [
        (0, "", "a number of 2 digits", None),
        (0, "7", "false after 1\n0.0", Some(0.0)),
        (1, "42", "true after 1\n1.0", Some(1.0)),
        (0, " ", "false after 1\n0.0", None),
        (0, r#"{"name": "openenv", "arguments": {"guess": "42"}}"#, "true after 2\n1.0", Some(1.0)),
        (0, "42", "error: the episode is over", None),
    ] {
        let ToolAnswer { text, failed, reward } = tools.answer(&example(), &mut memories[completion], call).unwrap();
        assert_eq!((text.as_str(), failed), (expected, expected.starts_with("error")), "{call}");
        assert_eq!(reward, given, "{call}");
    }
    assert_eq!(seen.open.load(Ordering::SeqCst), 2);
    drop(memories);
    until("sessions are closed", || seen.open.load(Ordering::SeqCst) == 0);
    assert_eq!(seen.closed.load(Ordering::SeqCst), 3, "by their message");
}

#[test]
fn a_step_has_the_reward_of_the_server_whatever_is_shown_and_a_fault_has_none() {
    let (url, _) = games(8);
    let unseen = TALK.replace("['/observation/text', '/reward']", "['/observation/board']");
    for (keys, call, expected, given) in [
        (TALK, "7", "false after 1\n0.0", Some(0.0)),
        (TALK, "ping", "pinged", None),
        (TALK, "raise", "error: the environment raised", None),
        (TALK, "junk", "error: the server said", None),
        (TALK, "pay true", "paid\ntrue", Some(1.0)),
        (TALK, "pay -2.5", "paid\n-2.5", Some(-2.5)),
        (TALK, "pay 1e999", "error: the reward 1e+999 is not a finite number", None),
        (TALK, "pay \"much\"", "error: the reward \"much\" is not a finite number", None),
        (&unseen, "42", "error: the answer has no /observation/board", Some(1.0)),
        (&unseen, "", "error: the answer has no /observation/board", None),
    ] {
        let tools = toolbox(&[&url], keys).unwrap();
        let answer = tools.answer(&example(), &mut Memory::new(), call).unwrap();
        assert!(answer.text.starts_with(expected), "{call}: {answer:?}");
        assert_eq!((answer.failed, answer.reward), (expected.starts_with("error"), given), "{call}");
    }
    // One that is refused costs no session.
    let (tools, mut memory) = (toolbox(&[&url], TALK).unwrap(), Memory::new());
    assert!(tools.answer(&example(), &mut memory, "pay []").unwrap().failed);
    assert_eq!(tools.answer(&example(), &mut memory, "42").unwrap().reward, Some(1.0));
}

#[test]
fn a_fault_fails_the_call_and_those_behind_it_but_for_refusals() {
    let (url, _) = games(64);
    let tools = toolbox(&[&url], TALK).unwrap();
    for (call, expected, next) in [
        ("raise", "the environment raised (EXECUTION_ERROR)", "false after 1\n0.0"),
        ("unfit", "Invalid message: say.0: Input should be a number (VALIDATION_ERROR)", "false after 1\n0.0"),
        ("stall", "no answer within 0.5 s", OVER),
        ("drop", "", OVER),
        ("close", "the server closed it", OVER),
        ("junk", "the server said what is no answer: hello", OVER),
        ("else", "the server said what is no answer: {", OVER),
        ("state", "the server said what is no answer: {", OVER),
        ("flood", "", OVER),
        ("bytes", "the server said what is no answer: bytes", OVER),
        ("huge", "the server said more than 1 MiB at once", OVER),
    ] {
        let mut memory = Memory::new();
        let begun = Instant::now();
        let mut ask = |call| tools.answer(&example(), &mut memory, call).unwrap();
        let answer = ask(call);
        assert!(answer.failed && answer.text.starts_with(&format!("error: {expected}")), "{call}: {answer:?}");
        let answer = ask("7");
        let expected = if next == OVER { format!("{OVER}{expected}") } else { next.to_owned() };
        assert!(answer.failed == (next == OVER) && answer.text.starts_with(&expected), "after {call}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{call} took {:?}", begun.elapsed());
    }
    // The first of two answers is taken; the second tells that the server is out of step.
    let mut memory = Memory::new();
    assert_eq!(tools.answer(&example(), &mut memory, "twice").unwrap().text, "one");
    std::thread::sleep(Duration::from_millis(100));
    let answer = tools.answer(&example(), &mut memory, "7").unwrap();
    assert_eq!(answer.text, "error: the session is over: the server spoke without being asked");
}

#[test]
fn pings_are_answered_while_nobody_calls() {
    let (url, seen) = games(1);
    let tools = toolbox(&[&url], TALK).unwrap();
    let mut memory = Memory::new();
    assert_eq!(tools.answer(&example(), &mut memory, "ping").unwrap().text, "pinged");
    until("a ping is answered", || seen.pongs.load(Ordering::SeqCst) == 1);
    assert_eq!(tools.answer(&example(), &mut memory, "7").unwrap().text, "false after 1\n0.0");
}

#[test]
fn a_server_that_is_full_is_asked_again_for_a_while() {
    assert!(toolbox(&[&games(0).0], TALK).is_ok(), "it is there");
    let (url, seen) = games(1);
    let tools = toolbox(&[&url], TALK).unwrap();
    until("the first look is over", || seen.open.load(Ordering::SeqCst) == 0);
    let (mut one, mut other) = (Memory::new(), Memory::new());
    assert_eq!(tools.answer(&example(), &mut one, "7").unwrap().text, "false after 1\n0.0");
    let answer = tools.answer(&example(), &mut other, "7").unwrap();
    assert_eq!(answer.text, "error: no session within 0.5 s: no room (CAPACITY_REACHED)");
    let freed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(one);
    });
    assert_eq!(tools.answer(&example(), &mut other, "7").unwrap().text, "false after 1\n0.0");
    freed.join().unwrap();
}

#[test]
fn one_of_several_servers_may_go() {
    let (url, seen) = games(64);
    // Takes its first connection, and drops all others.
    let gone = server(|number, stream| {
        if number == 0 {
            let _ = play(&mut tungstenite::accept(stream).unwrap(), &Seen::default());
        }
    });
    let tools = toolbox(&[&gone, &url], TALK).unwrap();
    let mut memories: Vec<Memory> = (0..6).map(|_| Memory::new()).collect();
    for memory in &mut memories {
        assert_eq!(tools.answer(&example(), memory, "7").unwrap().text, "false after 1\n0.0");
    }
    until("all are at one server", || seen.open.load(Ordering::SeqCst) == 6);
    let (left, right) = (games(8), games(8));
    let tools = toolbox(&[&left.0, &right.0], TALK).unwrap();
    let mut memories: Vec<Memory> = (0..6).map(|_| Memory::new()).collect();
    for memory in &mut memories {
        tools.answer(&example(), memory, "7").unwrap();
    }
    for (_, seen) in [left, right] {
        until("each has half", || seen.open.load(Ordering::SeqCst) == 3);
    }
}

#[test]
fn servers_that_are_none_are_refused_at_once_and_in_time() {
    let silent = server(|_, stream| std::thread::sleep(Duration::from_secs(60 + u64::from(stream.nodelay().is_err()))));
    let slow = server(|_, mut stream| {
        let head = b"HTTP/1.1 101 Switching Protocols\r\n".iter().chain(std::iter::repeat(&b'x'));
        head.take_while(|byte| {
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(&[**byte]).is_ok()
        })
        .count();
    });
    let web = server(|_, mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    });
    for (url, keys, expected) in [
        (silent.as_str(), TALK, "no answer within 0.5 s"),
        (&slow, TALK, "no answer within 0.5 s"),
        (&web, TALK, "HTTP error: 404 Not Found"),
        ("ws://127.0.0.1:1", TALK, "no connection to 127.0.0.1:1: "),
        ("wss://127.0.0.1:1", "", "speaks TLS"),
        ("ws://127.0.0.1:1", "action = {a = '{call}'}", "`action`: nothing is called `{call}`"),
        ("ws://127.0.0.1:1", "show = ['observation']", "no JSON pointer"),
        ("ws://127.0.0.1:1", "timeout_s = 0", "`timeout_s = 0`"),
    ] {
        let begun = Instant::now();
        let message = toolbox(&[url], keys).unwrap_err().to_string();
        assert!(message.contains("tool `openenv`: ") && message.contains(expected), "{message}");
        assert!(message.lines().count() == 1 && begun.elapsed() < Duration::from_secs(5), "{message}");
    }
    assert!(toolbox(&[], "").unwrap_err().to_string().contains("`urls` is empty"));
}

#[test]
fn a_call_that_makes_no_action_costs_no_step_and_a_column_that_is_missing_stops_the_run() {
    let (url, _) = games(8);
    let tools = toolbox(&[&url], "reset = {secret = '42', level = 2}").unwrap();
    let mut memory = Memory::new();
    for (call, expected) in [
        ("hello", "error: the call is no JSON: expected value at line 1 column 1"),
        ("[1]", "error: the action is no JSON object"),
        (r#"{"say": "1"}"#, r#"{"text":"false after 1"}"#),
    ] {
        assert_eq!(tools.answer(&example(), &mut memory, call).unwrap().text, expected, "{call}");
    }
    let tools = toolbox(&[&url], "reset = {secret = '{secret}'}").unwrap();
    let message = tools.answer(&example(), &mut Memory::new(), "{}").unwrap_err().to_string();
    assert_eq!(message, "tool `openenv`: `reset`: nothing is called `{secret}` in row `row`");
    let tools = toolbox(&[&url], "reset = {secret = '', level = 0}\nshow = ['/observation/board']").unwrap();
    let answer = tools.answer(&example(), &mut Memory::new(), "{}").unwrap();
    assert_eq!(answer.text, "error: the answer has no /observation/board");
}
