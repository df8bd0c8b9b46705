//! What can be asked by HTTP: one list, of which both the router and its OpenAPI document are made.

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

/// Classes of each line where nothing is said, as of `wavemill predict`.
const TOP: usize = 3;

/// What every answer says to a browser. A page of ours loads what is ours, and no other page may show it in a frame.
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

/// Something that can be asked.
struct Operation {
    method: Method,
    path: &'static str,
    summary: &'static str,
    /// In the query: name, kind, meaning.
    parameters: &'static [(&'static str, &'static str, &'static str)],
    /// Of the request: media type and schema.
    body: Option<Value>,
    /// Status, meaning, and content.
    answers: Vec<(u16, &'static str, Value)>,
    handler: fn(MethodFilter) -> MethodRouter<Shared>,
}

/// One that is asked by GET without parameters, and always answers.
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
        answers: vec![(200, "It.", content)],
        handler,
    }
}

/// All of them.
fn operations() -> Vec<Operation> {
    let mut health = get(
        "/healthz",
        "Whether every model can answer",
        content("application/json", json!({"type": "object"})),
        |method| on(method, healthz),
    );
    health
        .answers
        .push((503, "A model is being started.", error_content()));

    vec![
        get(
            "/",
            "The page for people",
            content("text/html", json!({"type": "string"})),
            |method| on(method, index),
        ),
        get(
            "/page.css",
            "Its style",
            content("text/css", json!({"type": "string"})),
            |method| on(method, css),
        ),
        get(
            "/page.js",
            "Its script",
            content("text/javascript", json!({"type": "string"})),
            |method| on(method, script),
        ),
        Operation {
            method: Method::POST,
            path: "/api/predict",
            summary: "The genre of one song: its segments, their mean and their majority, by each model",
            parameters: &[
                (
                    "name",
                    "string",
                    "What the song is called in the answer, if the body is the file",
                ),
                (
                    "top",
                    "integer",
                    "Likeliest classes of each line; 3 if nothing is said",
                ),
                (
                    "html",
                    "boolean",
                    "With a piece of a page for people, as html and summary",
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
                    "What the models say.",
                    content("application/json", answer_schema()),
                ),
                (400, "No upload, or no Host.", error_content()),
                (403, "A page of another site asks.", error_content()),
                (408, "The upload takes too long.", error_content()),
                (413, "The file is too large.", error_content()),
                (421, "The Host is not this server's.", error_content()),
                (
                    422,
                    "The file is no song, or too short or long.",
                    error_content(),
                ),
                (500, "A fault of the server.", error_content()),
                (
                    502,
                    "A model's process ended; it is started again.",
                    error_content(),
                ),
                (
                    503,
                    "All places are taken; see Retry-After.",
                    error_content(),
                ),
                (504, "The answer takes too long.", error_content()),
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
            "Counts and times for Prometheus",
            content("text/plain", json!({"type": "string"})),
            |method| on(method, metrics),
        ),
    ]
}

/// The router of all operations.
pub(crate) fn router(server: &Shared) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        // axum answers HEAD by GET's handler.
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
        // A form would end at axum's own 2 MB; uploads are counted by the user's limit while they arrive.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(server))
}

/// The OpenAPI document.
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
            "description": "Trained models answer for a song.",
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
        "properties": {"error": {"type": "string", "description": "One sentence."}},
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
        "description": "As `wavemill predict` prints it: of a segment, or of the whole song if it has several.",
        "properties": {
            "run": {"type": "string", "description": "The model."},
            "clip_key": {"type": "string"},
            "target": {"type": "string"},
            "segment": {"type": "integer"},
            "offset_s": {"type": "number"},
            "segments": {"type": "integer", "description": "How many, in the line of the whole song."},
            "majority": {"type": "string", "description": "The class of most segments."},
            "class": {"type": "string", "description": "The likeliest; of the whole song by the mean."},
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
            "lost_s": {"type": "number", "description": "Seconds lost to damage."},
            "seconds": {"type": "object", "description": "Where the time went: decode, features, and each of models. Waiting for other songs is not in it."},
            "answers": {"type": "array", "items": line},
            "summary": {"type": "string"},
            "html": {"type": "string"},
        },
        "required": ["file", "duration_s", "lost_s", "seconds", "answers"],
    })
}

/// Around every request: who may ask, what a browser is told, and what is counted.
async fn around(State(server): State<Shared>, request: Request, next: Next) -> Response {
    // Of a path that is not ours nothing is kept: clients make up as many as they like.
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
    // Else it would be started by the next song alone, which a proxy that looks here might never send.
    let starting = Arc::clone(&server);
    tokio::spawn(async move { starting.make_ready().await });
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("Not every model can answer: {}.", not_ready.join(", ")),
    ))
}

async fn metrics(State(server): State<Shared>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, server.metrics_text()).into_response()
}

/// The query of `/api/predict`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: Option<String>,
    top: Option<usize>,
    #[serde(default)]
    html: bool,
}

async fn predict(State(server): State<Shared>, request: Request) -> Result<Json<Value>, Refusal> {
    let Ok(Query(asked)) = Query::<Asked>::try_from_uri(request.uri()) else {
        super::upload::drain_aside(request.into_body());
        return Err(Refusal::bad_request(
            "The query may have name, a text; top, a number; and html, true or false.",
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
        "There is nothing at this address; /api/openapi.json lists what there is.",
    )
}

async fn not_allowed(request: Request) -> Refusal {
    super::upload::drain_aside(request.into_body());
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "This address does not take that method; /api/openapi.json lists what it takes.",
    )
}
