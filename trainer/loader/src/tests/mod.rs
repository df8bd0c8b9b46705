//! Tests that load whole small stores: order of rows, values, damaged files, threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;
use tempfile::TempDir;
use wavemill_schemas::config::Data;
use wavemill_schemas::recipe::{Compression, Dtype, SplitRule};
use wavemill_schemas::version_name::VersionName;

use crate::fixture::{FEATURE, Fixture};
use crate::testing::{load, training};
use crate::*;

mod frames;
mod odd;
mod versions;

/// Opens a store as a dataset, as the trainer does.
fn opened(root: &Path, data: &Data) -> Result<Arc<Dataset>, DatasetError> {
    crate::testing::open(root, data, Needs::default())
}

/// Opens a store without comparing the hashes of files, so that damaged pages are read.
fn open(root: &Path, data: &Data) -> Arc<Dataset> {
    Dataset::open(
        Store::open(root, None)
            .expect("a store")
            .without_shard_checks(),
        data,
        Needs::default(),
    )
    .expect("a dataset")
}

fn made(fixture: &Fixture) -> (TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());

    let dataset = open(
        folder.path(),
        &Data {
            shuffle_window: 3,
            ..Data::default()
        },
    );

    (folder, dataset)
}

fn rows_of(batches: &[Batch]) -> Vec<Vec<u32>> {
    batches.iter().map(|b| b.rows[..b.n_own].to_vec()).collect()
}

/// Returns the bytes of each row's tensor in a batch.
fn bytes_of_rows(batch: &Batch) -> Vec<Vec<u8>> {
    let row_bytes = batch.dataset().form().row_bytes();
    let memory = batch.memory().expect("tensors were asked for");
    memory
        .chunks_exact(row_bytes)
        .take(batch.rows.len())
        .map(<[u8]>::to_vec)
        .collect()
}

#[test]
fn global_batches_are_the_same_rows_for_every_number_of_ranks() {
    let (_folder, dataset) = made(&Fixture::default());
    let whole: Vec<Vec<u64>> = load(&dataset, training())
        .iter()
        .map(|b| b.keys.to_vec())
        .collect();

    for world_size in [2, 3, 4, 8] {
        let ranks: Vec<Vec<Batch>> = (0..world_size)
            .map(|rank| {
                load(
                    &dataset,
                    LoaderPlan {
                        rank,
                        world_size,
                        ..training()
                    },
                )
            })
            .collect();

        for (k, want) in whole.iter().enumerate() {
            let got: Vec<u64> = ranks
                .iter()
                .flat_map(|batches| batches[k].keys.to_vec())
                .collect();
            assert_eq!(&got, want, "batch {k} of {world_size} ranks");
        }

        assert!(ranks.iter().all(|batches| batches.len() == whole.len()));
    }
}

#[test]
fn each_training_row_occurs_once_per_epoch() {
    let (_folder, dataset) = made(&Fixture::default());
    let epochs: Vec<Vec<u32>> = (0..3)
        .map(|epoch| {
            rows_of(&load(
                &dataset,
                LoaderPlan {
                    epoch,
                    ..training()
                },
            ))
            .concat()
        })
        .collect();

    for rows in &epochs {
        let mut sorted = rows.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, dataset.rows_of(Split::Training));
    }

    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
}

#[test]
fn resumed_epoch_reads_only_remaining_rows() {
    let (_folder, dataset) = made(&Fixture::default());
    let whole = rows_of(&load(&dataset, training()));
    let before = dataset.bytes_read();

    let rest = load(
        &dataset,
        LoaderPlan {
            first_batch: 3,
            readers: 2,
            ..training()
        },
    );

    assert_eq!(rest[0].index, 3);
    assert_eq!(rows_of(&rest), whole[3..]);

    let all = before as f64;
    let read = (dataset.bytes_read() - before) as f64;
    let share = whole[3..].concat().len() as f64 / whole.concat().len() as f64;
    assert!(
        (read / all - share).abs() < 0.05,
        "{read} of {all} bytes for {share} of the rows"
    );

    assert_eq!(
        load(
            &dataset,
            LoaderPlan {
                first_batch: 99,
                ..training()
            }
        )
        .len(),
        0
    );
}

#[test]
fn a_rank_reads_its_share_of_the_bytes() {
    let fixture = Fixture {
        shape: [16, 64],
        clips: 480,
        ..Fixture::default()
    };
    let (folder, dataset) = made(&fixture);

    let training = LoaderPlan {
        batch_size: 64,
        ..training()
    };
    load(&dataset, training.clone());
    let split = dataset.bytes_read();

    for world_size in [2, 3, 4, 8] {
        for rank in 0..world_size {
            let dataset = open(
                folder.path(),
                &Data {
                    shuffle_window: 3,
                    ..Data::default()
                },
            );
            load(
                &dataset,
                LoaderPlan {
                    rank,
                    world_size,
                    ..training.clone()
                },
            );

            let most = 1.1 * split as f64 / world_size as f64;
            assert!(
                dataset.bytes_read() as f64 <= most,
                "{} of {split}, {world_size} ranks",
                dataset.bytes_read()
            );
        }
    }
}

/// Key of a row: clip, segment, and the bits of the tempo.
type Key = (String, i32, u32);

fn key_of(dataset: &Dataset, row: u32) -> Key {
    let rows = dataset.rows();
    let row = row as usize;
    (
        rows.clip_keys[row].to_string(),
        rows.segments[row],
        rows.variants[row].to_bits(),
    )
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).expect("a column")
}

/// Reads the tensors of all rows with Parquet's Arrow reader.
fn by_arrow(dataset: &Dataset) -> BTreeMap<Key, Vec<u8>> {
    let mut tensors = BTreeMap::new();
    for entry in dataset.store().manifest().files_of(FEATURE) {
        let file = fs::File::open(dataset.store().path(entry).expect("a path")).expect("a file");

        for batch in ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|b| b.build())
            .expect("Parquet")
        {
            let batch = batch.expect("rows");
            let keys = column(&batch, "clip_key");
            let segments = column(&batch, "segment");
            let variants = column(&batch, "variant");
            let features = column(&batch, FEATURE);

            for row in 0..batch.num_rows() {
                let segment = segments
                    .as_primitive::<arrow::datatypes::Int32Type>()
                    .value(row);
                let variant = variants
                    .as_primitive::<arrow::datatypes::Float32Type>()
                    .value(row);
                let key = (
                    keys.as_string::<i32>().value(row).to_owned(),
                    segment,
                    variant.to_bits(),
                );

                tensors.insert(key, features.as_fixed_size_binary().value(row).to_vec());
            }
        }
    }

    tensors
}

#[test]
fn bytes_match_arrow_reader() {
    for compression in [Compression::Zstd, Compression::None] {
        for dtype in [Dtype::F16, Dtype::F32, Dtype::U8] {
            let fixture = Fixture {
                compression,
                dtype,
                segments: 2,
                stretched: true,
                ..Fixture::default()
            };
            let (_folder, dataset) = made(&fixture);
            let arrow = by_arrow(&dataset);

            let mut seen = 0;
            for split in Split::ALL {
                for batch in load(
                    &dataset,
                    LoaderPlan {
                        split,
                        ..training()
                    },
                ) {
                    for (got, &row) in bytes_of_rows(&batch).iter().zip(&batch.rows) {
                        let key = key_of(&dataset, row);
                        assert_eq!(got, &arrow[&key], "{key:?} {compression:?} {dtype:?}");
                        seen += 1;
                    }
                }
            }

            assert_eq!(seen, arrow.len());
        }
    }
}

/// Returns the rows of each batch with the bytes of their tensors.
fn content(dataset: &Arc<Dataset>, plan: LoaderPlan) -> Vec<(Vec<u32>, Vec<Vec<u8>>)> {
    load(dataset, plan)
        .iter()
        .map(|batch| (batch.rows.to_vec(), bytes_of_rows(batch)))
        .collect()
}

#[test]
fn batches_do_not_depend_on_the_number_of_readers() {
    let (_folder, dataset) = made(&Fixture::default());
    let one = content(&dataset, training());
    for readers in 2..=4 {
        for prefetch_batches in [0, 3, 9] {
            assert_eq!(
                content(
                    &dataset,
                    LoaderPlan {
                        readers,
                        prefetch_batches,
                        ..training()
                    }
                ),
                one,
                "{readers} readers"
            );
        }
    }
}

#[test]
fn another_rule_takes_its_splits_from_the_tracks() {
    let (folder, dataset) = made(&Fixture::default());
    for (data, want) in [
        (None, Fixture::split_stratified as fn(usize) -> Split),
        (Some("artist"), |clip| {
            Fixture::default().split_by_artist(clip)
        }),
    ] {
        let rule = data.unwrap_or("stratified").to_owned();
        let dataset = open(
            folder.path(),
            &Data {
                split: Some(rule),
                ..Data::default()
            },
        );

        for split in Split::ALL {
            let rows = dataset.rows_of(split);
            assert!(!rows.is_empty());
            let clips = rows
                .iter()
                .map(|&row| dataset.rows().track_ids[row as usize] as usize);
            assert!(
                clips.into_iter().all(|clip| want(clip) == split),
                "{}",
                split.name()
            );
        }
    }

    let store = Store::open(folder.path(), None).expect("a store");
    let error = <Dataset>::open(
        store,
        &Data {
            split: Some("random".to_owned()),
            ..Data::default()
        },
        Needs::default(),
    );
    let error = error.expect_err("no such rule").to_string();
    assert_eq!(
        error,
        "data.split = random: the store has official, stratified, artist, or a fold, such as fold-1-of-5: choose one of \
         these"
    );

    assert_eq!(dataset.rows_of(Split::Test).len(), 8);

    // Each row is in the test split of exactly one fold, which the next rule has in its validation split.
    let folds = dataset.folds(3);
    for fold in 1..=3 {
        let data = Data {
            split: Some(format!("fold-{fold}-of-3")),
            ..Data::default()
        };
        let divided = open(folder.path(), &data);
        let of = |fold: usize| {
            let rows = 0..folds.len() as u32;
            rows.filter(|&row| folds[row as usize] == fold)
                .collect::<Vec<_>>()
        };
        assert_eq!(divided.rows_of(Split::Test), of(fold));
        assert_eq!(divided.rows_of(Split::Validation), of(fold % 3 + 1));
    }
}

#[test]
fn user_columns_are_supported_as_splits() {
    for (column, split, name, kind, is_by_folder) in [
        ("split_mood", Some("mood"), "mood", SplitRule::Column, false),
        // A user-defined column assigns tracks to splits, whatever its name.
        (
            "split_segment",
            Some("segment"),
            "segment",
            SplitRule::Column,
            false,
        ),
        (
            "split_mood",
            Some("stratified"),
            "stratified",
            SplitRule::Stratified,
            false,
        ),
        ("split_mood", None, "artist", SplitRule::Artist, true),
        (
            "split_mood",
            Some("artist"),
            "artist",
            SplitRule::Artist,
            true,
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = Fixture {
            own_column: Some(column),
            ..Fixture::default()
        };
        fixture.write(folder.path());
        let data = Data {
            split: split.map(str::to_owned),
            ..Data::default()
        };

        let dataset = open(folder.path(), &data);
        assert_eq!(dataset.split_name(), name, "{column} {split:?}");
        assert_eq!(dataset.split_rule(), kind, "{column} {split:?}");
        assert_eq!(
            dataset.is_split_by_folder(),
            is_by_folder,
            "{column} {split:?}"
        );
    }
}

/// Returns the bits of the tempos that occur in a split.
fn variants(dataset: &Dataset, split: Split) -> BTreeSet<u32> {
    let rows = dataset.rows_of(split);
    rows.iter()
        .map(|&row| dataset.rows().variants[row as usize].to_bits())
        .collect()
}

#[test]
fn stretched_copies_are_used_only_for_training() {
    let folder = tempfile::tempdir().expect("a folder");
    Fixture {
        stretched: true,
        ..Fixture::default()
    }
    .write(folder.path());

    let dataset = open(
        folder.path(),
        &Data {
            split: Some("stratified".to_owned()),
            ..Data::default()
        },
    );

    assert_eq!(
        variants(&dataset, Split::Training),
        BTreeSet::from([1.0_f32.to_bits(), 1.15_f32.to_bits()])
    );
    assert_eq!(
        variants(&dataset, Split::Test),
        BTreeSet::from([1.0_f32.to_bits()])
    );

    assert!(
        dataset.warnings().iter().any(|warning| warning.contains(
            "rows are in no split under stratified and not read: copies at another tempo"
        )),
        "{:?}",
        dataset.warnings()
    );
}

/// Under `segment_stretched`, copies at another tempo are in all splits. Under another rule of the same store, they are
/// only used for training.
#[test]
fn stretched_copies_are_tested_under_their_own_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    Fixture {
        stretched: true,
        copies_everywhere: true,
        ..Fixture::default()
    }
    .write(folder.path());

    for (split, want) in [
        (None, &[1.0, 1.15][..]),
        (Some("segment_stretched"), &[1.0, 1.15]),
        (Some("stratified"), &[1.0]),
    ] {
        let dataset = open(
            folder.path(),
            &Data {
                split: split.map(str::to_owned),
                ..Data::default()
            },
        );
        for split in [Split::Validation, Split::Test] {
            let rows = dataset.rows_of(split);
            let variants: BTreeSet<u32> = rows
                .iter()
                .map(|&row| dataset.rows().variants[row as usize].to_bits())
                .collect();
            let want: BTreeSet<u32> = want.iter().map(|v: &f32| v.to_bits()).collect();
            assert_eq!(variants, want, "{split:?}, {}", split.name());
        }
    }
}

#[test]
fn the_last_batch_is_left_out_only_when_asked_and_its_rows_are_counted() {
    let (_folder, dataset) = made(&Fixture::default());
    let rows = dataset.rows_of(Split::Training).len();
    assert_eq!(rows % 7, 3);

    let plan = LoaderPlan {
        batch_size: 7,
        drop_last: true,
        ..training()
    };

    let loader = Loader::start(&dataset, plan.clone()).expect("threads");
    assert_eq!(loader.n_batches() as usize, rows / 7);
    assert_eq!(
        rows_of(&load(&dataset, plan.clone())).concat().len(),
        rows - 3
    );

    let loader = Loader::start(
        &dataset,
        LoaderPlan {
            drop_last: false,
            ..plan
        },
    )
    .expect("threads");
    assert_eq!(loader.count(), rows / 7 + 1);
}

/// Returns the plan of one rank for an epoch with mix-up.
fn mixed(rank: usize, world_size: usize) -> LoaderPlan {
    LoaderPlan {
        mixup: true,
        rank,
        world_size,
        ..training()
    }
}

/// Returns the mix-up partner of each row, over all ranks, with the partner's bytes.
fn pairs(dataset: &Arc<Dataset>, world_size: usize) -> BTreeMap<u32, (u32, Vec<u8>)> {
    let mut pairs = BTreeMap::new();
    for rank in 0..world_size {
        for batch in load(dataset, mixed(rank, world_size)) {
            let bytes = bytes_of_rows(&batch);
            let partners = batch.partners.as_ref().expect("asked for");
            assert_eq!(partners.len(), batch.n_own);

            for (place, &partner) in partners.iter().enumerate() {
                let partner = partner as usize;
                let pair = (batch.rows[partner], bytes[partner].clone());
                pairs.insert(batch.rows[place], pair);
            }
        }
    }
    pairs
}

#[test]
fn a_partner_is_the_same_row_for_every_number_of_ranks_and_its_values_are_there() {
    let (_folder, dataset) = made(&Fixture::default());
    let alone = pairs(&dataset, 1);
    assert_eq!(alone.len(), 80);
    assert!(
        alone
            .iter()
            .filter(|(row, (partner, _))| *row != partner)
            .count()
            >= 78
    );

    assert_eq!(pairs(&dataset, 3), alone);
    assert_eq!(pairs(&dataset, 8), alone);
}

/// Returns the path of the first training file, and the offset and length of the page that contains row 5.
fn page_of_row_5(dataset: &Dataset) -> (std::path::PathBuf, u64, u64) {
    let entry = dataset
        .store()
        .manifest()
        .files_of(FEATURE)
        .next()
        .expect("a file");
    let path = dataset.store().path(entry).expect("a path");

    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let file = fs::File::open(&path).expect("a file");
    let metadata = ArrowReaderMetadata::load(&file, options).expect("Parquet");

    let column = metadata.schema().index_of(FEATURE).expect("the column");
    let pages = metadata.metadata().offset_index().expect("an index")[0][column].page_locations();
    let page = pages
        .iter()
        .rfind(|page| page.first_row_index <= 5)
        .expect("a page");

    (path, page.offset as u64, page.compressed_page_size as u64)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, offset).expect("room");
}

/// Returns the offset of the zstd frame in a page.
fn magic(page: &[u8]) -> usize {
    page.windows(4)
        .position(|at| at == [0x28, 0xb5, 0x2f, 0xfd])
        .expect("zstd")
}

#[test]
fn a_damaged_page_is_an_error_that_names_file_and_row_group_or_is_counted() {
    type Damage<'a> = &'a dyn Fn(&mut [u8]);
    let damages: [(&str, Damage); 6] = [
        ("its page header is none", &|page| page.fill(0)),
        ("a page of type 2", &|page| page[1] = 0x04),
        ("its page header gives 632 bytes", &|page| page[4] ^= 0x08),
        ("its page header gives another length", &|page| {
            page[7] ^= 0x40
        }),
        ("zstd: Unknown frame descriptor", &|page| {
            page[magic(page)] ^= 1
        }),
        ("zstd", &|page| {
            let payload = magic(page) + 4;
            page[payload..].fill(0);
        }),
    ];

    for (says, damage) in damages {
        let (folder, dataset) = made(&Fixture::default());
        let undamaged = by_arrow(&dataset);
        let (path, offset, bytes) = page_of_row_5(&dataset);
        let mut page =
            fs::read(&path).expect("a file")[offset as usize..][..bytes as usize].to_vec();

        damage(&mut page);
        overwrite(&path, offset, &page);

        let error = Loader::start(&dataset, training())
            .expect("threads")
            .find_map(Result::err);
        let error = error.expect("damage is seen").to_string();
        let place = format!("{}: row group 0 is damaged", path.display());
        assert!(
            error.contains(&place) && error.contains(says) && error.contains("--skip-damaged"),
            "{error}"
        );

        let dataset = open(
            folder.path(),
            &Data {
                skip_damaged: true,
                ..Data::default()
            },
        );

        let batches = load(&dataset, training());
        assert_eq!(batches.iter().map(|b| b.damaged.len()).sum::<usize>(), 1);
        let rows = rows_of(&batches).concat();
        assert_eq!(rows.len(), dataset.rows_of(Split::Training).len() - 1);
        assert!(!rows.contains(&5));

        // A damaged row leaves no gap between the other rows of the batch.
        for batch in &batches {
            for (got, &row) in bytes_of_rows(batch).iter().zip(&batch.rows) {
                assert_eq!(got, &undamaged[&key_of(&dataset, row)]);
            }
        }

        // A damaged row is counted by the rank that it belongs to, and not by the rank of which it is a mix-up partner.
        let counted: usize = (0..3)
            .flat_map(|rank| load(&dataset, mixed(rank, 3)))
            .map(|batch| batch.damaged.len())
            .sum();
        assert_eq!(counted, 1);
    }
}

#[test]
fn a_cut_file_is_named_when_opened_and_when_cut_later() {
    for compression in [Compression::Zstd, Compression::None] {
        let (folder, dataset) = made(&Fixture {
            compression,
            ..Fixture::default()
        });
        let (path, offset, _) = page_of_row_5(&dataset);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|f| f.set_len(offset + 3))
            .expect("cut");
        let error = Loader::start(&dataset, training())
            .expect("threads")
            .find_map(Result::err);
        let error = error.expect("damage is seen").to_string();
        assert!(
            error.contains(&path.display().to_string())
                && error.contains("the file ends within it"),
            "{error}"
        );

        let error = opened(folder.path(), &Data::default())
            .expect_err("a cut file")
            .to_string();
        assert!(
            error.contains(&format!("{}: {} bytes, not", path.display(), offset + 3)),
            "{error}"
        );
        let skips = Data {
            skip_damaged: true,
            ..Data::default()
        };
        let dataset = opened(folder.path(), &skips).expect("the rest");
        assert_eq!(
            dataset
                .lost()
                .iter()
                .map(|lost| lost.rows)
                .collect::<Vec<_>>(),
            [20]
        );
        assert_eq!(rows_of(&load(&dataset, training())).concat().len(), 60);
    }
}

#[test]
fn blake3_detects_damage_outside_page_checksums() {
    let (_folder, dataset) = made(&Fixture {
        compression: Compression::None,
        ..Fixture::default()
    });

    assert!(
        dataset
            .store()
            .verify(FEATURE)
            .expect("readable")
            .is_empty()
    );

    let (path, offset, bytes) = page_of_row_5(&dataset);
    overwrite(&path, offset + bytes - 1, &[0x7b]);

    let damaged = dataset.store().verify(FEATURE).expect("readable");
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].to_string().contains(&path.display().to_string()));
}

#[test]
fn a_flipped_bit_is_found_when_its_shard_is_first_read() {
    let (folder, unchecked) = made(&Fixture {
        compression: Compression::None,
        ..Fixture::default()
    });
    let (path, offset, bytes) = page_of_row_5(&unchecked);
    overwrite(&path, offset + bytes - 1, &[0x7b]);
    // The damage is not noticed when pages are read.
    assert_eq!(load(&unchecked, training()).len(), 8);

    let checked = opened(folder.path(), &Data::default()).expect("a dataset");
    let error = Loader::start(&checked, training())
        .expect("threads")
        .find_map(Result::err);
    let error = error.expect("damage is seen").to_string();
    let path = path.display().to_string();
    assert!(
        error.contains(&path) && error.contains("blake3 differs"),
        "{error}"
    );

    let skips = Data {
        skip_damaged: true,
        ..Data::default()
    };
    let dataset = opened(folder.path(), &skips).expect("a dataset");
    let lost: Vec<u64> = dataset.lost().iter().map(|lost| lost.rows).collect();
    assert_eq!(lost, [20], "the rows of the shard");
    assert_eq!(rows_of(&load(&dataset, training())).concat().len(), 60);

    let folds = Data {
        split: Some("fold-1-of-3".to_owned()),
        ..skips
    };
    let error = opened(folder.path(), &folds).expect_err("other folds");
    let error = error.to_string();
    assert!(error.contains("the folds would depend on it"), "{error}");
}

#[test]
fn metadata_models_do_not_read_shards() {
    let (folder, dataset) = made(&Fixture::default());
    let (path, offset, _) = page_of_row_5(&dataset);
    overwrite(&path, offset, &[0x7b]);
    let store = Store::open(folder.path(), None).expect("a store");
    let error = Dataset::<Vec<u8>>::open(store, &Data::default(), Needs::Metadata);
    let error = error.expect_err("other bytes").to_string();
    assert!(error.contains("blake3 differs"), "{error}");
}

#[test]
fn dropping_the_loader_stops_its_readers() {
    let (_folder, dataset) = made(&Fixture::default());
    for taken in [0, 1, 3] {
        for readers in [1, 3] {
            let plan = LoaderPlan {
                batch_size: 1,
                readers,
                prefetch_batches: 4,
                ..training()
            };

            let mut loader = Loader::start(&dataset, plan).expect("threads");
            let batches: Vec<_> = loader.by_ref().take(taken).collect();
            drop(loader);

            assert_eq!(batches.len(), taken);
        }
    }

    assert_eq!(Arc::strong_count(&dataset), 1, "a reader is still there");
}

#[test]
fn class_ids_and_sets_are_those_of_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    Fixture {
        unlabelled: 5,
        ..Fixture::default()
    }
    .write(folder.path());

    let dataset = open(
        folder.path(),
        &Data {
            targets: vec!["genre".to_owned(), GENRES_ALL.to_owned()],
            ..Data::default()
        },
    );

    for batch in load(&dataset, training()) {
        let ids = batch.class_ids(0);
        let sets = batch.class_sets(1);

        for (place, &row) in batch.rows.iter().enumerate() {
            let clip = dataset.rows().track_ids[row as usize];
            assert_eq!(ids[place], if clip % 5 == 4 { -1 } else { clip % 3 });
            let want = [0, 1, 2, 3]
                .map(|class| f32::from(class == clip % 3 || class == 3 && clip % 2 == 0));
            assert_eq!(sets[4 * place..][..4], want);
        }

        assert_eq!(batch.class_ids(1), vec![-1; batch.rows.len()]);
    }
}

#[test]
fn errors_for_missing_names_list_available_ones() {
    let (folder, _dataset) = made(&Fixture::default());
    let feature = Data {
        feature: Some("mfcc".to_owned()),
        ..Data::default()
    };
    let targets = Data {
        targets: vec!["mood".to_owned()],
        ..Data::default()
    };
    for (data, want) in [
        (
            feature,
            "data.feature = mfcc: the store has log_mel: choose one of these, or extract a store whose recipe has mfcc",
        ),
        (
            targets,
            "data.targets = mood: the store has genre, genres_all: choose one of these, or extract a store whose recipe has mood",
        ),
    ] {
        let error = opened(folder.path(), &data).expect_err("not there");
        assert_eq!(error.to_string(), want);
    }

    let version = Store::open(folder.path(), Some(&VersionName::Number(3)))
        .expect_err("no such version")
        .to_string();
    assert!(
        version.ends_with("no version 3; available: version 1 only"),
        "{version}"
    );

    let nothing = Store::open(&folder.path().join("data"), None)
        .expect_err("no store")
        .to_string();
    assert!(
        nothing.contains("no store with a committed version"),
        "{nothing}"
    );
}

/// Returns the number of the version that is opened for the name `name`, or the error message.
fn version_of(root: &Path, name: &str) -> Result<u64, String> {
    let name: VersionName = name.parse().expect("a name");
    Store::open(root, Some(&name))
        .map(|store| store.version())
        .map_err(|error| error.to_string())
}

#[test]
fn a_tag_names_a_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = Fixture::default().write(folder.path());
    fs::create_dir(folder.path().join("data").join(&manifest.plan_id)).expect("room");
    let versions = folder.path().join("_wavemill/versions");
    fs::copy(
        versions.join("00000001.json"),
        versions.join("00000002.json"),
    )
    .expect("room");

    let tags = folder.path().join("_wavemill/tags");
    fs::create_dir(&tags).expect("room");
    for (tag, content) in [
        ("paper", "1\n"),
        ("next", "2\n"),
        ("gone", "9\n"),
        ("garbage", "one\n"),
    ] {
        fs::write(tags.join(tag), content).expect("room");
    }

    let root = folder.path();
    assert_eq!(version_of(root, "paper"), Ok(1));
    assert_eq!(version_of(root, "next"), Ok(2));
    for (tag, message) in [
        ("gone", "tags/gone: damaged tag: it refers to version 9"),
        ("garbage", "tags/garbage: damaged tag: it does not contain"),
        (
            "papers",
            "no tag papers; the tags are garbage, gone, next, paper: ",
        ),
    ] {
        let said = version_of(root, tag).expect_err(tag);
        assert!(said.contains(message), "{said}");
    }

    // Missing data of an old version count as removed on purpose. The latest version can still be opened.
    fs::rename(folder.path().join("data"), folder.path().join("elsewhere")).expect("room");
    let said = version_of(root, "paper").expect_err("no data");
    assert!(said.contains("whose data was removed"), "{said}");
    assert_eq!(version_of(root, "next"), Ok(2));
}
