//! Tests of crops, of rows in their full length, of buckets, and of processes that share the batches of a rank.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;
use wavemill_schemas::config::Data;
use wavemill_schemas::recipe::{Compression, Dtype};

use crate::fixture::Fixture;
use crate::testing::{load, training};
use crate::*;

/// Writes a store and opens its rows as they are stored.
fn stored(fixture: &Fixture) -> (TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().expect("a folder");
    fixture.write(folder.path());
    let data = Data {
        shuffle_window: 3,
        ..Data::default()
    };
    let store = Store::open(folder.path(), None).expect("a store");
    let dataset = Dataset::open_stored(store, &data, &AtomicBool::new(false)).expect("a dataset");
    (folder, dataset)
}

fn ragged() -> Fixture {
    Fixture {
        ragged: true,
        ..Fixture::default()
    }
}

/// Returns the bytes of the rows of a batch, by key.
fn rows_of(batch: &Batch) -> BTreeMap<u64, Vec<u8>> {
    let form = batch.dataset().form();
    let form = form.with_host_frames(batch.host_frames);
    let rows = batch.memory().expect("tensors").chunks(form.row_bytes());
    let keys = batch.keys.iter().copied();
    keys.zip(rows.map(<[u8]>::to_vec)).collect()
}

fn content(dataset: &Arc<Dataset>, plan: LoaderPlan) -> BTreeMap<u64, Vec<u8>> {
    load(dataset, plan).iter().flat_map(rows_of).collect()
}

fn keys_of(batches: &[Batch]) -> Vec<Vec<u64>> {
    batches.iter().map(|batch| batch.keys.to_vec()).collect()
}

/// Returns `n` frames from the frame `first` on of a row of two-byte values.
fn frames_of(row: &[u8], form: &Form, first: usize, n: usize) -> Vec<u8> {
    let runs = if form.frames_first { 1 } else { form.bands };
    let frame_bytes = 2 * form.bands / runs;
    let mut frames = Vec::new();
    for run in row.chunks(row.len() / runs) {
        frames.extend_from_slice(&run[first * frame_bytes..(first + n) * frame_bytes]);
    }
    frames
}

#[test]
fn crops_are_parts_of_rows_that_depend_on_epoch_and_key_alone() {
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
        for frames_first in [false, true] {
            let (_folder, dataset) = stored(&Fixture {
                compression,
                frames_first,
                ..Fixture::default()
            });
            let crops = |epoch, rank, world_size, readers| LoaderPlan {
                frames: RowFrames::Crop(4),
                epoch,
                rank,
                world_size,
                readers,
                ..training()
            };

            let whole = content(&dataset, training());
            let cropped = content(&dataset, crops(0, 0, 1, 1));
            assert_eq!(cropped.len(), whole.len());
            for (key, crop) in &cropped {
                let form = dataset.form();
                let is_part = (0..=6).any(|first| frames_of(&whole[key], form, first, 4) == *crop);
                assert!(is_part, "row {key} of {compression:?}");
            }

            let mut of_ranks = content(&dataset, crops(0, 0, 2, 3));
            of_ranks.extend(content(&dataset, crops(0, 1, 2, 2)));
            assert_eq!(of_ranks, cropped);
            assert_ne!(content(&dataset, crops(1, 0, 1, 1)), cropped);
        }
    }
}

#[test]
fn crops_of_samples_are_parts_of_the_samples() {
    for (dtype, bytes) in [(Dtype::F32, 4), (Dtype::S16, 2)] {
        let (_folder, dataset) = stored(&Fixture {
            samples: true,
            shape: [1, 10],
            dtype,
            ..Fixture::default()
        });
        let crops = LoaderPlan {
            frames: RowFrames::Crop(4),
            ..training()
        };

        let whole = content(&dataset, training());
        let cropped = content(&dataset, crops);
        assert_eq!(cropped.len(), whole.len());
        for (key, crop) in &cropped {
            let mut parts = whole[key].windows(4 * bytes).step_by(bytes);
            assert!(parts.any(|part| part == crop), "row {key} of {dtype}");
        }
    }
}

#[test]
fn shorter_rows_of_crops_are_padded_with_zeros() {
    let (_folder, dataset) = stored(&ragged());
    let plan = LoaderPlan {
        frames: RowFrames::Crop(9),
        ..training()
    };

    for batch in load(&dataset, plan) {
        assert_eq!(batch.host_frames, 9);
        let stored = &dataset.rows().frames;
        let filled = batch.rows.iter().map(|&row| stored[row as usize].min(9));
        assert_eq!(batch.filled, filled.map(i64::from).collect::<Vec<_>>());

        let rows = rows_of(&batch);
        for (key, &filled) in batch.keys.iter().zip(&batch.filled) {
            let padding = frames_of(
                &rows[key],
                dataset.form(),
                filled as usize,
                9 - filled as usize,
            );
            assert!(padding.iter().all(|&byte| byte == 0), "{padding:?}");
        }
    }
}

#[test]
fn rows_are_padded_to_the_longest_of_the_global_batch() {
    let (_folder, dataset) = stored(&ragged());
    assert_eq!(dataset.form().frames, 10, "the longest row");
    let plan = |rank, world_size| LoaderPlan {
        frames: RowFrames::Longest,
        batch_size: 3,
        rank,
        world_size,
        ..training()
    };

    let batches = load(&dataset, plan(0, 1));
    let frames: Vec<usize> = batches.iter().map(|batch| batch.host_frames).collect();
    for batch in &batches {
        let longest = batch.filled.iter().max().copied();
        assert_eq!(longest, Some(batch.host_frames as i64));
    }
    assert!(frames.contains(&9) && frames.contains(&10), "{frames:?}");

    for rank in 0..2 {
        let of_rank = load(&dataset, plan(rank, 2));
        let of_rank: Vec<usize> = of_rank.iter().map(|batch| batch.host_frames).collect();
        assert_eq!(of_rank, frames, "rank {rank}");
    }
}

#[test]
fn batches_of_buckets_are_the_same_for_every_rank_and_after_a_resume() {
    let (_folder, dataset) = stored(&ragged());
    let plan = |rank, world_size| LoaderPlan {
        frames: RowFrames::Longest,
        buckets: 4,
        rank,
        world_size,
        ..training()
    };

    let batches = load(&dataset, plan(0, 1));
    let whole = keys_of(&batches);
    let mut rows = whole.concat();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), dataset.rows_of(Split::Training).len());

    let of_ranks = [0, 1, 2].map(|rank| keys_of(&load(&dataset, plan(rank, 3))));
    for (number, want) in whole.iter().enumerate() {
        let got: Vec<u64> = of_ranks
            .iter()
            .flat_map(|rank| rank[number].clone())
            .collect();
        assert_eq!(&got, want, "batch {number}");
    }

    let resumed = LoaderPlan {
        first_batch: 3,
        ..plan(0, 1)
    };
    assert_eq!(keys_of(&load(&dataset, resumed)), whole[3..]);

    let padding = |batches: &[Batch]| -> i64 {
        let padded = batches.iter().flat_map(|batch| {
            let frames = batch.host_frames as i64;
            batch.filled.iter().map(move |filled| frames - filled)
        });
        padded.sum()
    };
    let mixed = LoaderPlan {
        buckets: 1,
        ..plan(0, 1)
    };
    let (bucketed, mixed) = (padding(&batches), padding(&load(&dataset, mixed)));
    assert!(bucketed < mixed, "{bucketed} and {mixed} padded frames");
}

#[test]
fn loaders_with_a_stride_share_the_batches() {
    let (_folder, dataset) = stored(&Fixture::default());
    let whole = keys_of(&load(&dataset, training()));

    for readers in [1, 2] {
        let shares = [0, 1, 2].map(|first| {
            let plan = LoaderPlan {
                first_batch: 1 + first,
                stride: 3,
                readers,
                ..training()
            };
            keys_of(&load(&dataset, plan))
        });
        for (number, want) in whole[1..].iter().enumerate() {
            assert_eq!(&shares[number % 3][number / 3], want, "batch {number}");
        }
        let n_batches: usize = shares.iter().map(Vec::len).sum();
        assert_eq!(n_batches, whole.len() - 1);
    }
}

#[test]
fn files_are_checked_on_request_and_until_stopped() {
    let (_folder, dataset) = stored(&Fixture::default());
    let rows = dataset.rows_of(Split::Test);
    assert!(!dataset.are_files_checked(&rows));

    let stop = AtomicBool::new(true);
    let error = dataset.check_files(&rows, &stop).expect_err("stopped");
    assert!(!error.is_damage(), "{error}");
    assert!(!dataset.are_files_checked(&rows));

    let stop = AtomicBool::new(false);
    dataset.check_files(&rows, &stop).expect("equal hashes");
    assert!(dataset.are_files_checked(&rows));
    assert!(!dataset.are_files_checked(&dataset.rows_of(Split::Training)));
}

#[test]
fn single_rows_are_read_in_the_order_asked_for() {
    let (_folder, dataset) = stored(&ragged());
    let whole = content(&dataset, LoaderPlan::default());
    let plan = LoaderPlan {
        frames: RowFrames::Longest,
        ..LoaderPlan::default()
    };

    for rows in [&[5, 0, 5][..], &[7], &[], &[1, 2]] {
        let batch = Loader::read(&dataset, &plan, rows).expect("rows");
        assert_eq!(batch.rows, rows);
        for (row, bytes) in rows_of(&batch) {
            let form = dataset.form();
            let n_frames = batch.host_frames;
            assert_eq!(bytes, frames_of(&whole[&row], form, 0, n_frames));
        }
    }
}

#[test]
fn waiting_ends_with_a_batch_and_at_the_end() {
    let (_folder, dataset) = stored(&Fixture::default());
    let plan = LoaderPlan {
        batch_size: 40,
        prefetch_batches: 1,
        ..LoaderPlan::default()
    };
    let mut loader = Loader::start(&dataset, plan).expect("threads");

    let mut n_batches = 0;
    loop {
        assert!(loader.wait(Duration::from_secs(60)));
        if loader.next().is_none() {
            break;
        }
        n_batches += 1;
    }
    assert_eq!(n_batches, 2);
    assert!(loader.wait(Duration::ZERO));
}

#[test]
fn impossible_crops_and_buckets_are_errors() {
    let (_folder, equal) = stored(&Fixture::default());
    let (_other, differing) = stored(&ragged());
    let error = |dataset, frames, buckets| {
        let plan = LoaderPlan {
            frames,
            buckets,
            ..LoaderPlan::default()
        };
        let started = Loader::start(dataset, plan);
        started.map_or_else(|error| error.to_string(), |_| "none".to_owned())
    };

    assert_eq!(
        error(&equal, RowFrames::Crop(11), 1),
        "data.crop_frames: 11: rows of log_mel have 10 frames"
    );
    assert_eq!(
        error(&equal, RowFrames::Crop(0), 1),
        "data.crop_frames: 0: must be at least 1"
    );
    assert_eq!(
        error(&equal, RowFrames::Longest, 2),
        "data.buckets: rows of log_mel all have the same length"
    );
    assert_eq!(error(&differing, RowFrames::Crop(11), 2), "none");
    assert_eq!(
        error(&differing, RowFrames::Crop(1 << 40), 2),
        "data.crop_frames: 1099511627776: too many"
    );
}
