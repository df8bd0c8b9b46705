//! Predictions as bytes, so that ranks can send their rows to each other; the whole is put in order on arrival.
//!
//! Little-endian, row after row. Nothing of it is stored: both ends are the same program.

use super::MetricsError;
use super::predictions::{Label, Predictions, Row};

const MAGIC: &[u8; 4] = b"WMP1";

impl Predictions {
    /// All rows and the loss sums, for [`Predictions::merge`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(u8::from(self.is_multi()));
        put_text(&mut out, self.target());
        out.extend((self.classes().len() as u32).to_le_bytes());
        self.classes().iter().for_each(|class| put_text(&mut out, class));
        self.loss_sums().iter().for_each(|sum| out.extend(sum.to_le_bytes()));
        out.extend((self.len() as u64).to_le_bytes());
        self.rows().for_each(|row| put_row(&mut out, &row));
        out
    }

    /// What [`Predictions::to_bytes`] gave.
    ///
    /// # Errors
    /// [`MetricsError::Bytes`], or a row that is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetricsError> {
        let mut from = Reader { bytes };
        if from.array::<4>()? != *MAGIC {
            return Err(MetricsError::Bytes);
        }
        let multi = from.array::<1>()?[0] == 1;
        let target = from.text()?;
        let n_classes = u32::from_le_bytes(from.array()?) as usize;
        let classes = (0..n_classes).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        let mut out = if multi { Self::multi(&target, &classes) } else { Self::single(&target, &classes) };
        out.add_loss(f64::from_le_bytes(from.array()?), f64::from_le_bytes(from.array()?));
        for _ in 0..u64::from_le_bytes(from.array()?) {
            from.row(&mut out)?;
        }
        if from.bytes.is_empty() { Ok(out) } else { Err(MetricsError::Bytes) }
    }

    /// The rows of all ranks in the split's order; loss sums are added in rank order.
    ///
    /// # Errors
    /// [`MetricsError::Bytes`]; [`MetricsError::ClassSets`] where ranks speak of different classes;
    /// [`MetricsError::Duplicate`] where a row came twice.
    pub fn merge(parts: &[Vec<u8>]) -> Result<Self, MetricsError> {
        let parts = parts.iter().map(|bytes| Self::from_bytes(bytes)).collect::<Result<Vec<_>, _>>()?;
        let first = parts.first().ok_or(MetricsError::Bytes)?;
        let mut out = first.like();
        let mut rows: Vec<Row> = Vec::new();
        for part in &parts {
            first.check_same_classes(part)?;
            let [weighted, weight] = part.loss_sums();
            out.add_loss(weighted, weight);
            rows.extend(part.rows());
        }
        rows.sort_by_key(|row| row.index);
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].index == pair[1].index) {
            return Err(MetricsError::Duplicate { index: pair[0].index, clip_key: pair[0].clip_key.to_owned() });
        }
        rows.iter().try_for_each(|row| out.push(row))?;
        Ok(out)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    out.extend(row.index.to_le_bytes());
    put_text(out, row.clip_key);
    out.extend(row.segment.to_le_bytes());
    out.extend(row.track_id.to_le_bytes());
    out.push(u8::from(row.artist_id.is_some()));
    out.extend(row.artist_id.unwrap_or_default().to_le_bytes());
    match row.label {
        Label::Unknown => out.push(0),
        Label::Class(class) => {
            out.push(1);
            out.extend((class as u32).to_le_bytes());
        }
        Label::Set(set) => {
            out.push(2);
            out.extend(set.iter().map(|&holds| u8::from(holds)));
        }
    }
    row.probabilities.iter().for_each(|p| out.extend(p.to_le_bytes()));
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], MetricsError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(MetricsError::Bytes)?;
        self.bytes = rest;
        Ok(*head)
    }

    fn take(&mut self, n: usize) -> Result<&[u8], MetricsError> {
        let (head, rest) = self.bytes.split_at_checked(n).ok_or(MetricsError::Bytes)?;
        self.bytes = rest;
        Ok(head)
    }

    fn text(&mut self) -> Result<String, MetricsError> {
        let n = u32::from_le_bytes(self.array()?) as usize;
        String::from_utf8(self.take(n)?.to_vec()).map_err(|_| MetricsError::Bytes)
    }

    fn row(&mut self, out: &mut Predictions) -> Result<(), MetricsError> {
        let n_classes = out.classes().len();
        let index = u64::from_le_bytes(self.array()?);
        let clip_key = self.text()?;
        let segment = i32::from_le_bytes(self.array()?);
        let track_id = i64::from_le_bytes(self.array()?);
        let known = self.array::<1>()?[0] == 1;
        let artist = i64::from_le_bytes(self.array()?);
        let set: Vec<bool>;
        let label = match self.array::<1>()?[0] {
            0 => Label::Unknown,
            1 => Label::Class(u32::from_le_bytes(self.array()?) as usize),
            _ => {
                set = self.take(n_classes)?.iter().map(|&byte| byte == 1).collect();
                Label::Set(&set)
            }
        };
        let probabilities =
            (0..n_classes).map(|_| Ok(f32::from_le_bytes(self.array()?))).collect::<Result<Vec<_>, _>>()?;
        let artist_id = known.then_some(artist);
        out.push(&Row {
            index,
            clip_key: &clip_key,
            segment,
            track_id,
            artist_id,
            label,
            probabilities: &probabilities,
        })
    }
}

#[cfg(test)]
mod tests {
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

    /// The rows that rank `rank` of `world` had, with its share of the loss.
    fn slice(all: &Predictions, rank: usize, world: usize) -> Vec<u8> {
        let mut part = all.like();
        (rank..all.len()).step_by(world).for_each(|i| part.push(&all.row(i)).unwrap());
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
        for (index, label) in
            [Label::Set(&[true, false, true]), Label::Unknown, Label::Set(&[false; 3])].into_iter().enumerate()
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

    #[test]
    fn a_row_that_comes_twice_is_named() {
        let all = whole();
        let parts = [slice(&all, 0, 2), slice(&all, 0, 1)];
        assert!(Predictions::merge(&parts).unwrap_err().to_string().contains("1.mp3"));
    }

    #[test]
    fn other_classes_cut_bytes_and_trailing_bytes_are_refused() {
        let bytes = whole().to_bytes();
        let other = Predictions::single("genre", &names(3)).to_bytes();
        assert!(matches!(Predictions::merge(&[bytes.clone(), other]), Err(MetricsError::ClassSets { .. })));
        for end in 0..bytes.len() {
            assert!(Predictions::from_bytes(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
        assert!(Predictions::from_bytes(&[bytes, vec![0]].concat()).is_err());
        assert!(Predictions::merge(&[]).is_err());
    }
}
