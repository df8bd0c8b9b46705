//! The manifest: a small JSON file that describes a version of a store. It is committed last and never overwritten.
//! This module also defines the receipts from which manifests are made.
//!
//! Nothing in a manifest varies from run to run: it contains no time, host or absolute path. Facts about the inputs on
//! one machine, such as modification times, are kept in receipts next to the manifest.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::split::NO_SPLIT;
use crate::{FORMAT_VERSION, canonical, recipe::Recipe, reject::Reject};

/// Key of a manifest's checksum: BLAKE3 of its canonical JSON without this key, lower-case hex.
pub const CHECKSUM_KEY: &str = "manifest_blake3";

/// Returns `json`, which must be one line, followed by a line with its BLAKE3 hash as a JSON string. [`from_sealed`]
/// reads this format.
pub fn sealed(json: &str) -> String {
    format!("{json}\n\"{}\"\n", blake3::hash(json.as_bytes()).to_hex())
}

/// Reads JSON that was written by [`sealed`]. Also accepts a single line without a checksum, as earlier versions wrote
/// it.
///
/// # Errors
/// [`ManifestError::Damaged`] or [`ManifestError::Json`] if the file is damaged.
pub fn from_sealed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    let text = utf8(bytes)?;
    let json = match text.split_once('\n') {
        Some((json, _)) if sealed(json) == text => json,
        Some(_) => {
            return Err(ManifestError::checksum(
                "the checksum in the second line does not match",
            ));
        }
        None => text,
    };
    Ok(serde_json::from_str(json)?)
}

/// The error type for reading manifests and receipts.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum ManifestError {
    /// The file was written by an earlier or a later version of wavemill; the file is not damaged.
    #[error(
        "format version {found} is not supported: this version of wavemill reads {FORMAT_VERSION}"
    )]
    OtherFormat { found: u64 },
    /// The file contains a name that could lead out of the store, or that is not valid in a store.
    #[error("it contains the name {name:?}, which {problem}")]
    Name { name: String, problem: &'static str },
    /// The file is not the expected JSON.
    #[error("not the JSON of a wavemill store")]
    Json(#[from] serde_json::Error),
    /// The content of the file differs from the committed content.
    #[error("{0}")]
    Damaged(String),
}

impl ManifestError {
    /// Creates the error for a wrong checksum.
    fn checksum(problem: &str) -> Self {
        let message = format!("{problem}: the content differs from what was committed");
        Self::Damaged(message)
    }

    /// Creates the error for a number that cannot be right.
    fn number(problem: &str) -> Self {
        Self::Damaged(format!("{problem}: no program has written it"))
    }

    /// Creates the error for a part that does not match its hash in the identity.
    fn identity(part: &str) -> Self {
        Self::Damaged(format!(
            "the {part} does not match its hash in the identity"
        ))
    }
}

/// Returns what a store needs whose format is `found`, for the error [`ManifestError::OtherFormat`].
pub fn remedy_of_format(found: u64) -> &'static str {
    if found > u64::from(FORMAT_VERSION) {
        "needs a newer wavemill"
    } else {
        "has to be rebuilt in a new folder by `wavemill extract`"
    }
}

/// A manifest: the description of one complete state of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that wrote the manifest.
    pub format_version: u32,
    /// Id of the plan, 16 hex digits; also the name of the data folder.
    pub plan_id: String,
    /// Hashes from which `plan_id` is derived. Comparing them shows which parts of two plans differ.
    pub identity: Identity,
    /// Software and platform that computed the values.
    pub engine: Engine,
    /// Recipe with every `--set` applied.
    pub recipe: Recipe,
    /// Targets with their classes, in the recipe's order.
    pub targets: Vec<TargetEntry>,
    /// Features, in the recipe's order.
    pub features: Vec<FeatureEntry>,
    /// Files of the version, in the order in which the loader reads them.
    pub files: Vec<FileEntry>,
    /// Number of shards of each split, including shards without clips. Later versions of the store keep this number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, u64>,
    /// Number of inputs by outcome.
    pub counts: Counts,
    /// Statistics of the training split by feature name; absent without training rows.
    pub stats: BTreeMap<String, Stats>,
}

impl Manifest {
    /// Reads a manifest and checks everything that can be checked without other files: format version, checksum,
    /// identity and paths.
    ///
    /// # Errors
    /// [`ManifestError::OtherFormat`] for another format, regardless of the other content; every other
    /// [`ManifestError`] means that the manifest is damaged.
    pub fn from_json(bytes: impl AsRef<[u8]>) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format_version: u64,
        }

        let text = utf8(bytes.as_ref())?;
        let mut value: Value = serde_json::from_str(text)?;

        // Check the format version first: another format may have other keys and another checksum.
        let found = Head::deserialize(&value)?.format_version;
        if found != u64::from(FORMAT_VERSION) {
            // With the right format version, the checksum of another format does not match.
            if let Some(version) = value.get_mut("format_version") {
                *version = FORMAT_VERSION.into();
            }
            if take_checksum(&mut value).is_ok() {
                return Err(ManifestError::checksum(
                    "format_version does not match manifest_blake3",
                ));
            }
            return Err(ManifestError::OtherFormat { found });
        }

        // The checksum does not cover the notation of numbers and white space.
        if canonical::to_json(&value)? + "\n" != text {
            return Err(ManifestError::checksum("not written in the canonical form"));
        }
        // Verify the checksum before the fields are parsed: it also covers keys that this version does not know.
        take_checksum(&mut value)?;
        check_identity(&value)?;
        check_sums(&value)?;

        let manifest = Self::deserialize(value)?;
        // The plan id is also a folder name, so it must be valid as one.
        check_name(&manifest.plan_id)?;
        manifest.files.iter().try_for_each(FileEntry::check)?;
        manifest.check_shapes()?;
        Ok(manifest)
    }

    /// Checks that readers can multiply the manifest's numbers, and find the counts of all classes.
    fn check_shapes(&self) -> Result<(), ManifestError> {
        let rows = |name| self.files_of(name).map(|file| file.rows).sum();
        let mut features = self.features.iter();
        if !features.all(|feature| feature.has_room_for(rows(&feature.name))) {
            let problem = "a feature has a shape, a rate or a hop that no row can have";
            return Err(ManifestError::number(problem));
        }
        for target in &self.targets {
            let n_classes = target.classes.len();
            if target
                .counts
                .values()
                .any(|counts| counts.len() != n_classes)
            {
                let problem = "a target has other classes than counts";
                return Err(ManifestError::number(problem));
            }
        }
        Ok(())
    }

    /// Returns the canonical JSON with its checksum and a final newline.
    ///
    /// # Errors
    /// None in practice: every map has text keys.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        let mut value = serde_json::to_value(self)?;
        // The checksum is computed over the manifest without the checksum key.
        let checksum = canonical::id(&value)?;
        value[CHECKSUM_KEY] = Value::String(checksum);
        Ok(canonical::to_json(&value)? + "\n")
    }

    /// Iterates over the files of one table or feature, in order.
    pub fn files_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FileEntry> {
        self.files.iter().filter(move |f| f.name() == name)
    }
}

/// Checks that the sum of all sizes and counts, and so any sum of some of them, is below 2^53: all readers of JSON keep
/// such integers.
fn check_sums(manifest: &Value) -> Result<(), ManifestError> {
    fn sum(value: &Value) -> u64 {
        let add = |total: u64, value| total.saturating_add(sum(value));
        match value {
            Value::Array(values) => values.iter().fold(0, add),
            Value::Object(values) => values.values().fold(0, add),
            number => number.as_u64().unwrap_or(0),
        }
    }

    let parts = ["files", "counts", "targets", "shards", "stats"];
    let sums = parts.map(|part| sum(&manifest[part]) >> 53);
    if sums != [0; 5] {
        let problem = "its sizes and counts exceed those of any store";
        return Err(ManifestError::number(problem));
    }
    Ok(())
}

/// Removes the checksum from a manifest and compares it with the checksum of the remaining content.
fn take_checksum(manifest: &mut Value) -> Result<(), ManifestError> {
    let claimed = manifest
        .as_object_mut()
        .and_then(|keys| keys.remove(CHECKSUM_KEY));
    let problem = match claimed {
        Some(claimed) if claimed == canonical::id(manifest)? => return Ok(()),
        Some(_) => "manifest_blake3 does not match",
        None => "manifest_blake3 is missing",
    };
    Err(ManifestError::checksum(problem))
}

/// Compares recipe and engine with their hashes in the identity, and the plan id with the hash of the identity.
///
/// Hashes the JSON as it was read from the file: a parsed recipe would also contain keys that were added since.
fn check_identity(manifest: &Value) -> Result<(), ManifestError> {
    let identity = &manifest["identity"];
    for part in ["recipe", "engine"] {
        if identity[part] != canonical::id(&manifest[part])? {
            return Err(ManifestError::identity(part));
        }
    }

    // The plan id covers all hashes of the identity, including hashes that cannot be recomputed here.
    let plan_id = canonical::id(identity)?;
    if manifest["plan_id"] != plan_id[..PLAN_ID_DIGITS] {
        return Err(ManifestError::identity("plan_id"));
    }
    Ok(())
}

/// Number of hex digits of a `plan_id`.
pub const PLAN_ID_DIGITS: usize = 16;

/// Hashes of the parts of a plan: BLAKE3, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Hash of the canonical recipe with every `--set` applied.
    pub recipe: String,
    /// Hash of all columns and values of the cleaned rows.
    pub rows: String,
    /// Hash of (`clip_key`, bytes) of every planned input.
    pub inputs: String,
    /// Hash of the engine's canonical JSON.
    pub engine: String,
    /// Value of `--limit`, the maximum number of clips.
    pub limit: Option<u64>,
    /// Hash of the `--sides` file. The field is absent without `--sides`, so that plans from before this option keep
    /// their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sides: Option<String>,
    /// Hash of the hashes of the models' files; absent without a feature of a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<String>,
    /// Hash of the parent version's manifest, if there is a parent.
    pub parent: Option<String>,
}

impl Identity {
    /// Returns the plan id: the first 16 hex digits of the hash of all parts.
    pub fn plan_id(&self) -> Result<String, serde_json::Error> {
        let mut id = canonical::id(self)?;
        id.truncate(PLAN_ID_DIGITS);
        Ok(id)
    }
}

/// Software and platform that computed the values. Equal engines produce equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Value of [`crate::NUMERICS_REVISION`] when the values were computed.
    pub numerics: u32,
    /// Backend that computed the features: `cpu` or `cuda`.
    pub backend: String,
    /// Instruction set: `x86-64-v3` or `scalar`; for CUDA the architecture and the libraries.
    pub level: String,
    /// Name and version of the decoder.
    pub decoder: String,
    /// Processor and operating system, such as `x86_64-linux`.
    pub target: String,
    /// C library and its version; the decoder's tables use its mathematical functions.
    pub libc: String,
    /// Parquet writer and compressor, with their versions.
    pub writer: String,
    /// Library that runs models, with its version and the instructions that it uses. `None` without a feature of a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<String>,
}

impl Engine {
    /// Reports whether features of equal `feature_id` have equal bytes. The library of models matters only if both
    /// engines ran some.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let models = self.models.as_ref().zip(other.models.as_ref());
        models.is_none_or(|(ours, theirs)| ours == theirs)
            && Self {
                models: None,
                ..self.clone()
            } == Self {
                models: None,
                ..other.clone()
            }
    }
}

/// A target (a column to predict) and its classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetEntry {
    /// Name of the target's column in the feature rows.
    pub name: String,
    /// Names of the target's classes, in id order.
    pub classes: Vec<String>,
    /// Number of written clips per class, by split.
    pub counts: BTreeMap<String, Vec<u64>>,
}

impl TargetEntry {
    /// Returns the name of the column with the names of the classes, which queries compute from the ids.
    pub fn name_column(&self) -> String {
        format!("{}_name", self.name)
    }
}

/// Name of a tensor's time axis.
const FRAME: &str = "frame";

/// A feature and the format in which it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureEntry {
    /// Name of the feature, of its column and of its folder.
    pub name: String,
    /// BLAKE3 hash of everything that determines the feature's stored values for given file bytes.
    pub feature_id: String,
    /// Type of the stored values: `f16`, `f32`, `u8` or `s16`.
    pub dtype: String,
    /// Conversion of stored integers to values; `None` for floats.
    pub scale: Option<Scale>,
    /// Dimensions of a row's tensor in row-major order; `None` for a dimension that varies between rows.
    pub shape: Vec<Option<usize>>,
    /// Names of the tensor's dimensions, such as `["mel", "frame"]`.
    pub dim_names: Vec<String>,
    /// Sample rate of the audio; `None` if the feature is computed from picture files or contains files.
    pub sample_rate_hz: Option<u32>,
    /// Samples between consecutive frames (hop length); `None` if the feature has no frames.
    pub hop_length: Option<usize>,
    /// Name of the preset with the conventions of the feature; empty if the feature contains samples or files.
    pub preset: String,
    /// Names of the values in row-major order, if each has one. Statistics are named as in FMA's `features.csv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

impl FeatureEntry {
    /// Reports whether a row is a vector of numbers that have nothing in common, such as statistics of bands or an
    /// embedding.
    pub fn is_vector(&self) -> bool {
        let names: Vec<&str> = self.dim_names.iter().map(String::as_str).collect();
        matches!(
            names[..],
            ["statistic", ..] | ["value"] | ["layer", "value"]
        )
    }

    /// Reports whether the rows of the feature are of audio files, not of picture files.
    pub fn is_of_audio(&self) -> bool {
        // Pictures of spectrograms have a sample rate, and files of audio have other dimensions.
        self.sample_rate_hz.is_some() || !self.is_picture()
    }

    /// Reports whether the feature consists of the clips' samples.
    pub fn is_pcm(&self) -> bool {
        self.dim_names == ["sample"]
    }

    /// Reports whether the feature consists of the bytes of the clips' files.
    pub fn is_original(&self) -> bool {
        self.dim_names == ["byte"]
    }

    /// Reports whether the feature consists of pictures with the dimensions channel, row and column.
    pub fn is_picture(&self) -> bool {
        self.dim_names == ["channel", "row", "column"]
    }

    /// Reports whether a row has bands and frames, such as a spectrogram.
    pub fn has_frames(&self) -> bool {
        self.dim_names.len() == 2 && self.dim_names.iter().any(|name| name == FRAME)
    }

    /// Returns the name of the axis of `n_frames` frames, and where the axis ends: in seconds, if frames have a duration.
    pub fn frame_axis(&self, n_frames: usize) -> (&'static str, f64) {
        match (self.hop_length, self.sample_rate_hz) {
            (Some(hop_length), Some(rate_hz)) if n_frames > 0 && rate_hz > 0 => {
                let span_s = (n_frames * hop_length) as f64 / f64::from(rate_hz);
                ("time (s)", span_s)
            }
            // Features of pictures have no time axis.
            _ => (FRAME, n_frames as f64),
        }
    }

    /// Returns the name of the band axis.
    pub fn band_name(&self) -> &str {
        let mut names = self.dim_names.iter().filter(|name| *name != FRAME);
        match names.next().map_or("", String::as_str) {
            "statistic" => "statistic",
            _ if self.is_vector() => "value",
            "mel" => "mel band",
            "chroma" => "pitch class",
            "centroid" => "coordinate",
            axis => axis,
        }
    }

    /// Reports whether `rows` rows of this shape can exist: Arrow states the bytes of a row in an `i32`.
    fn has_room_for(&self, rows: u64) -> bool {
        let has_steps = (self.hop_length).is_none_or(|hop| (1..i32::MAX as usize).contains(&hop));
        // A dimension of 0 must not hide the others.
        let mut dims = self.shape.iter().flatten().map(|&n| (n as u64).max(1));
        let values = dims.try_fold(1_u64, u64::checked_mul);
        let values = values.filter(|&values| values <= i32::MAX as u64);
        has_steps
            && self.sample_rate_hz != Some(0)
            && values.is_some_and(|values| rows.checked_mul(values * 8).is_some())
    }

    /// Returns the feature's type and shape for display: `f16[128,1292]`, with `?` for a dimension that varies.
    pub fn tensor_type(&self) -> String {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|d| d.map_or("?".to_owned(), |n| n.to_string()))
            .collect();
        format!("{}[{}]", self.dtype, dims.join(","))
    }
}

/// Conversion of stored integers to values: value = stored · `factor` + `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Difference between the values of consecutive integers.
    pub factor: f64,
    /// Value of a stored 0.
    pub offset: f64,
}

/// A Parquet file of the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name of the metadata table in the file; absent if the file contains a feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Name of the feature in the file; absent if the file contains a metadata table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// Split of the file's rows; only for feature files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Path of the file relative to the store, separated by `/`.
    pub path: String,
    /// Number of rows in the file.
    pub rows: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole file, lower-case hex.
    pub blake3: String,
    /// Number of rows of each row group of the file.
    pub row_groups: Vec<u64>,
    /// Page index and footer, the bytes after the pages; `None` in stores of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<FooterEntry>,
}

/// Page index and footer of a Parquet file. Page checksums do not cover them, so this hash protects readers that read
/// only some pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterEntry {
    /// Offset in the file, directly after the last page.
    pub offset: u64,
    /// BLAKE3 of all bytes from the offset to the end of the file, lower-case hex.
    pub blake3: String,
}

impl FileEntry {
    /// Returns the name of the table or feature in the file.
    pub fn name(&self) -> &str {
        self.table
            .as_deref()
            .or(self.feature.as_deref())
            .unwrap_or_default()
    }

    /// Returns the name of the file's table for readers, such as `tracks`, `raw_x` or `features_log_mel`.
    pub fn table_name(&self) -> String {
        match &self.feature {
            Some(feature) => format!("features_{feature}"),
            None => self.name().to_owned(),
        }
    }

    /// Returns the name of the split of the file's rows, as readers show it.
    pub fn split_name(&self) -> &str {
        self.split.as_deref().unwrap_or(NO_SPLIT)
    }

    /// Checks that the entry names one table or feature, and that the path stays within the store. Symbolic links have
    /// to be checked when the file is opened.
    fn check(&self) -> Result<(), ManifestError> {
        if self.table.is_some() == self.feature.is_some() {
            let name = self.path.clone();
            return Err(ManifestError::Name {
                name,
                problem: "is not the file of one table or feature",
            });
        }

        let offset = self.footer.as_ref().map(|footer| footer.offset);
        if offset.is_some_and(|offset| offset > self.bytes) {
            let problem = "a file's footer is behind its end";
            return Err(ManifestError::number(problem));
        }

        // The name of the table or feature becomes a part of paths in later plans.
        check_name(self.name())?;
        if self.path.starts_with('/') {
            return Err(ManifestError::Name {
                name: self.path.clone(),
                problem: "is an absolute path",
            });
        }

        // Report the whole path, because the invalid component is hard to find without it.
        match self.path.split('/').try_for_each(check_name) {
            Err(ManifestError::Name { problem, .. }) => Err(ManifestError::Name {
                name: self.path.clone(),
                problem,
            }),
            other => other,
        }
    }
}

/// Checks that `name` is a valid path component that does not refer to another folder.
fn check_name(name: &str) -> Result<(), ManifestError> {
    let problem = match name {
        ".." => "leads out of its folder",
        // Reject `a//b` and `a/./b`, which would be further names of the same file.
        "" | "." => "has an empty or `.` component",
        _ if name.contains(['/', '\0']) => "is not a valid file name",
        _ => return Ok(()),
    };
    Err(ManifestError::Name {
        name: name.to_owned(),
        problem,
    })
}

/// Numbers of inputs by outcome. Every input is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Number of records in the metadata: kept + dropped + rejected.
    pub rows_read: u64,
    /// Number of rows left after the last cleaning step.
    pub rows_kept: u64,
    /// Number of rows dropped by each cleaning step, in order.
    pub rows_dropped: Vec<Dropped>,
    /// Number of rows rejected as `bad_row` or `bad_encoding`.
    pub rows_rejected: u64,
    /// Number of kept rows within `--limit`: written + rejected.
    pub clips_planned: u64,
    /// Number of clips with rows in the shards.
    pub clips_written: u64,
    /// Number of planned clips without rows in the shards.
    pub clips_rejected: u64,
    /// Number of rows (segments) in the shards of each feature.
    pub feature_rows: u64,
    /// Number of rejected rows and clips, by reason.
    pub rejects: BTreeMap<String, u64>,
}

/// Number of rows dropped by one cleaning step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Name of the cleaning step in the recipe.
    pub step: String,
    /// Number of rows that the step dropped.
    pub rows: u64,
}

/// Mean and standard deviation per band, computed over the stored values of the training split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Mean of the stored values of each band.
    pub mean: Vec<f64>,
    /// Population standard deviation of each band.
    pub std: Vec<f64>,
    /// Number of values per band that were summed up.
    pub values: u64,
}

/// Sums over the values of one row group, per band. The sums of all row groups are added in file order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Σ x of each band.
    pub sum: Vec<f64>,
    /// Σ x² of each band.
    pub sum_squares: Vec<f64>,
    /// Number of values per band in the row group.
    pub values: u64,
}

/// Proof that the file of one feature in one shard is complete. A receipt is written after the file, and read when a
/// run is resumed and by later versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// BLAKE3 of everything that determines the bytes of the file, except for `rejects` of the stage `features`.
    pub key: String,
    /// Entry of the finished file, as in the manifest.
    pub file: FileEntry,
    /// Clips of the shard that were rejected, in any feature of the plan.
    pub rejects: Vec<Reject>,
    /// BLAKE3 of all features of the plan. Rejects of the stage `features` are only valid for the same set of features.
    pub features: String,
    /// True if this plan computed every row of the file, and did not copy or link any row from another plan.
    pub is_computed: bool,
    /// Number of clips with rows in the file.
    pub clips_written: u64,
    /// Sums over the values of each row group; only for the training split.
    pub partials: Vec<Partial>,
    /// Number of clips per class in the file, for each target.
    pub class_counts: Vec<Vec<u64>>,
}

impl Receipt {
    /// Reads a [`sealed`] receipt and checks its path and its sums.
    ///
    /// # Errors
    /// The errors of [`from_sealed`], and [`ManifestError::Name`] for an invalid path.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let receipt: Self = from_sealed(bytes)?;
        receipt.file.check()?;

        let has_all_sums = |partial: &Partial| partial.sum.len() == partial.sum_squares.len();
        if !receipt.partials.iter().all(has_all_sums) {
            return Err(ManifestError::checksum(
                "the numbers of sums and of sums of squares differ",
            ));
        }
        Ok(receipt)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, ManifestError> {
    std::str::from_utf8(bytes).map_err(|error| {
        ManifestError::Damaged(format!("not UTF-8 from byte {} on", error.valid_up_to()))
    })
}

#[cfg(test)]
mod tests;
