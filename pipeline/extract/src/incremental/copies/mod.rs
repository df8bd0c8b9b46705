//! Finds copies of recordings before clips are assigned to splits, so that all copies of a recording are in the same
//! split.
//!
//! Every file is read and hashed. For near copies it is also decoded and fingerprinted, unless the latest version has
//! the fingerprint of equal audio. A clip whose file cannot be used is a recording of its own; the run counts it as a
//! reject.

mod matching;
pub(crate) mod splits;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    AsArray, Float32Array, LargeListBuilder, RecordBatch, StringArray, UInt32Builder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, UInt32Type};
use arrow::error::ArrowError;
use wavemill_catalog::Recordings;
use wavemill_kernels::chromaprint::{FINGERPRINT_RATE_HZ, ITEM_SAMPLES};
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::recipe::GroupDuplicates;
use wavemill_schemas::tables::{fingerprints_schema, near_copies_schema};
use wavemill_store::{Store, StoreError};

use self::matching::Pair;
use super::input::Input;
use super::known::KnownInputs;
use super::parent;
use crate::engine::engine_of;
use crate::error::ExtractError;
use crate::job::Job;
use crate::settings::Settings;
use crate::threads::survey::{self, FileContents, Fingerprints};

/// Names of the tables of fingerprints and of near copies.
const FINGERPRINTS: &str = "fingerprints";
const NEAR_COPIES: &str = "near_copies";

/// Copies of recordings among the cleaned rows.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Hashes and groups by which the catalog keeps copies together.
    pub recordings: Recordings,
    /// The tables of fingerprints and near copies, if near copies were looked for.
    pub tables: BTreeMap<String, RecordBatch>,
}

impl Input {
    /// Finds the copies that the recipe asks for. Returns the contents of the files that were read for this.
    ///
    /// # Errors
    /// [`ExtractError`] if the store or a file cannot be read, or if the run was stopped.
    pub(crate) fn find_copies(
        &mut self,
        job: &Job,
        store: &Store,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<KnownInputs, ExtractError> {
        let grouping = job.recipe.split.group_duplicates;
        let mut inputs = KnownInputs::default();
        if grouping == GroupDuplicates::None {
            return Ok(inputs);
        }
        let known = match grouping {
            GroupDuplicates::Near => Some(fingerprints_of_latest(job, store, settings)?),
            _ => None,
        };
        let keys = self.cleaned.clip_keys();
        let contents = survey::read_files(keys, &*self.source, settings, progress, known.as_ref())?;
        // A stopped pass leaves out clips, so copies of a recording could be assigned to different splits.
        require_not_stopped(progress)?;

        let hashes = contents.iter().filter_map(|(clip_key, content)| {
            Some((clip_key.clone(), content.as_ref()?.facts.audio?))
        });
        self.copies.recordings.hashes = hashes.collect();
        if grouping == GroupDuplicates::Near {
            self.copies.add_near(&contents, settings, progress)?;
        }
        inputs.learn(&contents, self.source.index());
        Ok(inputs)
    }
}

/// Returns the fingerprints of the latest version, if it was made by the same programs. A table that is lost or damaged
/// only costs the time to make the fingerprints again.
fn fingerprints_of_latest(
    job: &Job,
    store: &Store,
    settings: &Settings,
) -> Result<Fingerprints, StoreError> {
    let Some(latest) = store.latest()? else {
        return Ok(Fingerprints::new());
    };
    let manifest = &latest.manifest;
    let engine = engine_of(&job.recipe, settings);
    if settings.recompute || !manifest.engine.agrees_with(&engine) {
        return Ok(Fingerprints::new());
    }

    let columns = ["decode_key", "fingerprint"];
    let read = parent::read_table(store, manifest, FINGERPRINTS, &columns, |rows| {
        let keys = cast(&rows["decode_key"], &DataType::Utf8)?;
        let lists = rows["fingerprint"].as_list::<i64>();
        let fingerprints = keys.as_string::<i32>().iter().zip(lists.iter());
        let fingerprints = fingerprints.filter_map(|(key, items)| {
            let items = items?;
            let items: &[u32] = items.as_primitive_opt::<UInt32Type>()?.values();
            Some((key?.to_owned(), Arc::from(items)))
        });
        Ok(fingerprints.collect())
    });
    Ok(read.unwrap_or_default())
}

fn require_not_stopped(progress: &Progress) -> Result<(), ExtractError> {
    match progress.is_stopped() {
        true => Err(ExtractError::stopped_while(Phase::Hashing)),
        false => Ok(()),
    }
}

/// A clip with a fingerprint.
struct Printed<'a> {
    clip_key: &'a str,
    decode_key: String,
    items: &'a [u32],
}

impl Copies {
    /// Compares the fingerprints of all clips.
    fn add_near(
        &mut self,
        contents: &FileContents,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<(), ExtractError> {
        let mut clips: Vec<Printed<'_>> = contents.iter().filter_map(printed).collect();
        // The order of the clips decides which are compared, so it must not depend on threads.
        clips.sort_unstable_by_key(|clip| clip.clip_key);

        let fingerprints: Vec<&[u32]> = clips.iter().map(|clip| clip.items).collect();
        progress.enter(Phase::Hashing, clips.len() as u64);
        let pairs = matching::pairs(&fingerprints, settings.threads.max(1), progress);
        require_not_stopped(progress)?;

        let groups = groups(clips.len(), &pairs);
        let named = groups
            .iter()
            .map(|(clip, first)| (clips[*clip].clip_key.to_owned(), *first));
        self.recordings.near_groups = named.collect();
        let tables = [
            (FINGERPRINTS, fingerprints_table(&clips)),
            (NEAR_COPIES, near_copies_table(&clips, &pairs, &groups)),
        ];
        for (name, table) in tables {
            let table = table.map_err(StoreError::rows("near copies"))?;
            self.tables.insert(name.to_owned(), table);
        }
        Ok(())
    }
}

fn printed<'a>(
    (clip_key, content): (&'a String, &'a Option<survey::FileContent>),
) -> Option<Printed<'a>> {
    let content = content.as_ref()?;
    let decode_key = content.facts.decode?.to_hex().to_string();
    (!content.fingerprint.is_empty()).then_some(Printed {
        clip_key,
        decode_key,
        items: &content.fingerprint,
    })
}

/// Returns the first clip of each clip's group, for clips that are in a pair: two clips are in a group if pairs lead
/// from one to the other.
fn groups(n_clips: usize, pairs: &[Pair]) -> BTreeMap<usize, usize> {
    // For each clip, an earlier clip of its group, or the clip itself.
    let mut earlier: Vec<usize> = (0..n_clips).collect();
    let first_of = |earlier: &mut [usize], mut clip: usize| {
        while earlier[clip] != clip {
            earlier[clip] = earlier[earlier[clip]];
            clip = earlier[clip];
        }
        clip
    };
    for pair in pairs {
        let [one, other] = pair.clips.map(|clip| first_of(&mut earlier, clip));
        earlier[one.max(other)] = one.min(other);
    }

    let paired = pairs.iter().flat_map(|pair| pair.clips);
    paired
        .map(|clip| (clip, first_of(&mut earlier, clip)))
        .collect()
}

fn fingerprints_table(clips: &[Printed<'_>]) -> Result<RecordBatch, ArrowError> {
    let item = Field::new("item", DataType::UInt32, false);
    let mut items = LargeListBuilder::new(UInt32Builder::new()).with_field(item);
    for clip in clips {
        items.values().append_slice(clip.items);
        items.append(true);
    }

    // The columns are in the order of the schema, against which `try_new` checks them.
    let keys = clips.iter().map(|clip| clip.clip_key);
    let decode_keys = clips.iter().map(|clip| &clip.decode_key);
    RecordBatch::try_new(
        fingerprints_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(keys)),
            Arc::new(StringArray::from_iter_values(decode_keys)),
            Arc::new(items.finish()),
        ],
    )
}

fn near_copies_table(
    clips: &[Printed<'_>],
    pairs: &[Pair],
    groups: &BTreeMap<usize, usize>,
) -> Result<RecordBatch, ArrowError> {
    let mut rows = Vec::with_capacity(2 * pairs.len());
    for Pair {
        clips: [one, other],
        shift,
        similarity,
    } in pairs
    {
        rows.push((*one, *other, *shift, *similarity as f32));
        rows.push((*other, *one, -shift, *similarity as f32));
    }
    rows.sort_unstable_by_key(|row| (row.0, row.1));

    let item_s = ITEM_SAMPLES as f64 / f64::from(FINGERPRINT_RATE_HZ);
    let keys = rows.iter().map(|row| clips[row.0].clip_key);
    let others = rows.iter().map(|row| clips[row.1].clip_key);
    let offsets = rows.iter().map(|row| (row.2 as f64 * item_s) as f32);
    let similarities = rows.iter().map(|row| row.3);
    let group_keys = rows.iter().map(|row| clips[groups[&row.0]].clip_key);
    // The columns are in the order of the schema, against which `try_new` checks them.
    RecordBatch::try_new(
        near_copies_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(keys)),
            Arc::new(StringArray::from_iter_values(others)),
            Arc::new(Float32Array::from_iter_values(offsets)),
            Arc::new(Float32Array::from_iter_values(similarities)),
            Arc::new(StringArray::from_iter_values(group_keys)),
        ],
    )
}
