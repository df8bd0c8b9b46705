//! Fuzz test: requests to `wavemill serve`, over a connection to a server with a fake reader of songs and a fake model. Every
//! connection must be answered or closed, and the server must answer the next valid request.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::LIBRARY_PANICS;

static SERVER: LazyLock<SocketAddr> = LazyLock::new(wavemill::fuzzing::start_server);

/// A request for a prediction.
const SONG: &str =
    "POST /api/predict?name=a.mp3&top=2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 6\r\n\r\na song";

/// Time in which the server answers.
const PATIENCE: Duration = Duration::from_secs(4);

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b.wav\"\r\n\r\nab\r\n--b--\r\n";
    let form = format!(
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n{part}",
        part.len()
    );
    let chunked =
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let paths = ["/", "/page.css", "/page.js", "/healthz", "/metrics", "/api/openapi.json"].map(get);

    let texts = paths.into_iter().chain([SONG.to_owned(), form, chunked.to_owned()]);
    texts.map(String::into_bytes).collect()
}

pub(crate) fn run(input: &[u8]) {
    let panics = LIBRARY_PANICS.load(Ordering::Relaxed);
    let answer = ask(input, Duration::from_millis(30));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "not HTTP");

    for request in [get("/healthz"), SONG.to_owned()] {
        let answer = ask(request.as_bytes(), PATIENCE);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200 "), "a valid request is answered with: {text}");
    }
    // The server would only close the connection.
    assert_eq!(LIBRARY_PANICS.load(Ordering::Relaxed), panics, "a library panicked");
}

/// Returns what the server answers on a connection of its own. Empty if it closes the connection. The server gives up a
/// request if the client closes its side before the answer, so this side is closed when `open` has passed without one: the
/// request was not complete.
fn ask(request: &[u8], open: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(*SERVER).expect("the server listens");
    // A server that closes the connection early is right.
    let _ = stream.write_all(request);

    let mut answer = Vec::new();
    if is_timeout(read(&mut stream, open, &mut answer)) {
        let _ = stream.shutdown(Shutdown::Write);
        let is_stuck = is_timeout(read(&mut stream, PATIENCE, &mut answer));
        assert!(!is_stuck, "the server neither answers nor closes the connection");
    }
    answer
}

fn read(stream: &mut TcpStream, patience: Duration, answer: &mut Vec<u8>) -> io::Result<usize> {
    stream.set_read_timeout(Some(patience)).expect("a timeout");
    stream.read_to_end(answer)
}

fn is_timeout(result: io::Result<usize>) -> bool {
    let kind = result.map_err(|error| error.kind());
    matches!(kind, Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}
