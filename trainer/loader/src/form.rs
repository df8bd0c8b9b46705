//! The layout of a row in host memory, and the conversion of the row's bytes to values: always bands by frames. Each
//! number of a row of statistics is a band with one frame; each channel of a picture is a band, and its pixels are the
//! frames; the samples of a clip are one band, and each of them is a frame.
//!
//! Rows keep their stored type in host memory because they are copied to a GPU in this type: f16 needs half the
//! bandwidth, u8 a quarter.

use wavemill_schemas::manifest::{FeatureEntry, Scale, Stats};
use wavemill_schemas::recipe::Dtype;

use crate::frames::Excerpt;
use crate::spec::require_values;
use crate::{DatasetError, InputSpec};

/// The name of the time axis in a manifest.
const FRAME: &str = "frame";

/// The layout and number type of a feature's rows.
#[derive(Clone, Debug)]
pub struct Form {
    /// Number type of the stored values, which are little-endian.
    pub stored: Dtype,
    /// Scale that converts stored numbers to values; `None` if numbers are stored unscaled.
    pub scale: Option<Scale>,
    /// Number of bands of a row.
    pub bands: usize,
    /// Number of frames of a row in host memory: as stored or, if rows differ in length, as the model expects.
    pub host_frames: usize,
    /// Number of frames of a stored row; `None` if rows differ in length.
    pub stored_frames: Option<usize>,
    /// True if a row in host memory is ordered frames by bands instead of bands by frames.
    pub frames_first: bool,
    /// Number of frames of a row as input of the model.
    pub frames: usize,
    /// Mean and deviation of each band, if the model's rows are normalised.
    pub stats: Option<Stats>,
    /// Shape of a row as input of a model.
    pub kind: RowKind,
}

/// The shape of a row as a model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Shape `[bands, frames]`.
    Spectrogram,
    /// Shape `[columns]`: a row of statistics, each of which is a band of [`Form`].
    Columns,
    /// Shape `[samples]`: the samples of a clip, each of which is a frame of [`Form`].
    Samples,
    /// Shape `[channels, height, width]`: a picture, whose channels are the bands of [`Form`].
    Picture {
        /// Height of the picture in pixels.
        height: usize,
        /// Width of the picture in pixels.
        width: usize,
    },
}

/// The axes of a row as bands and frames, see [`Form`].
struct Axes {
    bands: usize,
    /// Number of frames; `None` if rows differ in length.
    frames: Option<usize>,
    frames_first: bool,
    kind: RowKind,
}

impl Axes {
    fn from_feature(feature: &FeatureEntry) -> Result<Self, DatasetError> {
        require_values(feature)?;

        let name = &feature.name;
        if feature.is_vector() {
            let values: Option<usize> = feature.shape.iter().copied().product();
            return Ok(Self {
                bands: values.ok_or_else(|| {
                    DatasetError::unfit("feature", format!("rows of {name} differ in shape"))
                })?,
                frames: Some(1),
                frames_first: false,
                kind: RowKind::Columns,
            });
        }
        if feature.is_picture() {
            let &[Some(bands), Some(height), Some(width)] = feature.shape.as_slice() else {
                let problem = format!(
                    "pictures of {name} differ in size: give the recipe's feature a height and a width"
                );
                return Err(DatasetError::unfit("feature", problem));
            };
            return Ok(Self {
                bands,
                frames: Some(height * width),
                frames_first: false,
                kind: RowKind::Picture { height, width },
            });
        }

        if let (true, &[samples]) = (feature.is_pcm(), feature.shape.as_slice()) {
            return Ok(Self {
                bands: 1,
                frames: samples,
                frames_first: false,
                kind: RowKind::Samples,
            });
        }

        let &[first, second] = feature.shape.as_slice() else {
            let n_axes = feature.shape.len();
            let problem = format!("{name} has {n_axes} axes, not 2");
            return Err(DatasetError::unfit("feature", problem));
        };
        let frames_first = feature.dim_names.first().is_some_and(|name| name == FRAME);
        let (bands, frames) = if frames_first {
            (second, first)
        } else {
            (first, second)
        };
        Ok(Self {
            bands: bands.ok_or_else(|| {
                let problem = format!("rows of {name} differ in their number of bands");
                DatasetError::unfit("feature", problem)
            })?,
            frames,
            frames_first,
            kind: RowKind::Spectrogram,
        })
    }
}

impl Form {
    /// Creates the form of a feature with this type and shape. `frames` and the statistics are those of the model.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] if the type is unknown, the axes are not bands and frames, or pictures differ in size.
    pub fn new(spec: &InputSpec) -> Result<Self, DatasetError> {
        let feature = &spec.feature;
        let name = &feature.name;

        let stored = Dtype::named(&feature.dtype).ok_or_else(|| {
            let problem = format!("{name} holds {}, not f16, f32, u8 or s16", feature.dtype);
            DatasetError::unfit("feature", problem)
        })?;

        let axes = Axes::from_feature(feature)?;
        let bands = axes.bands;
        let stats = spec.normalize.clone();
        if stats
            .as_ref()
            .is_some_and(|stats| stats.mean.len() != bands || stats.std.len() != bands)
        {
            let problem =
                format!("{name} has {bands} bands, but its statistics have another number");
            return Err(DatasetError::unfit("feature", problem));
        }

        Ok(Self {
            stored,
            scale: feature.scale,
            bands,
            host_frames: axes.frames.unwrap_or(spec.frames),
            stored_frames: axes.frames,
            frames_first: axes.frames_first,
            frames: match (axes.kind, axes.frames) {
                (RowKind::Columns | RowKind::Picture { .. }, Some(all)) => all,
                _ => spec.frames,
            },
            stats,
            kind: axes.kind,
        })
    }

    /// Returns the form of the same rows with `frames` frames in host memory, at least 1. Longer rows are cut, shorter
    /// rows are zero-padded.
    #[must_use]
    pub fn with_host_frames(&self, frames: usize) -> Self {
        Self {
            host_frames: frames.max(1),
            ..self.clone()
        }
    }

    /// Returns the form of the same rows without normalisation.
    #[must_use]
    pub fn without_normalisation(&self) -> Self {
        Self {
            stats: None,
            ..self.clone()
        }
    }

    /// Returns the number of bytes of a row in host memory; the maximum if it cannot be counted.
    pub const fn row_bytes(&self) -> usize {
        self.host_frames.saturating_mul(self.frame_bytes())
    }

    /// Returns the number of bytes of a frame, which has one value of every band.
    const fn frame_bytes(&self) -> usize {
        self.bands.saturating_mul(self.stored.bytes())
    }

    /// Reports whether stored rows differ in their number of frames.
    pub const fn is_ragged(&self) -> bool {
        self.stored_frames.is_none()
    }

    /// Reports whether the bytes of a row in host memory are always those of the stored row.
    pub(crate) fn is_as_stored(&self) -> bool {
        self.stored_frames == Some(self.host_frames)
    }

    /// Copies a stored row into `slot`, which must be [`Self::row_bytes`] long, and returns the number of frames
    /// copied. A longer row is cut at its end, a shorter one is padded with zero bytes.
    ///
    /// # Errors
    /// A description of the problem if the row has a wrong length.
    pub fn fill(&self, value: &[u8], slot: &mut [u8]) -> Result<usize, String> {
        self.fill_excerpt(value, Excerpt::Start, slot)
    }

    /// Copies a row like [`Self::fill`], but takes the frames `excerpt` of a longer row.
    pub(crate) fn fill_excerpt(
        &self,
        value: &[u8],
        excerpt: Excerpt,
        slot: &mut [u8],
    ) -> Result<usize, String> {
        // A frame has one value of every band, whether frames or bands are stored first.
        let frame_bytes = self.frame_bytes();
        let stored_frames = value.len() / frame_bytes;
        let fits = match self.stored_frames {
            None => value.len().is_multiple_of(frame_bytes),
            Some(frames) => value.len() == frames * frame_bytes,
        };
        if !fits {
            let wanted = self.stored_frames.unwrap_or(self.host_frames) * frame_bytes;
            return Err(format!("a row of {} bytes, not {wanted}", value.len()));
        }

        let frames = stored_frames.min(self.host_frames);
        if frames == stored_frames && frames == self.host_frames {
            slot.copy_from_slice(value);
            return Ok(frames);
        }

        // A row stored frames by bands is one contiguous range of bytes; a row stored bands by frames has one range per
        // band.
        let runs = if self.frames_first { 1 } else { self.bands };
        let run_bytes = |frames: usize| frames * frame_bytes / runs;
        let taken = run_bytes(frames);
        let first = run_bytes(excerpt.first_frame(stored_frames, frames));

        if frames < self.host_frames {
            // Memory is reused, so it may still contain a row of an earlier batch.
            slot.fill(0);
        }
        // `chunks_exact` panics for a size of 0, which a row without frames would have.
        let stored_runs = value.chunks_exact(run_bytes(stored_frames).max(1));
        let runs = slot.chunks_exact_mut(run_bytes(self.host_frames));
        for (stored, run) in stored_runs.zip(runs) {
            run[..taken].copy_from_slice(&stored[first..first + taken]);
        }
        Ok(frames)
    }
}
