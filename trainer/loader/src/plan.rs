//! The plan of an epoch: which rows are read, in which order, and how.

use wavemill_schemas::rng;

use crate::form::{Form, RowKind};
use crate::frames::{Excerpt, RowFrames};
use crate::{Dataset, DatasetError, Split};

/// The rows that are read in an epoch, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderPlan {
    /// The split whose rows are read.
    pub split: Split,
    /// True if rows are shuffled over windows of `data.shuffle_window` row groups; otherwise they are in manifest
    /// order.
    pub shuffle: bool,
    /// The seed of the shuffled order and of mix-up partners.
    pub seed: u64,
    /// The index of the epoch, starting at 0.
    pub epoch: u64,
    /// Number of rows in a global batch.
    pub batch_size: usize,
    /// True if the last batch is left out if it is smaller.
    pub drop_last: bool,
    /// The frames of each row that a batch contains.
    pub frames: RowFrames,
    /// Number of buckets of rows of similar length, from which batches are formed; 1 mixes rows of all lengths.
    pub buckets: usize,
    /// True if rows have mix-up partners. Partners that belong to other ranks are read, too.
    pub mixup: bool,
    /// The rank of this process.
    pub rank: usize,
    /// The number of ranks.
    pub world_size: usize,
    /// The index of the first global batch to read.
    pub first_batch: u64,
    /// The distance between the global batches to read, at least 1: several processes can share the batches of a rank.
    pub stride: u64,
    /// Number of reader threads.
    pub readers: usize,
    /// Maximum number of batches that are read ahead of time; at least one per reader thread.
    pub prefetch_batches: usize,
    /// True if host memory is page-locked, for a CUDA device.
    pub pinned: bool,
}

impl Default for LoaderPlan {
    /// Default: all training rows in manifest order, in batches of 16 for one rank, with one reader thread, two batches
    /// ahead.
    fn default() -> Self {
        Self {
            split: Split::Training,
            shuffle: false,
            seed: 0,
            epoch: 0,
            batch_size: 16,
            drop_last: false,
            frames: RowFrames::Fixed,
            buckets: 1,
            mixup: false,
            rank: 0,
            world_size: 1,
            first_batch: 0,
            stride: 1,
            readers: 1,
            prefetch_batches: 2,
            pinned: false,
        }
    }
}

impl LoaderPlan {
    /// Returns the frames that are taken of a row.
    pub(crate) fn excerpt(&self, row_key: u64) -> Excerpt {
        match self.frames {
            RowFrames::Fixed | RowFrames::Longest => Excerpt::Start,
            RowFrames::Crop(_) => {
                let parts = [self.seed, self.epoch, row_key];
                Excerpt::Random(rng::mix("crop-frames", &parts))
            }
        }
    }

    /// Checks that rows of `dataset` can be cropped and bucketed as planned, as [`Loader::start`](crate::Loader::start)
    /// does.
    ///
    /// # Errors
    /// [`DatasetError::Unfit`] for a crop of rows without frames, of no frames, or of more frames than a row can have,
    /// and for buckets of rows that all have one length.
    pub fn check<M>(&self, dataset: &Dataset<M>) -> Result<(), DatasetError> {
        let form = &dataset.form;
        let name = &dataset.spec.feature.name;

        if let RowFrames::Crop(frames) = self.frames {
            let has_frames = matches!(form.kind, RowKind::Spectrogram | RowKind::Samples);
            let problem = match form.stored_frames {
                _ if !has_frames => Some(format!("rows of {name} have no frames")),
                _ if frames == 0 => Some("0: must be at least 1".to_owned()),
                Some(stored) if frames > stored => {
                    Some(format!("{frames}: rows of {name} have {stored} frames"))
                }
                // Ragged rows state their length in 32 bits, so no row is longer.
                None if u32::try_from(frames).is_err() => Some(format!("{frames}: too many")),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(DatasetError::unfit("crop_frames", problem));
            }
        }

        if self.buckets > 1 && !form.is_ragged() {
            let problem = format!("rows of {name} all have the same length");
            return Err(DatasetError::unfit("buckets", problem));
        }
        Ok(())
    }

    /// Returns the form of the rows `global`, which are a global batch, in host memory.
    pub(crate) fn form_of(&self, form: &Form, frames: &[u32], global: &[u32]) -> Form {
        match self.frames {
            RowFrames::Fixed => form.clone(),
            RowFrames::Crop(n_frames) => form.with_host_frames(n_frames),
            // Rows of one length have no entries in `frames`.
            RowFrames::Longest if !form.is_ragged() => form.clone(),
            RowFrames::Longest => {
                let lengths = global.iter().map(|&row| frames[row as usize]);
                form.with_host_frames(lengths.max().unwrap_or(0) as usize)
            }
        }
    }
}
