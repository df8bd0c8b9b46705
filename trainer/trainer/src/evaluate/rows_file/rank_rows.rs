//! Rows of one rank in a batch, with the model's outputs, and the byte encoding in which they are sent to rank 0.

use wavemill_schemas::exit::PlainError;

use super::values;
use crate::TrainError;
use crate::dataset::Batch;
use crate::learner::ModelOutput;

/// Rows of one rank and the model's outputs for them, in the order of the batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct RankRows {
    /// Indices of the rows in [`crate::dataset::Dataset::rows`].
    pub rows: Vec<u32>,
    /// Probabilities and logits of each target, each of shape `[rows, classes]`.
    pub targets: Vec<[Vec<f32>; 2]>,
    /// Vectors of the rows, `[rows, width]`; empty if no vectors were requested.
    pub vectors: Vec<f32>,
    /// Positions of the rows on a map, which rank 0 computes from all vectors; not part of the encoded bytes.
    pub places: Vec<Option<[f32; 2]>>,
}

impl RankRows {
    /// Collects the rows of this rank in a batch, with the model's outputs `answers`; returns no rows if `answers` is
    /// `None`.
    pub(crate) fn from_batch(
        batch: &Batch,
        answers: Option<&ModelOutput>,
        has_vectors: bool,
    ) -> Result<Self, TrainError> {
        let Some(answers) = answers else {
            return Ok(Self::default());
        };

        let n = batch.n_own as i64;
        let mut targets = Vec::new();
        for answer in &answers.targets {
            targets.push([
                values(&answer.probabilities, n)?,
                values(&answer.logits, n)?,
            ]);
        }
        let vectors = if has_vectors {
            values(&answers.vectors, n)?
        } else {
            Vec::new()
        };

        Ok(Self {
            rows: batch.rows[..batch.n_own].to_vec(),
            targets,
            vectors,
            places: Vec::new(),
        })
    }

    /// Returns the number of values in the vector of a row.
    pub(crate) fn width(&self) -> usize {
        self.vectors.len() / self.rows.len().max(1)
    }

    /// Adds the rows of `part` whose index is in `wanted`, without their logits. `wanted` must be in ascending order.
    pub(crate) fn keep(&mut self, part: &Self, wanted: &[u32]) {
        let rows = part.rows.len();
        let width = part.width();
        self.targets
            .resize_with(part.targets.len(), Default::default);

        for (at, row) in part.rows.iter().enumerate() {
            if wanted.binary_search(row).is_err() {
                continue;
            }
            self.rows.push(*row);
            self.vectors
                .extend_from_slice(&part.vectors[at * width..(at + 1) * width]);
            for ([kept, _], [probabilities, _]) in self.targets.iter_mut().zip(&part.targets) {
                let classes = probabilities.len() / rows;
                kept.extend_from_slice(&probabilities[at * classes..(at + 1) * classes]);
            }
        }
    }

    /// Encodes the rows for [`Self::from_bytes`]: each list is preceded by its length; all numbers are little-endian.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.rows.iter().copied());
        // Floats are encoded bit for bit, so that the files contain exactly the values from which scores are computed.
        put(&mut out, self.vectors.iter().map(|value| value.to_bits()));
        for list in self.targets.iter().flatten() {
            put(&mut out, list.iter().map(|value| value.to_bits()));
        }
        out
    }

    /// Decodes the bytes that [`Self::to_bytes`] returns.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Result<Self, PlainError> {
        let rows = take_words(&mut bytes)?;
        let vectors = floats(&mut bytes)?;
        let mut targets = Vec::new();
        while !bytes.is_empty() {
            targets.push([floats(&mut bytes)?, floats(&mut bytes)?]);
        }
        Ok(Self {
            rows,
            targets,
            vectors,
            places: Vec::new(),
        })
    }
}

/// Appends a list to `out`, preceded by the length of the list.
fn put(out: &mut Vec<u8>, words: impl ExactSizeIterator<Item = u32>) {
    out.extend((words.len() as u64).to_le_bytes());
    for word in words {
        out.extend(word.to_le_bytes());
    }
}

/// Removes a list from the front of `bytes` and returns the list.
fn take_words(bytes: &mut &[u8]) -> Result<Vec<u32>, PlainError> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(unreadable)?;
    // Compare the list's length with the remaining bytes, because another process has sent it.
    let length = usize::try_from(u64::from_le_bytes(*length))
        .ok()
        .and_then(|words| words.checked_mul(4));
    let (list, rest) = length
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(unreadable)?;

    *bytes = rest;
    Ok(list
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect())
}

/// Creates the error for rows of another rank that cannot be decoded.
fn unreadable() -> PlainError {
    PlainError::failed(
        "another rank's rows cannot be read: do all ranks run the same version of wavemill?",
    )
}

fn floats(bytes: &mut &[u8]) -> Result<Vec<f32>, PlainError> {
    Ok(take_words(bytes)?.into_iter().map(f32::from_bits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_comes_back_from_its_bytes_and_never_from_a_piece_of_them() {
        let part = RankRows {
            rows: vec![7, 9],
            targets: vec![
                [vec![0.25, 0.75, 1.0, 0.0], vec![-1.5, f32::MAX, 0.0, 2.0]],
                [vec![0.5; 2], vec![1.0; 2]],
            ],
            vectors: vec![1.0, -2.0],
            places: Vec::new(),
        };

        let bytes = part.to_bytes();
        assert_eq!(RankRows::from_bytes(&bytes).expect("whole"), part);

        let empty = RankRows::default();
        assert_eq!(
            RankRows::from_bytes(&empty.to_bytes()).expect("whole"),
            empty
        );

        for end in 0..bytes.len() {
            let cut = RankRows::from_bytes(&bytes[..end]);
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut != part), "{end}");
        }
    }

    #[test]
    fn rows_that_are_wanted_are_kept_with_what_belongs_to_them() {
        let part = RankRows {
            rows: vec![7, 8, 9],
            targets: vec![[vec![0.1, 0.9, 0.2, 0.8, 0.3, 0.7], vec![0.0; 6]]],
            vectors: vec![1.0, 2.0, 3.0],
            places: Vec::new(),
        };

        let mut kept = RankRows::default();
        kept.keep(&part, &[3, 7, 9]);

        assert_eq!(kept.rows, [7, 9]);
        assert_eq!(kept.vectors, [1.0, 3.0]);
        assert_eq!(kept.targets, [[vec![0.1, 0.9, 0.3, 0.7], Vec::new()]]);
    }
}
