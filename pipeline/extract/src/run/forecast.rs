//! Forecasts the work of a run, as shown by a preview.

use serde::Serialize;
use wavemill_store::Parent;

use super::report::FileReuse;
use super::space;
use super::tables;
use crate::error::ExtractError;
use crate::features::ClipTotals;
use crate::incremental::draft::{Draft, DraftInputs};
use crate::incremental::known::KnownInputs;
use crate::incremental::reuse::{self, EarlierRuns};
use crate::incremental::take::{self, ParentRows};

/// The work that a run would have to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Numbers of feature files that would be reused, rewritten or created.
    #[serde(flatten)]
    pub reuse: FileReuse,
    /// Number of clips to decode. A clip counts once for each set of features that is computed separately.
    pub clips_to_decode: u64,
    /// Number of rows to copy from the previous version, counted for every feature.
    pub rows_to_take_over: u64,
    /// Estimated size in bytes of the rows to write, before compression.
    pub bytes_to_write: u64,
    /// Lower bound in bytes for the disk space of the rows to write. A run checks the free space against this bound.
    #[serde(skip)]
    pub least_bytes: u64,
    /// Number of tables to write. Tables that are equal to the parent's become links.
    pub tables_to_write: usize,
    /// Compressed size of the parent's tables in bytes.
    pub table_bytes_before: u64,
}

/// Looks for existing files as the run would, but does not link or write files or check them for damage.
///
/// # Errors
/// [`ExtractError::Store`]; errors from reading files that changed.
pub(super) fn forecast(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    plan_id: &str,
    known: &mut KnownInputs,
) -> Result<Forecast, ExtractError> {
    let DraftInputs {
        settings,
        input,
        store,
        progress,
        ..
    } = *inputs;
    let Draft {
        parent,
        renames,
        catalog,
        plan,
    } = draft;
    let source = &*input.source;
    let parent = parent.as_ref();

    let earlier = EarlierRuns::new(store, plan_id, parent, settings)?.only_looking();
    earlier.look_at_inputs(known, plan, &catalog.clips, source, settings, progress)?;
    let (finished, _) = earlier.finished(plan, &catalog.clips, known, progress)?;

    let mut forecast = Forecast {
        reuse: FileReuse::classify(&finished, plan, parent),
        tables_to_write: tables::count(inputs.job, catalog)?,
        table_bytes_before: parent.map_or(0, table_bytes),
        ..Forecast::default()
    };
    let kept = take::kept_features(parent, plan, settings);
    let is_kept: Vec<bool> = kept.iter().map(Option::is_some).collect();
    let mut parent_rows = None;
    let passes = reuse::passes(&plan.shard_plan, &finished, &is_kept);
    for pass in &passes {
        let features = plan.features.only(&pass.features);
        forecast.least_bytes += space::least_bytes(pass, &catalog.clips, source.index(), plan);
        let is_taken = pass.features.iter().all(|&n| is_kept[n]);
        let rows = match (&mut parent_rows, parent) {
            (_, None) => None,
            _ if !is_taken => None,
            (Some(rows), _) => Some(rows),
            (none, Some(parent)) => {
                let rows = ParentRows::new(store, parent, renames, &passes, &catalog.clips)?;
                Some(none.insert(rows))
            }
        };
        let first = pass.features.first().and_then(|&n| kept[n]);
        let rows: Option<&ParentRows<'_>> = match (rows, first) {
            (Some(rows), Some(first)) => {
                rows.index_by(first, settings.threads)?;
                Some(rows)
            }
            _ => None,
        };

        let mut clips = ClipTotals::default();
        for task in &pass.todo {
            let variants = features.variants_on(&task.shard.split);
            for &row in &task.shard.members {
                let clip_key = &catalog.clips[row].clip_key;
                clips.all += 1;
                clips.stretched += u64::from(variants.len() > 1);
                clips.file_bytes += input.audio_bytes(clip_key).unwrap_or(0);
                let seen = known.get(clip_key);
                match rows.and_then(|rows| rows.clip(clip_key, seen, &variants, &features)) {
                    Some(taken) => {
                        let rows: usize = taken.outcome.iter().flatten().map(|run| run.n).sum();
                        forecast.rows_to_take_over += (rows * pass.features.len()) as u64;
                    }
                    None => forecast.clips_to_decode += 1,
                }
            }
        }
        forecast.bytes_to_write += features.estimate(clips, super::preview::TYPICAL_BYTES_PER_S);
    }
    Ok(forecast)
}

/// Returns the total size of a version's tables in bytes.
fn table_bytes(parent: &Parent) -> u64 {
    let tables = parent.manifest.files.iter();
    let tables = tables.filter(|file| file.table.is_some());
    tables.map(|file| file.bytes).sum()
}
