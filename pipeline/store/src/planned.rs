//! Stores a plan, so that other processes can write its shards and commit it: `_wavemill/plans/PLAN/`.
//!
//! Blocks, which are Parquet files, contain the clips of 16 consecutive shards each, so that a worker reads only those
//! of its part. JSON files contain the rest. They are sealed and written last: a plan without them is incomplete.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Builder, Int64Array, ListArray, ListBuilder, PrimitiveArray,
    RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, UInt32Type,
    UInt64Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wavemill_reader::{list, read_plain};
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::durable::random_token;
use wavemill_schemas::exit;
use wavemill_schemas::input::{InputId, Stamp};
use wavemill_schemas::manifest::{FileEntry, from_sealed, sealed};

use super::durable::{if_there, make_folder, remove_file, remove_folder, write_renamed};
use super::shards::write_table;
use super::{Store, StoreError};

pub(super) const PLANS_FOLDER: &str = "_wavemill/plans";

/// Number of shards in a block. A part of one shard then reads 16 times its share of the plan, but a plan of 100,000
/// shards has only 6,250 blocks.
pub const BLOCK_SHARDS: usize = 16;

/// A shard of a stored plan, with its clips.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedShard {
    /// Index of the shard in the plan.
    pub place: usize,
    /// Split of the shard's rows.
    pub split: String,
    /// Number of the shard within its split, from 0.
    pub number: usize,
    /// The shard's clips, in file order.
    pub clips: Vec<PlannedClip>,
}

/// A clip of a stored plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedClip {
    /// The cleaned row.
    pub row: ClipRow,
    /// The clip's key in the previous version, if the file was renamed.
    pub renamed_from: Option<String>,
    /// Size and stamp of the clip's file when it was listed; `None` if there was no file.
    pub input: Option<InputId>,
    /// Reason, known from listing, why the file cannot be read.
    pub fault: Option<String>,
}

impl Store {
    pub(super) fn planned_folder(&self, plan_id: &str) -> PathBuf {
        self.root().join(planned_path(plan_id))
    }

    /// Returns the ids of the stored plans, which may be incomplete.
    pub(super) fn planned_ids(&self) -> Result<Vec<String>, StoreError> {
        let folders = list(&self.root().join(PLANS_FOLDER))?;
        let names = folders
            .iter()
            .filter_map(|folder| folder.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Writes the shards of a plan, which are given in plan order, and returns the entries of the blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::rows`] if a block cannot be written.
    pub fn write_planned_shards(
        &self,
        plan_id: &str,
        shards: impl IntoIterator<Item = PlannedShard>,
    ) -> Result<Vec<FileEntry>, StoreError> {
        let mut shards = shards.into_iter().peekable();
        let mut blocks = Vec::new();
        while shards.peek().is_some() {
            let block: Vec<PlannedShard> = shards.by_ref().take(BLOCK_SHARDS).collect();
            let path = format!("{}/{:05}.parquet", planned_path(plan_id), blocks.len());
            let rows = rows_of(&block).map_err(StoreError::rows(path.clone()));
            let entry = write_table(self.root(), path, "shards", block_schema(), [rows])?;
            blocks.push(entry);
        }
        self.send(blocks.iter().map(|block| self.root().join(&block.path)))?;
        Ok(blocks)
    }

    /// Reads the shards of a plan at `places`. Only the blocks that contain them are read.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a block is missing or differs from its entry.
    pub fn planned_shards(
        &self,
        blocks: &[FileEntry],
        places: Range<usize>,
    ) -> Result<Vec<PlannedShard>, StoreError> {
        let mut shards = Vec::with_capacity(places.len());
        if places.is_empty() {
            return Ok(shards);
        }
        for block in places.start / BLOCK_SHARDS..=(places.end - 1) / BLOCK_SHARDS {
            let of_block = match blocks.get(block) {
                Some(entry) => self.block(entry)?,
                None => Vec::new(),
            };
            shards.extend(of_block);
        }
        shards.retain(|shard| places.contains(&shard.place));
        Ok(shards)
    }

    fn block(&self, entry: &FileEntry) -> Result<Vec<PlannedShard>, StoreError> {
        let path = self.file(entry)?;
        let sound = |path: &Path| match read_plain(path) {
            Err(error) if exit::is_machine_fault(&error) => {
                Err(StoreError::io_at(path, "read")(error))
            }
            read => Ok(read
                .ok()
                .filter(|bytes| blake3::hash(bytes).to_hex().as_str() == entry.blake3)),
        };

        let mut bytes = sound(&path)?;
        // The copy may be of an earlier plan with the same id.
        if bytes.is_none() && self.copy_again(entry)? {
            bytes = sound(&path)?;
        }

        let shards = bytes.and_then(|bytes| shards_of(bytes.into()).ok());
        shards.ok_or_else(|| damaged(path))
    }

    /// Writes the file `name` of a plan.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be written.
    pub fn write_planned(
        &self,
        plan_id: &str,
        name: &str,
        content: &impl Serialize,
    ) -> Result<(), StoreError> {
        let text = sealed(&serde_json::to_string(content)?);
        let path = self.planned_folder(plan_id).join(name);
        write_renamed(&path, text.as_bytes())?;
        self.send([path])
    }

    /// Reads the file `name` of a plan.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if the store has no such plan, [`StoreError::Damaged`].
    pub fn planned<T: DeserializeOwned>(&self, plan_id: &str, name: &str) -> Result<T, StoreError> {
        let absent = || StoreError::Absent {
            path: self.place().to_owned(),
            problem: format!(
                "no plan {plan_id}: `wavemill plan` writes plans and prints their ids"
            ),
        };
        // The id becomes a part of paths.
        if plan_id.is_empty() || !plan_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(absent());
        }

        let path = self.planned_folder(plan_id).join(name);
        self.pull_file(&path)?;
        let bytes = if_there(&path, "read", read_plain(&path))?.ok_or_else(absent)?;
        from_sealed(&bytes).map_err(|_| damaged(path))
    }

    /// Removes a stored plan that is committed, if there is one, and temporary files that its killed workers left. The
    /// caller must hold the store's exclusive lock.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be removed.
    pub fn remove_committed_plan(&self, plan_id: &str) -> Result<(), StoreError> {
        let folder = self.planned_folder(plan_id);
        self.remove_objects(&folder)?;
        if !folder.exists() {
            return Ok(());
        }
        self.clear_temporaries(plan_id)?;
        remove_folder(&folder)
    }

    fn claims_folder(&self, plan_id: &str) -> PathBuf {
        self.planned_folder(plan_id).join("claims")
    }

    /// Forgets which shards of a plan are claimed or finished, so that workers look at all of them again. The caller
    /// must hold the store's exclusive lock.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a claim cannot be removed.
    pub fn remove_claims(&self, plan_id: &str) -> Result<(), StoreError> {
        let folder = self.claims_folder(plan_id);
        self.remove_objects(&folder)?;
        remove_folder(&folder)
    }

    /// Removes the JSON file `name` of a plan, so that the plan is incomplete until it is written again.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be removed.
    pub fn remove_planned(&self, plan_id: &str, name: &str) -> Result<(), StoreError> {
        let path = self.planned_folder(plan_id).join(name);
        self.remove_object(&path)?;
        remove_file(&path).map(drop)
    }
}

/// Shards of a stored plan for a worker that takes what is left: first the shards that no other worker has claimed, and
/// then those that are claimed and not finished, whose workers may be gone. Writing a shard twice does no harm, so
/// claims never expire.
#[derive(Debug)]
pub struct Claims {
    store: Store,
    folder: PathBuf,
    shards: usize,
    /// Place at which this worker begins, so that workers begin at different places.
    first: usize,
    /// Shards that this worker has not looked at.
    left: Range<usize>,
    /// True if all shards are claimed.
    all_claimed: bool,
}

impl Claims {
    /// Creates the claims of a worker of a plan with this number of shards.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder of the claims cannot be created.
    pub fn new(store: &Store, plan_id: &str, shards: usize) -> Result<Self, StoreError> {
        let folder = store.claims_folder(plan_id);
        if store.remote().is_none() {
            make_folder(&folder)?;
        }
        Ok(Self {
            store: store.clone(),
            folder,
            shards,
            first: (random_token() % shards.max(1) as u64) as usize,
            left: 0..shards,
            all_claimed: false,
        })
    }

    /// Returns the place of the next shard to write; `None` if all shards are finished.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a claim cannot be written.
    pub fn take(&mut self) -> Result<Option<usize>, StoreError> {
        loop {
            while let Some(offset) = self.left.next() {
                let place = (self.first + offset) % self.shards;
                if self.store.has_mark(&self.done_path(place))? {
                    continue;
                }
                if self.all_claimed || self.store.mark(&self.folder.join(place.to_string()))? {
                    return Ok(Some(place));
                }
            }
            if self.all_claimed {
                return Ok(None);
            }
            self.all_claimed = true;
            self.left = 0..self.shards;
        }
    }

    /// Records that a shard is finished.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the record cannot be written.
    pub fn finish(&self, place: usize) -> Result<(), StoreError> {
        self.store.mark(&self.done_path(place)).map(|_| ())
    }

    fn done_path(&self, place: usize) -> PathBuf {
        self.folder.join(format!("{place}.done"))
    }
}

impl Store {
    /// Creates an empty file or object. Returns false if it exists already.
    fn mark(&self, path: &Path) -> Result<bool, StoreError> {
        if let Some(is_new) = self.put_mark(path)? {
            return Ok(is_new);
        }
        match File::options().write(true).create_new(true).open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(StoreError::io_at(path, "create")(error)),
        }
    }

    fn has_mark(&self, path: &Path) -> Result<bool, StoreError> {
        Ok(match self.has_marked_object(path)? {
            Some(has) => has,
            None => path.exists(),
        })
    }
}

/// Returns the folder of a plan relative to the store's root.
fn planned_path(plan_id: &str) -> String {
    format!("{PLANS_FOLDER}/{plan_id}")
}

fn damaged(path: PathBuf) -> StoreError {
    let problem =
        "lost or damaged: repeat `wavemill plan` with the same options, which writes it again";
    StoreError::damaged(path, problem)
}

fn block_schema() -> SchemaRef {
    let ids = || DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    Arc::new(Schema::new(vec![
        Field::new("place", DataType::UInt64, false),
        Field::new("side", DataType::Utf8, false),
        Field::new("number", DataType::UInt64, false),
        Field::new("clip_key", DataType::Utf8, false),
        Field::new("track_id", DataType::Int64, false),
        Field::new("targets", ids(), false),
        Field::new("genres_all", ids(), false),
        Field::new("artist_id", DataType::Int64, true),
        Field::new("album_id", DataType::Int64, true),
        Field::new("split", DataType::Utf8, false),
        Field::new("renamed_from", DataType::Utf8, true),
        Field::new("bytes", DataType::UInt64, true),
        Field::new("mtime_ns", DataType::Int64, true),
        Field::new("crc32", DataType::UInt32, true),
        Field::new("fault", DataType::Utf8, true),
    ]))
}

/// Returns the rows of a block: one per shard and clip.
fn rows_of(block: &[PlannedShard]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let of_shards = block
        .iter()
        .flat_map(|shard| shard.clips.iter().map(move |clip| (shard, clip)));
    let (shards, clips): (Vec<&PlannedShard>, Vec<&PlannedClip>) = of_shards.unzip();

    let mut targets = ListBuilder::new(Int32Builder::new());
    let mut genres = ListBuilder::new(Int32Builder::new());
    for clip in &clips {
        targets.append_value(clip.row.targets.iter().copied());
        genres.append_value(clip.row.genres_all.iter().copied().map(Some));
    }
    let inputs = || clips.iter().map(|clip| clip.input);
    let mtimes = inputs().map(|input| match input?.stamp {
        Stamp::MtimeNs(ns) => Some(ns),
        Stamp::Crc32(_) => None,
    });
    let checksums = inputs().map(|input| match input?.stamp {
        Stamp::Crc32(crc) => Some(crc),
        Stamp::MtimeNs(_) => None,
    });

    let shard_numbers = |number: fn(&PlannedShard) -> usize| -> ArrayRef {
        let numbers = shards.iter().map(|shard| number(shard) as u64);
        Arc::new(UInt64Array::from_iter_values(numbers))
    };
    let row_ids = |id: fn(&ClipRow) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(
            clips.iter().map(|clip| id(&clip.row)),
        ))
    };
    let sides = shards.iter().map(|shard| &shard.split);
    let keys = clips.iter().map(|clip| &clip.row.clip_key);
    let splits = clips.iter().map(|clip| &clip.row.split);
    let renames = clips.iter().map(|clip| clip.renamed_from.as_ref());
    let faults = clips.iter().map(|clip| clip.fault.as_ref());

    // The columns are in the order of `block_schema`, against which `try_new` checks them.
    let columns: Vec<ArrayRef> = vec![
        shard_numbers(|shard| shard.place),
        Arc::new(StringArray::from_iter_values(sides)),
        shard_numbers(|shard| shard.number),
        Arc::new(StringArray::from_iter_values(keys)),
        row_ids(|row| Some(row.track_id)),
        Arc::new(targets.finish()),
        Arc::new(genres.finish()),
        row_ids(|row| row.artist_id),
        row_ids(|row| row.album_id),
        Arc::new(StringArray::from_iter_values(splits)),
        Arc::new(StringArray::from_iter(renames)),
        Arc::new(UInt64Array::from_iter(
            inputs().map(|input| Some(input?.bytes)),
        )),
        Arc::new(Int64Array::from_iter(mtimes)),
        Arc::new(UInt32Array::from_iter(checksums)),
        Arc::new(StringArray::from_iter(faults)),
    ];
    RecordBatch::try_new(block_schema(), columns)
}

/// Reads the shards of a block from its file.
fn shards_of(file: Bytes) -> Result<Vec<PlannedShard>, ParquetError> {
    let mut shards: Vec<PlannedShard> = Vec::with_capacity(BLOCK_SHARDS);
    for rows in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        let rows = BlockRows(rows?);
        let (places, numbers) = (
            rows.ids::<UInt64Type>("place")?,
            rows.ids::<UInt64Type>("number")?,
        );
        let (sides, keys, splits) = (
            rows.text("side")?,
            rows.text("clip_key")?,
            rows.text("split")?,
        );
        let (tracks, artists, albums) = (
            rows.ids::<Int64Type>("track_id")?,
            rows.ids::<Int64Type>("artist_id")?,
            rows.ids::<Int64Type>("album_id")?,
        );
        let (targets, genres) = (rows.lists("targets")?, rows.lists("genres_all")?);
        let (renames, faults) = (rows.text("renamed_from")?, rows.text("fault")?);
        let inputs = rows.inputs()?;

        for row in 0..rows.0.num_rows() {
            let place = places.value(row) as usize;
            if shards.last().is_none_or(|last| last.place != place) {
                shards.push(PlannedShard {
                    place,
                    split: sides.value(row).to_owned(),
                    number: numbers.value(row) as usize,
                    clips: Vec::new(),
                });
            }

            let clip = PlannedClip {
                row: ClipRow {
                    clip_key: keys.value(row).to_owned(),
                    track_id: tracks.value(row),
                    targets: classes(&targets, row).collect(),
                    genres_all: classes(&genres, row).flatten().collect(),
                    artist_id: value(&artists, row),
                    album_id: value(&albums, row),
                    split: splits.value(row).to_owned(),
                },
                renamed_from: renames.is_valid(row).then(|| renames.value(row).to_owned()),
                input: inputs(row),
                fault: faults.is_valid(row).then(|| faults.value(row).to_owned()),
            };
            let shard = shards
                .last_mut()
                .expect("one was pushed above if there was none");
            shard.clips.push(clip);
        }
    }
    Ok(shards)
}

/// Rows of a block, whose columns are found by name.
struct BlockRows(RecordBatch);

impl BlockRows {
    fn column<A: Array + Clone + 'static>(&self, name: &str) -> Result<A, ParquetError> {
        let column = self.0.column_by_name(name);
        let column = column.and_then(|column| column.as_any().downcast_ref::<A>());
        column
            .cloned()
            .ok_or_else(|| ParquetError::General(format!("no column {name}")))
    }

    fn ids<T: ArrowPrimitiveType>(&self, name: &str) -> Result<PrimitiveArray<T>, ParquetError> {
        self.column(name)
    }

    fn text(&self, name: &str) -> Result<StringArray, ParquetError> {
        self.column(name)
    }

    fn lists(&self, name: &str) -> Result<ListArray, ParquetError> {
        self.column(name)
    }

    /// Returns a function from a row to the size and stamp of the clip's file.
    fn inputs(&self) -> Result<impl Fn(usize) -> Option<InputId>, ParquetError> {
        let sizes = self.ids::<UInt64Type>("bytes")?;
        let mtimes = self.ids::<Int64Type>("mtime_ns")?;
        let checksums = self.ids::<UInt32Type>("crc32")?;
        Ok(move |row| {
            let stamp = match value(&checksums, row) {
                Some(crc) => Stamp::Crc32(crc),
                None => Stamp::MtimeNs(value(&mtimes, row)?),
            };
            Some(InputId {
                bytes: value(&sizes, row)?,
                stamp,
            })
        })
    }
}

fn value<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

fn classes(lists: &ListArray, row: usize) -> impl Iterator<Item = Option<i32>> {
    let list = lists.value(row);
    let list = list.as_primitive::<Int32Type>().clone();
    (0..list.len()).map(move |n| value(&list, n))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shard(place: usize) -> PlannedShard {
        let clips = (0..=place % 3).map(|n| PlannedClip {
            row: ClipRow {
                clip_key: format!("{place}/{n}.mp3"),
                track_id: -(n as i64),
                targets: vec![None, Some(n as i32)],
                genres_all: vec![n as i32; n],
                artist_id: (n > 0).then_some(7),
                album_id: None,
                split: "none".to_owned(),
            },
            fault: (n == 2).then(|| "a link".to_owned()),
            renamed_from: (n == 1).then(|| "ä".to_owned()),
            input: [None, Some(Stamp::MtimeNs(-1)), Some(Stamp::Crc32(u32::MAX))][n]
                .map(|stamp| InputId { bytes: 9, stamp }),
        });
        PlannedShard {
            place,
            split: if place < 20 { "training" } else { "test" }.to_owned(),
            number: place % 20,
            clips: clips.collect(),
        }
    }

    #[test]
    fn claims_are_shared_and_unfinished_ones_are_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let claims = || Claims::new(&store, "abc", 9).expect("room");
        let (mut ours, mut theirs) = (claims(), claims());
        let mut taken = Vec::new();
        for _ in 0..4 {
            let place = ours.take().expect("room").expect("an unclaimed shard");
            ours.finish(place).expect("room");
            // The other worker is lost before it finishes a shard.
            taken.extend([Some(place), theirs.take().expect("room")]);
        }
        while let Some(place) = ours.take().expect("room") {
            ours.finish(place).expect("room");
            taken.push(Some(place));
        }
        let distinct: std::collections::BTreeSet<_> = taken.iter().flatten().collect();
        assert_eq!((distinct.len(), taken.len()), (9, 9 + 4), "{taken:?}");
        assert_eq!(claims().take().expect("room"), None);
    }

    #[test]
    fn a_part_of_a_plan_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path());
        let blocks = store
            .write_planned_shards("abc", (0..40).map(shard))
            .expect("room");
        assert_eq!(blocks.len(), 3);

        for places in [0..40, 0..1, 15..17, 39..40, 7..7] {
            let read = store.planned_shards(&blocks, places.clone());
            let wanted: Vec<PlannedShard> = places.map(shard).collect();
            assert_eq!(read.expect("sound blocks"), wanted);
        }

        // Only the blocks of the part are read, and a damaged block is never used.
        fs::write(folder.path().join(&blocks[1].path), "other bytes").expect("room");
        assert_eq!(
            store.planned_shards(&blocks, 0..16).expect("sound").len(),
            16
        );
        let error = store.planned_shards(&blocks, 15..17).expect_err("damage");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
