//! Measures the loader from a warm file to a shuffled batch in host memory: CPU time per row, and rows per second.
//!
//! 2,048 rows of (128, 1292) f16, stored without compression and with zstd, read by one and two threads. Uses no
//! GPU and trains nothing.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rustix::time::{ClockId, clock_gettime};
use tch::{Device, Kind};
use wavemill_schemas::canonical;
use wavemill_schemas::config::Data;
use wavemill_schemas::recipe::Compression;
use wavemill_trainer::dataset::{Dataset, Loader, LoaderPlan, Needs, Store, spectrogram};

#[allow(dead_code, missing_docs)]
#[path = "../../loader/src/fixture.rs"]
mod fixture;

use fixture::{FEATURE, Fixture, RowId};

const ROWS: usize = 2048;
const BATCH: usize = 64;

/// Measures the loader, as the best of several epochs. Without --store and --readers, measures all four cases.
#[derive(Parser)]
struct Args {
    /// Folder of the stores, which are written if they do not exist [default: a temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Only write the stores
    #[arg(long, requires = "folder")]
    write: bool,
    /// Measure only this store
    #[arg(long)]
    store: Option<Stored>,
    /// Measure only this number of reader threads
    #[arg(long)]
    readers: Option<usize>,
    /// Also create the f32 tensor
    #[arg(long)]
    f32: bool,
    /// Number of timed epochs, after one untimed epoch
    #[arg(long, default_value_t = 5)]
    epochs: u64,
    /// Print a JSON object per case
    #[arg(long)]
    json: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stored {
    None,
    Zstd,
}

impl Stored {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
        }
    }

    /// Opens the store in `folder`, which is written first if it does not exist.
    fn open(self, folder: &Path) -> Result<Arc<Dataset>> {
        let root = folder.join(self.name());
        if !root.join("_wavemill").is_dir() {
            fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
            let compression = match self {
                Self::None => Compression::None,
                Self::Zstd => Compression::Zstd,
            };
            Fixture {
                compression,
                ..rows()
            }
            .write(&root);
        }

        let (store, data) = (Store::open(&root, None)?, Data::default());
        Ok(Dataset::open(store, &data, Needs::default())?)
    }
}

fn rows() -> Fixture {
    Fixture {
        clips: ROWS,
        // Two more artists than clips: the last two are not in training, and have no clips here.
        artists: ROWS + 2,
        shape: [128, 1292],
        shard_clips: 256,
        row_group_rows: 64,
        values: like_log_mel,
        ..Fixture::default()
    }
}

/// Synthesizes values in [0, 1]: a slope over bands, swells over time, and noise as large as the differences between
/// neighbouring values in speech and music, which determine how well zstd compresses.
fn like_log_mel(fixture: &Fixture, row: RowId) -> Vec<f32> {
    fn uniform(state: &mut u64) -> f32 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 40) as f32 / (1_u64 << 24) as f32
    }

    let [bands, frames] = fixture.shape;
    let mut state = canonical::hash("bench", 0, &row.clip.to_string()) | 1;

    let (speed, phase) = (0.01 + 0.05 * uniform(&mut state), 6.0 * uniform(&mut state));
    let swell: Vec<f32> = (0..frames)
        .map(|frame| 0.12 * (speed * frame as f32 + phase).sin())
        .collect();

    let mut values = Vec::with_capacity(bands * frames);
    for band in 0..bands {
        let level = 0.75 - 0.35 * band as f32 / bands as f32;
        values.extend(swell.iter().map(|swell| {
            // The sum of three uniform values approximates a normal distribution.
            level
                + swell
                + 0.12 * (uniform(&mut state) + uniform(&mut state) + uniform(&mut state) - 1.5)
        }));
    }

    let (least, most) = values
        .iter()
        .fold((f32::MAX, f32::MIN), |(least, most), &x| {
            (x.min(least), x.max(most))
        });

    values
        .iter_mut()
        .for_each(|x| *x = (*x - least) / (most - least));
    values
}

/// Cost per row in one epoch.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_ms: f64,
    wall_ms: f64,
}

fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

fn epoch(dataset: &Arc<Dataset>, readers: usize, as_f32: bool, epoch: u64) -> Result<Cost> {
    let (start, cpu_start) = (Instant::now(), cpu_s());
    let plan = LoaderPlan {
        shuffle: true,
        epoch,
        batch_size: BATCH,
        readers,
        prefetch_batches: 2 * readers,
        ..LoaderPlan::default()
    };

    let mut rows = 0;
    for batch in Loader::start(dataset, plan)? {
        let batch = batch?;
        rows += batch.n_own;
        if as_f32 {
            let _ = black_box(spectrogram(&batch, Device::Cpu, Kind::Float)?);
        }
    }
    anyhow::ensure!(rows == ROWS, "{rows} rows");

    let a_row = 1e3 / rows as f64;
    Ok(Cost {
        cpu_ms: (cpu_s() - cpu_start) * a_row,
        wall_ms: start.elapsed().as_secs_f64() * a_row,
    })
}

fn measure(args: &Args, dataset: &Arc<Dataset>, stored: Stored, readers: usize) -> Result<()> {
    epoch(dataset, readers, args.f32, 0)?;

    let mut cpu_ms = f64::INFINITY;
    let mut wall_ms = f64::INFINITY;
    for number in 1..=args.epochs {
        let cost = epoch(dataset, readers, args.f32, number)?;
        cpu_ms = cpu_ms.min(cost.cpu_ms);
        wall_ms = wall_ms.min(cost.wall_ms);
    }

    if args.json {
        let (store, f32) = (stored.name(), args.f32);
        println!(
            "{}",
            serde_json::json!({ "store": store, "readers": readers, "f32": f32, "cpu_ms": cpu_ms, "wall_ms": wall_ms })
        );
    } else {
        let form = if args.f32 { "f32 tensor" } else { "as stored" };
        println!(
            "{:4}  readers {readers}  {form}  CPU {cpu_ms:.4} ms a row  wall {wall_ms:.4} ms a row  {:.0} rows/s",
            stored.name(),
            1e3 / wall_ms
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let folder = args.folder.as_deref().unwrap_or_else(|| temporary.path());

    // Only the reader threads are measured.
    tch::set_num_threads(1);

    for stored in args
        .store
        .map_or(vec![Stored::None, Stored::Zstd], |one| vec![one])
    {
        let dataset = stored.open(folder)?;

        if args.write || !args.json {
            let bytes: u64 = dataset
                .store()
                .manifest()
                .files_of(FEATURE)
                .map(|file| file.bytes)
                .sum();
            let ratio = (ROWS * 128 * 1292 * 2) as f64 / bytes as f64;
            eprintln!(
                "{}: {ROWS} rows, {:.0} MB, ratio {ratio:.2}",
                stored.name(),
                bytes as f64 / 1e6
            );
        }

        if args.write {
            continue;
        }

        for readers in args.readers.map_or(vec![1, 2], |one| vec![one]) {
            measure(&args, &dataset, stored, readers)?;
        }
    }
    Ok(())
}
