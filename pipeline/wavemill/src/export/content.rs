//! Selects the contents of an export: a feature, splits, and the files of the store that contain them.

use std::collections::BTreeMap;

use serde::Serialize;
use wavemill_kernels::FeatureArgs;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, TargetEntry};
use wavemill_schemas::recipe::{Dtype, Normalize};
use wavemill_schemas::split::{NO_SPLIT, Split};
use wavemill_sql::tensor::TensorType;

use super::error::ExportError;
use super::{Format, Job, names, sound};

/// The contents of an export: a feature and the rows of some splits.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// The exported feature.
    pub feature: &'a FeatureEntry,
    /// Type of the feature's tensors.
    pub tensor: TensorType,
    /// All targets of the exported version.
    pub targets: &'a [TargetEntry],
    /// The target whose classes are used as folder names.
    pub target: Option<&'a TargetEntry>,
    /// All files of the feature, in the manifest's order.
    files: Vec<&'a FileEntry>,
    /// Exported splits, in the manifest's order.
    pub splits: Vec<ExportedSplit>,
    /// Number of rows in each split that is not exported.
    pub left_out: BTreeMap<String, u64>,
    /// True if the feature's values are known to be between 0 and 1.
    pub is_unit_range: bool,
    /// Arguments from which the feature was computed, if the manifest's recipe contains the feature and it is computed
    /// from spectra.
    pub args: Option<FeatureArgs>,
}

/// A split in an export, and in its report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ExportedSplit {
    /// Name of the split in the store.
    #[serde(rename = "split")]
    pub stored: String,
    /// Name of the split in the export, safe in a path.
    pub name: String,
    /// Number of rows in the split's files.
    pub rows: u64,
}

impl<'a> Content<'a> {
    /// Selects the contents of the export that `job` describes.
    ///
    /// # Errors
    /// [`ExportError::name`] for an unknown name; [`ExportError::unfit`] if the format cannot represent the feature.
    pub(super) fn select(job: &Job<'a>) -> Result<Self, ExportError> {
        let feature = feature(job)?;
        let recipe = &job.manifest.recipe;
        let mut specs = recipe.features.iter();
        let spec = specs.find(|spec| spec.name == feature.name);
        let args = spec.map(|spec| spec.resolve(&recipe.features, recipe.audio.sample_rate_hz));

        let mut content = Self {
            feature,
            tensor: tensor_type(feature)?,
            targets: &job.manifest.targets,
            target: target(job)?,
            files: job.manifest.files_of(&feature.name).collect(),
            splits: Vec::new(),
            left_out: BTreeMap::new(),
            is_unit_range: spec.is_some_and(|spec| spec.normalize == Normalize::MinMax),
            args: args.and_then(Result::ok),
        };

        content.take_splits(job)?;
        content.require_fit(job.format)?;
        Ok(content)
    }

    fn take_splits(&mut self, job: &Job<'a>) -> Result<(), ExportError> {
        let mut all: Vec<ExportedSplit> = Vec::new();
        for file in &self.files {
            let stored = file.split_name();
            match all.iter_mut().find(|split| split.stored == stored) {
                Some(split) => split.rows += file.rows,
                None => all.push(ExportedSplit {
                    stored: stored.to_owned(),
                    name: split_name(stored, job.format),
                    rows: file.rows,
                }),
            }
        }

        let names: Vec<&str> = all.iter().map(|split| split.stored.as_str()).collect();
        let there = join_or_none(&names);
        let mut asked = job.splits.iter();
        if let Some(name) = asked.find(|name| !names.contains(&name.as_str())) {
            return Err(ExportError::name(&format!("--split {name}"), &there));
        }

        for split in all {
            let is_wanted = if job.splits.is_empty() {
                split.stored != NO_SPLIT
            } else {
                job.splits.contains(&split.stored)
            };
            if is_wanted {
                self.splits.push(split);
            } else {
                self.left_out.insert(split.stored, split.rows);
            }
        }

        if self.rows() == 0 {
            let there = format!("no rows in the requested splits ({there})");
            let option = format!("--feature {}", self.feature.name);
            return Err(ExportError::name(&option, &there));
        }
        let mut names: Vec<&str> = self
            .splits
            .iter()
            .map(|split| split.name.as_str())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let problem = format!(
                "two splits would be named {}: select one with --split",
                twice[0]
            );
            return Err(ExportError::unfit(&job.format.name(), problem));
        }
        Ok(())
    }

    /// Checks that `format` can represent the rows of the feature.
    fn require_fit(&self, format: Format) -> Result<(), ExportError> {
        let shape = self.feature.tensor_type();
        let problem = match format {
            Format::Png if self.picture_axes().is_none() => format!(
                "{shape} is not a picture: it needs two dimensions, or three, one of them with 3 channels"
            ),
            Format::Wav if self.feature.is_pcm() => return Ok(()),
            Format::Wav => match sound::invertible(self) {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            },
            Format::Npy
            | Format::Png
            | Format::Huggingface
            | Format::Webdataset
            | Format::FmaFeatures => return Ok(()),
        };

        Err(ExportError::unfit(&format.name(), problem))
    }

    /// Reports whether the rows of the feature differ in shape.
    pub(super) fn is_ragged(&self) -> bool {
        self.tensor.row_bytes().is_none()
    }

    /// Returns the files of an exported split, in the manifest's order.
    pub(super) fn files(&self, split: &ExportedSplit) -> impl Iterator<Item = &'a FileEntry> {
        let files = self.files.iter().copied();
        files.filter(|file| file.split_name() == split.stored)
    }

    /// Returns the number of rows in all exported splits.
    pub(super) fn rows(&self) -> u64 {
        self.splits.iter().map(|split| split.rows).sum()
    }

    /// Returns the notes for users that apply to every format.
    pub(super) fn notes(&self) -> Vec<String> {
        let scaled = self.feature.scale.map(|scale| {
            format!(
                "values are stored as {}: value = stored * {} + {}",
                self.feature.dtype, scale.factor, scale.offset
            )
        });
        scaled.into_iter().collect()
    }

    /// Maps the tensor's dimensions to those of a picture; `None` if the tensor cannot be shown as a picture.
    pub(super) fn picture_axes(&self) -> Option<PictureAxes> {
        let shape = &self.feature.shape;
        let channel = match shape.len() {
            2 => None,
            3 => Some(self.channel_axis()?),
            _ => return None,
        };
        let mut axes = (0..shape.len()).filter(|axis| Some(*axis) != channel);
        let first = axes.next()?;
        let second = axes.next()?;

        let is_time_first = self.is_time(first);
        let (height, width) = if is_time_first {
            (second, first)
        } else {
            (first, second)
        };
        // A tensor without a time axis is already a picture, and is not flipped.
        let flipped = is_time_first || self.is_time(second);
        Some(PictureAxes {
            channel,
            height,
            width,
            flipped,
        })
    }

    fn is_time(&self, axis: usize) -> bool {
        let name = self.feature.dim_names.get(axis);
        name.is_some_and(|name| name == TIME)
    }

    fn channel_axis(&self) -> Option<usize> {
        let names = &self.feature.dim_names;
        let named = names.iter().position(|name| name == "channel");
        match named {
            Some(axis) => Some(axis).filter(|axis| self.is_channels(*axis)),
            None => [0, 2].into_iter().find(|axis| self.is_channels(*axis)),
        }
    }

    fn is_channels(&self, axis: usize) -> bool {
        self.feature.shape.get(axis) == Some(&Some(3))
    }
}

/// Name of the time dimension of a tensor in recipes.
const TIME: &str = "frame";

/// Maps the dimensions of a tensor to the dimensions of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PictureAxes {
    /// Dimension of red, green and blue; `None` for a grey picture.
    pub channel: Option<usize>,
    /// Dimension along the picture's height, from the top, or from the bottom if `flipped`.
    pub height: usize,
    /// Dimension along the picture's width, from the left.
    pub width: usize,
    /// True if the first value is the lowest frequency, which is shown at the bottom.
    pub flipped: bool,
}

fn feature<'a>(job: &Job<'a>) -> Result<&'a FeatureEntry, ExportError> {
    let features = &job.manifest.features;
    let names: Vec<&str> = features.iter().map(|entry| entry.name.as_str()).collect();
    let found = match job.feature {
        Some(name) => features.iter().find(|entry| entry.name == name),
        None if features.len() == 1 => features.first(),
        None => None,
    };
    found.ok_or_else(|| {
        let option = match job.feature {
            Some(name) => format!("--feature {name}"),
            None => "--feature is required".to_owned(),
        };
        ExportError::name(&option, &join_or_none(&names))
    })
}

fn target<'a>(job: &Job<'a>) -> Result<Option<&'a TargetEntry>, ExportError> {
    let targets = &job.manifest.targets;
    let Some(name) = job.target else {
        return Ok(targets.first());
    };
    if matches!(
        job.format,
        Format::Npy | Format::Huggingface | Format::FmaFeatures
    ) {
        let problem = "--target applies only to png, wav and webdataset: this format has no choice of targets";
        return Err(ExportError::unfit(&job.format.name(), problem));
    }

    let names: Vec<&str> = targets.iter().map(|entry| entry.name.as_str()).collect();
    let found = targets.iter().find(|entry| entry.name == name);
    let option = format!("--target {name}");
    found
        .map(Some)
        .ok_or_else(|| ExportError::name(&option, &join_or_none(&names)))
}

fn join_or_none(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

fn tensor_type(feature: &FeatureEntry) -> Result<TensorType, ExportError> {
    let dtype = Dtype::named(&feature.dtype).ok_or_else(|| {
        ExportError::rows(format!(
            "its manifest gives {} the unknown type {}",
            feature.name, feature.dtype
        ))
    })?;
    Ok(TensorType {
        dtype,
        scale: feature.scale,
        shape: feature.shape.clone(),
        dim_names: feature.dim_names.clone(),
    })
}

/// Returns the name that a split has in an export.
fn split_name(stored: &str, format: Format) -> String {
    match format {
        // The conventional name of the training split in `datasets`.
        Format::Huggingface if stored == Split::Training.name() => "train".to_owned(),
        // `datasets` allows letters, digits and _, and dots between them.
        Format::Huggingface => stored.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        _ => names::safe(stored, "-"),
    }
}
