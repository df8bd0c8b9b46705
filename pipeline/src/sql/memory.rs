//! Memory of queries over 9,000 rows of 330 KB, each in a process of its own, by the kernel's own high-water mark.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use half::f16;

use super::testing::{Clip, TestStore, feature};
use super::{Format, Limits, open, output};
use crate::store::Store;

/// Set in the processes that run one query: the store, the number of the query and the threads.
const CHILD: &str = "WAVEMILL_SQL_MEMORY";
const LIMIT_BYTES: usize = 1 << 30;
const ROWS: i64 = 9_000;
const SHARD_ROWS: i64 = 512;
/// f16[128,1292]: 30 s of log-mel.
const VALUES: usize = 128 * 1292;

/// Format, what is to be seen in the last error if there is one, query.
const QUERIES: &[(Format, Option<&str>, &str)] = &[
    (
        Format::Csv,
        None,
        "SELECT clip_key, tensor_mean(log_mel) FROM features_log_mel WHERE genre = 1 AND track_id % 7 = 0",
    ),
    (Format::Table, None, "SELECT clip_key, log_mel FROM features_log_mel ORDER BY duration_s DESC LIMIT 100"),
    (Format::Table, None, "SELECT clip_key, log_mel FROM features_log_mel ORDER BY audio_blake3 LIMIT 100"),
    (Format::Arrow, None, "SELECT t.track_title, f.log_mel FROM tracks t JOIN features_log_mel f USING (track_id)"),
    (
        Format::Parquet,
        None,
        "SELECT t.track_title, f.log_mel FROM features_log_mel f JOIN tracks t USING (track_id) \
         WHERE t.track_genre_top <> 'Jazz' AND f.split = 'training' ORDER BY f.duration_s, t.track_title LIMIT 50",
    ),
    (Format::Parquet, None, "SELECT * FROM features_log_mel"),
    (
        Format::Csv,
        None,
        "SELECT genre, avg(tensor_mean(log_mel)), max(tensor_max(log_mel)) FROM features_log_mel GROUP BY genre",
    ),
    (Format::Csv, None, "SELECT tensor(log_mel) FROM features_log_mel WHERE track_id < 100"),
    (Format::Arrow, None, "SELECT log_mel FROM features_log_mel ORDER BY audio_blake3"),
    (
        Format::Arrow,
        Some("--memory-limit"),
        "SELECT a.log_mel, b.log_mel FROM features_log_mel a JOIN features_log_mel b ON a.track_id = b.album_id",
    ),
];

#[test]
#[ignore = "writes 9,000 rows of 330 KB and takes minutes: cargo test -p wavemill --lib sql::memory -- --ignored --nocapture"]
fn queries_over_tensors_stay_under_the_memory_limit() {
    if let Ok(child) = std::env::var(CHILD) {
        return run_query(&child);
    }
    let store = large_store();
    let mut over = Vec::new();
    for threads in [2, 8] {
        for (number, (format, want, sql)) in QUERIES.iter().enumerate() {
            let (start, child) = (Instant::now(), format!("{} {number} {threads}", store.folder.path().display()));
            let this = std::env::current_exe().expect("this test binary");
            let name = "sql::memory::queries_over_tensors_stay_under_the_memory_limit";
            let output =
                Command::new(this).args(["--ignored", "--exact", name, "--nocapture"]).env(CHILD, child).output();
            let output = output.expect("the test binary starts");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("peak ")).unwrap_or_else(|| panic!("{text}"));
            let (peak, error) = line.split_once(' ').expect("peak and error");
            let peak_mib = peak.parse::<usize>().expect("a number") >> 10;
            println!(
                "{peak_mib:5} MiB {:6.1} s {threads} threads {format} {sql} {error}",
                start.elapsed().as_secs_f64()
            );
            let ended_as_wanted = want.map_or(error.is_empty(), |want| error.contains(want));
            if peak_mib << 20 >= LIMIT_BYTES || !ended_as_wanted {
                over.push((peak_mib, sql, error.to_owned()));
            }
        }
    }
    assert!(over.is_empty(), "over the limit, or ended otherwise: {over:?}");
}

/// Runs one query as the command does, and prints the peak of this process in KiB and the error.
fn run_query(child: &str) {
    let mut parts = child.split(' ');
    let mut next = || parts.next().expect("three parts");
    let (store, number, threads) =
        (next(), next().parse::<usize>().expect("a number"), next().parse().expect("a number"));
    let (format, _, sql) = QUERIES[number];
    let store = Path::new(store);
    let limits = Limits { memory_bytes: LIMIT_BYTES, threads, allow_write: false };
    let session = open(store, &Store::at(store).manifest(None).expect("version 1").1, limits).expect("the store opens");
    let result = session.run(sql, output::sink(format, std::io::sink()).as_mut());
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    println!(
        "\npeak {} {}",
        peak.trim().trim_end_matches(" kB"),
        result.map_or_else(|e| e.to_string(), |()| String::new())
    );
}

fn large_store() -> TestStore {
    let mut store = TestStore::new();
    let entry = feature("log_mel", "f16", &[Some(128), Some(1292)]);
    for first in (0..ROWS).step_by(SHARD_ROWS as usize) {
        let split = if first < ROWS * 8 / 10 { "training" } else { "test" };
        let clips: Vec<Clip> = (first..ROWS.min(first + SHARD_ROWS)).map(large_clip).collect();
        store.write_feature(&entry, split, &clips);
    }
    store.write_tracks(ROWS);
    store.commit(1);
    store
}

/// A tensor that compresses well (the store stays small) but is not the same in every row.
fn large_clip(id: i64) -> Clip {
    let hash = blake3::hash(&id.to_le_bytes()).to_hex().to_string();
    let tensor = f16::from_f32((id % 97) as f32 / 97.0).to_le_bytes().repeat(VALUES);
    Clip { hash, tensor, ..Clip::f16(id, &[]) }
}
