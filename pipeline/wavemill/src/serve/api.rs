//! The HTTP interface: paths, handlers, and the headers of every response.

use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page;
use super::refusal::Refusal;
use super::server::Server;
use super::upload::SharedBody;

/// Default number of classes per line, the same as in `wavemill predict`.
const TOP: usize = 3;

/// The OpenAPI document of all paths, without the version of the program.
const DOCUMENT: &str = include_str!("openapi.json");

/// Headers of every response. The page may load only resources of this server, and no other page may embed it in a
/// frame.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

type Shared = Arc<Server>;

/// Returns all URL paths of the server with their handlers.
pub(crate) fn routes() -> [(&'static str, MethodRouter<Shared>); 7] {
    [
        ("/", get(index)),
        ("/page.css", get(css)),
        ("/page.js", get(script)),
        ("/api/predict", post(predict)),
        ("/api/openapi.json", get(openapi)),
        ("/healthz", get(healthz)),
        ("/metrics", get(metrics)),
    ]
}

/// Builds the HTTP router with all paths of the server.
pub(crate) fn router(server: &Shared) -> Router {
    let mut router = Router::new();
    for (path, handler) in routes() {
        router = router.route(path, handler);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(server), around))
        .with_state(Arc::clone(server))
}

/// Middleware of all requests: checks access, adds the response headers and counts the request.
async fn around(State(server): State<Shared>, request: Request, next: Next) -> Response {
    // Unknown paths are counted under one label, because clients can invent any number of them.
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("other", MatchedPath::as_str).to_owned();

    let (request, body) = SharedBody::of(request);
    let mut response = match server.gate.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    // Without this, the connection would be reset, and the client would not receive a refusal of its upload.
    body.drain_aside();

    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    server.metrics.request(&path, response.status().as_u16());
    response
}

async fn index(State(server): State<Shared>) -> Html<String> {
    Html(page::index(&server.runs(), &server.limits).into_string())
}

fn file(kind: &'static str, text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn css() -> impl IntoResponse {
    file("text/css; charset=utf-8", page::style())
}

async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", page::SCRIPT.to_owned())
}

async fn openapi() -> impl IntoResponse {
    let document = DOCUMENT.replace("VERSION", env!("CARGO_PKG_VERSION"));
    file("application/json", document)
}

async fn metrics(State(server): State<Shared>) -> impl IntoResponse {
    file(
        "text/plain; version=0.0.4; charset=utf-8",
        server.metrics_text(),
    )
}

async fn healthz(State(server): State<Shared>) -> Result<Json<Value>, Refusal> {
    let not_ready = server.restart_ended();
    if not_ready.is_empty() {
        return Ok(Json(json!({"status": "ok", "runs": server.runs()})));
    }
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("Models that are not ready: {}.", not_ready.join(", ")),
    ))
}

/// Query parameters of `/api/predict`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictQuery {
    name: Option<String>,
    top: Option<usize>,
    #[serde(default)]
    html: bool,
}

async fn predict(State(server): State<Shared>, request: Request) -> Result<Json<Value>, Refusal> {
    let asked = Query::<PredictQuery>::try_from_uri(request.uri());
    let Query(asked) = asked.map_err(|_| {
        Refusal::bad_request(
            "Invalid query: the parameters are name (a text), top (a number) and html (true or false).",
        )
    })?;
    let answer = server.predict(request, asked.name).await?;
    let mut json = answer.to_json(asked.top.unwrap_or(TOP));
    if asked.html {
        json["summary"] = answer.summary().into();
        json["html"] = answer.to_html().into();
    }
    Ok(Json(json))
}

async fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "Not found; /api/openapi.json lists all paths.",
    )
}

async fn not_allowed() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed; /api/openapi.json lists the methods of each path.",
    )
}
