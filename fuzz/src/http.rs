//! Fuzz test: requests to `wavemill serve`, over a connection to a server with a fake reader of songs and a fake model. Every
//! connection must be answered or closed, and the server must answer the next valid request.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

static SERVER: LazyLock<SocketAddr> = LazyLock::new(wavemill::fuzzing::start_server);

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let song = "POST /api/predict?name=a.mp3&top=2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 6\r\n\r\na song";
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b.wav\"\r\n\r\nab\r\n--b--\r\n";
    let form = format!(
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n{part}",
        part.len()
    );
    let chunked =
        "POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let paths = ["/", "/api/models", "/api/health", "/metrics", "/api/openapi.json"].map(get);

    let texts = paths.into_iter().chain([song.to_owned(), form, chunked.to_owned()]);
    texts.map(String::into_bytes).collect()
}

pub(crate) fn run(input: &[u8]) {
    let mut stream = TcpStream::connect(*SERVER).expect("the server listens");
    let patience = Some(Duration::from_secs(4));
    stream.set_read_timeout(patience).expect("a timeout");

    // A server that closes the connection early is right.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let is_timeout = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!is_timeout, "the server neither answers nor closes the connection");
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "not HTTP");
}
