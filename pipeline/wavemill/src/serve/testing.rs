//! A server over real connections, with a fake reader of songs and a shell script as the model, for tests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Gate, Limits, ModelSetup, Reader, Server, Song, Unreadable, Upload, run};

/// Lines for two segments and the whole song, in the format of `wavemill train predict`.
pub(super) const LINES: &str = r#"{"clip_key":"s.mp3","segment":0,"offset_s":0.0,"target":"genre","class":"Rock","probability":0.5,"top":[{"class":"Rock","probability":0.5},{"class":"<b>Metal","probability":0.4},{"class":"Pop","probability":0.1}]}
{"clip_key":"s.mp3","segment":1,"offset_s":3.0,"target":"genre","class":"<b>Metal","probability":0.9,"top":[{"class":"<b>Metal","probability":0.9},{"class":"Rock","probability":0.1},{"class":"Pop","probability":0.0}]}
{"clip_key":"s.mp3","segments":2,"target":"genre","majority":"Rock","class":"<b>Metal","probability":0.65,"top":[{"class":"<b>Metal","probability":0.65},{"class":"Rock","probability":0.3},{"class":"Pop","probability":0.05}]}"#;

/// Script that replies to each input line with the lines for a song of two segments.
const MODEL: &str = r#"while IFS= read -r line; do
    case "$line" in hello) echo; continue;; esac
    cat "$0"; printf '\n\n'
done"#;

/// Reader whose behaviour is controlled by the text of the song.
struct FakeReader;

impl Reader for FakeReader {
    fn read(&mut self, upload: Upload) -> Result<Song, Unreadable> {
        let text = String::from_utf8_lossy(&upload.bytes).into_owned();

        match text.split_whitespace().next().unwrap_or_default() {
            "fault" => return Err(Unreadable::Fault("a fault".to_owned())),
            "panic" if cfg!(test) => panic!("a reader with a fault"),
            "slow" => sleep(Duration::from_millis(700)),
            _ => {}
        }

        Ok(Song {
            duration_s: 6.0,
            streams: vec![format!("{}\n", text.replace('\n', " ")).into()],
            ..Song::default()
        })
    }
}

/// A test server that listens on its own port.
#[cfg_attr(fuzzing, expect(dead_code, reason = "fuzz tests never stop it"))]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    pub(super) thread: Option<JoinHandle<()>>,
    /// Directory with the output of the model.
    _lines: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = folder.path().join("lines");
        std::fs::write(&lines, LINES).expect("disk space");

        let gate = Gate {
            address: IpAddr::from([127, 0, 0, 1]),
            names: Vec::new(),
        };
        let model = ModelSetup {
            run: "one".to_owned(),
            input: 0,
            command: Box::new(move || {
                let mut command = std::process::Command::new("sh");
                command.args(["-c", MODEL]).arg(&lines);
                command
            }),
            greeting: b"hello\n".to_vec(),
        };

        let reader =
            Box::new(|| -> Result<Box<dyn Reader>, Unreadable> { Ok(Box::new(FakeReader)) });
        let server = Arc::new(Server::new(gate, limits, reader, vec![model]));
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a runtime");

            runtime.block_on(async {
                server.make_ready().await.expect("a model");
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("bound"))
                    .expect("a test");
                run(&server, listener, stopped).await;
            });
        });

        Self {
            address: told.recv().expect("it starts"),
            stop,
            thread: Some(thread),
            _lines: folder,
        }
    }
}
