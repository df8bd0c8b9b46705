//! A model with its optimizer, loss and gradients.
//!
//! This module handles batches and the exchange between ranks. Epochs, files and messages to the user are in
//! [`crate::run`].

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Tensor, nn};
use wavemill_schemas::config::{self, ClassWeights, Config, PosWeight};
use wavemill_schemas::rng::mix;

use crate::TrainError;
use crate::augment::Augmenter;
use crate::dataset::{self, Batch, Dataset, RowKind, Split};
use crate::ffi;
use crate::forward::ForwardPass;
use crate::loss::{Criterion, TargetLoss, balanced_weights, positive_weights};
use crate::models::init::{self, Origin};
use crate::models::{HEAD, Inputs, ModelError, Net, is_head, registry};
use crate::optim::{Optimizer, WeightAverage};
use crate::profile::Profile;
use crate::strategy::{self, Buckets, Collective};

mod damage;
mod output;
mod parts;
mod step;
mod weights;

pub(crate) use output::ModelOutput;
pub(crate) use step::{StepContext, StepSummary};

/// A model with its optimiser and gradient buckets.
#[derive(Debug)]
pub(crate) struct Learner {
    config: Config,
    data: Arc<Dataset>,
    ranks: &'static dyn Collective,
    forward: ForwardPass,
    /// Contains every weight and buffer of the model.
    store: nn::VarStore,
    net: Net,
    optimizer: Optimizer,
    average: Option<WeightAverage>,
    /// Temperature of each target, by which logits are divided to get probabilities; 1 if empty.
    temperatures: Vec<f64>,
    buckets: Buckets,
    criterion: Criterion,
    augmenter: Option<Augmenter>,
    profile: Option<Arc<Profile>>,
}

impl Learner {
    /// Checks that the architecture fits the stored rows and the number of ranks.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the model cannot use the rows, [`TrainError::Other`] if a forward pass may have too few
    /// rows.
    pub(crate) fn check(
        config: &Config,
        data: &Dataset,
        world_size: usize,
    ) -> Result<(), TrainError> {
        registry::find(&config.model.name)?.check(&config.model, &dataset::dims(data))?;
        parts::check(config, data, world_size)
    }

    /// Creates a model with its initial weights, which depend only on the seed and are equal on all ranks.
    ///
    /// # Errors
    /// [`TrainError`] if the architecture does not fit the rows, or if libtorch fails.
    pub(crate) fn new(
        config: &Config,
        data: &Arc<Dataset>,
        ranks: &'static dyn Collective,
        device: Device,
    ) -> Result<Self, TrainError> {
        let forward = ForwardPass::new(&config.train, device)?;

        // Set the seed just before the weights are drawn, so that they do not depend on earlier random numbers.
        tch::manual_seed(mix("weights", &[config.seed]) as i64);
        let mut store = nn::VarStore::new(device);
        store.set_kind(forward.kind);
        // A single rank has all rows of a batch, so libtorch's own batch norm is sufficient.
        let over = (config.model.sync_batch_norm && ranks.world_size() > 1)
            .then(|| strategy::sum_group(ranks));
        let net = Net::build(&config.model, &dataset::dims(data), &store.root(), over)?;

        // Sort variables by name: gradients are exchanged in this order, which must be the same on all ranks.
        let trainable: Vec<_> = sorted(store.variables())
            .into_iter()
            .filter(|(_, v)| v.requires_grad())
            .collect();
        let names = trainable.iter().map(|(name, _)| name.as_str());
        check_groups(&config.optimizer, names, net.layers())?;
        let average = config.train.ema_decay;
        let average = average.map(|decay| WeightAverage::new(decay, &trainable));
        let buckets = Buckets::new(&trainable);
        // Augmentation applies to spectrograms only. For metadata columns and pictures, the run prints a warning.
        let augment = &config.augment;
        let is_augmented = augment.enabled
            && data.needs().spectrogram()
            && data.form().kind == RowKind::Spectrogram;

        Ok(Self {
            config: config.clone(),
            data: Arc::clone(data),
            ranks,
            forward,
            optimizer: Optimizer::new(&config.optimizer, trainable).with_layers(net.layers()),
            average,
            temperatures: Vec::new(),
            buckets,
            criterion: criterion(config, data, device),
            augmenter: is_augmented
                .then(|| Augmenter::new(augment, config.seed, forward.kind, device)),
            net,
            store,
            profile: None,
        })
    }

    /// Measures the parts of the next steps.
    pub(crate) fn measure(&mut self, profile: Option<Arc<Profile>>) {
        self.profile = profile;
    }

    /// Loads the weights in `file` for the whole model except the heads. Every rank reads the file.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if the file cannot be read, or if its weights do not fit the model.
    pub(crate) fn start_from(&self, file: &Path) -> Result<Origin, TrainError> {
        let n_heads = dataset::dims(&self.data).heads.len();
        check_heads(&self.config.model, &self.store, n_heads)?;
        let origin = init::load(file, &self.store)?;
        self.check_weights_of(file)?;
        self.average.iter().for_each(WeightAverage::reset);
        Ok(origin)
    }

    /// Returns the device on which the model computes.
    pub(crate) fn device(&self) -> Device {
        self.forward.device
    }

    pub(crate) const fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    #[cfg(test)]
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Returns all weights and buffers of the model, sorted by name.
    pub(crate) fn variables(&self) -> Vec<(String, Tensor)> {
        sorted(self.store.variables())
    }

    /// Exchanges the trained weights and their moving average in the model, if the run has one: before and after an
    /// evaluation.
    pub(crate) fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.swap();
        }
    }

    /// Divides logits by the temperature of each target from now on. Losses are still those of the logits.
    pub(crate) fn set_temperatures(&mut self, temperatures: Vec<f64>) {
        self.temperatures = temperatures;
    }

    /// Reports whether batch norm uses the statistics of each batch in training. A frozen backbone uses its running
    /// statistics instead.
    pub(crate) fn trains_batch_norm(&self) -> bool {
        !self.config.model.freeze && !self.buffers().is_empty()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.variables()
            .into_iter()
            .filter(|(name, _)| name.ends_with("running_mean") || name.ends_with("running_var"))
            .collect()
    }

    fn inputs(&self, batch: &Batch) -> Result<Inputs, TrainError> {
        let ForwardPass { device, kind, .. } = self.forward;
        Ok(dataset::inputs(batch, device, kind)?)
    }

    /// Returns the labels of each target in host memory.
    fn labels(&self, batch: &Batch) -> Result<Vec<Tensor>, TrainError> {
        let targets = 0..self.data.targets().len();
        targets
            .map(|target| Ok(dataset::labels(batch, target)?))
            .collect()
    }

    /// Copies tensors to the model's device.
    fn sent(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>, TrainError> {
        let mut sent = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            sent.push(ffi::send(tensor, self.forward.device)?);
        }
        Ok(sent)
    }
}

/// Returns an error if a layer of the backbone has the name of the heads: `model.init` would leave it out.
fn check_heads(
    model: &config::Model,
    store: &nn::VarStore,
    n_heads: usize,
) -> Result<(), ModelError> {
    let n_variables = sorted(store.variables())
        .iter()
        .filter(|(name, _)| is_head(name))
        .count();

    // Each head has a weight and a bias.
    if n_variables == 2 * n_heads {
        return Ok(());
    }
    Err(ModelError::unfit(format!(
        "the model {} has a layer {HEAD}, which is the name of its heads: rename the layer",
        model.name
    )))
}

/// Checks that each group of `optimizer.groups` contains a trainable variable, and that the order of the layers is
/// known if their rates decay.
fn check_groups<'a>(
    optimizer: &config::Optimizer,
    names: impl Iterator<Item = &'a str> + Clone,
    layers: &[String],
) -> Result<(), ModelError> {
    let mut parts = names.clone().filter_map(|name| name.split('.').next());
    if optimizer.layer_decay.is_some()
        && parts.any(|part| !layers.iter().any(|layer| layer == part))
    {
        let message = "optimizer.layer_decay: the order of this model's layers is unknown";
        return Err(ModelError::unfit(message));
    }

    for group in &optimizer.groups {
        if !names.clone().any(|name| group.contains(name)) {
            let names: Vec<&str> = names.collect();
            return Err(ModelError::unfit(format!(
                "optimizer.groups: no trainable variable matches {:?}; there are {}",
                group.names,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

fn criterion(config: &Config, data: &Dataset, device: Device) -> Criterion {
    let mut losses = Vec::new();
    for (index, target) in data.targets().iter().enumerate() {
        let is_multi = target.is_multi();
        let weighs_classes = !is_multi && config.loss.class_weights == ClassWeights::Balanced;
        let weighs_positives = is_multi && config.loss.pos_weight == PosWeight::Balanced;
        losses.push(TargetLoss {
            class_weights: weighs_classes
                .then(|| balanced_weights(&data.class_counts(index), device)),
            pos_weights: weighs_positives.then(|| {
                positive_weights(&data.class_counts(index), n_labelled(data, index), device)
            }),
            multi_label: is_multi,
        });
    }
    Criterion::new(&config.loss, losses)
}

/// Counts the training rows that have a label of a target.
fn n_labelled(data: &Dataset, target: usize) -> u64 {
    let target = &data.targets()[target];
    let rows = data.rows_of(Split::Training).into_iter();
    let labelled = rows.filter(|&row| target.labels(data.rows(), row).next().is_some());
    labelled.count() as u64
}

/// Returns the variables sorted by name, with their names.
pub(crate) fn sorted(
    variables: impl IntoIterator<Item = (String, Tensor)>,
) -> Vec<(String, Tensor)> {
    let mut variables: Vec<(String, Tensor)> = variables.into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables
}

#[cfg(test)]
mod tests;
