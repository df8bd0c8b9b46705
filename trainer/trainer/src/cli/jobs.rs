//! Runs several trials of a sweep, or folds and seeds of `fit`, at once, each in its own process: libtorch has one
//! random number generator per process, which trials in threads would share.
//!
//! A trial's process is this program, which trains one trial and prints its result as a line. Before that, it may ask
//! after each epoch whether to continue: it prints a line that begins with `QUESTION` and reads the answer from stdin.
//! A trial's result does not depend on the trials that run at the same time. This module does not depend on models or
//! stores.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use wavemill_schemas::exit::Kind;
use wavemill_terminal::interrupt::{self, SIGTERM, exit_now, signal_child};
use wavemill_terminal::output::stdout;

use crate::TrainError;

/// Exit code of a trial that was stopped by a signal.
const INTERRUPTED: u8 = Kind::Interrupted.exit_code();
/// Interval at which the parent checks its child processes, and each child checks its parent.
const POLL: Duration = Duration::from_millis(50);
/// Prefix of the line in which a trial asks whether to continue; below, the two possible answers.
const QUESTION: &str = "? ";
const GO_ON: &str = "go on";
const END: &str = "end";
/// Environment variable with the process id of the program that started a trial.
pub(super) const PARENT: &str = "WAVEMILL_PARENT";

/// Outcome of a trial's process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The output of the process, a single line with the trial's result.
    Line(String),
    /// The process was killed by the signal with this number.
    Killed(i32),
}

/// The trials of a sweep, and how to start them.
pub(crate) struct JobPlan<'a> {
    /// Number of trials that run at the same time.
    pub jobs: usize,
    /// Key of each trial. The first of several trials with equal keys trains; the others wait and reuse its run.
    pub keys: &'a [String],
    /// Name of each trial in messages, such as `trial 0`.
    pub names: &'a [String],
    /// Creates the command for a trial (first argument) in a slot (second argument), both from 0. A job has one slot.
    pub command: &'a dyn Fn(usize, usize) -> Command,
}

/// Decides after each epoch whether a trial should continue.
pub(crate) trait Judge {
    /// Receives a trial's question whether to continue, with its metric values so far.
    fn asked(&mut self, _trial: usize, _values: Vec<f64>) {}

    /// Receives the outcome of a trial that has ended.
    fn ended(&mut self, _trial: usize, _outcome: &Outcome) {}

    /// Returns whether `trial` should continue, or `None` while that depends on another trial's next epoch.
    fn goes_on(&self, _trial: usize) -> Option<bool> {
        Some(true)
    }
}

/// Asks the parent process whether a trial with the metric values `values` should continue with another epoch.
pub(crate) fn ask(values: &[f64]) -> bool {
    let words: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    // Without the question or its answer, the parent process has ended, and the trial continues.
    let _ = writeln!(stdout(), "{QUESTION}{}", words.join(" "));
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    answer.trim() != END
}

/// The process of a running trial.
struct TrialProcess {
    trial: usize,
    slot: usize,
    child: Child,
    answers: ChildStdin,
    questions: Receiver<Vec<f64>>,
    /// True if the trial has asked whether to continue and is waiting for the answer.
    waits: bool,
    out: JoinHandle<String>,
    err: JoinHandle<()>,
}

/// The processes of the running trials, which are killed on drop.
struct Jobs {
    running: Vec<TrialProcess>,
}

impl Drop for Jobs {
    fn drop(&mut self) {
        for job in &mut self.running {
            // Killing a child fails only if the process has already ended.
            let _ = job.child.kill();
            let _ = job.child.wait();
        }
    }
}

/// Runs all trials and passes their outcomes to `told` in trial order. If a signal stopped the sweep, returns the
/// number of the first trial whose outcome was not passed.
///
/// # Errors
/// [`TrainError::FatalTrial`], after the other trials have been stopped; an error of `told`, or of starting a process.
pub(crate) fn run(
    plan: &JobPlan<'_>,
    judge: &mut dyn Judge,
    mut told: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<Option<usize>> {
    // Handle signals before the first child starts: an earlier signal would end only this process, not the child.
    let signals = interrupt::receive()?;
    let mut jobs = Jobs {
        running: Vec::new(),
    };

    let mut started = vec![false; plan.keys.len()];
    let mut outcomes: Vec<Option<Outcome>> = started.iter().map(|_| None).collect();
    let mut next_told = 0;
    let mut stopped = false;
    let mut fatal = None;

    loop {
        for signal in signals.try_iter() {
            stopped = true;
            jobs.signal(signal);
        }

        for (trial, ended) in jobs.ended()? {
            match ended {
                Ok(outcome) => {
                    judge.ended(trial, &outcome);
                    outcomes[trial] = Some(outcome);
                }
                // This trial was stopped on purpose, together with the others.
                Err(INTERRUPTED) if stopped || fatal.is_some() => {}
                Err(code) => {
                    let trial = plan.names[trial].clone();
                    fatal.get_or_insert(TrainError::FatalTrial { trial, code });
                    jobs.signal(SIGTERM);
                }
            }
        }
        let ends = stopped || fatal.is_some();
        jobs.answer(judge, ends);

        // Report outcomes in trial order, regardless of the order in which the trials ended.
        while let Some(outcome) = outcomes.get_mut(next_told).and_then(Option::take) {
            told(next_told, outcome)?;
            next_told += 1;
        }

        if ends {
            if jobs.running.is_empty() {
                // After the last trial, nothing was interrupted.
                let next = (next_told < plan.keys.len()).then_some(next_told);
                return fatal.map_or(Ok(next), |ended| Err(ended.into()));
            }
        } else {
            jobs.start(plan, &mut started, next_told, &outcomes)?;
            if jobs.running.is_empty() {
                return Ok(None);
            }
        }
        std::thread::sleep(POLL);
    }
}

impl Jobs {
    fn signal(&mut self, signal: i32) {
        for job in &mut self.running {
            signal_child(&mut job.child, signal);
        }
    }

    /// Sends available answers to waiting trials. If `stops` is true, undecided trials may continue, so that they end.
    fn answer(&mut self, judge: &mut dyn Judge, stops: bool) {
        // Receive all questions before answering, because an answer may depend on the other trials' epochs.
        for job in &mut self.running {
            // A trial waits for the answer to its question, so at most one question per trial is pending.
            if let Ok(values) = job.questions.try_recv() {
                judge.asked(job.trial, values);
                job.waits = true;
            }
        }

        for job in self.running.iter_mut().filter(|job| job.waits) {
            let Some(goes_on) = judge.goes_on(job.trial).or(stops.then_some(true)) else {
                continue;
            };
            // Writing the answer fails only if the trial's process has already ended.
            let _ = writeln!(job.answers, "{}", if goes_on { GO_ON } else { END });
            job.waits = false;
        }
    }

    /// Starts trials in the free slots, in trial order. All trials with a number below `next_told` have ended.
    fn start(
        &mut self,
        plan: &JobPlan<'_>,
        started: &mut [bool],
        next_told: usize,
        outcomes: &[Option<Outcome>],
    ) -> Result<()> {
        for slot in 0..plan.jobs {
            if self.running.iter().any(|job| job.slot == slot) {
                continue;
            }

            // A trial with the key of an earlier trial starts after the earlier one has ended, and reuses that run.
            let mut may_begin = (0..started.len()).filter(|&trial| {
                let waits = (0..trial).any(|other| {
                    let has_ended = other < next_told || outcomes[other].is_some();
                    plan.keys[other] == plan.keys[trial] && !has_ended
                });
                !started[trial] && !waits
            });
            let Some(trial) = may_begin.next() else {
                return Ok(());
            };

            started[trial] = true;
            let command = (plan.command)(trial, slot);
            self.running.push(TrialProcess::start(
                trial,
                &plan.names[trial],
                slot,
                command,
            )?);
        }
        Ok(())
    }

    /// Removes the trials that have ended. Returns their outcomes, or the exit code of a trial that printed no line.
    fn ended(&mut self) -> Result<Vec<(usize, Result<Outcome, u8>)>> {
        let mut ended = Vec::new();
        let mut still = Vec::new();
        for mut job in std::mem::take(&mut self.running) {
            match job.child.try_wait()? {
                Some(status) => ended.push((job.trial, job.outcome(status))),
                None => still.push(job),
            }
        }
        self.running = still;
        Ok(ended)
    }
}

impl TrialProcess {
    fn start(trial: usize, name: &str, slot: usize, mut command: Command) -> Result<Self> {
        // The child gets its own process group: Ctrl-C in a terminal then signals only the parent, which forwards it.
        command
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().context("a piped child has a stdout")?;
        let err = child.stderr.take().context("a piped child has a stderr")?;
        let answers = child.stdin.take().context("a piped child has a stdin")?;

        let (asked, questions) = unbounded();
        // stdout and stderr are both read continuously, because a trial blocks when a pipe is full.
        let out = std::thread::spawn(move || listen(out, &asked));
        let name = name.to_owned();
        let err = std::thread::spawn(move || pass_on(&name, err));

        Ok(Self {
            trial,
            slot,
            child,
            answers,
            questions,
            waits: false,
            out,
            err,
        })
    }

    fn outcome(self, status: ExitStatus) -> Result<Outcome, u8> {
        let line = self.out.join().unwrap_or_default();
        // Wait until the child's last lines of stderr are printed, before its outcome is reported.
        let _ = self.err.join();

        if let Some(signal) = status.signal() {
            return Ok(Outcome::Killed(signal));
        }
        // A printed line is the trial's result, regardless of the process's exit code.
        if !line.trim().is_empty() {
            return Ok(Outcome::Line(line));
        }

        // A trial that printed no line has not finished, so an exit code of 0 is reported as 1.
        Err(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .filter(|code| *code != 0)
            .unwrap_or(1))
    }
}

/// Reads a trial's stdout, sends the values in its questions to `asked`, and returns all other lines.
fn listen(out: ChildStdout, asked: &Sender<Vec<f64>>) -> String {
    let mut text = String::new();
    // A read error ends the loop; the caller then finds no result line and reports a failed trial.
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        match line.strip_prefix(QUESTION) {
            Some(values) => {
                let values = values
                    .split_whitespace()
                    .map(|word| word.parse().unwrap_or(f64::NAN));
                // Sending fails only if the receiver was dropped because the trial's process is being ended.
                let _ = asked.send(values.collect());
            }
            None => text += &(line + "\n"),
        }
    }
    text
}

/// Prints every line of a trial's stderr to this process's stderr, prefixed with the trial's name.
fn pass_on(name: &str, err: ChildStderr) {
    for line in BufReader::new(err).lines().map_while(Result::ok) {
        wavemill_terminal::say!("{name}: {line}");
    }
}

/// In a trial's process, starts a thread that ends the process when the parent has ended, because no other process would
/// read the result. Call this first: another process may take the place of the parent at any time.
///
/// # Errors
/// The thread that watches the parent process cannot be started.
pub(crate) fn end_with_parent() -> Result<()> {
    let parent = std::env::var(PARENT).ok().and_then(|id| id.parse().ok());
    let parent: u32 = parent.unwrap_or_else(std::os::unix::process::parent_id);
    std::thread::Builder::new()
        .name("parent".to_owned())
        .spawn(move || {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(POLL);
            }
            exit_now(INTERRUPTED);
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cli::exit;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    fn shell(script: impl Fn(usize, usize) -> String) -> impl Fn(usize, usize) -> Command {
        move |trial, slot| {
            let mut command = Command::new("sh");
            command.args(["-c", &script(trial, slot)]);
            command
        }
    }

    /// A judge that ends trials after their second question and does not answer trial 0 before trial 1 has asked.
    #[derive(Default)]
    struct Twice {
        asked: Vec<(usize, Vec<f64>)>,
    }

    impl Twice {
        fn times(&self, trial: usize) -> usize {
            let own = self.asked.iter().filter(|(other, _)| *other == trial);
            own.count()
        }
    }

    impl Judge for Twice {
        fn asked(&mut self, trial: usize, values: Vec<f64>) {
            self.asked.push((trial, values));
        }

        fn ended(&mut self, _trial: usize, _outcome: &Outcome) {}

        fn goes_on(&self, trial: usize) -> Option<bool> {
            (trial > 0 || self.times(1) > 0).then(|| self.times(trial) < 2)
        }
    }

    fn lines(plan: &JobPlan<'_>) -> Result<Vec<(usize, Outcome)>> {
        lines_judged(plan, &mut Twice::default())
    }

    fn lines_judged(plan: &JobPlan<'_>, judge: &mut dyn Judge) -> Result<Vec<(usize, Outcome)>> {
        let mut all = Vec::new();
        let stopped = run(plan, judge, |trial, outcome| {
            all.push((trial, outcome));
            Ok(())
        })?;
        assert_eq!(stopped, None);
        Ok(all)
    }

    #[test]
    fn parallel_trials_are_reported_in_order() {
        let keys = keys(&["a", "b", "c", "d"]);
        // The first trial takes longest. The two trials run in slots 0 and 1.
        let command =
            shell(|trial, slot| format!("sleep 0.{}; echo {trial} $(({slot} < 2))", 6 - trial));

        let told = lines(&JobPlan {
            jobs: 2,
            keys: &keys,
            names: &keys,
            command: &command,
        })
        .expect("all end well");

        let want: Vec<_> = (0..4)
            .map(|trial| (trial, Outcome::Line(format!("{trial} 1\n"))))
            .collect();
        assert_eq!(told, want);
    }

    #[test]
    fn questions_are_answered_and_are_not_results() {
        let keys = keys(&["a", "b"]);
        let command = shell(|trial, _| {
            let delay = if trial == 1 { "sleep 0.3;" } else { "" };
            format!(
                "{delay} echo '? 0.5 NaN'; read a; echo '? 0.5 NaN 1e-300'; read b; echo \"$a, $b\""
            )
        });

        let mut judge = Twice::default();
        let told = lines_judged(
            &JobPlan {
                jobs: 2,
                keys: &keys,
                names: &keys,
                command: &command,
            },
            &mut judge,
        )
        .expect("all end well");

        assert_eq!(
            told,
            [0, 1].map(|trial| (trial, Outcome::Line("go on, end\n".to_owned())))
        );

        let of_second: Vec<_> = judge
            .asked
            .iter()
            .filter(|(trial, _)| *trial == 1)
            .collect();
        assert!(of_second.len() == 2 && of_second[1].1[2] == 1e-300 && of_second[1].1[1].is_nan());
    }

    #[test]
    fn identical_trials_run_one_after_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("first").display().to_string();

        let keys = keys(&["a", "a", "b"]);
        let command = shell(move |trial, _| match trial {
            0 => format!("sleep 0.3; touch {file}; echo done"),
            1 => format!("test -e {file} && echo found"),
            _ => "echo other".to_owned(),
        });

        let told = lines(&JobPlan {
            jobs: 3,
            keys: &keys,
            names: &keys,
            command: &command,
        })
        .expect("all end well");
        assert_eq!(told[1].1, Outcome::Line("found\n".to_owned()));
    }

    #[test]
    fn killed_trial_does_not_affect_others() {
        let keys = keys(&["a", "b", "c"]);
        let command = shell(|trial, _| {
            if trial == 1 {
                "kill -9 $$".to_owned()
            } else {
                "echo line".to_owned()
            }
        });

        let told = lines(&JobPlan {
            jobs: 2,
            keys: &keys,
            names: &keys,
            command: &command,
        })
        .expect("all end");

        assert_eq!(told[1].1, Outcome::Killed(9));
        assert_eq!(told[2].1, Outcome::Line("line\n".to_owned()));
    }

    #[test]
    fn trial_without_result_ends_the_sweep_with_its_exit_code() {
        let start = Instant::now();
        let keys = keys(&["a", "b", "c"]);
        let command = shell(|trial, _| {
            if trial == 1 {
                "exit 5".to_owned()
            } else {
                "trap 'exit 130' TERM; sleep 60 >/dev/null 2>&1 & wait".to_owned()
            }
        });

        let error = lines(&JobPlan {
            jobs: 2,
            keys: &keys,
            names: &keys,
            command: &command,
        })
        .expect_err("it ended all");

        assert_eq!(exit::code(&error), 5);
        assert_eq!(
            error.to_string(),
            "b ended all runs with exit code 5: see its output above"
        );
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );
    }
}
