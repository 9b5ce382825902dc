//! A model behind OpenAI's protocol, for judges, teachers, and for looking at a checkpoint: completions and chats,
//! whole or streamed, sampled by the engine that training samples with.
//!
//! HTTP is here, the words in `protocol`, and the thread that samples in `engine`.

mod engine;
mod protocol;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use reckon_datasets::Example;
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::parallel::lock;
use crate::policy::Policy;
use crate::prompt::Template;
use crate::rollout::Completion;
use engine::{Heard, Job, Work};
use protocol::{Asked, Head, Kind, Words};

/// Prompts that may wait to be sampled; with more, a client is told to come again.
const WAITING: usize = 1024;

/// Bytes of a request, at most.
const MAX_REQUEST: usize = 16 << 20;

/// How a model is served.
pub struct Served {
    /// What clients call it.
    pub name: String,
    /// Most completions sampled at a time.
    pub capacity: usize,
    /// Tokens of a completion where a request does not say.
    pub max_new_tokens: usize,
    /// The model's own template for chats, where it has one.
    pub chat: Option<Template>,
    /// For texts.
    pub plain: Template,
    /// What clients have to show, where they have to.
    pub key: Option<String>,
    /// Whether a client may replace the weights by those of a folder.
    pub updates: bool,
}

struct Server {
    served: Served,
    tokenizer: Tokenizer,
    stop_tokens: Vec<u32>,
    /// Tokens that the model has room for.
    room: usize,
    work: SyncSender<Work>,
    asked: AtomicU64,
    /// Of the weights, where a client has given them one.
    version: Mutex<Option<String>>,
}

/// What a request gets in place of completions.
struct Refused(StatusCode, String);

impl Refused {
    fn wrong(error: &anyhow::Error) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("{error:#}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "message": self.1, "type": "invalid_request_error", "code": self.0.as_u16() } });
        (self.0, answer(&body)).into_response()
    }
}

/// Serves `policy` for as long as the process lives.
pub fn serve(listener: TcpListener, policy: Policy, served: Served) -> Result<()> {
    listener.set_nonblocking(true).context("cannot listen")?;
    // Who is reached by a name from elsewhere has no page of a browser to fear that was pointed at this machine.
    let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let (sender, receiver) = sync_channel(WAITING);
    let server = Arc::new(Server {
        tokenizer: policy.tokenizer.clone(),
        stop_tokens: policy.config.eos_token_id.clone(),
        room: policy.config.max_position_embeddings,
        work: sender,
        asked: AtomicU64::new(0),
        version: Mutex::new(None),
        served,
    });
    let capacity = server.served.capacity;
    let sampling = move || engine::work(policy, capacity, &receiver);
    std::thread::Builder::new().name("sampling".into()).spawn(sampling).context("cannot start a thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("cannot start a server")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot listen")?;
        axum::serve(listener, routes(server, local)).await.context("the server ended")
    })
}

fn routes(server: Arc<Server>, local: bool) -> Router {
    let models = |State(server): State<Arc<Server>>| async move {
        let model = json!({ "id": server.served.name, "object": "model", "max_model_len": server.room });
        answer(&json!({ "object": "list", "data": [model] }))
    };
    let texts =
        |State(server): State<Arc<Server>>, body: Bytes| async move { complete(server, &body, Kind::Text).await };
    let chats =
        |State(server): State<Arc<Server>>, body: Bytes| async move { complete(server, &body, Kind::Chat).await };
    let update = |State(server): State<Arc<Server>>, body: Bytes| async move {
        server.update(&body).await.unwrap_or_else(IntoResponse::into_response)
    };
    let routes = Router::new();
    let routes = if server.served.updates { routes.route("/update_weights_from_disk", post(update)) } else { routes };
    let routes = routes
        .route("/v1/models", get(models))
        .route("/v1/completions", post(texts))
        .route("/v1/chat/completions", post(chats))
        .layer(from_fn_with_state(server.clone(), admitted))
        .route("/health", get(|| async { StatusCode::OK }))
        .layer(DefaultBodyLimit::max(MAX_REQUEST));
    let routes = if local { routes.layer(from_fn(reckon_lab::serve::by_address)) } else { routes };
    routes.with_state(server)
}

async fn admitted(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    match server.refuses(request.method(), request.headers()) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    }
}

fn answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn complete(server: Arc<Server>, body: &[u8], kind: Kind) -> Response {
    match begin(&server, body, kind) {
        Err(refused) => refused.into_response(),
        Ok(Begun { asked, head, heard, .. }) if asked.stream => streamed(server, &asked, head, heard),
        Ok(begun) => whole(&server, begun).await.unwrap_or_else(IntoResponse::into_response),
    }
}

/// A request that is being sampled.
struct Begun {
    asked: Asked,
    head: Head,
    prompts: Vec<Vec<u32>>,
    heard: UnboundedReceiver<Heard>,
}

fn begin(server: &Server, body: &[u8], kind: Kind) -> Result<Begun, Refused> {
    let mut asked = protocol::read(body, kind, server.served.max_new_tokens).map_err(|error| Refused::wrong(&error))?;
    asked.sampling.stop_tokens = server.stop_tokens.clone();
    let prompts: Result<Vec<Vec<u32>>> = asked.prompts.iter().map(|words| server.tokens(words)).collect();
    let prompts = prompts.map_err(|error| Refused::wrong(&error))?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest >= server.room {
        let message = format!("a prompt has {longest} tokens, and the model room for {}", server.room);
        return Err(Refused(StatusCode::BAD_REQUEST, message));
    }
    asked.sampling.max_new_tokens = asked.sampling.max_new_tokens.min(server.room - longest);
    let (sender, heard) = unbounded_channel();
    for (place, tokens) in prompts.iter().enumerate() {
        let job = Job {
            tokens: tokens.clone(),
            samples: asked.samples,
            sampling: asked.sampling.clone(),
            seed: asked.seed,
            routed: asked.routed,
            first_choice: place * asked.samples,
            heard: sender.clone(),
        };
        server.work.try_send(Work::Sample(job)).map_err(|error| match error {
            TrySendError::Full(_) => {
                Refused(StatusCode::SERVICE_UNAVAILABLE, format!("{WAITING} prompts are waiting already: come again"))
            }
            TrySendError::Disconnected(_) => {
                Refused(StatusCode::INTERNAL_SERVER_ERROR, "the thread that samples has ended".into())
            }
        })?;
    }
    let number = server.asked.fetch_add(1, Ordering::Relaxed);
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    let prefix = if kind == Kind::Text { "cmpl" } else { "chatcmpl" };
    let head = Head { kind, id: format!("{prefix}-{number}"), created, model: server.served.name.clone() };
    Ok(Begun { asked, head, prompts, heard })
}

impl Server {
    /// Refuses a client that does not show the key, and what a page of a browser may send to anybody.
    fn refuses(&self, method: &Method, headers: &HeaderMap) -> Option<Refused> {
        let shown = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let json = shown(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        if method == Method::POST && !json {
            let message = "content-type is to be application/json".to_owned();
            return Some(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let shown = shown(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let refused = || Refused(StatusCode::UNAUTHORIZED, "the key is missing or wrong".to_owned());
        self.served.key.as_ref().filter(|key| shown != Some(key)).map(|_| refused())
    }

    /// Takes the weights of a folder, in the words of SGLang: what was asked before is sampled with the old ones.
    async fn update(&self, body: &[u8]) -> Result<Response, Refused> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let no_folder = || Refused(StatusCode::BAD_REQUEST, "there is no model_path".into());
        let folder = PathBuf::from(body["model_path"].as_str().ok_or_else(no_folder)?);
        let gone = || Refused(StatusCode::INTERNAL_SERVER_ERROR, "the thread that samples has ended".into());
        if !folder.is_dir() {
            let message = format!("there is no folder {} on this machine", folder.display());
            return Err(Refused(StatusCode::BAD_REQUEST, message));
        }
        let (sender, mut told) = unbounded_channel();
        self.work.try_send(Work::Update(folder, sender)).map_err(|_| gone())?;
        let outcome = told.recv().await.ok_or_else(gone)?;
        let fault = |error: anyhow::Error| Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"));
        outcome.map_err(fault)?;
        *lock(&self.version) = body["weight_version"].as_str().map(str::to_owned);
        Ok(answer(&json!({ "success": true, "message": "these weights are sampled from" })))
    }

    /// A prompt as the model reads it.
    fn tokens(&self, words: &Words) -> Result<Vec<u32>> {
        let example = |question: &str, messages: &[Value]| Example {
            id: "of the request".to_owned(),
            question: question.to_owned(),
            messages: messages.to_vec(),
            ..Example::default()
        };
        let (template, example) = match words {
            Words::Tokens(tokens) => {
                let rows = self.tokenizer.get_vocab_size(true) as u32;
                let strange = tokens.iter().find(|token| **token >= rows);
                ensure!(strange.is_none(), "token {strange:?} is none of the model's {rows}");
                return Ok(tokens.clone());
            }
            Words::Text(text) => (&self.served.plain, example(text, &[])),
            Words::Messages(messages) => {
                let last = messages.iter().rfind(|message| message["role"] == "user");
                let question = last.and_then(|message| message["content"].as_str());
                let question = question.context("there is no message of the user whose content is a text")?;
                let template = self.served.chat.as_ref();
                let template = template.context("the model has no chat template: ask /v1/completions")?;
                (template, example(question, messages))
            }
        };
        let tokens = template.encode(&self.tokenizer, &template.render(&example)?.text)?;
        ensure!(!tokens.is_empty(), "the prompt is empty");
        Ok(tokens)
    }

    /// The text of tokens, without one that ends a completion.
    fn text(&self, tokens: &[u32]) -> String {
        let ends = tokens.last().is_some_and(|token| self.stop_tokens.contains(token));
        self.tokenizer.decode(&tokens[..tokens.len() - usize::from(ends)], false).unwrap_or_default()
    }
}

/// All completions of a request at once.
async fn whole(server: &Server, begun: Begun) -> Result<Response, Refused> {
    let Begun { asked, head, prompts, mut heard } = begun;
    let mut completions: Vec<Option<Completion>> = vec![None; prompts.len() * asked.samples];
    while completions.iter().any(Option::is_none) {
        match heard.recv().await {
            Some(Heard::Token { .. }) => {}
            Some(Heard::Done { choice, completion }) => completions[choice] = Some(completion),
            Some(Heard::Failed(why)) => return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, why)),
            None => return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "sampling has failed".into())),
        }
    }
    let completions: Vec<Completion> = completions.into_iter().flatten().collect();
    let name = |token| server.tokenizer.decode(&[token], false).unwrap_or_default();
    let mut body = head.whole(&asked, &prompts, &completions, name);
    if let Some(version) = &*lock(&server.version) {
        body["weight_version"] = json!(version);
    }
    Ok(answer(&body))
}

/// A completion that is sent as it grows.
#[derive(Default, Clone)]
struct Growing {
    tokens: Vec<u32>,
    /// Bytes of its text that are sent.
    sent: usize,
    done: bool,
}

/// What of a text can be sent: not what may be the beginning of a text that stops it, nor half a character.
fn sendable<'t>(text: &'t str, stops: &[String]) -> &'t str {
    let held = stops.iter().map(String::len).max().unwrap_or(1) - 1;
    let text = text.trim_end_matches('\u{fffd}');
    let mut end = text.len().saturating_sub(held);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Completions piece by piece, as server-sent events.
fn streamed(server: Arc<Server>, asked: &Asked, head: Head, heard: UnboundedReceiver<Heard>) -> Response {
    let growing = vec![Growing::default(); asked.prompts.len() * asked.samples];
    let stops = asked.sampling.stop_strings.clone();
    let begun = (server, head, heard, growing, stops, false);
    let pieces = stream::unfold(begun, |(server, head, mut heard, mut growing, stops, over)| async move {
        if over {
            return None;
        }
        let (text, over) = loop {
            if growing.iter().all(|completion| completion.done) {
                break ("data: [DONE]\n\n".to_owned(), true);
            }
            match heard.recv().await {
                Some(Heard::Token { choice, token }) => {
                    let row = &mut growing[choice];
                    row.tokens.push(token);
                    let text = server.text(&row.tokens);
                    let ready = sendable(protocol::trimmed(&text, &stops), &stops);
                    if ready.len() > row.sent {
                        let piece = head.piece(choice, &ready[row.sent..], None);
                        row.sent = ready.len();
                        break (format!("data: {piece}\n\n"), false);
                    }
                }
                Some(Heard::Done { choice, completion }) => {
                    let row = &mut growing[choice];
                    row.done = true;
                    let text = protocol::trimmed(&completion.text, &stops);
                    let rest = text.get(row.sent..).unwrap_or_default();
                    break (format!("data: {}\n\n", head.piece(choice, rest, Some(completion.finish))), false);
                }
                Some(Heard::Failed(why)) => {
                    break (format!("data: {}\n\n", json!({ "error": { "message": why } })), true);
                }
                None => return None,
            }
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (server, head, heard, growing, stops, over)))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_stop_or_half_a_character_is_held_back() {
        for (text, stops, expected) in [
            ("abc", &[][..], "abc"),
            ("abc", &["\n"], "abc"),
            ("abc", &["</a>"], ""),
            ("abcdef", &["</a>"], "abc"),
            ("äöü", &["ab"], "äö"),
            ("ab\u{fffd}", &[], "ab"),
        ] {
            let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
            assert_eq!(sendable(text, &stops), expected, "{text} {stops:?}");
        }
    }
}
