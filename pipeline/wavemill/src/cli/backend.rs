//! `--backend` and `--devices`: the backend that computes features, opened before anything else is done.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use wavemill_extract::features::STRETCH_ON_DEVICE;
use wavemill_kernels::{Backend, BackendChoice, ChosenBackend, KernelError, Level};
use wavemill_schemas::number::number;
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::text::shown;
use wavemill_terminal::exit::UsageError;

/// Flags that select the backend for features.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// What computes features: cpu, cuda, or auto, which is cuda if that works; files are equal byte for byte only with the
    /// same one [default: auto]
    #[arg(long, value_name = "NAME", env = "WAVEMILL_BACKEND")]
    pub backend: Option<String>,
    /// Numbers of the GPUs to use, all of one kind [default: 0]
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        value_parser = number::<usize>(0..),
        env = "WAVEMILL_DEVICES",
        hide_short_help = true
    )]
    pub devices: Vec<usize>,
}

impl BackendArgs {
    /// Opens the backend that computes the features of `recipe`; a CPU backend uses the instruction set `level`. A note
    /// on stderr names the backend if it is not the requested one or is not obvious. The features of a recipe that
    /// stretches tracks are computed on the CPU only.
    ///
    /// # Errors
    /// [`UsageError`] for an unknown name, a missing device or CUDA library, or a recipe that no device can compute.
    pub fn open(&self, level: Level, recipe: &Recipe) -> Result<Arc<dyn Backend>> {
        let cpu_only = recipe.features.iter().find(|f| f.op.is_cpu_only());
        let name = self
            .backend
            .as_deref()
            .unwrap_or(BackendChoice::Auto.name());
        let choice: BackendChoice = name.parse().map_err(|error| refused(name, error))?;
        let is_stretched = !recipe.audio.stretch.is_empty();
        let ChosenBackend { backend, notice } = if is_stretched {
            self.open_for_stretch(choice, level)?
        } else {
            choice
                .open(&self.devices, level, cpu_only.map(|f| f.op.name()))
                .map_err(|error| match (error, cpu_only) {
                    (KernelError::CpuOnly { op }, Some(feature)) => UsageError(format!(
                        "features.{feature} has op = \"{op}\", which is computed only on the CPU: use --backend cpu, or \
                         remove the feature with --set features.{feature}=none",
                        feature = feature.name
                    )),
                    (error, _) => refused(name, error),
                })?
        };

        // On a machine without a GPU, a note about the choice of the CPU would be useless.
        let is_told = self.backend.is_some() || backend.kind() != "cpu" || has_nvidia_device();
        if let Some(notice) = notice.filter(|_| is_told) {
            wavemill_terminal::say!("note: {}", shown(&notice));
        }
        Ok(backend)
    }

    /// Opens the CPU backend for a recipe that stretches tracks. A request for a GPU is an error.
    fn open_for_stretch(&self, choice: BackendChoice, level: Level) -> Result<ChosenBackend> {
        let asked = match (choice, self.devices.first()) {
            // With `--backend cpu`, opening the CPU reports a useful error about a device number.
            (BackendChoice::Cpu, _) | (BackendChoice::Auto, None) => None,
            (BackendChoice::Auto, Some(device)) => Some(format!("--devices {device}")),
            (other, _) => Some(format!("--backend {other}")),
        };
        if let Some(flag) = asked {
            return Err(UsageError(format!("{flag}: {STRETCH_ON_DEVICE}")).into());
        }

        let cpu = BackendChoice::Cpu;
        let mut chosen = cpu
            .open(&self.devices, level, None)
            .map_err(|error| refused(cpu.name(), error))?;
        if choice == BackendChoice::Auto {
            let why = "features are computed on the CPU: audio.stretch has no GPU implementation";
            chosen.notice = Some(why.to_owned());
        }
        Ok(chosen)
    }
}

fn refused(backend: &str, error: KernelError) -> UsageError {
    match error {
        KernelError::Argument {
            key,
            value,
            allowed,
        } => {
            // The kernels' error names the key `device`, but the flag is `--devices`.
            let flag = if key == "device" { "devices" } else { key };
            UsageError(format!("--{flag} {value}: must be {allowed}"))
        }
        other => UsageError(format!("--backend {backend}: {other}")),
    }
}

/// Reports whether NVIDIA's kernel driver is present.
fn has_nvidia_device() -> bool {
    ["/dev/nvidia0", "/proc/driver/nvidia"]
        .iter()
        .any(|path| Path::new(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(audio: &str) -> Recipe {
        let text = format!(
            "name='t'\n[catalog]\ndataset='fma'\n[audio]\n{audio}\n[[features]]\nname='m'\nop='mel'\n"
        );
        Recipe::parse(&text, "test.toml", &[]).expect("a valid recipe")
    }

    fn args(backend: Option<&str>, devices: &[usize]) -> BackendArgs {
        BackendArgs {
            backend: backend.map(str::to_owned),
            devices: devices.to_vec(),
        }
    }

    fn refusal(args: &BackendArgs, recipe: &Recipe) -> String {
        let opened = args.open(Level::Scalar, recipe);
        opened.err().expect("a refusal").to_string()
    }

    #[test]
    fn stretching_is_for_the_cpu_alone() {
        let recipe = recipe("stretch=[0.85]");
        for backend in [None, Some("auto"), Some("cpu")] {
            let opened = args(backend, &[]).open(Level::Scalar, &recipe);
            let opened = opened.expect("the CPU");
            assert_eq!(opened.kind(), "cpu", "{backend:?}");
        }

        for (backend, devices, flag) in [
            (Some("cuda"), &[][..], "--backend cuda"),
            (Some("emulated"), &[], "--backend emulated"),
            (None, &[0], "--devices 0"),
        ] {
            assert_eq!(
                refusal(&args(backend, devices), &recipe),
                format!(
                    "{flag}: audio.stretch is computed only on the CPU: use --backend cpu, or --set audio.stretch=none"
                )
            );
        }
    }

    #[test]
    fn a_refusal_names_the_flag_as_it_is_typed() {
        let recipe = recipe("");
        assert_eq!(
            refusal(&args(Some("cpu"), &[0]), &recipe),
            "--devices 0: must be omitted with backend cpu"
        );

        let unknown = refusal(&args(Some("gpu"), &[]), &recipe);
        assert!(
            unknown.starts_with("--backend gpu: must be auto, cpu, cuda"),
            "{unknown}"
        );
    }

    #[test]
    fn a_feature_that_no_device_computes_is_named_with_a_remedy() {
        let text = "name = \"x\"\ncatalog.dataset = \"folders\"\n[[features]]\nname = \"mfcc\"\nop = \"mfcc\"\n\
                    [[features]]\nname = \"stats\"\nop = \"statistics\"\nsource = \"mfcc\"\n";
        let recipe = Recipe::parse(text, "x.toml", &[]).expect("a recipe");

        assert_eq!(
            refusal(&args(Some("cuda"), &[]), &recipe),
            "features.stats has op = \"statistics\", which is computed only on the CPU: use --backend cpu, or remove the \
             feature with --set features.stats=none"
        );
    }
}
