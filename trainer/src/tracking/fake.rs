//! A server for tests that answers as MLflow does, or as it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Answers,
    /// Status 500, and a page.
    Fails,
    /// The answer comes after this time.
    Sleeps(Duration),
    /// MLflow's words for a run that is not there.
    Forgets,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Such as `POST /api/2.0/mlflow/runs/create`.
    pub(super) line: String,
    pub(super) authorization: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

#[derive(Clone)]
pub(super) struct FakeServer {
    pub(super) port: u16,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeServer {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            port: listener.local_addr().expect("an address").port(),
            mood: Arc::new(Mutex::new(Mood::Answers)),
            asked: Arc::default(),
        };

        let serving = server.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.answer(stream));
            }
        });
        server
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().expect("whole") = mood;
    }

    /// What was asked since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("whole"))
    }

    fn answer(&self, mut stream: TcpStream) {
        let Some(asked) = read(&stream) else {
            return;
        };

        let line = asked.line.clone();
        let mood = *self.mood.lock().expect("whole");
        let (status, answer) = match mood {
            Mood::Answers => ("200 OK", mlflow(&line).to_string()),
            Mood::Sleeps(time) => {
                std::thread::sleep(time);
                ("200 OK", mlflow(&line).to_string())
            }
            Mood::Fails => ("500 Internal Server Error", "<h1>secret</h1>".to_owned()),
            Mood::Forgets if line.ends_with("runs/update") => {
                let words = json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"});
                ("404 Not Found", words.to_string())
            }
            Mood::Forgets => ("200 OK", mlflow(&line).to_string()),
        };
        self.asked.lock().expect("whole").push(asked);

        // Whoever asked may have gone.
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.strip_suffix(" HTTP/1.1\r\n")?.to_owned();

    let mut authorization = None;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }

    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked {
        line,
        authorization,
        body,
    })
}

fn mlflow(line: &str) -> Value {
    let run = json!({
        "run_id": "0a1b",
        "experiment_id": "7",
        "artifact_uri": "mlflow-artifacts:/7/0a1b/artifacts",
    });
    if line.contains("experiments/get-by-name") {
        json!({"experiment": {"experiment_id": "7"}})
    } else if line.ends_with("runs/create") {
        json!({"run": {"info": run}})
    } else if line.ends_with("runs/update") {
        json!({"run_info": run})
    } else {
        json!({})
    }
}
