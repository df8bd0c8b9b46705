//! Architectures of other programs, which use this crate as a library.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use tch::nn::{ModuleT, Path};
use tch::{Tensor, no_grad};
use wavemill_loader::Needs;
use wavemill_schemas::config;
use wavemill_schemas::text::panic_message;

use super::layers::VarScope;
use super::registry::{Architecture, TABLE};
use super::walk::Walk;
use super::{Backbone, BuiltBackbone, Dims, Inputs, ModelError};
use crate::ffi;

/// An architecture of another program: a function from the dimensions of a row to a module.
///
/// The module maps spectrograms `[n, bands, frames]`, or pictures `[n, channels, height, width]`, to one vector per
/// row, `[n, width]`; a linear head for each target follows. Everything else, such as resuming and evaluating a run,
/// works as with the architectures of wavemill, except for `model.dropout`, `model.filters`, `model.freeze`,
/// `model.hidden`, `model.sync_batch_norm` and `optimizer.layer_decay`.
#[derive(Clone, Copy, Debug)]
pub struct OwnModel {
    /// Name of the architecture, as in `model.name`.
    pub name: &'static str,
    /// One-line description of the architecture.
    pub about: &'static str,
    /// Creates the module's variables under a path.
    pub build: fn(&Path<'_>, &Dims) -> Box<dyn ModuleT>,
}

static OWN: OnceLock<Vec<Architecture>> = OnceLock::new();

/// Returns the architectures of wavemill, followed by those of [`register`].
pub(crate) fn all() -> impl Iterator<Item = &'static Architecture> {
    TABLE.iter().chain(OWN.get().into_iter().flatten())
}

/// Adds architectures for the rest of the process.
///
/// # Errors
/// [`ModelError::Unfit`] if a name is already taken, or if this was called before.
pub(crate) fn register(models: &[OwnModel]) -> Result<(), ModelError> {
    for (place, model) in models.iter().enumerate() {
        let mut names = TABLE.iter().map(|architecture| architecture.name);
        let is_repeated = models[..place].iter().any(|other| other.name == model.name);
        if is_repeated || names.any(|name| name == model.name) {
            let message = format!("the name {} of an own model is already taken", model.name);
            return Err(ModelError::unfit(message));
        }
    }
    let architectures = models.iter().map(|&model| architecture(model)).collect();
    let added = OWN.set(architectures);
    added.map_err(|_| ModelError::unfit("own models can be added only once"))
}

fn architecture(model: OwnModel) -> Architecture {
    let source = "the program of this model";
    let build =
        move |_: &Architecture, scope: &VarScope<'_>, dims: &Dims, config: &config::Model| {
            if config.dropout.is_some() || config.freeze || config.sync_batch_norm {
                let message =
                    "an own model has no model.dropout, model.freeze and model.sync_batch_norm";
                return Err(ModelError::unfit(message));
            }
            OwnBackbone::build(model, &scope.path, dims)
        };

    Architecture {
        name: model.name,
        about: model.about,
        origin: source,
        text: source,
        repository: source,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [128, 431, 10],
        stages: &[],
        other_stages: &[],
        least: |_| [1, 1],
        // Architectures live as long as the process.
        build: Box::leak(Box::new(build)),
    }
}

#[derive(Debug)]
struct OwnBackbone {
    name: &'static str,
    module: Box<dyn ModuleT>,
}

impl OwnBackbone {
    fn build(model: OwnModel, path: &Path<'_>, dims: &Dims) -> BuiltBackbone {
        let backbone = Self {
            name: model.name,
            module: caught(model.name, || (model.build)(path, dims))?,
        };

        let inputs = Inputs::zeros(dims)?.spectrogram;
        let inputs = ffi::send(&inputs.f_to_kind(path.kind())?, path.device())?;
        let shape = no_grad(|| backbone.vectors(&inputs, false))?.size();
        match shape[..] {
            [1, width] => Ok((Box::new(backbone), width)),
            _ => {
                let message = format!(
                    "{} returns {shape:?} for one row, not [1, width]",
                    model.name
                );
                Err(ModelError::unfit(message))
            }
        }
    }

    fn vectors(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        caught(self.name, || self.module.forward_t(x, train))
    }
}

impl Backbone for OwnBackbone {
    fn embed(&self, inputs: &Inputs, train: bool, _walk: &mut Walk) -> Result<Tensor, ModelError> {
        self.vectors(&inputs.spectrogram, train)
    }
}

/// Calls a function of an own model, in which modules of tch panic on errors of libtorch.
fn caught<T>(name: &str, call: impl FnOnce() -> T) -> Result<T, ModelError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let message = panic_message(&*panic).unwrap_or("panic");
        ModelError::unfit(format!("the model {name} failed: {message}"))
    })
}
