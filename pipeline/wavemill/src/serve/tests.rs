//! Tests of the server over real connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::testing::Running;
use super::*;

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).expect("a timeout");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(body).expect("it reads");
        Response::read(stream)
    }

    /// Sends the head of an upload.
    fn begin(&self, stream: &mut TcpStream, headers: &str) {
        let line = "POST /api/predict HTTP/1.1";
        let head = format!("{line}\r\nHost: {}\r\n{headers}\r\n", self.address);
        stream.write_all(head.as_bytes()).expect("it reads");
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "", b"")
    }

    fn predict(&self, song: &str) -> Response {
        self.ask("POST", "/api/predict?name=a.mp3", "", song.as_bytes())
    }

    fn metrics_say(&self, line: &str) -> bool {
        let said = self.get("/metrics");
        said.status == 200 && said.body.lines().any(|found| found == line)
    }

    fn end(mut self) {
        let _ = self.stop.send(true);
        let thread = self.thread.take().expect("not ended yet");
        thread.join().expect("it ends in order");
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));

        Self {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the sentence of an error response.
    fn error(&self) -> String {
        let message = self.json()["error"]
            .as_str()
            .expect("a sentence")
            .to_owned();
        assert!(message.ends_with('.'), "{message}");
        message
    }
}

fn small() -> Limits {
    Limits {
        upload_bytes: 100_000,
        in_flight: 2,
        threads: 2,
        ..Limits::default()
    }
}

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (disposition, text) in parts {
        body += &format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{text}\r\n");
    }
    (body + "--b--\r\n").into_bytes()
}

const FORM: &str = "Content-Type: multipart/form-data; boundary=b\r\n";

#[test]
fn invalid_uploads_get_an_explanation() {
    let running = Running::start(small());

    for (song, message) in [
        ("fault", "because of an internal error: a fault."),
        ("panic", "the reader panicked."),
    ] {
        let said = running.predict(song);
        assert_eq!(said.status, 500, "{said:?}");
        assert!(said.error().contains(message), "{said:?}");
    }

    let file = "name=\"file\"; filename=\"b.wav\"";
    for (body, message) in [
        (form(&[]), "contains no file"),
        (form(&[(file, "a"), (file, "b")]), "one song per request"),
        (form(&[("name=\"x\"", "a")]), "a part that is not a file"),
        (b"--b\r\nContent".to_vec(), "damaged"),
    ] {
        let said = running.ask("POST", "/api/predict", FORM, &body);
        assert_eq!(said.status, 400, "{said:?}");
        assert!(said.error().contains(message), "{said:?}");
    }

    let no_boundary = "Content-Type: multipart/form-data\r\n";
    assert_eq!(
        running
            .ask("POST", "/api/predict", no_boundary, b"x")
            .status,
        400
    );
    for path in ["/api/predict?top=-1", "/api/predict?other=1"] {
        assert_eq!(running.ask("POST", path, "", b"x").status, 400, "{path}");
    }

    assert_eq!(running.get("/nothing").status, 404);
    assert_eq!(running.get("/api/predict").status, 405);

    // The server still works after all of the preceding invalid requests.
    assert_eq!(running.predict("a song").status, 200);
    running.end();
}

#[test]
fn oversized_upload_is_rejected_while_receiving() {
    let running = Running::start(small());
    let mut stream = running.connect();
    running.begin(&mut stream, "Transfer-Encoding: chunked\r\n");

    // A chunked body without an announced length is rejected when its size exceeds the limit.
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
    for _ in 0..3 {
        stream.write_all(&chunk).expect("it reads");
    }

    let said = Response::read(stream);
    assert_eq!(said.status, 413, "{said:?}");
    assert!(said.error().contains("at most 97.7 KiB"), "{said:?}");

    // A body with an announced length is rejected before it is read, and the connection is not reset by the data still
    // sent.
    let said = running.predict(&"x".repeat(3_000_000));
    assert_eq!(said.status, 413, "{said:?}");
    let body = form(&[("name=\"file\"; filename=\"b.wav\"", &"x".repeat(120_000))]);
    assert_eq!(running.ask("POST", "/api/predict", FORM, &body).status, 413);
    assert_eq!(running.predict(&"x".repeat(100_000)).status, 200);
    running.end();
}

#[test]
fn a_form_is_limited_before_its_file_begins() {
    let running = Running::start(small());
    for begin in ["", "--b\r\nContent-Disposition: form-data; name=\""] {
        let mut stream = running.connect();
        let headers = format!("Transfer-Encoding: chunked\r\n{FORM}");
        running.begin(&mut stream, &headers);
        let body = format!("{begin}{}", "x".repeat(1_000_000));
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        stream.write_all(chunks.as_bytes()).expect("it reads");

        let said = Response::read(stream);
        assert_eq!(said.status, 413, "{said:?}");
        assert!(said.error().contains("at most 97.7 KiB"), "{said:?}");
    }

    assert_eq!(running.predict("a song").status, 200);
    running.end();
}

#[test]
fn upload_in_small_pieces_times_out() {
    let running = Running::start(Limits {
        upload: Duration::from_millis(1500),
        ..small()
    });

    let begin = Instant::now();
    let mut dripping = running.connect();
    running.begin(&mut dripping, "Content-Length: 1000\r\n");
    dripping.write_all(b"abc").expect("it reads");
    let drops = dripping.try_clone().expect("a handle");
    let drip = spawn(move || {
        let mut drops = drops;
        while drops.write_all(b"x").is_ok() && begin.elapsed() < Duration::from_secs(8) {
            sleep(Duration::from_millis(100));
        }
    });

    let said = Response::read(dripping);
    assert_eq!(said.status, 408, "{said:?}");
    assert!(said.error().contains("after 1.5 s"), "{said:?}");
    assert!(begin.elapsed() < Duration::from_secs(8));

    drip.join().expect("it ends");
    assert_eq!(running.predict("a song").status, 200);
    running.end();
}

#[test]
fn disconnected_client_starts_no_prediction() {
    let running = Running::start(small());

    for _ in 0..4 {
        let mut stream = running.connect();
        running.begin(&mut stream, "Content-Length: 4\r\n");
        stream.write_all(b"slow").expect("it reads");
        sleep(Duration::from_millis(100));
        drop(stream);
        sleep(Duration::from_millis(800));
    }

    assert_eq!(running.predict("a song").status, 200);
    assert!(running.metrics_say("wavemill_model_starts_total{run=\"one\"} 1"));
    running.end();
}

#[test]
fn the_document_names_every_route_and_the_router_has_every_path() {
    let running = Running::start(small());
    let document = running.get("/api/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    let mut routes = api::routes().map(|(path, _)| path);
    routes.sort_unstable();
    assert_eq!(paths.keys().collect::<Vec<_>>(), routes);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));

    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let said = running.ask(&method.to_uppercase(), path, "", b"song");
            let answers = operation["responses"].as_object().expect("answers");
            assert!(
                answers.contains_key(&said.status.to_string()),
                "{path}: {said:?}"
            );

            let kind = answers[&said.status.to_string()]["content"]
                .as_object()
                .expect("content");
            let kind = kind.keys().next().expect("a kind");
            assert!(
                said.head.contains(&format!("content-type: {kind}")),
                "{path}: {said:?}"
            );
        }
    }

    // The paths named by the page are served with the security headers.
    let page = running.get("/");
    assert!(page.head.contains("default-src 'none'") && page.head.contains("nosniff"));
    for name in ["/page.css", "/page.js", "/api/openapi.json"] {
        assert!(page.body.contains(&format!("\"{name}\"")), "{name}");
    }

    running.end();
}
