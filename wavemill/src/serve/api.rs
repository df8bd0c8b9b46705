//! The HTTP interface. The router and the OpenAPI document are generated from the same list of operations.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::page;
use super::refusal::Refusal;
use super::server::Server;

/// Default number of classes per line, the same as in `wavemill predict`.
const TOP: usize = 3;

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

/// An operation of the HTTP interface.
struct Operation {
    method: Method,
    path: &'static str,
    summary: &'static str,
    /// Query parameters: name, type and description.
    parameters: &'static [(&'static str, &'static str, &'static str)],
    /// Request body by media type, with its schema.
    body: Option<Value>,
    /// Responses: status, description and content.
    answers: Vec<(u16, &'static str, Value)>,
    handler: fn(MethodFilter) -> MethodRouter<Shared>,
}

/// Creates a GET operation without parameters that responds with status 200.
fn get(
    path: &'static str,
    summary: &'static str,
    content: Value,
    handler: fn(MethodFilter) -> MethodRouter<Shared>,
) -> Operation {
    Operation {
        method: Method::GET,
        path,
        summary,
        parameters: &[],
        body: None,
        answers: vec![(200, "Success.", content)],
        handler,
    }
}

/// Returns all operations.
fn operations() -> Vec<Operation> {
    let mut health = get(
        "/healthz",
        "Report whether every model is ready",
        content("application/json", json!({"type": "object"})),
        |method| on(method, healthz),
    );
    health
        .answers
        .push((503, "A model is being started.", error_content()));

    vec![
        get(
            "/",
            "Web page",
            content("text/html", json!({"type": "string"})),
            |method| on(method, index),
        ),
        get(
            "/page.css",
            "Style sheet of the web page",
            content("text/css", json!({"type": "string"})),
            |method| on(method, css),
        ),
        get(
            "/page.js",
            "Script of the web page",
            content("text/javascript", json!({"type": "string"})),
            |method| on(method, script),
        ),
        Operation {
            method: Method::POST,
            path: "/api/predict",
            summary: "Predict the genre of a song with each model: per segment, by mean probability and by majority",
            parameters: &[
                (
                    "name",
                    "string",
                    "File name in the response, if the body is the file",
                ),
                (
                    "top",
                    "integer",
                    "Number of likeliest classes in each line [default: 3]",
                ),
                (
                    "html",
                    "boolean",
                    "Add an HTML fragment and a one-line summary, as html and summary",
                ),
            ],
            body: Some(json!({
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {"schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }},
            })),
            answers: vec![
                (
                    200,
                    "Predictions of all models.",
                    content("application/json", answer_schema()),
                ),
                (
                    400,
                    "Invalid upload, query or Host header.",
                    error_content(),
                ),
                (403, "Request from a page of another site.", error_content()),
                (408, "The upload took too long.", error_content()),
                (413, "The file is too large.", error_content()),
                (
                    421,
                    "The Host header names another server.",
                    error_content(),
                ),
                (
                    422,
                    "The file is not a song, or is too short or too long.",
                    error_content(),
                ),
                (500, "Internal error of the server.", error_content()),
                (
                    502,
                    "A model's process ended or failed; it is being restarted.",
                    error_content(),
                ),
                (
                    503,
                    "Too many songs in progress; see Retry-After.",
                    error_content(),
                ),
                (504, "The prediction took too long.", error_content()),
            ],
            handler: |method| on(method, predict),
        },
        get(
            "/api/openapi.json",
            "This document",
            content("application/json", json!({"type": "object"})),
            |method| on(method, openapi),
        ),
        health,
        get(
            "/metrics",
            "Metrics in the text format of Prometheus",
            content("text/plain", json!({"type": "string"})),
            |method| on(method, metrics),
        ),
    ]
}

/// Builds the router of all operations.
pub(crate) fn router(server: &Shared) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        // axum handles HEAD with the handler of GET.
        let method = match operation.method {
            Method::POST => MethodFilter::POST,
            _ => MethodFilter::GET,
        };
        router = router.route(operation.path, (operation.handler)(method));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(server), around))
        // Disable axum's limit of 2 MB for forms. The size of uploads is checked against the configured limit during
        // the transfer.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(server))
}

/// Builds the OpenAPI document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let answers: Map<String, Value> = operation
            .answers
            .iter()
            .map(|(status, meaning, content)| {
                (
                    status.to_string(),
                    json!({"description": meaning, "content": content}),
                )
            })
            .collect();

        let parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|(name, kind, meaning)| {
                json!({"name": name, "in": "query", "description": meaning, "schema": {"type": kind}})
            })
            .collect();

        let mut entry = json!({
            "summary": operation.summary,
            "parameters": parameters,
            "responses": answers,
        });
        if let Some(body) = &operation.body {
            entry["requestBody"] = json!({"required": true, "content": body});
        }

        let method = operation.method.as_str().to_lowercase();
        paths.insert(operation.path.to_owned(), json!({ method: entry }));
    }

    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wavemill serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Predictions of trained models for uploaded songs.",
        },
        "paths": paths,
    })
}

fn content(media: &str, schema: Value) -> Value {
    json!({ media: {"schema": schema} })
}

fn error_content() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"error": {"type": "string", "description": "Description of the error, a sentence."}},
        "required": ["error"],
    });
    content("application/json", schema)
}

fn answer_schema() -> Value {
    let class = json!({
        "type": "object",
        "properties": {"class": {"type": "string"}, "probability": {"type": "number"}},
    });
    let classes = json!({"type": "array", "items": class});

    let line = json!({
        "type": "object",
        "description": "Prediction as printed by `wavemill predict`: for a segment, or for the whole song if it has several segments.",
        "properties": {
            "run": {"type": "string", "description": "Name of the model's run."},
            "clip_key": {"type": "string"},
            "target": {"type": "string"},
            "segment": {"type": "integer"},
            "offset_s": {"type": "number"},
            "segments": {"type": "integer", "description": "Number of segments, in the line for the whole song."},
            "majority": {"type": "string", "description": "The class of most segments."},
            "class": {"type": "string", "description": "Class with the highest probability; for the whole song, with the highest mean probability."},
            "probability": {"type": "number"},
            "labels": classes,
            "top": classes,
        },
        "required": ["run", "clip_key", "target", "top"],
    });

    json!({
        "type": "object",
        "properties": {
            "file": {"type": "string"},
            "duration_s": {"type": "number"},
            "lost_s": {"type": "number", "description": "Seconds lost because of damage."},
            "seconds": {"type": "object", "description": "Seconds spent on decoding, on features and in each model, without waiting for other songs."},
            "answers": {"type": "array", "items": line},
            "summary": {"type": "string"},
            "html": {"type": "string"},
        },
        "required": ["file", "duration_s", "lost_s", "seconds", "answers"],
    })
}

/// Middleware of all requests: checks access, adds the response headers and counts the request.
async fn around(State(server): State<Shared>, request: Request, next: Next) -> Response {
    // Unknown paths are counted under one label, because clients can invent any number of them.
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("other", MatchedPath::as_str).to_owned();

    let checked = server.gate.check(request.uri(), request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            super::upload::drain_aside(request.into_body());
            refusal.into_response()
        }
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    server.metrics.request(&path, response.status().as_u16());
    response
}

async fn index(State(server): State<Shared>) -> Response {
    let page = page::index(&server.runs(), &server.limits);
    Html(page.into_string()).into_response()
}

async fn css() -> Response {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        page::style(),
    )
        .into_response()
}

async fn script() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (kind, page::SCRIPT).into_response()
}

async fn openapi() -> Json<Value> {
    Json(document())
}

async fn healthz(State(server): State<Shared>) -> Result<Json<Value>, Refusal> {
    let not_ready = server.not_ready();
    if not_ready.is_empty() {
        return Ok(Json(json!({"status": "ok", "runs": server.runs()})));
    }
    // Restart the models now. Otherwise only the next song would start them, and a proxy might not send it before this
    // check succeeds.
    let starting = Arc::clone(&server);
    tokio::spawn(async move { starting.make_ready().await });
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("Models that are not ready: {}.", not_ready.join(", ")),
    ))
}

async fn metrics(State(server): State<Shared>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, server.metrics_text()).into_response()
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
    let Ok(Query(asked)) = Query::<PredictQuery>::try_from_uri(request.uri()) else {
        super::upload::drain_aside(request.into_body());
        return Err(Refusal::bad_request(
            "Invalid query: the parameters are name (a text), top (a number) and html (true or false).",
        ));
    };
    let answer = server.predict(request, asked.name).await?;
    let mut json = answer.to_json(asked.top.unwrap_or(TOP));
    if asked.html {
        json["summary"] = answer.summary().into();
        json["html"] = answer.to_html().into();
    }
    Ok(Json(json))
}

async fn not_found(request: Request) -> Refusal {
    super::upload::drain_aside(request.into_body());
    Refusal::new(
        StatusCode::NOT_FOUND,
        "Not found; /api/openapi.json lists all paths.",
    )
}

async fn not_allowed(request: Request) -> Refusal {
    super::upload::drain_aside(request.into_body());
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed; /api/openapi.json lists the methods of each path.",
    )
}
