//! The command line: one file per subcommand, and shared parts. Data is printed to stdout, everything else to stderr.

mod eval;
mod exit;
mod export;
mod fit;
mod folds;
mod input;
mod interrupt;
mod jobs;
mod like;
mod models;
mod predict;
mod progress;
mod report;
mod role;
mod run_folder;
mod run_list;
mod shared;
mod sweep;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, Command};
use tch::Device;
use wavemill_schemas::config::Config;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::number::number;
use wavemill_schemas::text::{counted, shown};
use wavemill_schemas::version_name::VersionName;
use wavemill_terminal::command::{self, Subcommand, subcommand, with_subcommands};
use wavemill_terminal::exit::{UsageError, finish};
use wavemill_terminal::output::{OutputArgs, ProgressFormat};

use crate::checkpoint::State;
use crate::dataset::{Dataset, ModelSignature, Store};
use crate::ffi;
use crate::models::own::{self, OwnModel};
use crate::models::registry;
use crate::run;
use crate::strategy::Ranks;

const AFTER_HELP: &str = "\
Examples:
  wavemill train fit --store store --model cnn2d
  wavemill train fit --resume runs/cnn2d-1f2e3d4c-1      # resumes a stopped run
  wavemill train eval runs/cnn2d-1f2e3d4c-1
  wavemill train report runs/cnn2d-1f2e3d4c-1
  wavemill train models crnn
  wavemill train export runs/cnn2d-1f2e3d4c-1 --format torchscript \\
      --out cnn2d.pt";

// Last lines of commands that a signal ends; of `fit` and `sweep`, before training begins.
const UNTRAINED: &str = "interrupted before the first step; no run was changed";
const UNSCORED: &str = "interrupted during evaluation; no run was changed";
const UNPREDICTED: &str = "interrupted; not all rows were predicted";
const NO_PAGE: &str = "interrupted; no page was written";
const HALF_WRITTEN: &str = "interrupted while writing the model; export it again";

/// Returns the subcommands, in the order of the help.
fn subcommands() -> Vec<Subcommand> {
    vec![
        subcommand("fit", UNTRAINED, fit::FitCommand::run),
        subcommand("eval", UNSCORED, eval::EvalCommand::run),
        subcommand("predict", UNPREDICTED, predict::PredictCommand::run),
        subcommand("sweep", UNTRAINED, sweep::SweepCommand::run),
        subcommand("models", "interrupted", models::ModelsCommand::run),
        subcommand("report", NO_PAGE, report::ReportCommand::run),
        subcommand("export", HALF_WRITTEN, export::ExportCommand::run),
    ]
}

/// Returns the definition of the command line. Users start this program by `wavemill train`, so it has that name.
fn definition() -> Command {
    let program = Command::new("wavemill train")
        .bin_name("wavemill train")
        .about("Train and evaluate models on a feature store")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER_HELP);
    with_subcommands(program, subcommands())
}

/// Options for device and speed. On a CPU, another number of threads changes the last bits of the results; the other
/// options do not change the results of a run on the same kind of device.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineArgs {
    #[command(flatten)]
    compute: ComputeArgs,
    /// Threads that read and decompress rows
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = number::<u16>(1..=64), hide_short_help = true)]
    pub readers: u16,
    /// Batches to prefetch for the device
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = number::<u16>(1..=1024), hide_short_help = true)]
    pub prefetch_batches: u16,
    /// Check every shard's blake3 before the first batch, instead of each one when it is first read
    #[arg(long, hide_short_help = true)]
    pub verify: bool,
    /// Do not check the blake3 of shards: a flipped bit may change what the model learns
    #[arg(long, conflicts_with = "verify", hide_short_help = true)]
    pub no_verify: bool,
}

/// Options for the device and the threads of computations.
#[derive(Debug, Clone, Args)]
pub(crate) struct ComputeArgs {
    /// Device: cpu, cuda, cuda:N, or auto, which is cuda if a GPU can be used
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Number of threads for computations; another number changes the last bits of results [default: the cores, divided
    /// among the ranks of this machine; for fit --resume, the run's number]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=1024))]
    pub threads: Option<u16>,
}

/// Resources of a machine, divided among several processes of this program. Each process has a slot, numbered from 0.
#[derive(Debug)]
pub(crate) struct MachineShares {
    /// Names of the devices, assigned to slots in turn.
    devices: Vec<String>,
    threads: u32,
    readers: u16,
    prefetch_batches: u16,
    no_verify: bool,
}

impl MachineShares {
    /// Adds the options for device, threads and progress of the process in `slot` to `command`.
    pub(crate) fn add_args(&self, command: &mut std::process::Command, slot: usize) {
        // `devices` contains at least one device.
        let device = &self.devices[slot % self.devices.len()];
        command.args(["--device", device, "--threads", &self.threads.to_string()]);
        command.args(["--readers", &self.readers.to_string()]);
        command.args(["--prefetch-batches", &self.prefetch_batches.to_string()]);
        if self.no_verify {
            command.arg("--no-verify");
        }

        // The parent prefixes each progress line with the process's number, so the line would not be valid JSON.
        let progress = match OutputArgs::get().shown() {
            ProgressFormat::Json | ProgressFormat::None => "none",
            _ => "plain",
        };
        command.args(["--progress", progress]);
    }
}

impl ComputeArgs {
    /// Sets libtorch's number of threads and returns this rank's device. `recorded` is a resumed run's thread count.
    ///
    /// # Errors
    /// The device name is unknown, or CUDA was requested but is not available.
    pub(crate) fn device(&self, ranks: &Ranks, recorded: Option<u32>) -> Result<Device> {
        tch::set_num_threads(i32::try_from(self.threads(ranks, recorded))?);

        let number = match self.device.as_str() {
            "cpu" => return Ok(Device::Cpu),
            "auto" => match ffi::load_cuda() {
                Ok(()) => Some(ranks.local_rank),
                Err(reason) => {
                    if let Some(line) = unused_gpu(has_nvidia_gpu(), &reason)
                        && ranks.local_rank == 0
                    {
                        wavemill_terminal::say!("{line}");
                    }
                    return Ok(Device::Cpu);
                }
            },
            "cuda" => Some(ranks.local_rank),
            name => name.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        let Some(number) = number else {
            bail!(UsageError(format!(
                "--device {}: must be auto, cpu, cuda or cuda:N",
                self.device
            )));
        };

        if let Err(reason) = ffi::load_cuda() {
            bail!(UsageError(format!(
                "--device {}: no usable CUDA device ({reason}): {NO_CUDA_REMEDY}",
                self.device
            )));
        }
        let there = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        if number >= there {
            bail!(UsageError(format!(
                "--device {}: this machine has cuda:0 to cuda:{}",
                self.device,
                there - 1
            )));
        }
        Ok(Device::Cuda(number))
    }

    /// Returns the number of threads: the one requested, else `recorded`, else a rank's share of the cores.
    fn threads(&self, ranks: &Ranks, recorded: Option<u32>) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (cores / ranks.local_world_size).max(1);
        self.threads
            .map(u32::from)
            .or(recorded)
            .unwrap_or_else(|| u32::try_from(share).unwrap_or(1))
    }
}

/// Remedy if libtorch cannot use CUDA. The package has the libraries that go with those of this program.
const NO_CUDA_REMEDY: &str = "check the driver with nvidia-smi, and put libtorch_cuda.so on LD_LIBRARY_PATH, which \
     `pip install torch==2.11.0` installs in its folder torch/lib; or use --device cpu";

/// Reports whether the driver lists an NVIDIA GPU, even if libtorch cannot use it.
fn has_nvidia_gpu() -> bool {
    let listed = std::fs::read_dir("/proc/driver/nvidia/gpus");
    listed.is_ok_and(|mut gpus| gpus.next().is_some())
}

/// Returns a warning that states why the CPU is used although the machine has a GPU. Returns `None` without a GPU,
/// since users expect the CPU to be used then.
fn unused_gpu(has_gpu: bool, reason: &str) -> Option<String> {
    has_gpu.then(|| {
        format!(
            "warning: this machine has a GPU, but training runs on the CPU: {reason}; {NO_CUDA_REMEDY}"
        )
    })
}

impl MachineArgs {
    /// Divides the machine among `processes`. Each gets a GPU in turn or the CPU, and the requested threads or a share.
    pub(crate) fn shared_by(&self, processes: usize) -> Result<MachineShares> {
        // Processes share the machine's cores in the same way as the ranks of a job do.
        let alone = Ranks {
            local_world_size: processes,
            ..Ranks::solo()
        };

        let device = self.compute.device(&alone, None)?;
        let devices = match (device, self.compute.device.as_str()) {
            (Device::Cuda(_), "auto" | "cuda") => (0..tch::Cuda::device_count())
                .map(|number| format!("cuda:{number}"))
                .collect(),
            (Device::Cuda(number), _) => vec![format!("cuda:{number}")],
            _ => vec!["cpu".to_owned()],
        };

        Ok(MachineShares {
            devices,
            threads: self.compute.threads(&alone, None),
            readers: self.readers,
            prefetch_batches: self.prefetch_batches,
            no_verify: self.no_verify,
        })
    }

    /// Opens a version of a store. Files are compared with their blake3 hash when read, unless `--no-verify` was given.
    fn store(&self, path: &Path, version: Option<&VersionName>) -> Result<Store> {
        let store = Store::open(path, version)?;
        Ok(match self.no_verify {
            true => store.without_shard_checks(),
            false => store,
        })
    }

    /// Opens the rows of a store, after checking their files if `--verify` was given.
    ///
    /// # Errors
    /// [`crate::dataset::DatasetError`] if the store or its rows cannot be opened, or an error if the model is unknown.
    pub(crate) fn open(
        &self,
        store: &Path,
        version: Option<&VersionName>,
        config: &Config,
    ) -> Result<Arc<Dataset>> {
        let architecture = registry::find(&config.model.name)?;
        let store = self.store(store, version)?;
        let store = self.checked(store, config.data.feature.as_deref(), config)?;
        let needs = architecture.reads(store.feature(config.data.feature.as_deref())?);
        Ok(Dataset::open(store, &config.data, needs)?)
    }

    /// Opens the rows of a store for the model of the checkpoint in `path`, whose state is `state`. On a version that
    /// the model was not trained on, or if files may be skipped that the run read, rows are normalized as in training,
    /// and classes are matched by name.
    ///
    /// # Errors
    /// The errors of [`Self::open`], and an error if the store lacks the feature that the model was trained on.
    pub(crate) fn open_for(
        &self,
        store: &Path,
        version: Option<&VersionName>,
        state: &State,
        path: &Path,
    ) -> Result<Arc<Dataset>> {
        let config = &state.config;
        let needs = registry::find(&config.model.name)?.reads(&state.input.feature);
        let store = self.store(store, version)?;
        if store.manifest_hash() == state.manifest_hash && !config.data.skip_damaged {
            let store = self.checked(store, config.data.feature.as_deref(), config)?;
            return Ok(Dataset::open(store, &config.data, needs)?);
        }

        run::same_feature(state, &store, path)?;
        let store = self.checked(store, Some(&state.input.feature.name), config)?;
        let model = ModelSignature {
            input: &state.input,
            classes: &state.classes,
        };
        Ok(Dataset::open_for(store, &config.data, needs, model)?)
    }

    /// Compares the files of a feature with their hashes in the manifest if `--verify` was given. If all files are
    /// intact, they are not checked again when read.
    fn checked(&self, store: Store, feature: Option<&str>, config: &Config) -> Result<Store> {
        if !self.verify {
            return Ok(store);
        }

        let name = store.feature(feature)?.name.clone();
        let damaged = store.verify(&name)?;
        // Print all damaged files, not only the first.
        for error in &damaged {
            wavemill_terminal::say!("{}", shown(&error.to_string()));
        }
        match damaged.len() {
            0 => Ok(store.without_shard_checks()),
            _ if config.data.skip_damaged => Ok(store),
            files => bail!(PlainError::new(
                Kind::Damaged,
                format!(
                    "{}: restore from a copy, extract again, or skip with --skip-damaged",
                    counted(files, "damaged file")
                )
            )),
        }
    }
}

/// Runs the command line of this process and returns its exit code.
pub fn main() -> u8 {
    main_with(&[])
}

/// Runs the command line like [`main`], with architectures of another program in addition.
pub fn main_with(models: &[OwnModel]) -> u8 {
    // tch panics on exceptions of libtorch. The empty hook suppresses the backtrace; one line is printed below.
    std::panic::set_hook(Box::new(|_| {}));

    let matches = match wavemill_terminal::parse(definition(), std::env::args_os()) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    if let Err(error) = own::register(models) {
        return finish(Err(error.into()), exit::code);
    }
    // `keep_memory` must be called before the first tensor is created.
    ffi::keep_memory();

    let ended = exit::caught(|| command::run(&subcommands(), &matches, interrupt::at_once));
    interrupt::over();
    finish(ended, exit::code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_help_can_be_parsed() {
        for (page, words) in wavemill_tests::help_examples("wavemill train") {
            let parsed = definition().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{page}: {words:?}: {:?}", parsed.err());
        }
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_reported_with_the_reason() {
        let reason = "libtorch_cuda.so: file too short";
        let line = unused_gpu(true, reason).expect("a warning");
        assert!(line.contains("file too short"), "{line}");
        assert_eq!(unused_gpu(false, reason), None);
    }

    #[test]
    fn devices_and_threads_are_distributed_over_processes() {
        let devices = ["cuda:0", "cuda:1"].map(str::to_owned).to_vec();
        let shared = MachineShares {
            devices,
            threads: 3,
            readers: 2,
            prefetch_batches: 4,
            no_verify: false,
        };

        for (slot, device) in ["cuda:0", "cuda:1", "cuda:0"].into_iter().enumerate() {
            let mut command = std::process::Command::new("x");
            shared.add_args(&mut command, slot);
            let words: Vec<_> = command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            assert_eq!(words[..4], ["--device", device, "--threads", "3"]);
        }
    }

    #[test]
    fn threads_are_those_asked_for_then_the_runs_then_a_share_of_the_cores() {
        let ranks = Ranks {
            local_world_size: 1_000_000,
            ..Ranks::solo()
        };

        for (threads, recorded, want) in
            [(Some(3), Some(5), 3), (None, Some(5), 5), (None, None, 1)]
        {
            let args = ComputeArgs {
                device: "cpu".to_owned(),
                threads,
            };
            assert_eq!(args.threads(&ranks, recorded), want);
        }
    }
}
