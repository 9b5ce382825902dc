//! A connection to an environment: messages and their answers, each by its deadline, whatever the server does.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tungstenite::client::client_with_config;
use tungstenite::http::Uri;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::super::one_line;

/// A message of more bytes than this is refused.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes that a connection reads at a time: there may be one for each completion of a step.
const BUFFER: usize = 4096;
/// Messages that are read at a time while nobody calls: a server may send pings faster than they are read.
const MAX_UNASKED: usize = 64;
/// By this code a server says that it has no session left.
const FULL: &str = "CAPACITY_REACHED";

/// Why a message got no observation.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server says that it was no good; the session goes on.
    Refused { code: String, message: String },
    /// The connection is of no use any more.
    Over(String),
}

impl Fault {
    /// Whether another attempt at a session may have another end.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code == FULL,
            Self::Over(_) => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "{message} ({code})"),
            Self::Over(reason) => f.write_str(reason),
        }
    }
}

/// A completion's session: its connection, and what was observed last.
#[derive(Debug)]
pub struct Session {
    line: Arc<Mutex<Line>>,
    last: Value,
}

impl Session {
    pub(super) fn new(line: Line, last: Value) -> Self {
        Self { line: Arc::new(Mutex::new(line)), last }
    }

    /// The data of the last answer: `observation`, `reward`, `done`.
    pub(super) fn last(&self) -> &Value {
        &self.last
    }

    /// The connection, for as long as the session is there.
    pub(super) fn line(&self) -> Weak<Mutex<Line>> {
        Arc::downgrade(&self.line)
    }

    /// One step of the environment, or why there is none.
    pub(super) fn step(&mut self, action: &Value, within: Duration) -> Result<(), String> {
        if self.last["done"] == true {
            return Err("the episode is over".into());
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.look();
        let answer = line.ask(&json!({"type": "step", "data": action}), within);
        self.last = answer.map_err(|fault| fault.to_string())?;
        Ok(())
    }
}

/// A connection. It says `close` where it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    socket: WebSocket<Timed>,
    /// Why it is of no use any more.
    over: Option<String>,
}

/// A message of the server.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum Told {
    Observation(Map<String, Value>),
    State(Map<String, Value>),
    Error(Map<String, Value>),
}

impl Line {
    /// A connection to `server`, or why there is none within this time. A name is looked up by the system, in a time of its
    /// own.
    pub(super) fn connect(server: &Uri, within: Duration) -> Result<Self, String> {
        let until = Instant::now() + within;
        let place = format!("{}:{}", server.host().unwrap_or_default(), server.port_u16().unwrap_or(80));
        let addresses = place.to_socket_addrs().map_err(|error| format!("{place} is not known: {error}"))?;
        let mut found = Err(format!("{place} has no address"));
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            found = TcpStream::connect_timeout(&address, left)
                .map_err(|error| format!("no connection to {address}: {error}"));
            if found.is_ok() {
                break;
            }
        }
        let stream = found?;
        // Messages are small and answered one by one.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        match client_with_config(server.clone(), Timed { stream, until: Some(until) }, Some(config)) {
            Ok((socket, _)) => Ok(Self { socket, over: None }),
            Err(HandshakeError::Failure(error)) => Err(format!("no WebSocket at {server}: {}", reason(error, within))),
            // A stream that waits is never interrupted.
            Err(HandshakeError::Interrupted(_)) => Err(format!("no WebSocket at {server}")),
        }
    }

    /// Sends a message and waits for its answer.
    pub(super) fn ask(&mut self, message: &Value, within: Duration) -> Result<Value, Fault> {
        if let Some(reason) = &self.over {
            return Err(Fault::Over(format!("the session is over: {reason}")));
        }
        self.socket.get_mut().until = Some(Instant::now() + within);
        let sent = self.socket.send(Message::text(message.to_string()));
        // A server that has closed already may have said why: one that is full does so before it is asked.
        let told = self
            .receive(message, within)
            .map_err(|unread| sent.map_or_else(|error| reason(error, within), |()| unread));
        match told {
            Ok(Told::Observation(data) | Told::State(data)) => Ok(data.into()),
            Ok(Told::Error(data)) => Err(refusal(&data)),
            Err(reason) => {
                self.over = Some(reason.clone());
                Err(Fault::Over(reason))
            }
        }
    }

    /// The next message that is no ping: an answer to `asked`.
    fn receive(&mut self, asked: &Value, within: Duration) -> Result<Told, String> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let junk = || format!("the server said what is no answer: {}", one_line(&text));
                    let told: Told = serde_json::from_str(&text).map_err(|_| junk())?;
                    let answers = match &told {
                        Told::Observation(data) => asked["type"] != "state" && data.contains_key("observation"),
                        Told::State(_) => asked["type"] == "state",
                        Told::Error(_) => true,
                    };
                    return if answers { Ok(told) } else { Err(junk()) };
                }
                Ok(Message::Binary(_)) => return Err("the server said what is no answer: bytes".into()),
                Ok(Message::Close(frame)) => {
                    let why = frame.map(|frame| format!(" ({})", one_line(&frame.to_string()))).unwrap_or_default();
                    return Err(format!("the server closed it{why}"));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(error) => return Err(reason(error, within)),
            }
        }
    }

    /// Reads what came unasked, without waiting: pings are answered, anything else ends the session.
    pub(super) fn look(&mut self) {
        if self.over.is_some() {
            return;
        }
        self.socket.get_mut().until = None;
        for _ in 0..MAX_UNASKED {
            self.over = match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Text(_) | Message::Binary(_)) => Some("the server spoke without being asked".into()),
                Ok(Message::Close(_)) => Some("the server closed it".into()),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => Some(reason(error, Duration::ZERO)),
            };
            return;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // To say so is a courtesy: the server ends the session of a connection that is gone.
        if self.over.is_none() {
            self.socket.get_mut().until = None;
            let _ = self.socket.send(Message::text(json!({"type": "close"}).to_string()));
            let _ = self.socket.close(None).and_then(|()| self.socket.flush());
        }
    }
}

/// What a server says of a message that was no good: with the first field of the action that does not fit, if it names
/// one.
fn refusal(data: &Map<String, Value>) -> Fault {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut message = text(data.get("message"));
    if let Some(first) = data.get("errors").and_then(|errors| errors.get(0)) {
        let place = first.pointer("/loc").and_then(Value::as_array).into_iter().flatten();
        let place: Vec<String> =
            place.map(|part| part.as_str().map_or_else(|| part.to_string(), String::from)).collect();
        message = format!("{message}: {}: {}", place.join("."), text(first.get("msg")));
    }
    Fault::Refused { code: text(data.get("code")), message }
}

/// Why a connection broke.
fn reason(error: Error, within: Duration) -> String {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
            format!("no answer within {} s", within.as_secs_f64())
        }
        Error::ConnectionClosed | Error::AlreadyClosed => "the server closed it".into(),
        Error::Capacity(_) => format!("the server said more than {} MiB at once", MAX_MESSAGE >> 20),
        error => error.to_string(),
    }
}

/// A stream that waits until a time, or not at all.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    until: Option<Instant>,
}

/// How long a stream may wait, of a read or of a write.
type SetTimeout = fn(&TcpStream, Option<Duration>) -> io::Result<()>;

impl Timed {
    fn by<T>(&mut self, set: SetTimeout, work: impl FnOnce(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        self.stream.set_nonblocking(self.until.is_none())?;
        let Some(until) = self.until else { return work(&mut self.stream) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        set(&self.stream, Some(left))?;
        let late =
            |error: io::Error| if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error };
        work(&mut self.stream).map_err(late)
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.by(TcpStream::set_read_timeout, |stream| stream.read(into))
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.by(TcpStream::set_write_timeout, |stream| stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
