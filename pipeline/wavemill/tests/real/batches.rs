//! Checks that clips decoded by the host and computed by a device give the same rows: a CPU that acts as two devices
//! must write the same bytes as the CPU backend, for all rates, kinds of damage and lengths of the clips.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wavemill_catalog::MetadataFiles;
use wavemill_extract::run::{self, Job, RunMonitor};
use wavemill_extract::settings::Settings;
use wavemill_kernels::{Backend, Clip, Cpu, FeatureArgs, KernelError, Level, Plan, Row};
use wavemill_schemas::recipe::Recipe;
use wavemill_tests::{Failed, Trial, real};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real(
            "batches::lanes_write_the_bytes_of_workers",
            lanes_write_the_bytes_of_workers,
        ),
        real(
            "batches::a_batch_is_begun_while_another_is_waited_for",
            a_batch_is_begun_while_another_is_waited_for,
        ),
    ]
}

/// A CPU backend that computes clips in batches, as a device does.
struct Batches {
    cpu: Cpu,
    clips: usize,
}

impl Backend for Batches {
    fn kind(&self) -> &'static str {
        self.cpu.kind()
    }

    fn level(&self) -> String {
        self.cpu.level()
    }

    fn batch_clips(&self) -> usize {
        self.clips
    }

    fn lanes(&self) -> usize {
        2
    }

    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        self.cpu.plan(lane, features)
    }
}

const RECIPE: &str = r#"
name = "batches"
[catalog]
dataset = "folders"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "stratified"
[audio]
sample_rate_hz = 22050
min_duration_s = 0.5
AUDIO
[[features]]
name = "log_mel"
op = "mel"
n_fft = 1024
hop_length = 512
n_mels = 40
db = { ref = "max", top_db = 80.0 }
dtype = "f16"
[shards]
clips = 16
row_group_rows = 4
"#;

/// Audio settings for whole clips, for shortened clips, and for segments, the last of which extends past the maximum
/// duration.
const AUDIO: [&str; 3] = [
    "",
    "duration_s = 1.3",
    "duration_s = 2.0\nsegment_s = 0.75\nsegment_min_s = 0.25",
];

fn lanes_write_the_bytes_of_workers(data: &Path) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    for (number, audio) in AUDIO.into_iter().enumerate() {
        for folder in ["rate_variants", "mp3_odd", "fma_like_bad"] {
            let place = scratch.path().join(format!("{number}-{folder}"));
            let recipe = Recipe::parse(&RECIPE.replace("AUDIO", audio), "batches.toml", &[])?;
            let level = Level::detect();
            let stores = ["workers", "lanes"].map(|name| place.join(name));

            for (store, clips) in stores.iter().zip([1, 3]) {
                let backend = Arc::new(Batches {
                    cpu: Cpu { level },
                    clips,
                });
                let settings = Settings {
                    backend,
                    threads: 2,
                    max_reject_fraction: Some(1.0),
                    ..Settings::default()
                };

                let job = Job {
                    recipe: recipe.clone(),
                    metadata: MetadataFiles::default(),
                    audio: data.join(folder),
                    store: store.clone(),
                    sides: None,
                };
                run::run(&job, &settings, &RunMonitor::default())?;
            }

            same_rows(&stores).map_err(|error| format!("{folder}, {audio:?}: {error}"))?;
        }
    }
    Ok(())
}

/// A CPU backend in which the first batch does not end before a second one has started.
struct OverlappingBackend {
    batches: Batches,
    begun: Arc<AtomicUsize>,
    never_met: Arc<AtomicBool>,
}

struct OverlappingPlan {
    plan: Box<dyn Plan>,
    begun: Arc<AtomicUsize>,
    never_met: Arc<AtomicBool>,
}

impl Backend for OverlappingBackend {
    fn kind(&self) -> &'static str {
        self.batches.kind()
    }

    fn level(&self) -> String {
        self.batches.level()
    }

    fn batch_clips(&self) -> usize {
        self.batches.batch_clips()
    }

    fn lanes(&self) -> usize {
        self.batches.lanes()
    }

    fn plan(&self, lane: usize, features: &[FeatureArgs]) -> Result<Box<dyn Plan>, KernelError> {
        Ok(Box::new(OverlappingPlan {
            plan: self.batches.plan(lane, features)?,
            begun: Arc::clone(&self.begun),
            never_met: Arc::clone(&self.never_met),
        }))
    }
}

impl Plan for OverlappingPlan {
    fn run(&mut self, clips: &[Clip<'_>]) -> Result<Vec<Result<Row, KernelError>>, KernelError> {
        self.begun.fetch_add(1, Ordering::SeqCst);

        let deadline = Instant::now() + Duration::from_secs(30);
        while self.begun.load(Ordering::SeqCst) < 2 {
            if Instant::now() > deadline {
                self.never_met.store(true, Ordering::SeqCst);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }

        self.plan.run(clips)
    }
}

/// Checks that two batches overlap: otherwise, the device would idle while the host ends one and starts the next.
fn a_batch_is_begun_while_another_is_waited_for(data: &Path) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let never_met = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicUsize::new(0));

    let backend = Arc::new(OverlappingBackend {
        batches: Batches {
            cpu: Cpu {
                level: Level::detect(),
            },
            clips: 3,
        },
        begun: Arc::clone(&begun),
        never_met: Arc::clone(&never_met),
    });

    let settings = Settings {
        backend,
        threads: 2,
        max_reject_fraction: Some(1.0),
        ..Settings::default()
    };

    let job = Job {
        recipe: Recipe::parse(&RECIPE.replace("AUDIO", ""), "batches.toml", &[])?,
        metadata: MetadataFiles::default(),
        audio: data.join("rate_variants"),
        store: scratch.path().join("store"),
        sides: None,
    };

    run::run(&job, &settings, &RunMonitor::default())?;

    if never_met.load(Ordering::SeqCst) {
        return Err("the second batch waited for the first".into());
    }
    if begun.load(Ordering::SeqCst) < 2 {
        return Err("there was only one batch".into());
    }
    Ok(())
}

/// Checks that all shards and tables are equal. Only the names of engines and plans may differ.
fn same_rows([left, right]: &[PathBuf; 2]) -> Result<(), String> {
    let (ours, theirs) = (files(&left.join("data")), files(&right.join("data")));
    if ours.is_empty() || ours.len() != theirs.len() {
        return Err(format!("{} files, not {}", theirs.len(), ours.len()));
    }

    match ours
        .iter()
        .zip(&theirs)
        .find(|(ours, theirs)| ours != theirs)
    {
        Some(((ours, _), (theirs, _))) => Err(format!("{ours} and {theirs} differ")),
        None => Ok(()),
    }
}

/// Returns the relative paths and the contents of all files below the plan's folder, sorted.
fn files(data: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![data.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }

            let below: PathBuf = path
                .strip_prefix(data)
                .unwrap()
                .components()
                .skip(1)
                .collect();
            found.push((below.display().to_string(), fs::read(&path).unwrap()));
        }
    }

    found.sort();
    found
}
