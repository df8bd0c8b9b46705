//! Connections to object stores and web servers.
//!
//! The client of `object_store` limits the time of a whole request, which steady transfers over a slow link exceed, and
//! follows redirects to any host, with the session token. This one limits the time without progress, and stays on the
//! server.

use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey as Key, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpService, SpawnService,
};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{NoProxy, Proxy, StatusCode, Url, tls};
use tokio::runtime::Handle;
use wavemill_schemas::exit::PlainError;

use crate::remote::PART_BYTES;

/// Size in bytes up to which the body of a request is sent at once.
const SMALL_BYTES: usize = 64 << 10;
/// Rate of the slowest upload in bytes per second: one of eight parts that are sent at the same time at 100 kB/s.
const UPLOAD_RATE: u64 = 10_000;
/// Number of redirects within a server that are followed.
const REDIRECTS: usize = 10;

/// Creates clients whose requests run on the threads of `runtime`.
#[derive(Debug)]
pub(crate) struct Connector {
    pub runtime: Handle,
    /// Time without progress after which an attempt has failed; `None` for the timeout of the provider's options.
    pub stall_time: Option<Duration>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let stall_time = match self.stall_time {
            Some(time) => time,
            None => duration(options, Key::Timeout)?,
        };
        // The time until the answer begins includes that of sending, in which nothing is received.
        let upload_time = Duration::from_secs(PART_BYTES as u64 / UPLOAD_RATE);

        let client = Client {
            small: client(options, stall_time)?,
            uploads: client(options, stall_time + upload_time)?,
        };
        Ok(HttpClient::new(SpawnService::new(
            client,
            self.runtime.clone(),
        )))
    }
}

/// A client for each size of requests.
#[derive(Clone, Debug)]
struct Client {
    small: reqwest::Client,
    uploads: reqwest::Client,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = match request.body().content_length() {
            0..=SMALL_BYTES => &self.small,
            _ => &self.uploads,
        };
        let answer = client.call(request).await?;
        match answer.status() {
            // `object_store` would repeat the request like one to a server that is busy.
            StatusCode::NOT_IMPLEMENTED => {
                let problem = "the server does not support this request (501 Not Implemented)";
                let kind = HttpErrorKind::Unknown;
                Err(HttpError::new(kind, PlainError::failed(problem)))
            }
            _ => Ok(answer),
        }
    }
}

fn client(options: &ClientOptions, stall_time: Duration) -> object_store::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("wavemill/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        // Compression would change the lengths of answers, which are the sizes of objects.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .https_only(!is_set(options, Key::AllowHttp))
        .danger_accept_invalid_certs(is_set(options, Key::AllowInvalidCertificates))
        .connect_timeout(duration(options, Key::ConnectTimeout)?)
        .read_timeout(stall_time)
        .redirect(Policy::custom(follow));

    if let Some(proxy) = options.get_config_value(&Key::ProxyUrl) {
        let excluded = options.get_config_value(&Key::ProxyExcludes);
        let proxy = Proxy::all(proxy).map_err(generic)?;
        builder = builder.proxy(proxy.no_proxy(excluded.and_then(|e| NoProxy::from_string(&e))));
    }
    if let Some(certificate) = options.get_config_value(&Key::ProxyCaCertificate) {
        let certificate = tls::Certificate::from_pem(certificate.as_bytes()).map_err(generic)?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(generic)
}

fn is_set(options: &ClientOptions, key: Key) -> bool {
    let value = options.get_config_value(&key).unwrap_or_default();
    ["1", "true", "on", "yes", "y"].contains(&&*value.to_ascii_lowercase())
}

fn duration(options: &ClientOptions, key: Key) -> object_store::Result<Duration> {
    let value = options.get_config_value(&key).unwrap_or_default();
    humantime::parse_duration(&value)
        .map_err(|error| generic(format!("{}={value}: {error}: such as 30s", key.as_ref())))
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: "connection",
        source: source.into(),
    }
}

fn follow(attempt: Attempt<'_>) -> Action {
    let is_same = attempt
        .previous()
        .last()
        .is_some_and(|from| is_same_server(from, attempt.url()));
    if !is_same {
        // The other server could be any: the session token is not sent there, and its answer not believed.
        let origin = attempt.url().origin().ascii_serialization();
        return attempt.error(format!(
            "the server redirects to another one, {origin}, which is not followed: give the address there, or check \
             AWS_ENDPOINT and AWS_REGION"
        ));
    }
    match attempt.previous().len() > REDIRECTS {
        true => attempt.error("too many redirects"),
        false => attempt.follow(),
    }
}

/// Reports whether two addresses are of one server, also if the second one is encrypted and the first one is not.
fn is_same_server(from: &Url, to: &Url) -> bool {
    let has_default_ports = from.port().is_none() && to.port().is_none();
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https" && has_default_ports;
    from.origin() == to.origin() || (is_upgrade && from.host() == to.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_server() {
        let is_followed = |from: &str, to: &str| {
            let parsed = |address: &str| Url::parse(address).expect("an address");
            is_same_server(&parsed(from), &parsed(to))
        };
        for (from, to) in [
            ("https://host/a", "https://host/b"),
            ("https://host/a", "https://HOST:443/b"),
            ("http://host/a", "https://host/a"),
            ("http://host:81/a", "http://host:81/b?x"),
        ] {
            assert!(is_followed(from, to), "{from} {to}");
        }
        for (from, to) in [
            ("https://host/a", "https://other/a"),
            ("https://host/a", "https://host.other/a"),
            ("https://host/a", "https://host:444/a"),
            ("https://host/a", "http://host/a"),
            ("http://host:81/a", "https://host/a"),
            ("http://127.0.0.1:1/a", "http://127.0.0.1:2/a"),
        ] {
            assert!(!is_followed(from, to), "{from} {to}");
        }
    }
}
