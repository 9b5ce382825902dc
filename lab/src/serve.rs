//! The page of a run that goes on, to a browser on this machine. Reads the run's folder when it is asked, and offers
//! nothing that writes.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path as Part, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::arms::Study;
use crate::report::{Options, Report};
use crate::transcripts;

/// What a metric is, by its name.
pub type Meaning = fn(&str) -> Option<String>;

struct Server {
    run: PathBuf,
    meaning: Meaning,
    /// The newest page with what it was made of.
    made: Mutex<Option<(String, Arc<Report>)>>,
}

/// Serves the run in `run` on a thread of its own, for as long as the process lives.
pub fn serve(listener: TcpListener, run: PathBuf, meaning: Meaning) -> Result<()> {
    listener.set_nonblocking(true).context("cannot listen")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("cannot start a server")?;
    let server = Arc::new(Server { run, meaning, made: Mutex::new(None) });
    let work = move || {
        runtime.block_on(async {
            // A listener that fails ends the page, not the run.
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let _ = axum::serve(listener, routes(server)).await;
            }
        });
    };
    std::thread::Builder::new().name("serve".into()).spawn(work).context("cannot start a server")?;
    Ok(())
}

fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route(
            "/",
            get(|State(server): State<Arc<Server>>| async move { answer(server.report().map(|r| Html(r.page()))) }),
        )
        .route("/version", get(|State(server): State<Arc<Server>>| async move { server.version() }))
        .route(
            "/data",
            get(|State(server): State<Arc<Server>>| async move {
                answer(server.report().map(|report| json(report.data.clone())))
            }),
        )
        .route(
            "/transcripts/{run}",
            get(|State(server): State<Arc<Server>>, Part(run): Part<usize>| async move {
                answer(server.report().map(|report| part(&report.transcripts, run)))
            }),
        )
        .route(
            "/problems/{run}",
            get(|State(server): State<Arc<Server>>, Part(run): Part<usize>| async move {
                answer(server.report().map(|report| part(&report.problems, run)))
            }),
        )
        .layer(from_fn(by_address))
        .with_state(server)
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn part(texts: &[String], run: usize) -> Response {
    texts.get(run).map_or_else(|| StatusCode::NOT_FOUND.into_response(), |text| json(text.clone()))
}

fn answer(found: Result<impl IntoResponse>) -> Response {
    match found {
        Ok(found) => found.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

/// Refuses a request to a name: a page from elsewhere whose name was pointed at this machine could read the run. An
/// address, or `localhost`, cannot be pointed anywhere.
pub async fn by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_address(host) {
        return (StatusCode::FORBIDDEN, "open this page by its address, or as localhost\n").into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")] {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// Whether `host`, a name with a port or none, is an address or `localhost`.
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

impl Server {
    /// What the page is made of, in a few words: other words, another page.
    fn version(&self) -> String {
        let of = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let at = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(format!("{}-{}", found.len(), at.as_nanos()))
        };
        let rollouts = transcripts::files(&self.run).len();
        format!("{} {rollouts}", of(&self.run.join("metrics.jsonl")).unwrap_or_default())
    }

    fn report(&self) -> Result<Arc<Report>> {
        let version = self.version();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, report)) = made.as_ref().filter(|(of, _)| *of == version) {
            return Ok(report.clone());
        }
        let mut study = Study::read(&[self.run.to_string_lossy().into_owned()])?;
        let report = Arc::new(Report::of(&mut study, &Options { meaning: &self.meaning, live: true })?);
        *made = Some((version, report.clone()));
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_answered() {
        for (host, expected) in [
            ("127.0.0.1:7878", true),
            ("localhost:7878", true),
            ("localhost", true),
            ("[::1]:7878", true),
            ("192.168.0.7", true),
            ("evil.example:7878", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:80", false),
            ("", false),
        ] {
            assert_eq!(is_address(host), expected, "{host}");
        }
    }
}
