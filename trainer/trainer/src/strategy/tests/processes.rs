//! Tests in which ranks are processes, which can be killed, stopped and signalled. Each process is this test program,
//! started again with an environment variable that names its task.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use wavemill_schemas::exit;

use super::*;

/// Documented limit: if one rank dies, the other ranks end within this time.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit code of a rank that ends because another rank was lost.
const LOST: i32 = exit::Kind::LostRank.exit_code() as i32;
const TASK: &str = "WAVEMILL_TEST_TASK";
const FOLDER: &str = "WAVEMILL_TEST_FOLDER";

fn this_program(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a program"));
    command.args([
        "--exact",
        "strategy::tests::processes::child",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);

    command
        .env(TASK, task)
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs the task of a process that a test has started.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };

    let folder = std::env::var(FOLDER).expect("set with the task");

    if let Ok(nproc) = std::env::var("WAVEMILL_TEST_NPROC")
        && Ranks::from_env().expect("complete").is_none()
    {
        let code = launch(nproc.parse().expect("a number")).expect("started");
        std::process::exit(code);
    }

    let ranks = Ranks::from_env().expect("complete").expect("a rank");
    let say = |line: &str| eprintln!("{line}");
    let on_loss = exit_on_loss(&ranks, say);
    let group = join(&ranks, &fingerprint(), Device::Cpu, on_loss, say).expect("all are there");
    let mark = Path::new(&folder).join(format!("joined-{}", ranks.rank));
    std::fs::write(mark, std::process::id().to_string()).expect("a folder");

    match task.as_str() {
        "sum" => loop {
            let mut tensor = Tensor::ones([1_000_000], (Kind::Float, Device::Cpu));
            group.sum(&mut tensor).expect("the watchdog is faster");
        },
        // Rank 1 never calls `sum`, so the main threads of the other ranks wait in it.
        "wait" if ranks.rank != 1 => {
            group
                .sum(&mut Tensor::ones([10], (Kind::Float, Device::Cpu)))
                .expect("the watchdog is faster");
        }
        "wait" => std::thread::sleep(Duration::from_secs(120)),
        _ => group.finish().expect("all finish"),
    }
}

fn start(task: &str, folder: &Path, world_size: usize) -> Vec<Child> {
    let ranks = world(world_size);
    let mut children = Vec::new();
    for ranks in &ranks {
        let mut command = this_program(task, folder);
        command
            .env("RANK", ranks.rank.to_string())
            .env("WORLD_SIZE", world_size.to_string());
        command
            .env("LOCAL_RANK", "0")
            .env("MASTER_ADDR", "localhost");
        command
            .env("WAVEMILL_PORT", ranks.port.to_string())
            .env("WAVEMILL_JOB", &ranks.token);
        children.push(command.spawn().expect("this program"));
    }

    await_files(folder, world_size);
    children
}

fn await_files(folder: &Path, world_size: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while (0..world_size).any(|rank| !folder.join(format!("joined-{rank}")).exists()) {
        assert!(Instant::now() < deadline, "ranks do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a process has ended. Kills it and fails if [`END_TIMEOUT`] has passed since `since`.
fn end_of(mut child: Child, since: Instant) -> Output {
    while child.try_wait().expect("a child").is_none() {
        if since.elapsed() > END_TIMEOUT {
            child.kill().expect("still there");
            let output = child.wait_with_output().expect("a child");
            panic!(
                "still alive after {END_TIMEOUT:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }

        std::thread::sleep(Duration::from_millis(10));
    }

    child.wait_with_output().expect("a child")
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .expect("kill");
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Sends the signal `how` to rank `victim` of three ranks. The other ranks must report the loss and exit with code
/// `LOST` in time.
fn others_end(task: &str, victim: usize, how: &str, message: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut children = start(task, folder.path(), 3);

    let since = Instant::now();
    signal(children[victim].id(), how);
    let mut victim_child = children.remove(victim);

    for child in children {
        let output = end_of(child, since);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();

        assert_eq!(output.status.code(), Some(LOST), "{stderr}");
        assert!(
            stderr.contains(&format!("stops: rank {victim} ended: {message}")),
            "{stderr}"
        );
    }

    let _ = victim_child.kill();
    victim_child.wait().expect("a child");
}

#[test]
fn a_killed_rank_ends_the_others_while_they_sum() {
    others_end("sum", 2, "KILL", "its connection closed");
}

#[test]
fn a_killed_rank_0_ends_the_others_while_they_sum() {
    others_end("sum", 0, "KILL", "its connection closed");
}

#[test]
fn a_killed_rank_ends_others_that_wait_for_it() {
    others_end("wait", 1, "KILL", "its connection closed");
}

#[test]
fn a_rank_that_hangs_ends_the_others() {
    others_end("sum", 1, "STOP", "it does not respond");
}

fn start_launcher(task: &str, folder: &Path, nproc: usize) -> Child {
    this_program(task, folder)
        .env("WAVEMILL_TEST_NPROC", nproc.to_string())
        .spawn()
        .expect("this program")
}

#[test]
fn ranks_of_our_own_launcher_meet_and_end_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = start_launcher("finish", folder.path(), 3)
        .wait_with_output()
        .expect("a child");

    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    await_files(folder.path(), 3);
}

#[test]
fn a_signal_to_our_launcher_reaches_its_ranks() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = start_launcher("sum", folder.path(), 2);
    await_files(folder.path(), 2);
    let since = Instant::now();
    signal(launcher.id(), "TERM");
    // The ranks of this test do not handle signals, so the first rank is ended by SIGTERM: exit code 128 + 15.
    assert_eq!(end_of(launcher, since).status.code(), Some(143));
}

#[test]
fn ranks_do_not_outlive_their_launcher() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut launcher = start_launcher("sum", folder.path(), 2);
    await_files(folder.path(), 2);

    let since = Instant::now();
    launcher.kill().expect("still there");
    launcher.wait().expect("a child");

    for rank in 0..2 {
        let pid =
            std::fs::read_to_string(folder.path().join(format!("joined-{rank}"))).expect("written");

        while Path::new("/proc").join(&pid).exists() && !is_zombie(&pid) {
            assert!(since.elapsed() < END_TIMEOUT, "rank {rank} lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Reports whether a process is a zombie: it has ended, but no parent has waited for it. In a container, orphans may
/// stay zombies.
fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
