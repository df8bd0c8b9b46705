//! Recipes: TOML files that determine the content of a store.
//!
//! Each section of the file is a type of this module. Absent keys are replaced by their defaults, so that equal recipes
//! have equal canonical JSON ([`crate::canonical`]). [`Recipe::load`] is strict: an unknown key, a wrong type or an
//! impossible value is an error with key, line and allowed values. The options of features and their presets are
//! defined in the crate `wavemill-options`.

mod edit;
mod feature_rules;
mod limits;
mod parse;
mod place;
mod shipped;
mod validate;
mod warnings;

#[cfg(test)]
mod tests;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use limits::FILE_BYTES_MAX;
pub use parse::Source;
pub use place::Place;
pub use shipped::SHIPPED;
pub use validate::is_plain_name;
pub use wavemill_options::{
    CropBox, DECODED_PIXELS_MAX, DECODED_SIDE_MAX, DbRefSpec, DbSpec, Dtype, Fault, FeatureSpec,
    ImageArgs, ImageFilter, ModelSizes, Normalize, OnnxArgs, Op, Pooling, Preset, STANDARDIZE_EPS,
    SoundArgs, StretchArgs, TensorArgs,
};

use wavemill_options::exact;

use crate::named_enum;

/// Name of the step that drops rows whose clip has no file.
pub const AUDIO_STEP: &str = "audio";

/// A recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe, as shown by `recipe list`.
    pub name: String,
    /// Purpose of the recipe, in one line.
    #[serde(default)]
    pub description: String,
    /// Data set of the recipe and selection of its rows.
    pub catalog: CatalogSpec,
    /// Columns to predict.
    #[serde(default)]
    pub targets: Vec<TargetSpec>,
    /// Assignment of clips to training, validation and test.
    #[serde(default)]
    pub split: SplitSpec,
    /// Decoding of audio files to PCM.
    #[serde(default)]
    pub audio: AudioSpec,
    /// Limits for decoding picture files.
    #[serde(default, skip_serializing_if = "ImageSpec::is_default")]
    pub image: ImageSpec,
    /// Features computed from PCM or pictures.
    pub features: Vec<FeatureSpec>,
    /// Layout of the stored files, and their compression.
    #[serde(default)]
    pub shards: ShardSpec,
}

impl Recipe {
    /// Returns the features that a store contains, in the order of the recipe.
    pub fn stored_features(&self) -> impl Iterator<Item = &FeatureSpec> {
        self.features.iter().filter(|feature| feature.is_stored())
    }

    /// Returns the maximum size of a clip's file in bytes: the limit of `[image]` for a data set of pictures, otherwise
    /// that of `[audio]`.
    pub fn file_bytes_max(&self) -> u64 {
        let given = if self.catalog.dataset.is_of_pictures() {
            self.image.max_file_bytes
        } else {
            self.audio.max_file_bytes
        };
        given.unwrap_or(FILE_BYTES_MAX)
    }
}

/// Kind of data set from which rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dataset {
    /// FMA's `tracks.csv` with its three header lines.
    Fma,
    /// Audio files in one folder per genre.
    Folders,
    /// Pictures (PNG, JPEG) in one folder per genre.
    Images,
    /// Any CSV or Parquet file with a `clip_key` column, which may be computed by a cleaning step.
    Table,
}

impl Dataset {
    /// Reports whether the files are in one folder per genre. Without a list of files, nothing else is known about
    /// them.
    pub const fn is_of_folders(self) -> bool {
        matches!(self, Self::Folders | Self::Images)
    }

    /// Reports whether the clips are pictures, which have no audio columns.
    pub const fn is_of_pictures(self) -> bool {
        matches!(self, Self::Images)
    }
}

/// FMA's nested subsets: small ⊂ medium ⊂ large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// Subset of 8,000 clips of 8 balanced genres.
    Small,
    /// Subset of 25,000 clips of 16 genres.
    Medium,
    /// All 106,574 clips.
    Large,
}

/// `[catalog]`: data set and selection of its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogSpec {
    /// `fma`, `folders` (one folder per genre), `images` (pictures, one folder per genre) or `table` (a file with a
    /// column `clip_key`).
    pub dataset: Dataset,
    /// Only for `fma`: `small` ⊂ `medium` ⊂ `large`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Subset>,
    /// True: rows without a file are dropped and counted. False: they are rejects (`missing_file`).
    #[serde(default = "yes")]
    pub require_audio: bool,
    /// Cleaning steps in order. Dropped rows are counted for each.
    #[serde(default)]
    pub clean: Vec<CleanStep>,
    /// Form of the text file of `--metadata`, if it has more than a header and records.
    ///
    /// The usual form is not serialized, so that recipes without this section keep their identities.
    #[serde(default, skip_serializing_if = "crate::config::is_default")]
    pub csv: CsvSpec,
}

/// `[catalog.csv]`: form of a text file with a table, if it is not just a header and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CsvSpec {
    /// Number of lines before the header, whose first name may follow a `#`.
    pub skip_lines: u32,
    /// True if spaces and tabs around a field are not part of it.
    pub trim: bool,
    /// True if records may have more fields than the header: the last column is a list of its own field and all further
    /// ones, without empty ones.
    pub ragged: bool,
}

/// `[[catalog.clean]]`: a cleaning step with either `where` or `sql`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanStep {
    /// Name in counts and in `tracks_all.dropped_by`; not `subset` or `audio`.
    pub step: String,
    /// Condition in SQL; rows for which it is true stay.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
    /// Query that reads `input` (the rows so far) and the other tables of the data set; its result is the next `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
}

impl Recipe {
    /// Describes why a cleaning step, or the search for audio, drops rows: by what the rows lack if the step only requires
    /// the label of a target, or else by the step's name.
    pub fn reason_of_drop(&self, step: &str) -> String {
        if step == AUDIO_STEP {
            return "without audio".to_owned();
        }
        let clean = self.catalog.clean.iter().find(|clean| clean.step == step);
        let predicate = clean.and_then(|clean| clean.predicate.as_deref());
        let column = predicate.and_then(|predicate| predicate.strip_suffix(" IS NOT NULL"));
        let mut targets = self.targets.iter();
        match targets.find(|target| column == Some(&target.column)) {
            Some(target) => format!("without a {}", target.name),
            None => format!("by step {step}"),
        }
    }
}

/// `[[targets]]`: a column to predict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Column with the class ids in the feature rows.
    pub name: String,
    /// Column of the cleaned rows with the label: a text, an integer, or null (unlabelled).
    pub column: String,
    /// Class names in the order of their ids. Default: the sorted labels of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

named_enum! {
    /// Rule that assigns rows to the split folders.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum SplitRule {
        /// The official split of the data set.
        Official = "official",
        /// Stratified by class, in hash order. Leaky, with a warning: tracks of one artist are in several splits.
        Stratified = "stratified",
        /// Tracks of one artist are in the same split.
        #[default]
        Artist = "artist",
        /// The split of each track is its value in a column.
        Column = "column",
        /// Segments of one track are in several splits. Leaky, with a warning.
        Segment = "segment",
        /// As `Segment`, and stretched copies may be in other splits than the original segment. Leaky, with a warning.
        SegmentStretched = "segment_stretched",
    }
}

impl SplitRule {
    /// Reports whether the rule assigns each row to a split, so that a clip can have rows in several splits.
    pub const fn is_by_segment(self) -> bool {
        matches!(self, Self::Segment | Self::SegmentStretched)
    }

    /// Describes how the rule leaks test data into training; `None` for rules that do not leak.
    pub const fn leak(self) -> Option<&'static str> {
        match self {
            Self::Stratified => Some("tracks of one artist or album fall into several splits"),
            Self::Segment => Some("segments of one track fall into several splits"),
            Self::SegmentStretched => {
                Some("segments of one track and their stretched copies fall into several splits")
            }
            Self::Official | Self::Artist | Self::Column => None,
        }
    }
}

/// `[split]`: assignment of rows to training, validation and test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSpec {
    /// `artist`, `official`, `column`, `stratified`, `segment` (needs `audio.segment_s`, and `audio.segments_max` or
    /// `audio.duration_s`; excludes `audio.stretch`) or `segment_stretched` (needs `audio.stretch` too).
    pub rule: SplitRule,
    /// Shares of training, validation and test; their sum is 1.
    #[serde(deserialize_with = "exact::array")]
    pub fractions: [f64; 3],
    /// Seed of splits, shards, the order in shards and `--limit`.
    pub seed: u64,
    /// Column that contains the splits, for the rule `column`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Tracks that are in one split, for the rules `artist` and `stratified`: `true`: with equal audio; `"near"`: also
    /// with the same recording in another encoding or cut.
    pub group_duplicates: GroupDuplicates,
}

impl Default for SplitSpec {
    fn default() -> Self {
        Self {
            rule: SplitRule::default(),
            fractions: [0.8, 0.1, 0.1],
            seed: 42,
            column: None,
            group_duplicates: GroupDuplicates::None,
        }
    }
}

/// The copies of a recording that are assigned to the same split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupDuplicates {
    /// `false`: clips are assigned one by one.
    #[default]
    None,
    /// `true`: clips with equal `audio_blake3`.
    Equal,
    /// `"near"`: also clips with similar fingerprints, in another encoding, loudness or cut.
    Near,
}

/// Name of [`GroupDuplicates::Near`] in recipes.
const NEAR: &str = "near";

impl Serialize for GroupDuplicates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_bool(false),
            Self::Equal => serializer.serialize_bool(true),
            Self::Near => serializer.serialize_str(NEAR),
        }
    }
}

impl<'de> Deserialize<'de> for GroupDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GroupDuplicatesVisitor)
    }
}

struct GroupDuplicatesVisitor;

impl Visitor<'_> for GroupDuplicatesVisitor {
    type Value = GroupDuplicates;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("true, false or \"near\"")
    }

    fn visit_bool<E: Error>(self, equal: bool) -> Result<GroupDuplicates, E> {
        Ok(match equal {
            true => GroupDuplicates::Equal,
            false => GroupDuplicates::None,
        })
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<GroupDuplicates, E> {
        match name {
            NEAR => Ok(GroupDuplicates::Near),
            _ => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }
}

/// `[audio]`: decoding and segmentation of audio files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AudioSpec {
    /// Rate of the mono samples, in Hz; 8000 to 48000.
    pub sample_rate_hz: u32,
    /// Seconds to which clips are cut or zero-padded, 0.001 to 10800. Default: the length of the clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Clips with fewer decoded seconds are rejected (`too_short`).
    pub min_duration_s: f64,
    /// Clips with more decoded seconds are rejected (`too_large`), unless `duration_s` cuts them; at most 10800.
    /// Default: `10800.0`.
    ///
    /// The default is not serialized, so that recipes without this key keep their identities.
    #[serde(skip_serializing_if = "AudioSpec::is_default_max_duration")]
    pub max_duration_s: f64,
    /// Larger files (in a zip: unpacked) are rejected (`too_large`). Default: 536870912, the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Length of segments in seconds, one row each; from 0.001, at most 100,000 per clip. Default: one segment per
    /// clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_s: Option<f64>,
    /// Seconds between the starts of segments. Default: `segment_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_hop_s: Option<f64>,
    /// Maximum number of segments per clip. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments_max: Option<u32>,
    /// Seconds from which a shorter last segment is zero-padded instead of dropped. Default: it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_min_s: Option<f64>,
    /// Factors of stretched copies of training clips: at most 8, from 0.25 to 4, not 1; above 1 is faster.
    ///
    /// Sorted in ascending order. They do not affect unstretched rows, so they are not part of a `feature_id`.
    #[serde(deserialize_with = "ascending", skip_serializing_if = "Vec::is_empty")]
    pub stretch: Vec<f64>,
    /// Decoder options.
    pub decode: DecodeSpec,
}

/// `[image]`: limits for data sets of pictures. Absent keys are not serialized, so that recipes without this section
/// keep their identities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Larger files are rejected (`too_large`). Default: 536870912, the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Pictures of more pixels are rejected (`too_large`). Default: 67108864, the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
}

impl ImageSpec {
    /// Reports whether no option is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the maximum number of pixels of a picture.
    pub fn pixels_max(&self) -> u64 {
        self.max_pixels.unwrap_or(DECODED_PIXELS_MAX)
    }
}

/// `[audio.decode]`: decoder options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSpec {
    /// `exact`, or `band`: decodes only the frequencies of an MP3 that remain after resampling; faster, with slightly
    /// different values.
    #[serde(default)]
    pub path: DecodePath,
}

/// Method of decoding files to PCM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodePath {
    /// Decodes at the source rate, then mixes down to mono, then resamples.
    #[default]
    Exact,
    /// As `Exact`, except for MP3 at twice the target rate or more: computes only the frequencies that the target rate
    /// can represent. Up to 0.9 of the target Nyquist frequency, the result is equal except for rounding.
    Band,
}

impl AudioSpec {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands a reference over"
    )]
    fn is_default_max_duration(seconds: &f64) -> bool {
        *seconds == limits::CLIP_S_MAX
    }

    /// Returns the maximum number of seconds of a clip that become rows: the smaller of `duration_s` and
    /// `max_duration_s`.
    pub fn longest_s(&self) -> f64 {
        self.duration_s
            .unwrap_or(f64::INFINITY)
            .min(self.max_duration_s)
    }

    /// Returns the ratio of the longest stretched copy to its clip; 1 if no copy is longer than the clip.
    pub fn longest_stretch(&self) -> f64 {
        let slowest = self.stretch.iter().copied().fold(1.0, f64::min);
        1.0 / slowest
    }
}

impl Default for AudioSpec {
    fn default() -> Self {
        Self {
            sample_rate_hz: 22_050,
            duration_s: None,
            min_duration_s: 1.0,
            max_duration_s: limits::CLIP_S_MAX,
            max_file_bytes: None,
            segment_s: None,
            segment_hop_s: None,
            segments_max: None,
            segment_min_s: None,
            stretch: Vec::new(),
            decode: DecodeSpec::default(),
        }
    }
}

/// `[shards]`: layout of the stored files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardSpec {
    /// Maximum mean number of clips per shard; up to 1048576.
    pub clips: usize,
    /// Maximum number of rows per row group, which is held in memory; up to 1048576.
    pub row_group_rows: usize,
    /// Compression of the Parquet pages.
    pub compression: Compression,
    /// Form of a tensor: `binary` (one value per row, the fastest to read) or `list` (Parquet lists).
    pub layout: Layout,
}

impl Default for ShardSpec {
    fn default() -> Self {
        Self {
            clips: 512,
            row_group_rows: 64,
            compression: Compression::default(),
            layout: Layout::default(),
        }
    }
}

/// Page compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Compression {
    #[default]
    Zstd,
    Lz4,
    None,
}

/// Column layout of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One binary value per row: the fastest layout for every reader.
    #[default]
    Binary,
    /// Parquet lists: 6–70 times slower to read.
    List,
}

const fn yes() -> bool {
    true
}

/// Deserializes a list of numbers and sorts it in ascending order.
fn ascending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let mut numbers = Vec::<f64>::deserialize(deserializer)?;
    numbers.sort_by(f64::total_cmp);
    Ok(numbers)
}
