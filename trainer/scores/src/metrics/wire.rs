//! Serialization of predictions, which ranks send to each other; the receiver merges and sorts the rows of all ranks.
//!
//! The bytes are JSON, column by column. They are only exchanged between processes of the same program and never
//! stored.

use wavemill_schemas::exit::PlainError;

use super::predictions::{Predictions, Row};

impl Predictions {
    /// Serializes all rows as JSON. The bits of the loss sums come first, since JSON does not preserve every number.
    pub fn to_bytes(&self) -> Vec<u8> {
        let loss = self.loss.map(f64::to_bits);
        serde_json::to_vec(&(loss, self)).expect("lists of numbers and text are JSON")
    }

    /// Deserializes the predictions that [`to_bytes`](Self::to_bytes) returned.
    ///
    /// # Errors
    /// [`PlainError`] if the bytes are truncated or come from another program, or a row is invalid.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlainError> {
        // Another process sent these columns. Their rows are added one by one with `push`, which validates them.
        let (loss, unchecked): ([u64; 2], Self) =
            serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        // `row` slices the columns by the number of classes, and would panic if a column were too short.
        if !unchecked.has_whole_rows() {
            return Err(unreadable());
        }

        let mut out = unchecked.like();
        out.loss = loss.map(f64::from_bits);
        for row in unchecked.rows() {
            out.push(&row)?;
        }
        Ok(out)
    }

    /// Reports whether every column has a value for each row of the predictions.
    fn has_whole_rows(&self) -> bool {
        let n_rows = self.len();
        // Both numbers come from another process, so their product may overflow.
        let Some(n_cells) = n_rows.checked_mul(self.classes.len()) else {
            return false;
        };
        let lengths = [
            self.indices.len(),
            self.clip_keys.len(),
            self.segments.len(),
            self.track_ids.len(),
            self.artist_ids.len(),
        ];
        lengths == [n_rows; 5]
            && self.probabilities.len() == n_cells
            && self.sets.len() == if self.multi { n_cells } else { 0 }
    }

    /// Merges the rows of all ranks in the split's order; loss sums are added in rank order.
    ///
    /// # Errors
    /// [`PlainError`] if a rank's bytes cannot be read, a row occurs twice, or ranks have different classes.
    pub fn merge(parts: &[Vec<u8>]) -> Result<Self, PlainError> {
        let parts = parts
            .iter()
            .map(|bytes| Self::from_bytes(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let first = parts.first().ok_or_else(unreadable)?;

        let mut out = first.like();
        let mut rows: Vec<Row> = Vec::new();
        for part in &parts {
            first.check_same_classes(part)?;
            // Add the loss sums in rank order, so that the total has the same bits on every rank.
            let [weighted, weight] = part.loss_sums();
            out.add_loss(weighted, weight);
            rows.extend(part.rows());
        }

        // Each rank had a slice of every batch, so rows must be sorted after the ranks' rows are joined.
        rows.sort_by_key(|row| row.index);
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].index == pair[1].index) {
            let Row {
                index, clip_key, ..
            } = pair[0];
            let message = format!("row {index} ({clip_key}) was predicted by two ranks");
            return Err(PlainError::failed(message));
        }
        rows.iter().try_for_each(|row| out.push(row))?;
        Ok(out)
    }
}

fn unreadable() -> PlainError {
    let message =
        "another rank's predictions cannot be read: do all ranks run the same version of wavemill?";
    PlainError::failed(message)
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::rng::{Rng, mix};

    use super::super::predictions::Label;
    use super::super::predictions::tests::{names, single};
    use super::*;

    fn whole() -> Predictions {
        let mut predictions = single(&[
            (1, Some(3), 0, &[0.9, 0.1]),
            (2, None, 1, &[0.4, 0.6]),
            (3, Some(-4), -1, &[0.5, 0.5]),
            (4, None, 1, &[0.25, 0.75]),
        ]);
        predictions.add_loss(2.5, 4.0);
        predictions
    }

    /// Returns the serialized rows of rank `rank` of `world` ranks, with the rank's share of the loss.
    fn slice(all: &Predictions, rank: usize, world: usize) -> Vec<u8> {
        let mut part = all.like();
        (rank..all.len())
            .step_by(world)
            .for_each(|i| part.push(&all.row(i)).unwrap());
        part.add_loss(2.5 / world as f64, 4.0 / world as f64);
        part.to_bytes()
    }

    #[test]
    fn rows_of_any_number_of_ranks_come_back_in_order() {
        let all = whole();
        for world in [1, 2, 5] {
            let parts: Vec<Vec<u8>> = (0..world).map(|rank| slice(&all, rank, world)).collect();
            let merged = Predictions::merge(&parts).unwrap();
            assert!((merged.loss().unwrap() - 0.625).abs() < 1e-15);
            assert!(merged.rows().eq(all.rows()), "{world} ranks");
        }
    }

    #[test]
    fn labels_in_sets_come_back() {
        let mut all = Predictions::multi("genres_all", &names(3));
        for (index, label) in [
            Label::Set(&[true, false, true]),
            Label::Unknown,
            Label::Set(&[false; 3]),
        ]
        .into_iter()
        .enumerate()
        {
            let row = Row {
                index: index as u64,
                clip_key: "ü",
                segment: 1,
                track_id: 9,
                artist_id: Some(0),
                label,
                probabilities: &[0.1, 0.2, 0.3],
            };
            all.push(&row).unwrap();
        }

        assert_eq!(Predictions::from_bytes(&all.to_bytes()).unwrap(), all);
    }

    /// Tests probabilities of every exponent, mantissas that need all their digits, and non-finite losses.
    #[test]
    fn every_number_comes_back_bit_by_bit() {
        let mut rng = Rng::new(mix("test", &[1]));
        for loss in [f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE, 0.1 + 0.2] {
            let mut all = Predictions::single("genre", &names(2));
            all.add_loss(loss, 1.0);
            let mut wanted = Vec::new();
            for index in 0..20_000 {
                let probabilities = [0, 1].map(|_| f32::from_bits(rng.next_u32()));
                if probabilities.iter().all(|p| p.is_finite()) {
                    wanted.extend(probabilities.map(f32::to_bits));
                    all.push(&Row {
                        index,
                        clip_key: "a \"b\"\n\0",
                        segment: i32::MIN,
                        track_id: i64::MIN + index as i64,
                        artist_id: Some(i64::MAX),
                        label: Label::Class(1),
                        probabilities: &probabilities,
                    })
                    .unwrap();
                }
            }

            let came = Predictions::from_bytes(&all.to_bytes()).unwrap();
            let bits: Vec<u32> = came.probabilities.iter().map(|p| p.to_bits()).collect();
            assert!(bits == wanted && came.rows().eq(all.rows()));
            assert_eq!(
                came.loss_sums().map(f64::to_bits),
                all.loss_sums().map(f64::to_bits)
            );
        }
    }

    #[test]
    fn columns_of_other_lengths_and_other_classes_are_refused() {
        let text = String::from_utf8(whole().to_bytes()).unwrap();

        for (whole, cut) in [
            ("\"indices\":[0,1,2,3]", "\"indices\":[0,1,2]"),
            ("\"labels\":[0,1,-1,1]", "\"labels\":[0,1,-1,2]"),
            ("\"labels\":[0,1,-1,1]", "\"labels\":[0,1,-1,-2]"),
            ("\"sets\":[]", "\"sets\":[true]"),
            (",0.75]", "]"),
            ("\"multi\":false", "\"multi\":true"),
        ] {
            let other = text.replacen(whole, cut, 1);
            assert_ne!(other, text, "{text}");
            assert!(
                Predictions::from_bytes(other.as_bytes()).is_err(),
                "{other}"
            );
        }
    }

    #[test]
    fn a_row_that_comes_twice_is_named() {
        let all = whole();
        let parts = [slice(&all, 0, 2), slice(&all, 0, 1)];
        assert!(
            Predictions::merge(&parts)
                .unwrap_err()
                .to_string()
                .contains("1.mp3")
        );
    }

    #[test]
    fn other_classes_cut_bytes_and_trailing_bytes_are_refused() {
        let bytes = whole().to_bytes();
        let other = Predictions::single("genre", &names(3)).to_bytes();
        let merged = Predictions::merge(&[bytes.clone(), other]);
        assert_eq!(
            merged.unwrap_err().to_string(),
            "targets with different classes are not compared: genre (2 classes: class 0, class 1) and genre \
             (3 classes: class 0, class 1, class 2)"
        );

        for end in 0..bytes.len() {
            assert!(
                Predictions::from_bytes(&bytes[..end]).is_err(),
                "{end} of {} bytes",
                bytes.len()
            );
        }

        assert!(Predictions::from_bytes(&[bytes, vec![0]].concat()).is_err());
        assert!(Predictions::merge(&[]).is_err());
    }
}
