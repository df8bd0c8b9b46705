//! Selects the contents of an export: a feature, sides of the split, and the files of the store that contain them.

use std::collections::BTreeMap;

use serde_json::json;
use wavemill_kernels::FeatureArgs;
use wavemill_schemas::manifest::{FeatureEntry, FileEntry, TargetEntry};
use wavemill_schemas::recipe::{FeatureSpec, Normalize};
use wavemill_schemas::sides::NO_SIDE;
use wavemill_sql::tensor::TensorType;

use super::error::ExportError;
use super::{Format, Job, names, sound};

/// The side of the split that other tools call `train`.
const TRAINING: &str = "training";

/// The contents of an export: a feature and the rows of sides of the split.
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
    /// Exported sides of the split, in the manifest's order.
    pub sides: Vec<Side<'a>>,
    /// Number of rows on each side that is not exported.
    pub left_out: BTreeMap<String, u64>,
    /// True if the feature's values are known to be between 0 and 1.
    pub is_unit_range: bool,
    /// Arguments from which the feature was computed, if the manifest's recipe contains the feature and it is computed
    /// from spectra.
    pub args: Option<FeatureArgs>,
}

/// One side of the split in an export.
#[derive(Debug)]
pub(super) struct Side<'a> {
    /// Name of the side in the store.
    pub split: &'a str,
    /// Name of the side in the export, safe in a path.
    pub name: String,
    /// Files of the side, in the manifest's order.
    pub files: Vec<&'a FileEntry>,
    /// Number of rows in the side's files.
    pub rows: u64,
}

impl<'a> Side<'a> {
    /// Creates a side of the split without files.
    const fn new(split: &'a str) -> Self {
        Self {
            split,
            name: String::new(),
            files: Vec::new(),
            rows: 0,
        }
    }
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
            sides: Vec::new(),
            left_out: BTreeMap::new(),
            is_unit_range: spec.is_some_and(has_unit_range),
            args: args.and_then(Result::ok),
        };

        content.take_sides(job)?;
        content.require_fit(job.format)?;
        Ok(content)
    }

    fn take_sides(&mut self, job: &Job<'a>) -> Result<(), ExportError> {
        let mut all: Vec<Side<'a>> = Vec::new();
        for file in job.manifest.files_of(&self.feature.name) {
            let split = file.split.as_deref().unwrap_or(NO_SIDE);
            let at = all.iter().position(|side| side.split == split);
            let at = at.unwrap_or_else(|| {
                all.push(Side::new(split));
                all.len() - 1
            });
            let side = &mut all[at];
            side.files.push(file);
            side.rows += file.rows;
        }

        let there: Vec<&str> = all.iter().map(|side| side.split).collect();
        if let Some(name) = job
            .splits
            .iter()
            .find(|name| !there.contains(&name.as_str()))
        {
            let option = format!("--split {name}");
            return Err(ExportError::name(&option, &join_or_none(&there)));
        }

        for mut side in all {
            let is_wanted = if job.splits.is_empty() {
                side.split != NO_SIDE
            } else {
                job.splits.iter().any(|name| name == side.split)
            };
            if is_wanted {
                side.name = side_name(side.split, job.format);
                self.sides.push(side);
            } else {
                self.left_out.insert(side.split.to_owned(), side.rows);
            }
        }

        if self.rows() == 0 {
            let there = format!("no rows on the requested sides ({})", join_or_none(&there));
            let option = format!("--feature {}", self.feature.name);
            return Err(ExportError::name(&option, &there));
        }
        let mut names: Vec<&str> = self.sides.iter().map(|side| side.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let problem = format!(
                "two sides would be named {}: select one with --split",
                twice[0]
            );
            return Err(ExportError::unfit(job.format.name(), problem));
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

        Err(ExportError::unfit(format.name(), problem))
    }

    /// Reports whether the rows of the feature differ in shape.
    pub(super) fn is_ragged(&self) -> bool {
        self.tensor.row_bytes().is_none()
    }

    /// Returns the number of rows on all exported sides of the split.
    pub(super) fn rows(&self) -> u64 {
        self.sides.iter().map(|side| side.rows).sum()
    }

    /// Returns the notes for users that apply to every format.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(scale) = self.feature.scale {
            notes.push(format!(
                "values are stored as {}: value = stored * {} + {}",
                self.feature.dtype, scale.factor, scale.offset
            ));
        }
        notes
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
        return Err(ExportError::unfit(job.format.name(), problem));
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
    let dtype = serde_json::from_value(json!(feature.dtype));
    let dtype = dtype.map_err(|_| {
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

/// Reports whether a recipe guarantees values from 0 to 1.
fn has_unit_range(spec: &FeatureSpec) -> bool {
    spec.normalize == Normalize::MinMax
}

/// Returns the name that a side of the split has in an export.
fn side_name(split: &str, format: Format) -> String {
    match format {
        // The conventional name of the training split in `datasets`.
        Format::Huggingface if split == TRAINING => "train".to_owned(),
        // `datasets` allows letters, digits and _, and dots between them.
        Format::Huggingface => split.replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
        _ => names::safe(split, names::Slash::Dash),
    }
}
