//! Rows of a dataset as the scores need them: with their labels, and with the ids that two splits may share.

use wavemill_loader::{Dataset, Split};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Leaks, Noun};
use wavemill_scores::metrics::{Label, Member, Predictions, Row, count_leaks};

/// Adds the predictions of the rows `rows` for the target with index `target`, together with the rows' labels.
/// `probabilities` are `[rows, classes]`, row-major.
///
/// # Errors
/// [`PlainError`] if a probability is not finite.
pub fn push<M>(
    into: &mut Predictions,
    data: &Dataset<M>,
    target: usize,
    rows: &[u32],
    probabilities: &[f32],
) -> Result<(), PlainError> {
    let classes = into.classes().len();
    let all = data.rows();
    let target = &data.targets()[target];

    let mut set = vec![false; classes];
    for (index, &row) in rows.iter().enumerate() {
        let label = if target.is_multi() {
            set.fill(false);
            for class in target.labels(all, row) {
                set[class as usize] = true;
            }
            if set.contains(&true) {
                Label::Set(&set)
            } else {
                Label::Unknown
            }
        } else {
            // An unlabelled row has class −1, which is not a valid index.
            usize::try_from(target.label(all, row)).map_or(Label::Unknown, Label::Class)
        };

        let at = row as usize;
        into.push(&Row {
            index: u64::from(row),
            clip_key: &all.clip_keys[at],
            segment: all.segments[at],
            track_id: all.track_ids[at],
            artist_id: all.artist_ids[at],
            label,
            probabilities: &probabilities[index * classes..(index + 1) * classes],
        })?;
    }
    Ok(())
}

/// Counts the tracks, artists, albums and recordings that a split shares with the training split, including unlabelled
/// rows.
pub fn leaks<M>(data: &Dataset<M>, split: Split) -> Leaks {
    count_leaks(
        data.split_rule(),
        split,
        members(data, Split::Training),
        members(data, split),
    )
    .with_noun(Noun::of(data.store().manifest().recipe.catalog.dataset))
}

/// Returns the rows of a split with the ids that are compared between splits.
pub fn members<M>(data: &Dataset<M>, split: Split) -> Vec<Member<'_>> {
    let rows = data.rows();
    let mut members = Vec::new();
    for row in data.rows_of(split) {
        let row = row as usize;
        members.push(Member {
            track_id: rows.track_ids[row],
            artist_id: rows.artist_ids[row],
            album_id: rows.album_ids[row],
            // Rows of pictures have no audio hash, so they never count as the same recording.
            audio_blake3: Some(&*rows.audio_blake3s[row]).filter(|hash| !hash.is_empty()),
            near_group: rows.near_group(row),
        });
    }
    members
}
