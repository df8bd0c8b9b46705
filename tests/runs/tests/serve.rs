//! `wavemill serve`: predictions equal those of `predict`, invalid files get an error message, and no request harms
//! the server. Routes, limits and formats are tested in `pipeline/wavemill/src/serve/tests.rs`, with a model that stands in.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::report::{browser, has_browser};
use crate::rows::trained;
use crate::support::{
    Ran, contains, files_below, has_python, has_trainer, inputs, run, same, scratch, sql, wavemill,
    whole, within,
};

/// Timeout for the start of a server, a response, or the end of a process.
const WAIT: Duration = Duration::from_secs(60);
/// Timeout for a hundred songs sent at once, on a busy machine.
const ALL_ANSWERED_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum number of connections of a server.
const CONNECTIONS_MAX: usize = 256;
/// Bytes by which a server's memory may grow while it refuses uploads. A few such uploads would take more if they
/// were stored.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A server process on its own port.
struct Server {
    child: Child,
    port: u16,
    err: Option<JoinHandle<String>>,
    /// Working folder of the server, in which it would create temporary files.
    tmp: PathBuf,
}

impl Server {
    fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let tmp = scratch("serve-tmp");
        let mut command = wavemill(["serve", "--port", "0", "--run"]);
        command.arg(trained()).args(arguments);
        command.current_dir(&tmp).env("TMPDIR", &tmp);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;

        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr);
        let mut first = String::new();
        lines.read_line(&mut first)?;

        let port = first
            .split_once("http://127.0.0.1:")
            .and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
        let Some(port) = port else {
            lines.read_to_string(&mut first)?;
            child.kill()?;
            return Err(format!("no address: {first}").into());
        };

        let err = spawn(move || {
            let mut rest = String::new();
            let _ = lines.read_to_string(&mut rest);
            rest
        });

        Ok(Self {
            child,
            port,
            err: Some(err),
            tmp,
        })
    }

    fn connect(&self) -> Result<TcpStream, Failed> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(WAIT))?;
        Ok(stream)
    }

    /// Sends the head of a POST request and a part of its body.
    fn begin(&self, path: &str, headers: &str, body: &[u8]) -> Result<TcpStream, Failed> {
        let mut stream = self.connect()?;
        let head = format!("POST {path} HTTP/1.1\r\n{headers}\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        Ok(stream)
    }

    fn own_host(&self) -> String {
        format!("Host: 127.0.0.1:{}\r\n", self.port)
    }

    fn predict(&self, name: &str, song: &[u8]) -> Result<Said, Failed> {
        let headers = format!("{}Content-Length: {}\r\n", self.own_host(), song.len());
        Said::read(self.begin(&format!("/api/predict?name={name}"), &headers, song)?)
    }

    fn get(&self, path: &str) -> Result<Said, Failed> {
        let mut stream = self.connect()?;
        let head = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.own_host());
        stream.write_all(head.as_bytes())?;
        Said::read(stream)
    }

    /// Waits until the health check returns the wanted result.
    fn is_healthy_within(&self, limit: Duration, want: bool) -> Result<(), Failed> {
        let status = if want { 200 } else { 503 };
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if self.get("/healthz")?.status == status {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        Err(format!("its health is never {status}").into())
    }

    /// Returns the process ids of the server's model processes.
    fn models(&self) -> Result<Vec<u32>, Failed> {
        let own = self.child.id().to_string();
        let mut models = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(process) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };

            // Another process may end meanwhile. The name in parentheses is followed by the state and the parent.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let behind = stat.rsplit(')').next().unwrap_or_default();
            if behind.split_whitespace().nth(1) == Some(own.as_str()) {
                models.push(process);
            }
        }

        Ok(models)
    }

    fn model(&self) -> Result<u32, Failed> {
        match self.models()?[..] {
            [model] => Ok(model),
            ref models => Err(format!("not one model: {models:?}").into()),
        }
    }

    /// Sends SIGTERM and waits for the end of the server. Returns the stderr output after its first line.
    fn end(mut self) -> Result<Ran, Failed> {
        signal("TERM", self.child.id())?;
        self.ended()
    }

    fn ended(&mut self) -> Result<Ran, Failed> {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > WAIT {
                return Err("it does not end".into());
            }
            sleep(Duration::from_millis(10));
        };

        let err = self.err.take().ok_or("ended twice")?;
        let err = err.join().map_err(|_| "its lines cannot be read")?;
        same("temporary files", files_below(&self.tmp), Vec::new())?;

        Ok(Ran {
            code: status.code(),
            out: String::new(),
            err,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Needed only after a failed test. The model processes end with the server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Response of a server.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn read(mut stream: TcpStream) -> Result<Self, Failed> {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok(Self {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        })
    }

    /// Returns the value of a header. `name` is in lower case.
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.body).map_err(|error| format!("{error}: {self:?}"))?)
    }

    /// Fails unless the response is an error with this status and a message that contains these words.
    fn refuses(&self, status: u16, message: &str) -> Result<(), Failed> {
        same(&format!("status of {self:?}"), self.status, status)?;
        let json = self.json()?;
        let said = json["error"].as_str().ok_or("no sentence")?;
        same(&format!("a sentence: {said}"), said.ends_with('.'), true)?;
        contains(said, message)
    }
}

fn signal(name: &str, process: u32) -> Result<(), Failed> {
    let mut kill = Command::new("kill");
    let sent = kill
        .args([&format!("-{name}"), &process.to_string()])
        .status()?;
    same(name, sent.success(), true)
}

/// Returns the path of an MP3 that has rows.
fn an_mp3() -> Result<PathBuf, Failed> {
    let query = "SELECT clip_key FROM features_log_mel ORDER BY 1 LIMIT 1";
    let rows = sql(whole(), query)?;
    let key = rows[0]["clip_key"].as_str().ok_or("no clip")?;
    Ok(inputs().clip(key))
}

/// Returns the path of a FLAC file with a tone of one and a half seconds.
fn a_flac() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../../pipeline/decode/tests/data/tone_32000_stereo.flac")
}

/// Returns a WAV file with a tone of the given duration: one channel of 16 bits at 22,050 Hz.
fn a_wav(seconds: u32) -> Vec<u8> {
    const RATE_HZ: u32 = 22_050;
    let bytes = RATE_HZ * seconds * 2;
    let mut wav = Vec::with_capacity(bytes as usize + 44);

    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(bytes + 36).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16_u32.to_le_bytes());
    wav.extend_from_slice(&[1, 0, 1, 0]); // PCM, one channel
    wav.extend_from_slice(&RATE_HZ.to_le_bytes());
    wav.extend_from_slice(&(RATE_HZ * 2).to_le_bytes());
    wav.extend_from_slice(&[2, 0, 16, 0]); // bytes per sample, bits per sample
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&bytes.to_le_bytes());

    for i in 0..RATE_HZ * seconds {
        let sample = (f64::from(i) * 0.1).sin() * 12_000.0;
        wav.extend_from_slice(&(sample as i16).to_le_bytes());
    }
    wav
}

#[apply(trial)]
#[needs(has_trainer)]
fn answers_match_predict() -> Result<(), Failed> {
    let folder = scratch("serve-songs");
    let mp3 = fs::read(an_mp3()?)?;
    let wav = a_wav(4);
    fs::write(folder.join("a.mp3"), &mp3)?;
    fs::write(folder.join("b.wav"), &wav)?;

    let mut predict = wavemill(["predict", "a.mp3", "b.wav", "--run"]);
    let ran = run(predict.arg(trained()).current_dir(&folder)).exits(0)?;
    let mut want: Vec<Value> = Vec::new();
    for line in ran.out.lines() {
        want.push(serde_json::from_str(line)?);
    }

    let server = Server::start(&[])?;
    let name = trained().file_name().unwrap_or_default().to_string_lossy();
    let mut got = Vec::new();
    for (file, song) in [("a.mp3", &mp3), ("b.wav", &wav)] {
        let said = server.predict(file, song)?;
        same(&said.body, said.status, 200)?;
        let json = said.json()?;
        same("HTML only on request", json.get("html"), None)?;
        for line in json["answers"].as_array().ok_or("no answers")? {
            let mut line = line.as_object().ok_or("no object")?.clone();
            same("run", line.remove("run"), Some(Value::from(&*name)))?;
            got.push(Value::Object(line));
        }
    }
    same("answers", got, want)?;

    // Sends a form with a song of ten minutes.
    let form = [
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"c.wav\"\r\n\r\n"
            .as_slice(),
        &a_wav(600),
        b"\r\n--b--\r\n",
    ]
    .concat();
    let headers = format!(
        "{}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n",
        server.own_host(),
        form.len()
    );

    let said = Said::read(server.begin("/api/predict?html=true&top=1", &headers, &form)?)?;
    same(&said.body, said.status, 200)?;
    let json = said.json()?;
    same("file", &json["file"], &Value::from("c.wav"))?;
    let top = json["answers"][0]["top"].as_array();
    same("classes", top.map(Vec::len), Some(1))?;
    let html = json["html"].as_str().ok_or("no html")?;
    within("charts", html.matches("<svg role=\"img\"").count(), 3..)?;

    // A single model process has predicted all songs.
    let metrics = server.get("/metrics")?.body;
    let starts = format!("wavemill_model_starts_total{{run=\"{name}\"}} 1");
    same("starts", metrics.lines().any(|line| line == starts), true)?;
    same("health", server.get("/healthz")?.status, 200)?;
    server.end()?.exits(130).map(drop)
}

#[apply(trial)]
#[needs(has_trainer)]
fn files_that_are_not_songs_are_rejected() -> Result<(), Failed> {
    let server = Server::start(&["--max-upload", "1MiB", "--max-duration", "2.5"])?;
    let text = b"This is a text, and no song.".repeat(100);

    server
        .predict("text.mp3", &text)?
        .refuses(422, "text.mp3 cannot be processed: not_audio")?;
    server
        .predict("empty.mp3", b"")?
        .refuses(422, "empty.mp3 cannot be processed: empty")?;
    server
        .predict("long.wav", &a_wav(5))?
        .refuses(422, "too_large: longer than 2.5 s")?;
    server
        .predict("large.wav", &a_wav(60))?
        .refuses(413, "at most 1.0 MiB")?;

    let cut = &a_wav(2)[..30];
    same("half a header", server.predict("cut.wav", cut)?.status, 422)?;
    server.get("/nothing")?.refuses(404, "Not found")?;
    same("a song", server.predict("a.wav", &a_wav(2))?.status, 200)?;
    server.end()?.exits(130)?.says(&["stopped by a signal"])
}

/// Returns the peak resident memory of a process in bytes.
fn most_bytes(process: u32) -> Result<u64, Failed> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .ok_or("no VmHWM")?;
    Ok(kib.parse::<u64>()? << 10)
}

#[apply(trial)]
#[needs(has_trainer)]
fn oversized_uploads_use_no_memory() -> Result<(), Failed> {
    let server = Server::start(&["--max-upload", "1MiB"])?;
    same("a song", server.predict("a.wav", &a_wav(2))?.status, 200)?;
    let before = most_bytes(server.child.id())?;

    let headers = format!("{}Transfer-Encoding: chunked\r\n", server.own_host());
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..8 {
        // Each upload would be 64 MiB. The server refuses it while it is sent, and closes the connection if the
        // client continues.
        let mut stream = server.begin("/api/predict", &headers, b"")?;
        let mut reader = stream.try_clone()?;
        let said = spawn(move || {
            let mut begin = [0; 12];
            reader.read_exact(&mut begin).map(|()| begin)
        });

        for _ in 0..64 {
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }

        let begin = said.join().map_err(|_| "no answer can be read")??;
        same("status", &begin[..], &b"HTTP/1.1 413"[..])?;
    }

    let grown = most_bytes(server.child.id())?.saturating_sub(before);
    within(
        &format!("grown by {grown} bytes"),
        grown,
        ..GROWTH_BYTES_MAX,
    )?;
    same("a song", server.predict("a.wav", &a_wav(2))?.status, 200)?;
    server.end()?.exits(130).map(drop)
}

#[apply(trial)]
#[needs(has_trainer)]
fn other_hosts_and_origins_are_rejected() -> Result<(), Failed> {
    fn ask(server: &Server, song: &[u8], headers: &str) -> Result<u16, Failed> {
        let headers = format!("{headers}Content-Length: {}\r\n", song.len());
        Ok(Said::read(server.begin("/api/predict", &headers, song)?)?.status)
    }

    let server = Server::start(&["--host", "music.example"])?;
    let song = a_wav(2);
    let own = server.own_host();
    let port = server.port;
    same("own", ask(&server, &song, &own)?, 200)?;
    let page = format!("{own}Origin: http://127.0.0.1:{port}\r\n");
    same("own page", ask(&server, &song, &page)?, 200)?;
    same(
        "a name",
        ask(&server, &song, "Host: music.example\r\n")?,
        200,
    )?;
    same(
        "localhost",
        ask(&server, &song, &format!("Host: localhost:{port}\r\n"))?,
        200,
    )?;

    same(
        "another name",
        ask(&server, &song, "Host: evil.example\r\n")?,
        421,
    )?;
    same("no name", ask(&server, &song, "")?, 400)?;
    let two = format!("{own}Host: evil.example\r\n");
    same("two names", ask(&server, &song, &two)?, 400)?;
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        same(
            origin,
            ask(&server, &song, &format!("{own}Origin: {origin}\r\n"))?,
            403,
        )?;
    }
    server.end()?.exits(130).map(drop)
}

/// Each song gets a response with its own name, either at once or after responses that ask to retry later.
#[apply(trial)]
#[needs(has_trainer)]
fn hundred_concurrent_requests_eventually_succeed() -> Result<(), Failed> {
    let server = Server::start(&["--in-flight", "8"])?;
    let song = a_wav(1);
    let refused = AtomicUsize::new(0);

    let answered = std::thread::scope(|scope| {
        let server = &server;
        let song = &song;
        let refused = &refused;
        let mut asking = Vec::new();
        for number in 0..100 {
            asking.push(scope.spawn(move || answered_at_last(server, number, song, refused)));
        }

        let mut answered = 0;
        for one in asking {
            one.join().map_err(|_| "nobody asked")??;
            answered += 1;
        }
        Ok::<u32, String>(answered)
    })?;
    same("answered", answered, 100)?;
    // Without refusals, the test would not cover a full server.
    within("some were refused", refused.into_inner(), 1..)?;

    let metrics = server.get("/metrics")?.body;
    for line in [
        "wavemill_requests_total{path=\"/api/predict\",status=\"200\"} 100",
        "wavemill_in_flight 0",
    ] {
        same(line, metrics.lines().any(|found| found == line), true)?;
    }
    server.end()?.exits(130).map(drop)
}

/// Waits until a process has ended, even if its parent has not yet read its exit status.
fn wait_for_the_end_of(process: u32) -> Result<(), Failed> {
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline {
        // The main thread becomes a zombie before the other threads have ended. The exit status is available only
        // after that.
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        let n_threads = threads.map_or(0, Iterator::count);
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        let state = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);

        if n_threads == 0 || (n_threads == 1 && state.starts_with('Z')) {
            return Ok(());
        }
        sleep(Duration::from_millis(10));
    }

    Err(format!("process {process} is still there").into())
}

/// Repeats a request until it succeeds, at the interval that the server states.
fn answered_at_last(
    server: &Server,
    number: u32,
    song: &[u8],
    refused: &AtomicUsize,
) -> Result<(), String> {
    let name = format!("song-{number}.wav");
    let begin = Instant::now();
    while begin.elapsed() < ALL_ANSWERED_TIMEOUT {
        let said = server.predict(&name, song);
        let said = said.map_err(|error| format!("{name}: {error:?}"))?;
        if said.status == 200 {
            let json = said.json().map_err(|error| format!("{error:?}"))?;
            if json["file"] != name.as_str() {
                return Err(format!("{name} got the answer of {}", json["file"]));
            }
            return Ok(());
        }

        let refusal = said
            .refuses(503, "8 songs are in progress")
            .and_then(|()| same("Retry-After", said.header("retry-after"), Some("1")));
        refusal.map_err(|error| format!("{name}: {error:?}"))?;
        refused.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_secs(1));
    }
    Err(format!("{name} was refused to the end"))
}

/// Uses the default limits: 10 s for a request's head, and 10 s without data.
#[apply(trial)]
#[needs(has_trainer)]
fn idle_connections_time_out() -> Result<(), Failed> {
    let server = Server::start(&[])?;
    let song = a_wav(1);
    let begin = Instant::now();

    // Opens more connections than the server accepts, so that the song has to wait until some of them are closed.
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 20 {
        silent.push(server.connect()?);
    }
    let waits = server.predict("a.wav", &song)?;
    same("behind the silent ones", waits.status, 200)?;
    same(
        "they were waited for",
        begin.elapsed() > Duration::from_secs(5),
        true,
    )?;

    // Sends half a head, half a body, and half a body followed by the end of the client's data.
    let mut half_a_head = server.connect()?;
    half_a_head.write_all(b"POST /api/pre")?;
    let headers = format!("{}Content-Length: {}\r\n", server.own_host(), song.len());
    let half = &song[..song.len() / 2];
    let half_a_body = server.begin("/api/predict", &headers, half)?;
    let broken_off = server.begin("/api/predict", &headers, half)?;
    broken_off.shutdown(Shutdown::Write)?;

    let mut nothing = Vec::new();
    half_a_head.read_to_end(&mut nothing)?;
    let said = String::from_utf8_lossy(&nothing);
    let is_ended = said.is_empty() || said.starts_with("HTTP/1.1 408");
    same(&format!("half a head: {said}"), is_ended, true)?;
    Said::read(half_a_body)?.refuses(408, "was stopped after 10 s")?;

    let mut nothing = Vec::new();
    // The client may get a response or find the connection closed.
    let _ = BufReader::new(broken_off).read_to_end(&mut nothing);

    for mut stream in silent {
        let mut nothing = Vec::new();
        // The connection may be closed or reset.
        let _ = stream.read_to_end(&mut nothing);
    }
    same("ended in time", begin.elapsed() < 2 * WAIT, true)?;

    let metrics = server.get("/metrics")?.body;
    let is_idle = metrics.lines().any(|line| line == "wavemill_in_flight 0");
    same("places are free", is_idle, true)?;
    same("a song", server.predict("a.wav", &song)?.status, 200)?;
    server.end()?.exits(130).map(drop)
}

/// An upload creates no file, neither while a song is in progress, nor on a server that is killed and cannot clean
/// up.
#[apply(trial)]
#[needs(has_trainer)]
fn uploads_are_not_written_to_disk() -> Result<(), Failed> {
    let mut server = Server::start(&[])?;
    let song = a_wav(30);
    let model = server.model()?;
    signal("STOP", model)?;

    let headers = format!("{}Content-Length: {}\r\n", server.own_host(), song.len());
    let waiting = server.begin("/api/predict", &headers, &song)?;
    let half = &song[..song.len() / 2];
    let _incoming = server.begin("/api/predict", &headers, half)?;
    sleep(Duration::from_secs(2));

    same("files", files_below(&server.tmp), Vec::new())?;
    // An unlinked file would be an open file descriptor.
    for entry in fs::read_dir(format!("/proc/{}/fd", server.child.id()))? {
        // A descriptor that was closed meanwhile has no link.
        let Ok(open) = fs::read_link(entry?.path()) else {
            continue;
        };
        let open = open.to_string_lossy().into_owned();
        let is_no_file = !open.starts_with('/') || open.starts_with("/dev/");
        same(&open, is_no_file, true)?;
    }

    server.child.kill()?;
    server.child.wait()?;
    // The model process ends when the pipe from the server is closed.
    signal("CONT", model)?;
    drop(waiting);
    same(
        "files of a killed one",
        files_below(&server.tmp),
        Vec::new(),
    )
}

#[apply(trial)]
#[needs(has_trainer)]
fn killed_model_is_restarted() -> Result<(), Failed> {
    let server = Server::start(&[])?;
    let song = a_wav(3);

    // If a model process dies while it is idle, no song fails.
    let first = server.model()?;
    signal("KILL", first)?;
    wait_for_the_end_of(first)?;
    same("afterwards", server.predict("a.wav", &song)?.status, 200)?;
    let second = server.model()?;
    same("another process", first != second, true)?;

    // The health check reports that the model process has died, and that it was restarted without a request.
    signal("KILL", second)?;
    server.is_healthy_within(WAIT, false)?;
    server.is_healthy_within(WAIT, true)?;
    let third = server.model()?;
    same("another process", second != third, true)?;

    // If a model process dies during a song, that song fails.
    signal("STOP", third)?;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            server
                .predict("a.wav", &song)
                .map_err(|error| format!("{error:?}"))
        });
        sleep(Duration::from_secs(1));
        signal("KILL", third)?;
        let said = asked.join().map_err(|_| "nobody asked")??;
        said.refuses(
            502,
            "ended (signal: 9 (SIGKILL)); the model is being restarted",
        )
    })?;

    same("afterwards", server.predict("a.wav", &song)?.status, 200)?;
    let health = server.get("/healthz")?.json()?;
    same("health", &health["status"], &Value::from("ok"))?;
    let metrics = server.get("/metrics")?.body;
    let name = trained().file_name().unwrap_or_default().to_string_lossy();
    let starts = format!("wavemill_model_starts_total{{run=\"{name}\"}} 4");
    same("starts", metrics.lines().any(|line| line == starts), true)?;
    server.end()?.exits(130).map(drop)
}

#[apply(trial)]
#[needs(has_trainer)]
fn sigterm_waits_for_songs_in_progress() -> Result<(), Failed> {
    let mut server = Server::start(&[])?;
    let song = a_wav(3);
    let model = server.model()?;
    signal("STOP", model)?;
    let headers = format!("{}Content-Length: {}\r\n", server.own_host(), song.len());
    let asked = server.begin("/api/predict", &headers, &song)?;

    // An upload that has begun counts as a request in progress.
    let (first, rest) = song.split_at(song.len() / 2);
    let mut sending = server.begin("/api/predict", &headers, first)?;
    // The server does not wait for a connection that has sent no request.
    let silent = server.connect()?;
    sleep(Duration::from_secs(1));

    signal("TERM", server.child.id())?;
    sleep(Duration::from_millis(500));
    same("still there", server.child.try_wait()?.is_none(), true)?;
    same("nobody new", server.connect().is_err(), true)?;

    signal("CONT", model)?;
    same("the song", Said::read(asked)?.status, 200)?;
    sending.write_all(rest)?;
    same("the upload", Said::read(sending)?.status, 200)?;

    let begin = Instant::now();
    let ran = server.ended()?.exits(130)?;
    let is_at_once = begin.elapsed() < Duration::from_secs(5);
    same("it waits for no silent connection", is_at_once, true)?;
    ran.says(&["stopped by a signal; the songs in progress were finished"])?;
    contains(&ran.err, "stopping after the songs in progress")?;
    let is_left = Path::new(&format!("/proc/{model}")).exists();
    same("the model's process is left", is_left, false)?;
    drop(silent);

    // After a second signal, the server waits for nothing.
    let mut server = Server::start(&[])?;
    let model = server.model()?;
    signal("STOP", model)?;

    let headers = format!("{}Content-Length: {}\r\n", server.own_host(), song.len());
    let _asked = server.begin("/api/predict", &headers, &song)?;
    sleep(Duration::from_millis(500));

    signal("INT", server.child.id())?;
    sleep(Duration::from_millis(500));
    signal("INT", server.child.id())?;
    let ran = server.ended()?.exits(130)?;
    signal("CONT", model)?;
    ran.says(&["stopped at once by a second signal"])
}

#[apply(trial)]
#[needs(has_trainer)]
fn startup_errors_are_reported() -> Result<(), Failed> {
    fn serve(run: &Path, arguments: &[&str]) -> Ran {
        let mut command = wavemill(["serve", "--run"]);
        crate::support::run(command.arg(run).args(arguments))
    }

    let folder = scratch("serve-start");
    serve(&folder.join("none"), &[])
        .exits(2)?
        .says(&["not a run (there is no such folder)"])?;
    let twice = trained().to_string_lossy();
    serve(trained(), &["--run", twice.as_ref()])
        .exits(2)?
        .says(&["given twice"])?;

    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    serve(trained(), &["--port", &port])
        .exits(2)?
        .says(&["cannot listen on", "choose another --port"])?;

    // An error found by the trainer is printed by the trainer, and its exit code is returned.
    let run = folder.join("damaged");
    crate::support::copy_folder(trained(), &run);
    fs::remove_dir_all(run.join("checkpoints"))?;

    let ran = serve(&run, &["--port", "0"]);
    same(&ran.err, matches!(ran.code, Some(2 | 3)), true)?;
    same(
        &ran.err,
        ran.err
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("wavemill train: ")),
        true,
    )
}

#[apply(trial)]
#[needs(has_browser, has_python, has_trainer)]
fn the_page_answers_in_a_browser() -> Result<(), Failed> {
    let browser = &browser().ok_or("no browser on PATH")?;
    let folder = scratch("serve-browser");
    let songs = folder.join("songs");
    fs::create_dir(&songs)?;

    let mut contents = vec![
        ("a.mp3".to_owned(), fs::read(an_mp3()?)?),
        ("<img src=x onerror=alert(1)>.wav".to_owned(), a_wav(4)),
        ("tone.flac".to_owned(), fs::read(a_flac())?),
        ("long.wav".to_owned(), a_wav(600)),
        (
            "text.mp3".to_owned(),
            b"This is a text, and no song.".repeat(100),
        ),
        ("empty.mp3".to_owned(), Vec::new()),
    ];
    contents.extend((0..20).map(|i| (format!("more {i}.wav"), a_wav(3))));

    let mut files = Vec::new();
    for (name, bytes) in contents {
        let path = songs.join(name);
        fs::write(&path, bytes)?;
        files.push(path);
    }

    let server = Server::start(&["--in-flight", "1"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve_page.py");
    let mut drive = Command::new("python3");
    drive.arg(script).arg(browser).arg(folder.join("profile"));
    drive
        .arg(format!("http://127.0.0.1:{}/", server.port))
        .args(&files);
    let ran = run(&mut drive).exits(0)?;
    let state: Value = serde_json::from_str(&ran.out)?;

    let rows = state["songs"].as_array().ok_or("no songs")?;
    same("songs", rows.len(), files.len())?;
    for row in rows {
        let name = row["name"].as_str().ok_or("no name")?;
        let said = row["state"].as_str().ok_or("no state")?;
        let want = match name {
            "text.mp3" => "not_audio",
            "empty.mp3" => "the file has no bytes",
            _ => "",
        };
        same(
            &format!("{name} failed: {said}"),
            &row["failed"],
            &Value::from(!want.is_empty()),
        )?;
        contains(said, want)?;
    }

    // The page shows the same summary as the JSON response.
    for name in ["a.mp3", "tone.flac", "long.wav"] {
        let song = fs::read(songs.join(name))?;
        let headers = format!("{}Content-Length: {}\r\n", server.own_host(), song.len());
        let path = format!("/api/predict?html=true&name={name}");
        let said = Said::read(server.begin(&path, &headers, &song)?)?.json()?;
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.ok_or("no such song")?;
        same(name, &row["state"], &said["summary"])?;
    }

    let answered = files.len() - 2;
    same(
        "answers",
        state["articles"].as_array().map(Vec::len),
        Some(answered),
    )?;
    // Each song has charts of the means, the waveform and the spectrogram.
    same(
        "charts",
        state["charts"].as_u64(),
        Some(3 * answered as u64),
    )?;

    same(
        "requests to others",
        &state["requests"],
        &serde_json::json!([]),
    )?;
    same(
        "the keyboard's first",
        &state["focused"],
        &Value::from("files"),
    )?;
    same(
        "the button that removes all answers, before and after there are any",
        &state["clear"],
        &serde_json::json!([false, true]),
    )?;

    // A browser logs every refused request. Nothing else may be on its console.
    for line in state["console"].as_array().ok_or("no console")? {
        let line = line.as_str().unwrap_or_default();
        let is_refusal =
            line.starts_with("Failed to load resource: the server responded with a status of");
        let is_known = ["422", "503"].iter().any(|status| line.contains(status));
        same(line, is_refusal && is_known, true)?;
    }
    server.end()?.exits(130).map(drop)
}
