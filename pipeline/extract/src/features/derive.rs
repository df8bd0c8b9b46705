//! Computes statistics from rows that an earlier version stores, so that their clips need not be decoded again.
//!
//! This gives the same bits as from audio if the source's values are stored as they are: in f32, without normalization,
//! frames last. MFCC and linear spectra are by default. Other types round the values, and statistics are defined on the
//! values before rounding.

use wavemill_kernels::{Derived, KernelError, Packing, STATISTICS, StatisticsPlan, pack_into};
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::{Recipe, TensorArgs};
use wavemill_store::tensors::Tensor;

use super::{FeaturePlan, does_not_fit, feature_id};
use crate::error::ExtractError;

/// Returns the `feature_id` of a feature that stores exactly the values from which `args` computes statistics; `None`
/// if `args` is not a statistics feature.
pub(super) fn source_id(
    recipe: &Recipe,
    args: &TensorArgs,
) -> Result<Option<String>, ExtractError> {
    match args.spectral() {
        Some(args) if args.derived == Some(Derived::Statistics) => {
            let source = TensorArgs::Spectral(Box::new(args.source_values()));
            Ok(Some(feature_id(recipe, &source)?))
        }
        _ => Ok(None),
    }
}

/// Buffers of one worker for computing statistics from stored rows.
pub(crate) struct StoredSources {
    statistics: StatisticsPlan,
    /// Values of the stored row.
    values: Vec<f32>,
    /// Statistics of the row.
    derived: Vec<f32>,
}

impl StoredSources {
    /// Creates empty buffers.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support the plan's level.
    pub(crate) fn new(plan: &FeaturePlan) -> Result<Self, KernelError> {
        Ok(Self {
            statistics: StatisticsPlan::for_level(plan.level)?,
            values: Vec::new(),
            derived: Vec::new(),
        })
    }

    /// Replaces each of a row's `tensors` that is the source of a feature of `plan` by the feature's statistics.
    /// `columns` are the entries of the tensors.
    ///
    /// # Errors
    /// An error that names the clip and the feature, for a statistic that is not finite.
    pub(crate) fn derive(
        &mut self,
        plan: &FeaturePlan,
        columns: &[FeatureEntry],
        clip_key: &str,
        tensors: &mut [Tensor],
    ) -> Result<(), ExtractError> {
        let wanted = plan.entries.iter().zip(columns);
        for (tensor, (entry, column)) in tensors.iter_mut().zip(wanted) {
            if entry.feature_id == column.feature_id {
                continue;
            }
            *tensor = self
                .statistics_of(tensor)
                .map_err(|source| does_not_fit(clip_key, &entry.name, source))?;
        }
        Ok(())
    }

    /// Frees the buffers, which grow with the longest row, if they exceed `bytes`.
    pub(crate) fn forget_scratch_above(&mut self, bytes: usize) {
        if self.values.capacity() * size_of::<f32>() > bytes {
            self.values = Vec::new();
            self.statistics.forget_scratch();
        }
    }

    fn statistics_of(&mut self, source: &Tensor) -> Result<Tensor, KernelError> {
        let (numbers, _) = source.bytes.as_chunks();
        let numbers = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes));
        self.values.clear();
        self.values.extend(numbers);
        // Frames are the last axis, see `FeatureArgs::source_values`.
        let n_frames = source.shape.last().copied().unwrap_or(0);
        self.statistics
            .run(&self.values, n_frames, &mut self.derived);

        let n_bands = self.derived.len() / STATISTICS.len();
        let mut bytes = Vec::with_capacity(size_of_val(self.derived.as_slice()));
        pack_into(&self.derived, Packing::F32, &mut bytes)?;
        Ok(Tensor {
            bytes,
            shape: vec![STATISTICS.len(), n_bands],
        })
    }
}

impl FeaturePlan {
    /// True if some of `columns`, one per feature, are not the features themselves but their sources.
    pub(crate) fn derives_from(&self, columns: &[FeatureEntry]) -> bool {
        let mut each = self.entries.iter().zip(columns);
        each.any(|(entry, column)| entry.feature_id != column.feature_id)
    }

    /// Returns the bytes of the stored tensor of each statistics feature's source, for a row of `n_samples` samples.
    pub(super) fn sources_bytes(&self, n_samples: usize) -> impl Iterator<Item = u64> {
        let spectral = self.args.iter().filter_map(TensorArgs::spectral);
        spectral
            .filter(|args| args.derived == Some(Derived::Statistics))
            .map(move |args| args.source_values().row_bytes(n_samples) as u64)
    }

    /// Returns, for each feature, the entry of `stored` from whose rows it can be made: its own, or else that of the
    /// values of which it consists of statistics.
    pub(crate) fn stored_in<'e>(
        &self,
        stored: &'e [FeatureEntry],
    ) -> Vec<Option<&'e FeatureEntry>> {
        let find = |id: &String| stored.iter().find(|entry| entry.feature_id == *id);
        let each = self.entries.iter().zip(&self.source_ids);
        each.map(|(entry, source)| {
            find(&entry.feature_id).or_else(|| source.as_ref().and_then(find))
        })
        .collect()
    }
}
