//! Reads this process's rank from the launcher's environment variables, and launches the ranks of a job on one machine.
//!
//! torchrun sets `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`. Its agent may itself listen on
//! `MASTER_PORT` (`TORCHELASTIC_USE_AGENT_STORE`), so rank 0 uses the next higher port, or `WAVEMILL_PORT`.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use wavemill_schemas::exit::Kind;
use wavemill_terminal::interrupt::{self, signal_child};

use super::{RankError, wire};

/// Maximum time for which a rank waits for the other ranks at the start. Some nodes need a minute to read a store's
/// manifest.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which the other ranks may continue after a rank has failed, before they are killed.
const GRACE: Duration = Duration::from_secs(10);
/// Exit code of a rank that ends because another rank was lost.
const LOST: i32 = Kind::LostRank.exit_code() as i32;
/// Interval at which the state of the child processes is polled.
const POLL: Duration = Duration::from_millis(50);

/// The rank of this process, and the connection settings of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranks {
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
    /// Rank among the processes on this machine, from 0; also the index of this rank's GPU.
    pub local_rank: usize,
    /// Number of ranks on this machine, which share its cores: `LOCAL_WORLD_SIZE`, else all ranks.
    pub local_world_size: usize,
    /// Host name or IP address of rank 0.
    pub address: String,
    /// Port on which rank 0 accepts connections of the other ranks.
    pub port: u16,
    /// Secret that the ranks of a job share: `WAVEMILL_JOB`, else `TORCHELASTIC_RUN_ID`, else empty.
    pub token: String,
    /// Process id of the launcher ([`launch`]). The rank ends when the launcher ends.
    pub launcher: Option<u32>,
    /// Maximum time for which this rank waits for the other ranks at the start. Default: 60 s.
    pub join_timeout: Duration,
}

impl Ranks {
    /// Returns the settings of a job with a single process.
    pub(crate) fn solo() -> Self {
        Self {
            rank: 0,
            world_size: 1,
            local_rank: 0,
            local_world_size: 1,
            address: "127.0.0.1".to_owned(),
            port: 0,
            token: String::new(),
            launcher: None,
            join_timeout: JOIN_TIMEOUT,
        }
    }

    /// Reads the rank from the launcher's environment variables. Returns `None` if neither `RANK`, `WORLD_SIZE` nor
    /// `LOCAL_RANK` is set.
    ///
    /// # Errors
    /// [`RankError`] with the name of a missing or invalid environment variable.
    pub(crate) fn from_env() -> Result<Option<Self>, RankError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, RankError> {
        // If one of the launcher's variables is set, all of them must be set.
        let Some(set) = ["RANK", "WORLD_SIZE", "LOCAL_RANK"]
            .into_iter()
            .find(|&name| get(name).is_some())
        else {
            return Ok(None);
        };
        let variables = Variables { get, set };

        let rank = variables.number("RANK")?;
        let world_size = variables.number("WORLD_SIZE")?;
        let local_rank = variables.number("LOCAL_RANK")?;
        // Launchers other than torchrun may not set it.
        let local_world_size = match (variables.get)("LOCAL_WORLD_SIZE") {
            Some(_) => variables.number("LOCAL_WORLD_SIZE")?,
            None => world_size,
        };
        if rank >= world_size {
            let problem = format!("is {rank}, not below WORLD_SIZE = {world_size}");
            return Err(variables.wrong("RANK", problem));
        }

        if local_rank >= local_world_size {
            let problem =
                format!("is {local_rank}, not below the {local_world_size} ranks of this machine");
            return Err(variables.wrong("LOCAL_RANK", problem));
        }

        let address = variables.text("MASTER_ADDR")?;
        // torchrun's agent may itself listen on `MASTER_PORT`, so rank 0 uses the next higher port.
        let name = if (variables.get)("WAVEMILL_PORT").is_some() {
            "WAVEMILL_PORT"
        } else {
            "MASTER_PORT"
        };
        let mut number = variables.number(name)?;
        if name == "MASTER_PORT" {
            number += 1;
        }
        let port = u16::try_from(number).ok().filter(|&port| port > 0);
        let port = port.ok_or_else(|| {
            let problem = format!("gives no valid port ({number}); set one with WAVEMILL_PORT");
            variables.wrong(name, problem)
        })?;

        // torchrun's run id is not a secret, but it distinguishes two jobs that use the same port.
        let token = (variables.get)("WAVEMILL_JOB")
            .or_else(|| (variables.get)("TORCHELASTIC_RUN_ID"))
            .unwrap_or_default();
        let launcher = (variables.get)("WAVEMILL_LAUNCHER").and_then(|id| id.parse().ok());
        Ok(Some(Self {
            rank,
            world_size,
            local_rank,
            local_world_size,
            address,
            port,
            token,
            launcher,
            join_timeout: JOIN_TIMEOUT,
        }))
    }

    /// Returns a warning of rank 0 if other machines can join the job without a secret.
    pub(crate) fn open_port_warning(&self) -> Option<String> {
        // torchrun's run id is `none` unless the user gives one.
        let has_secret = !matches!(self.token.as_str(), "" | "none");
        if self.rank > 0 || self.world_size == 1 || self.is_local() || has_secret {
            return None;
        }
        Some(format!(
            "every program that can reach port {} of this machine can join this job: set WAVEMILL_JOB to the same \
             secret on all machines",
            self.port
        ))
    }

    /// Reports whether the address of rank 0 is a loopback address, so that all ranks are on one machine.
    pub(super) fn is_local(&self) -> bool {
        self.address == "localhost"
            || self
                .address
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

/// Environment variables of a launcher, and the name of one that is set.
struct Variables<G> {
    get: G,
    set: &'static str,
}

impl<G: Fn(&'static str) -> Option<String>> Variables<G> {
    fn text(&self, name: &'static str) -> Result<String, RankError> {
        (self.get)(name).ok_or_else(|| self.wrong(name, "is not set".to_owned()))
    }

    fn number(&self, name: &'static str) -> Result<usize, RankError> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|_| self.wrong(name, format!("is {text:?}, not a number")))
    }

    fn wrong(&self, name: &'static str, problem: String) -> RankError {
        RankError::Other(format!(
            "{name} {problem}, although {} is set: torchrun and --nproc set all of them",
            self.set
        ))
    }
}

/// Starts the current program `nproc` times with the same arguments, as the ranks of one job on this machine, and waits
/// until they end.
///
/// Returns the exit code of the first rank that failed (128 + n if it was ended by signal n), 1 if ranks only reported
/// the loss of another rank, else 0. When a rank fails, the others get 10 s before they are killed. SIGINT and SIGTERM
/// are forwarded to the ranks. Each rank has its own process group, so that a terminal's Ctrl-C reaches it only once,
/// through this process. Ranks have no standard input.
///
/// # Errors
/// [`RankError`] if a rank's process cannot be started or waited for.
pub(crate) fn launch(nproc: usize) -> Result<i32, RankError> {
    let program = std::env::current_exe().map_err(RankError::system(0, "finding this program"))?;
    launch_program(nproc, GRACE, || {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        command
    })
}

/// Runs [`launch`] with any program instead of the current one.
fn launch_program(
    nproc: usize,
    grace: Duration,
    program: impl Fn() -> Command,
) -> Result<i32, RankError> {
    // Catch signals before starting the first rank: an earlier signal would end only the launcher.
    let signals = interrupt::receive().map_err(RankError::system(0, "catching signals"))?;

    let port = free_port()
        .map_err(RankError::system(0, "finding a free port"))?
        .to_string();
    let token: [u8; 16] = wire::random().map_err(RankError::system(0, "generating a token"))?;
    let token = u128::from_le_bytes(token);

    // If a rank cannot be started, dropping `children` on return kills the ranks that are already running.
    let mut children = Children {
        running: Vec::new(),
    };
    for rank in 0..nproc {
        // `MASTER_PORT` and `WAVEMILL_PORT` both contain the free port. Ranks use `WAVEMILL_PORT` without adding 1.
        let mut command = program();
        command
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("WORLD_SIZE", nproc.to_string())
            .env("LOCAL_WORLD_SIZE", nproc.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", &port)
            .env("WAVEMILL_PORT", &port)
            .env("WAVEMILL_JOB", format!("{token:032x}"))
            .env("WAVEMILL_LAUNCHER", std::process::id().to_string())
            .stdin(Stdio::null())
            .process_group(0);
        let process = command.spawn().map_err(RankError::launch(rank))?;
        children.running.push(Child { rank, process });
    }
    children.wait(&signals, grace)
}

/// Returns a free TCP port. If another program takes the port before rank 0 does, rank 0 reports an error.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A rank that was started by this launcher.
struct Child {
    rank: usize,
    process: process::Child,
}

/// Ranks that have been started and may still be running. They are killed on drop.
struct Children {
    running: Vec<Child>,
}

/// Exit code of the failed rank, and the time at which the other ranks are killed.
#[derive(Clone, Copy)]
struct Failure {
    code: i32,
    deadline: Instant,
}

impl Children {
    fn wait(mut self, signals: &Receiver<i32>, grace: Duration) -> Result<i32, RankError> {
        let mut failure: Option<Failure> = None;
        while !self.running.is_empty() {
            for signal in signals.try_iter() {
                for child in &mut self.running {
                    signal_child(&mut child.process, signal);
                }
            }

            for code in self.ended()? {
                failure = match failure {
                    None if code != 0 => Some(Failure {
                        code,
                        deadline: Instant::now() + grace,
                    }),
                    // The exit code of the rank that failed replaces the code `LOST` of the ranks that only noticed the
                    // failure.
                    Some(first) if first.code == LOST && code != 0 => {
                        Some(Failure { code, ..first })
                    }
                    failure => failure,
                };
            }
            // Dropping `self` kills the ranks that are still running.
            if failure.is_some_and(|failure| Instant::now() >= failure.deadline) {
                break;
            }

            std::thread::sleep(POLL);
        }

        Ok(match failure {
            None => 0,
            Some(Failure { code: LOST, .. }) => 1,
            Some(failure) => failure.code,
        })
    }

    /// Returns the exit codes of the ranks that have ended since the last call, in rank order.
    fn ended(&mut self) -> Result<Vec<i32>, RankError> {
        let mut codes = Vec::new();
        let mut error = None;

        self.running
            .retain_mut(|child| match child.process.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    codes.push(exit_code(status));
                    false
                }
                Err(source) => {
                    error = Some(RankError::launch(child.rank)(source));
                    true
                }
            });

        error.map_or(Ok(codes), Err)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.running {
            // Fails only if the process has already ended.
            let _ = child.process.kill();
            let _ = child.process.wait();
        }
    }
}

/// Converts the exit status of a process to an exit code as a shell does.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Option<Ranks>, RankError> {
        Ranks::from_variables(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "node7"),
        ("MASTER_PORT", "29500"),
        ("TORCHELASTIC_RUN_ID", "none"),
    ];

    #[test]
    fn torchruns_variables_give_the_port_above_the_agents() {
        let ranks = parse(&TORCHRUN).expect("complete").expect("a rank");
        assert_eq!((ranks.rank, ranks.world_size, ranks.local_rank), (3, 4, 1));
        assert_eq!(
            (ranks.port, ranks.token.as_str(), ranks.is_local()),
            (29501, "none", false)
        );
    }

    #[test]
    fn ranks_share_the_cores_of_their_machine() {
        let local = |variables: &[(&str, &str)]| {
            let ranks = parse(&[TORCHRUN.as_slice(), variables].concat());
            ranks.map(|ranks| ranks.expect("a rank").local_world_size)
        };
        assert_eq!(local(&[]).expect("complete"), 4);
        assert_eq!(local(&[("LOCAL_WORLD_SIZE", "2")]).expect("complete"), 2);
        for count in ["0", "1", "two"] {
            assert!(local(&[("LOCAL_WORLD_SIZE", count)]).is_err(), "{count}");
        }
    }

    #[test]
    fn our_port_and_token_win_over_torchruns() {
        let ours = [
            TORCHRUN.as_slice(),
            &[("WAVEMILL_PORT", "4000"), ("WAVEMILL_JOB", "mine")],
        ]
        .concat();
        let ranks = parse(&ours).expect("complete").expect("a rank");
        assert_eq!((ranks.port, ranks.token.as_str()), (4000, "mine"));
    }

    #[test]
    fn a_machine_without_ranks_is_one_and_an_address_alone_makes_none() {
        assert_eq!(parse(&[]).expect("nothing set"), None);
        assert_eq!(
            parse(&[("MASTER_ADDR", "node7"), ("MASTER_PORT", "1")]).expect("no rank"),
            None
        );
    }

    #[test]
    fn the_variable_that_is_missing_or_wrong_is_named() {
        for leave_out in 0..5 {
            let mut variables = TORCHRUN.to_vec();
            let (name, _) = variables.remove(leave_out);
            let error = parse(&variables).expect_err("incomplete").to_string();
            assert!(error.starts_with(&format!("{name} is not set")), "{error}");
        }

        for (name, value) in [
            ("RANK", "4"),
            ("WORLD_SIZE", "-1"),
            ("MASTER_PORT", "65535"),
            ("LOCAL_RANK", ""),
        ] {
            let mut variables = TORCHRUN.to_vec();
            variables.retain(|(key, _)| *key != name);
            variables.push((name, value));

            let error = parse(&variables).expect_err(value).to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    fn shell(script: &'static str) -> impl Fn() -> Command {
        move || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        }
    }

    #[test]
    fn successful_ranks_return_zero() {
        let known = "test $RANK = $LOCAL_RANK -a $WORLD_SIZE = 3 -a ${#WAVEMILL_JOB} = 32 -a $MASTER_ADDR = 127.0.0.1";
        assert_eq!(launch_program(3, GRACE, shell(known)).expect("started"), 0);
    }

    #[test]
    fn the_first_failure_is_the_answer_and_the_others_are_killed_after_the_grace() {
        let start = Instant::now();
        let one_fails = shell("test $RANK = 1 && exit 7; exec sleep 60");
        assert_eq!(
            launch_program(3, Duration::from_millis(300), one_fails).expect("started"),
            7
        );
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );

        let one_dies = shell("test $RANK = 0 && kill -9 $$; exec sleep 60");
        assert_eq!(
            launch_program(2, Duration::ZERO, one_dies).expect("started"),
            137
        );
    }

    #[test]
    fn a_rank_that_missed_another_leaves_the_answer_to_it() {
        let cause_is_slow = shell("test $RANK = 1 || exit 6; sleep 0.3; exit 3");
        assert_eq!(launch_program(3, GRACE, cause_is_slow).expect("started"), 3);
        let cause_hangs = shell("test $RANK = 1 || exit 6; exec sleep 60");
        assert_eq!(
            launch_program(3, Duration::from_millis(300), cause_hangs).expect("started"),
            1
        );
    }

    #[test]
    fn missing_program_is_an_error_without_children() {
        let error =
            launch_program(2, GRACE, || Command::new("/nonexistent/program")).expect_err("none");
        assert_eq!(
            error.to_string(),
            "rank 0 cannot be started: No such file or directory (os error 2)"
        );
    }
}
