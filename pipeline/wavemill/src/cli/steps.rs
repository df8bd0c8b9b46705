//! `wavemill plan`, `work` and `commit`: the steps of an extraction, for several processes or machines.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::{Arg, Args};
use wavemill_extract::run::{
    self, Part, PlanReport, Report, RunMonitor, Share, WorkJob, WorkReport,
};
use wavemill_extract::settings::Settings;
use wavemill_schemas::number::number;
use wavemill_schemas::text::counted;
use wavemill_store::StorePlace;
use wavemill_terminal::output::stdout;

use super::extract::{self, ExtractCommand, MachineArgs, print_plan, print_warnings};
use super::progress::accompanied;
use super::{WaitArgs, print_report};

const PLAN_EXAMPLES: &str = "\
Examples:
  PLAN=$(wavemill plan --recipe fma-large --metadata fma_metadata.zip \\
      --audio fma_large --store store)
  seq 16 | parallel wavemill work --store store --plan $PLAN --part {}/16
  wavemill commit --store store --plan $PLAN

Options and exit codes are those of `wavemill extract`. The id of the plan is printed on stdout. To plan again, repeat \
the command: finished shards are kept.";

const WORK_EXAMPLES: &str = "\
Examples:
  wavemill work --store store --plan 0123456789abcdef --part 1/16
  wavemill work --store /nfs/store --plan 0123456789abcdef \\
      --part $SLURM_ARRAY_TASK_ID/16
  wavemill work --store /nfs/store --plan 0123456789abcdef --claim

Further options are those of `wavemill extract`. Workers may run in any order, on any machine that sees the store and the audio, at the same time, and more than once: \
the files are the same. To continue, repeat the command.

Exit codes: 0 ok, or the plan is committed already. Repeat the command after: 1 failed, 5 no space or read-only, \
7 another wavemill is planning, committing or removing data, 130 interrupted. Do not repeat it after: 2 wrong usage \
or no such plan, 3 store damaged, 4 another engine or version, or a changed input: plan again.";

const COMMIT_EXAMPLES: &str = "\
Examples:
  wavemill commit --store store --plan 0123456789abcdef

Exit codes: 0 also if the plan is committed already, 4 another version was committed since the plan was made, or an input \
changed, 7 a worker or another wavemill is writing the store, 9 shards are missing.";

/// Plan a version that several processes or machines extract
#[derive(Debug, Args)]
#[command(after_help = PLAN_EXAMPLES, mut_args(|arg| arg.hide_short_help(true)))]
pub struct PlanCommand {
    /// The same options as those of `extract`.
    #[command(flatten)]
    pub extract: ExtractCommand,
}

impl PlanCommand {
    /// Plans the version and prints the plan's id.
    pub fn run(&self) -> Result<u8> {
        let extract = &self.extract;
        if extract.dry_run {
            return extract.run();
        }
        let monitor = RunMonitor {
            on_plan: Some(print_plan),
            ..RunMonitor::default()
        };
        let report = accompanied(&monitor, || self.report(&monitor))?;
        print_warnings(&report.warnings);
        print_report(&report, extract.json, || plan_summary(&report))?;
        if !extract.json {
            writeln!(stdout(), "{}", report.plan_id)?;
        }
        Ok(0)
    }

    /// Plans the version.
    pub fn report(&self, monitor: &RunMonitor) -> Result<PlanReport> {
        wavemill_kernels::return_large_blocks();
        let (job, settings) = self.extract.plan()?;
        Ok(run::plan(&job, &settings, monitor)?)
    }
}

/// Extract a part of a plan, or what no other worker has claimed
#[derive(Debug, Args)]
#[command(after_help = WORK_EXAMPLES, mut_args(left_to_extract))]
pub struct WorkCommand {
    /// Folder of the store, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    pub store: StorePlace,
    /// Id of the plan, which `wavemill plan` printed
    #[arg(long, value_name = "ID")]
    pub plan: String,
    /// Part I of N, from 1/N to N/N. The largest useful N is the number of shards
    #[arg(long, value_name = "I/N", value_parser = parse_part, required_unless_present = "claim")]
    pub part: Option<Part>,
    /// Extract shards that no other worker has claimed, then those of workers that may be gone, until all are finished
    #[arg(long, conflicts_with = "part")]
    pub claim: bool,
    /// Folder or zip of the audio, or its address, if it has another path here than where the plan was made
    #[arg(long, value_name = "PATH")]
    pub audio: Option<StorePlace>,
    /// Threads, memory and instructions.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Marks the options that `work` has in common with `extract` as rarely needed.
fn left_to_extract(arg: Arg) -> Arg {
    let own = ["store", "plan", "part", "claim", "audio", "json"];
    let is_own = own.contains(&arg.get_id().as_str());
    arg.hide_short_help(!is_own)
}

impl WorkCommand {
    /// Writes the part and prints a report.
    ///
    /// # Errors
    /// [`wavemill_extract::error::ExtractError`], or wrong usage.
    pub fn run(&self) -> Result<u8> {
        let monitor = RunMonitor::default();
        let report = accompanied(&monitor, || self.report(&monitor))?;
        print_warnings(&report.warnings);
        print_report(&report, self.json, || work_summary(&report))
    }

    /// Writes the part.
    pub fn report(&self, monitor: &RunMonitor) -> Result<WorkReport> {
        wavemill_kernels::return_large_blocks();
        let job = WorkJob {
            store: self.store.to_path_buf(),
            plan_id: self.plan.clone(),
            share: self.part.map_or(Share::Claim, Share::Part),
            audio: self.audio.as_deref().map(Path::to_path_buf),
            lock_wait: self.machine.wait.duration(),
        };
        run::work(&job, |recipe| self.machine.settings(recipe), monitor)
    }
}

/// Commit a plan whose shards are all written
#[derive(Debug, Args)]
#[command(after_help = COMMIT_EXAMPLES)]
pub struct CommitCommand {
    /// Folder of the store, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    pub store: StorePlace,
    /// Id of the plan, which `wavemill plan` printed
    #[arg(long, value_name = "ID")]
    pub plan: String,
    /// Time to wait for a store that another command is writing.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Print the report as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl CommitCommand {
    /// Commits the version and prints the report.
    pub fn run(&self) -> Result<u8> {
        let monitor = RunMonitor::default();
        let start = Instant::now();
        let report = accompanied(&monitor, || self.report(&monitor))?;
        print_warnings(&report.warnings);
        extract::print_extract_report(report, Vec::new(), start.elapsed(), self.json)
    }

    /// Commits the version.
    pub fn report(&self, monitor: &RunMonitor) -> Result<Report> {
        let settings = Settings {
            lock_wait: self.wait.duration(),
            ..Settings::default()
        };
        Ok(run::commit(&self.store, &self.plan, &settings, monitor)?)
    }
}

fn plan_summary(report: &PlanReport) -> String {
    let version = report.version;
    let clips = counted(report.clips, "clip");
    if report.nothing_to_do {
        return format!("nothing to do: version {version} is up to date ({clips})\n");
    }
    format!(
        "version {version} planned: {clips} in {}; {} already existed\n",
        counted(report.shards, "shard"),
        counted(report.files_reused, "feature file")
    )
}

fn work_summary(report: &WorkReport) -> String {
    if report.committed {
        return "nothing to do: the plan is committed\n".to_owned();
    }
    format!(
        "{} finished: {}, {} rejected; {} written, {} already existed\n",
        counted(report.shards, "shard"),
        counted(report.clips, "clip"),
        report.clips_rejected,
        counted(report.files_written, "feature file"),
        report.files_reused
    )
}

/// Parses `I/N` with 1 ≤ I ≤ N.
fn parse_part(text: &str) -> Result<Part, String> {
    let (part, of) = text.split_once('/').ok_or("must be I/N, such as 1/8")?;
    let of = number(1..)(of)?;
    let number = number(1..=of)(part)?;
    Ok(Part { number, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_from_one() {
        let part = |number, of| Ok(Part { number, of });
        assert_eq!(parse_part("1/8"), part(1, 8));
        assert_eq!(parse_part("8/8"), part(8, 8));
        for wrong in ["0/8", "9/8", "0/0", "1", "/8", "1/", "-1/8", "1/8/9", "a/b"] {
            assert!(parse_part(wrong).is_err(), "{wrong}");
        }
    }
}
