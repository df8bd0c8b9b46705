//! Runs at a server that answers, fails, sleeps, or is away.

use std::fs;
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wavemill_scores::records::{Log, RunDir};

use super::client::Patience;
use super::fake::{Asked, FakeServer, Mood};
use super::{Ending, RunDescription, Server, Tracker, end_now, recorded};

/// Longer than a machine under load takes to answer, shorter than a test may take.
const SHORT: Patience = Patience {
    check: Duration::from_millis(800),
    request: Duration::from_millis(400),
    end: Duration::from_millis(1200),
    status: Duration::from_millis(400),
    retry: Duration::from_millis(10),
};
const PATIENT: Patience = Patience {
    check: Duration::from_secs(60),
    request: Duration::from_secs(20),
    end: Duration::from_secs(40),
    status: Duration::from_secs(20),
    retry: Duration::from_millis(10),
};

/// A process has one run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Scene {
    _alone: MutexGuard<'static, ()>,
    root: TempDir,
    fake: FakeServer,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            _alone: alone(),
            root: tempfile::tempdir().expect("a folder"),
            fake: FakeServer::start(),
        };
        let run = RunDir::create(scene.root.path(), "lstm-1").expect("a folder");
        run.write_config("seed = 1\n").expect("room");
        scene
    }

    fn folder(&self) -> RunDir {
        RunDir::open(&self.root.path().join("lstm-1")).expect("a run")
    }

    fn server(&self, patience: Patience) -> Server {
        let uri = format!("http://ann:secret@127.0.0.1:{}/", self.fake.port);
        let mut server = Server::new(&uri, "wavemill").expect("an address");
        server.patience = patience;
        server
    }

    fn start(&self, patience: Patience) -> Tracker {
        let described = RunDescription {
            name: "lstm-1".to_owned(),
            parameters: vec![("optimizer.lr".to_owned(), "0.1".to_owned())],
            tags: vec![("wavemill.version".to_owned(), "1".to_owned())],
        };
        Tracker::start(self.server(patience), self.folder(), described).expect("a thread")
    }

    /// What the server was asked, once it was asked `n` times.
    fn asked(&self, n: usize) -> Vec<Asked> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut asked = Vec::new();
        while asked.len() < n {
            asked.extend(self.fake.asked());
            assert!(Instant::now() < deadline, "{asked:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        asked
    }

    fn memory(&self) -> Value {
        let text = fs::read(self.folder().mlflow()).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    }
}

/// Behind `/api/2.0/`, with the word for how a run ended.
fn lines(asked: &[Asked]) -> Vec<String> {
    let mut lines = Vec::new();
    for asked in asked {
        let line = asked.line.replace("/api/2.0/", "").replace("mlflow/", "");
        let status = match line.ends_with("runs/update") {
            true => format!(" {}", asked.json()["status"].as_str().expect("a word")),
            false => String::new(),
        };
        lines.push(line + &status);
    }

    lines
}

/// Step and first value of all figures.
fn figures(asked: &[Asked]) -> Vec<(u64, f64)> {
    let mut figures = Vec::new();
    for asked in asked {
        if !asked.line.ends_with("log-batch") {
            continue;
        }

        for metric in asked.json()["metrics"].as_array().into_iter().flatten() {
            let step = metric["step"].as_u64().expect("a number");
            figures.push((step, metric["value"].as_f64().expect("a number")));
        }
    }

    figures
}

#[test]
fn a_run_is_there_with_parameters_figures_files_and_its_end() {
    let scene = Scene::new();
    fs::write(scene.folder().result(), "{}").expect("room");
    scene.server(PATIENT).check().expect("it answers");

    let tracker = scene.start(PATIENT);
    let begun = scene.asked(4);

    tracker.epoch(10, &[("validation/loss", 0.5)]);
    let logged = scene.asked(1);

    tracker.picture("genre/a b", b"a picture");
    tracker.end(Ending::Finished, 10, &[("test/genre/accuracy", 0.25)]);
    let ended = scene.asked(5);

    assert_eq!(
        lines(&begun),
        [
            "GET experiments/get-by-name?experiment_name=wavemill",
            "GET experiments/get-by-name?experiment_name=wavemill",
            "POST runs/create",
            "POST runs/log-batch",
        ]
    );
    assert_eq!(begun[2].json()["experiment_id"], "7");
    assert_eq!(begun[2].json()["run_name"], "lstm-1");
    assert_eq!(
        begun[3].json()["params"],
        json!([{"key": "optimizer.lr", "value": "0.1"}])
    );

    assert_eq!(figures(&logged), [(10, 0.5)]);

    assert_eq!(
        lines(&ended),
        [
            "POST runs/log-batch",
            "PUT mlflow-artifacts/artifacts/7/0a1b/artifacts/confusion/genre_a_b.png",
            "PUT mlflow-artifacts/artifacts/7/0a1b/artifacts/config.toml",
            "PUT mlflow-artifacts/artifacts/7/0a1b/artifacts/result.json",
            "POST runs/update FINISHED",
        ]
    );
    assert_eq!(figures(&ended), [(10, 0.25)]);
    assert_eq!(ended[1].body, b"a picture");

    // printf ann:secret | base64
    for asked in begun.iter().chain(&logged).chain(&ended) {
        assert_eq!(
            asked.authorization.as_deref(),
            Some("Basic YW5uOnNlY3JldA==")
        );
    }
    let remembered = scene.memory();
    assert!(!remembered.to_string().contains("secret"), "{remembered}");
    assert_eq!(remembered["run_id"], "0a1b");
    assert_eq!(remembered["logged_step"], 10);
    let address = format!("http://127.0.0.1:{}", scene.fake.port);
    assert_eq!(
        recorded(&scene.folder()).expect("a file"),
        Some((address, "wavemill".to_owned()))
    );
}

#[test]
fn a_server_that_is_away_is_one_line_with_the_remedy() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);

    let server = Server::new(&format!("http://ann:secret@127.0.0.1:{port}"), "a");
    let error = server
        .expect("an address")
        .check()
        .expect_err("nobody there");

    let words = error.to_string();
    assert!(words.contains(&format!(
        "MLflow at http://127.0.0.1:{port} does not answer; start it"
    )));
    assert!(
        !words.contains('\n') && !words.contains("secret"),
        "{words}"
    );
}

#[test]
fn what_answers_is_looked_at() {
    let scene = Scene::new();
    scene.fake.set(Mood::Fails);
    let words = scene.server(PATIENT).check().expect_err("500").to_string();
    assert!(words.contains("status 500: <h1>"), "{words}");

    scene.fake.set(Mood::Sleeps(Duration::from_secs(5)));
    let start = Instant::now();
    let words = scene
        .server(SHORT)
        .check()
        .expect_err("no answer")
        .to_string();
    assert!(words.contains("does not answer"), "{words}");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn what_a_server_did_not_take_comes_at_the_next_epochs_end() {
    let scene = Scene::new();
    let tracker = scene.start(PATIENT);
    scene.asked(3);
    scene.fake.set(Mood::Fails);
    tracker.epoch(10, &[("loss", 0.5)]);
    assert_eq!(figures(&scene.asked(1)), [(10, 0.5)]);
    tracker.epoch(20, &[("loss", 0.4)]);
    scene.asked(1);
    assert_eq!(scene.memory()["logged_step"], Value::Null);

    scene.fake.set(Mood::Answers);
    tracker.epoch(30, &[("loss", 0.3)]);
    assert_eq!(figures(&scene.asked(1)), [(10, 0.5), (20, 0.4), (30, 0.3)]);
    tracker.end(Ending::Killed, 30, &[]);
    let ended = lines(&scene.asked(2));
    assert_eq!(ended.last().expect("one"), "POST runs/update KILLED");
    assert_eq!(scene.memory()["logged_step"], 30);
}

#[test]
fn a_server_that_sleeps_holds_up_no_epoch_and_the_end_for_a_bounded_time() {
    let scene = Scene::new();
    scene.fake.set(Mood::Sleeps(Duration::from_secs(60)));
    let tracker = scene.start(SHORT);
    let start = Instant::now();
    for step in 1..=1000 {
        tracker.epoch(step, &[("loss", 0.5)]);
    }
    assert!(start.elapsed() < SHORT.request, "{:?}", start.elapsed());

    let start = Instant::now();
    tracker.end(Ending::Finished, 1000, &[]);
    // With what a busy machine takes beyond.
    let most = SHORT.end + Duration::from_secs(2);
    assert!(start.elapsed() < most, "{:?}", start.elapsed());
}

#[test]
fn a_resumed_run_goes_on_and_sends_what_was_not_taken() {
    let scene = Scene::new();
    let mut log = Log::open(&scene.folder().log()).expect("a log");
    let tracker = scene.start(PATIENT);
    scene.asked(3);

    log.append("epoch", 0, 10, &[("loss", 0.5)]).expect("room");
    tracker.epoch(10, &[("loss", 0.5)]);
    scene.asked(1);

    scene.fake.set(Mood::Fails);
    log.append("epoch", 1, 20, &[("loss", 0.4)]).expect("room");
    tracker.epoch(20, &[("loss", 0.4)]);
    tracker.end(Ending::Killed, 20, &[]);
    scene.fake.asked();

    scene.fake.set(Mood::Answers);
    let tracker = scene.start(PATIENT);
    let begun = scene.asked(2);
    assert_eq!(
        lines(&begun),
        ["POST runs/update RUNNING", "POST runs/log-batch"]
    );
    assert_eq!(begun[0].json()["run_id"], "0a1b");
    assert_eq!(figures(&begun), [(20, 0.4)]);

    // An epoch that is trained once more is there already.
    tracker.epoch(20, &[("loss", 0.4)]);
    tracker.epoch(30, &[("loss", 0.3)]);
    assert_eq!(figures(&scene.asked(1)), [(30, 0.3)]);

    tracker.end(Ending::Finished, 30, &[]);
    scene.fake.asked();

    // Somebody removed it there for good.
    log.append("epoch", 2, 30, &[("loss", 0.3)]).expect("room");
    scene.fake.set(Mood::Forgets);
    let tracker = scene.start(PATIENT);
    let begun = scene.asked(5);
    assert_eq!(lines(&begun)[2], "POST runs/create");
    assert_eq!(figures(&begun), [(10, 0.5), (20, 0.4), (30, 0.3)]);
    tracker.end(Ending::Finished, 30, &[]);
}

#[test]
fn a_run_that_is_dropped_has_failed() {
    let scene = Scene::new();
    drop(scene.start(PATIENT));
    let asked = lines(&scene.fake.asked());
    assert_eq!(asked.last().expect("one"), "POST runs/update FAILED");
}

#[test]
fn a_process_that_is_about_to_end_says_so() {
    let scene = Scene::new();
    let tracker = scene.start(PATIENT);
    scene.asked(3);
    end_now(Ending::Failed, Duration::from_secs(20));
    assert_eq!(lines(&scene.fake.asked()), ["POST runs/update FAILED"]);
    // Nothing is left to say.
    end_now(Ending::Killed, Duration::from_secs(20));
    assert!(scene.fake.asked().is_empty());
    tracker.end(Ending::Failed, 0, &[]);
}
