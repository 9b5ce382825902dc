//! A client for services over HTTP and HTTPS: its limits, proxies, certificates, and errors that name the address and the
//! way out. What is asked, and what an answer has to say, is its callers' to know.
//!
//! Of the environment it reads what other programs read: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, and
//! `SSL_CERT_FILE`, the authorities to trust in place of Mozilla's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ureq::Proxy;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// What to look at where a service does not answer over TLS, which may fail as any connection does.
const OVER_TLS: &str = "does it run there and speak https? SSL_CERT_FILE names an authority of your own";

/// How long an answer may take, and how large it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Seconds for a request and its whole answer.
    pub(crate) seconds: f64,
    /// What to do where these are too few, such as "raise servers.timeout_s".
    pub(crate) slow: &'static str,
    /// Bytes of an answer.
    pub(crate) bytes: u64,
}

/// A client, which keeps its connections.
pub(crate) struct Client {
    agent: ureq::Agent,
    /// Sent as a bearer token.
    key: Option<String>,
    limits: Limits,
}

/// What a service answered, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    url: String,
    pub(crate) status: u16,
    /// Seconds after which the service wants to be asked again, where it says so.
    pub(crate) retry_after: Option<f64>,
    pub(crate) text: String,
}

impl Client {
    /// A client within `limits`. Fails for the file of `SSL_CERT_FILE` alone.
    pub(crate) fn new(limits: Limits, key: Option<String>) -> Result<Self> {
        let file = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
        let roots = file.map_or(Ok(RootCerts::WebPki), |file| authorities(Path::new(&file)))?;
        Ok(Self { agent: agent(&limits, roots, Proxy::try_from_env()), key, limits })
    }

    /// What `url` answers to a body of JSON.
    pub(crate) fn post(&self, url: &str, body: &str) -> Result<Answer> {
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut reply = request.send(body).map_err(|error| self.fault(url, error))?;
        let after = reply.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = reply.body_mut().with_config().limit(self.limits.bytes).read_to_vec();
        let body = body.map_err(|error| self.fault(url, error).context("the answer broke off"))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { url: url.to_owned(), status: reply.status().as_u16(), retry_after: after, text })
    }

    /// Why `url` gave no answer, and what to do.
    fn fault(&self, url: &str, error: ureq::Error) -> anyhow::Error {
        let Limits { seconds, slow, bytes } = self.limits;
        let (what, advice) = match &error {
            ureq::Error::Timeout(_) => (format!("no whole answer in {seconds} s"), slow),
            ureq::Error::BodyExceedsLimit(_) => {
                return anyhow!("{url}: an answer of more than {bytes} bytes: is this the address?");
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                (error.to_string(), "check the letters of address and key")
            }
            error if url.starts_with("https://") => (error.to_string(), OVER_TLS),
            error => (error.to_string(), "does it run, and answer there?"),
        };
        let proxy = self.agent.config().proxy().filter(|proxy| !url.parse().is_ok_and(|url| proxy.is_no_proxy(&url)));
        let by = proxy.map_or(String::new(), |proxy| {
            let (host, port) = (proxy.host(), proxy.port());
            format!(" (by the environment's proxy {host}:{port}; NO_PROXY lists hosts to reach without)")
        });
        anyhow!("{url}: {what}{by}: {advice}")
    }
}

/// What speaks to services.
fn agent(limits: &Limits, roots: RootCerts, proxy: Option<Proxy>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs_f64(limits.seconds)))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .proxy(proxy);
    config.build().new_agent()
}

impl Answer {
    /// The text of an answer of status 200; another is an error.
    pub(crate) fn accepted(self) -> Result<String> {
        ensure!(self.status == 200, "{}", self.refusal());
        Ok(self.text)
    }

    /// What is told of an answer of another status than 200.
    pub(crate) fn refusal(&self) -> String {
        let advice = match self.status {
            401 | 403 => ": is the key set, and the service's?",
            404 => ": is this the address, and the name of its model?",
            _ => "",
        };
        let said = Some(beginning(&self.text)).filter(|said| !said.is_empty());
        let said = said.map_or(String::new(), |said| format!(": {said}"));
        format!("{}: status {}{said}{advice}", self.url, self.status)
    }
}

/// What of an answer fits into a message.
pub(crate) fn beginning(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The certificates of a PEM file.
fn authorities(file: &Path) -> Result<RootCerts> {
    let fault =
        || format!("SSL_CERT_FILE = {}: name a PEM file of certificates, or unset the variable", file.display());
    let text = std::fs::read(file).with_context(fault)?;
    let certificates = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(fault)?;
    ensure!(!certificates.is_empty(), fault());
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const LIMITS: Limits = Limits { seconds: 0.5, slow: "raise x.timeout_s", bytes: 20 };

    /// The address of a service that answers every request with these bytes; with none it waits.
    fn answering(reply: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(reply.as_bytes());
                if reply.is_empty() {
                    std::thread::sleep(Duration::from_secs(2));
                }
            }
        });
        address.to_string()
    }

    /// What goes wrong where `url` is asked, by a proxy or by none, whatever the environment of the tests says.
    fn complaint(url: &str, proxy: Option<&str>) -> String {
        let agent = agent(&LIMITS, RootCerts::WebPki, proxy.map(|proxy| Proxy::new(proxy).unwrap()));
        let client = Client { agent, key: Some("sesame".into()), limits: LIMITS };
        format!("{:#}", client.post(url, "{}").and_then(Answer::accepted).unwrap_err())
    }

    #[test]
    fn what_goes_wrong_names_the_address_and_the_way_out() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (scheme, address, expected) in [
            ("http", free.to_string(), "does it run, and answer there?"),
            ("http", answering(""), "no whole answer in 0.5 s: raise x.timeout_s"),
            ("https", answering("HTTP/1.1 400 No\r\n\r\n"), "speak https? SSL_CERT_FILE names"),
            ("http", answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbroken"), "the answer broke off"),
            ("http", answering("HTTP/1.1 200 OK\r\n\r\n012345678901234567890123456789"), "more than 20 bytes"),
            ("http", answering("HTTP/1.1 403 No\r\n\r\nno\nkey"), "status 403: no key: is the key set"),
            ("http", answering("HTTP/1.1 404 No\r\n\r\n"), "status 404: is this the address"),
        ] {
            let url = format!("{scheme}://{address}/v1");
            let told = complaint(&url, None);
            assert!(told.contains(expected) && told.contains(&url) && !told.contains('\n'), "{expected}: {told}");
        }
        assert!(complaint("http://a b/v1", None).contains("http://a b/v1: "), "a space");
        let told = complaint("http://a.example/v1", Some(&format!("http://{free}")));
        assert!(told.contains("a.example/v1: ") && told.contains(&format!("proxy {free};")), "{told}");
    }

    #[test]
    fn a_file_of_authorities_that_holds_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roots.pem");
        let refused = || format!("{:#}", authorities(&file).unwrap_err());
        assert!(refused().contains("roots.pem: name a PEM file of certificates, or unset the variable: No such file"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(refused().ends_with("roots.pem: name a PEM file of certificates, or unset the variable"));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(authorities(&file).unwrap(), RootCerts::Specific(certificates) if certificates.len() == 1));
    }
}
