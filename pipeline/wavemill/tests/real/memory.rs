//! Measures the memory of `wavemill sql` over 9,000 rows of 330 KB, by the kernel's high-water mark of the process.

use std::fs;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use half::f16;
use wavemill_extract::run::free_bytes;
use wavemill_tests::{Failed, Trial};

use wavemill_sql::testing::{Clip, TestStore, feature};

const LIMIT: &str = "1GiB";
const LIMIT_BYTES: u64 = 1 << 30;
const ROWS: i64 = 9_000;
const SHARD_ROWS: i64 = 256;
/// Number of values per row, f16[128,1292]: 30 s of log-mel.
const VALUES: usize = 128 * 1292;
const ROW_BYTES: u64 = 2 * VALUES as u64;
/// Number of distinct values between 0 and 1. With 64, zstd halves the store's 3 GB, about as it does for real
/// features.
const LEVELS: u32 = 64;
/// Minimum free space: the size of the store, and space for a query to spill.
const FREE_BYTES_MIN: u64 = 4 << 30;
/// Interval for reading the memory of a running query. The high-water mark never falls, so only an increase in the last
/// interval is missed.
const LOOK: Duration = Duration::from_millis(2);

/// A query and its expected outcome.
struct Query {
    name: &'static str,
    format: &'static str,
    sql: &'static str,
    /// Minimum size of the complete result in bytes, or a part of the error message.
    answer: Result<u64, &'static str>,
}

const QUERIES: [Query; 4] = [
    Query {
        name: "filter",
        format: "csv",
        sql: "SELECT clip_key, tensor_mean(log_mel) FROM features_log_mel WHERE genre = 1 AND track_id % 7 = 0",
        answer: Ok((ROWS / 21) as u64 * 20),
    },
    Query {
        name: "sort with limit",
        format: "arrow",
        sql: "SELECT clip_key, log_mel FROM features_log_mel ORDER BY audio_blake3 LIMIT 100",
        answer: Ok(100 * ROW_BYTES),
    },
    Query {
        name: "join",
        format: "arrow",
        sql: "SELECT t.track_title, f.log_mel FROM tracks t JOIN features_log_mel f USING (track_id)",
        answer: Ok(ROWS as u64 * ROW_BYTES),
    },
    Query {
        name: "join of two large sides, refused",
        format: "arrow",
        sql: "SELECT a.log_mel, b.log_mel FROM features_log_mel a JOIN features_log_mel b ON a.track_id = b.album_id",
        answer: Err("--memory-limit"),
    },
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "memory::sql_over_3_gb_stays_under_its_limit",
        sql_stays_under_its_limit,
    )]
}

fn sql_stays_under_its_limit() -> Result<(), Failed> {
    let folder = std::env::temp_dir();
    if let Some(free) = free_bytes(&folder).filter(|&free| free < FREE_BYTES_MIN) {
        let (free, min) = (free >> 20, FREE_BYTES_MIN >> 20);
        return Err(format!(
            "{}: {free} MiB are free, {min} are needed: set TMPDIR",
            folder.display()
        )
        .into());
    }

    let start = Instant::now();
    let store = large_store()?;
    println!(
        "{ROWS} rows written in {:.1} s",
        start.elapsed().as_secs_f64()
    );

    let mut faults = Vec::new();
    for query in &QUERIES {
        let start = Instant::now();
        let ran = ask(&store, query)?;
        let (peak_mib, took_s) = (ran.peak_bytes >> 20, start.elapsed().as_secs_f64());
        println!(
            "{}: {peak_mib} MiB at most, {took_s:.1} s, {} bytes of answer",
            query.name, ran.answer_bytes
        );

        let ended_as_wanted = match query.answer {
            Ok(bytes_min) => ran.ok && ran.answer_bytes >= bytes_min,
            Err(word) => !ran.ok && ran.said.contains(word),
        };
        if !(1..LIMIT_BYTES).contains(&ran.peak_bytes) || !ended_as_wanted {
            faults.push(format!("{}: {ran:?}", query.name));
        }
    }

    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

/// The outcome of a process that ran a query.
#[derive(Debug)]
struct QueryEnd {
    ok: bool,
    peak_bytes: u64,
    answer_bytes: u64,
    said: String,
}

/// Runs a query in a separate process.
fn ask(store: &TestStore, query: &Query) -> Result<QueryEnd, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wavemill"));
    command.args([
        "sql",
        "--memory-limit",
        LIMIT,
        "--threads",
        "8",
        "--format",
        query.format,
        "--store",
    ]);
    command
        .arg(store.folder.path())
        .arg(query.sql)
        .stdin(Stdio::null());

    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;

    let mut answer = child.stdout.take().ok_or("no output")?;
    let answered = std::thread::spawn(move || io::copy(&mut answer, &mut io::sink()));
    let peak_bytes = watch(&mut child)?;
    let answer_bytes = answered.join().map_err(|_| "the reader panicked")??;

    let mut said = String::new();
    child
        .stderr
        .take()
        .ok_or("no errors")?
        .read_to_string(&mut said)?;

    Ok(QueryEnd {
        ok: child.wait()?.success(),
        peak_bytes,
        answer_bytes,
        said,
    })
}

/// Waits for a process to end, and returns its high-water mark in bytes.
fn watch(child: &mut Child) -> Result<u64, Failed> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let mark = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        // The status of a process that has ended but was not waited for has no `VmHWM` line.
        peak = mark.map_or(Ok(0), str::parse::<u64>)?.max(peak);
        std::thread::sleep(LOOK);
    }

    Ok(peak << 10)
}

fn large_store() -> Result<TestStore, Failed> {
    let mut store = TestStore::new();
    let entry = feature("log_mel", "f16", &[Some(128), Some(1292)]);
    let noise = noise();

    for first in (0..ROWS).step_by(SHARD_ROWS as usize) {
        let split = if first < ROWS * 8 / 10 {
            "training"
        } else {
            "test"
        };

        let clips: Vec<Clip> = (first..ROWS.min(first + SHARD_ROWS))
            .map(|id| large_clip(id, &noise))
            .collect();
        store.write_feature(&entry, split, &clips);
    }

    store.write_tracks(ROWS);
    let versions = store.folder.path().join("_wavemill/versions");
    fs::create_dir_all(&versions)?;
    fs::write(versions.join("00000001.json"), store.manifest.to_json()?)?;
    Ok(store)
}

/// Returns noise with few distinct values: f16, little-endian, twice the length of a row.
fn noise() -> Vec<u8> {
    let mut state = 0x2017_u64;
    let mut noise = Vec::with_capacity(4 * VALUES);
    for _ in 0..2 * VALUES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let value = ((state >> 33) as u32 % LEVELS) as f32 / LEVELS as f32;
        noise.extend(f16::from_f32(value).to_le_bytes());
    }
    noise
}

/// Creates clip `id` from one row of the noise, at a different offset for each clip. The order of clips by hash is
/// random.
fn large_clip(id: i64, noise: &[u8]) -> Clip {
    // 37 and the number of values are coprime, so that all offsets differ.
    let at = 2 * (id as usize * 37 % VALUES);
    let hash = blake3::hash(&id.to_le_bytes()).to_hex().to_string();
    Clip {
        hash,
        tensor: noise[at..at + ROW_BYTES as usize].to_vec(),
        ..Clip::f16(id, &[])
    }
}
