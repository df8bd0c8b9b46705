//! Writes the data set: renders clips on all cores, then writes the tables and returns a summary.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use crate::damage;
use crate::encode::{Mp3, id3v2, mp3};
use crate::fma_features;
use crate::genres::GENRES;
use crate::metadata::{self, EncodedClip};
use crate::rng::Rng;
use crate::styles;
use crate::synth::Canvas;
use crate::tracks::{CLIPS, Catalog, Clip, Line, Options, Track};

const METADATA: &str = "fma_metadata";
const AUDIO: &str = "fma_demo";

/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// Creates the folder. If it is not empty, fails without `force`; with `force`, removes only the folders `fma_metadata`
/// and `fma_demo` in it.
///
/// # Errors
/// If the folder is not empty, or cannot be created or cleared.
pub(crate) fn prepare(out_dir: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(out_dir).with_context(|| format!("cannot create {}", out_dir.display()))?;
    let mut entries =
        fs::read_dir(out_dir).with_context(|| format!("cannot read {}", out_dir.display()))?;
    if entries.next().is_some() && !force {
        bail!(
            "{} is not empty: choose another folder, or give --force to demo-audio",
            out_dir.display()
        );
    }

    // Remove old clips: with another seed, clips have other names and would not be overwritten.
    for name in [METADATA, AUDIO] {
        let folder = out_dir.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Writes clips and tables below `out_dir` and returns the summary as one line of JSON. If `reports`, writes the
/// progress to stderr.
///
/// # Errors
/// If a file cannot be written or a clip cannot be encoded.
pub(crate) fn dataset(out_dir: &Path, options: &Options, reports: bool) -> Result<String> {
    let catalog = Catalog::draw(options);

    // Encode the clips first: the table contains their bit rates, and variable ones are only known after encoding.
    let encoded = clips(&out_dir.join(AUDIO), options, &catalog, reports)?;

    let folder = out_dir.join(METADATA);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let tables = [
        (
            "features.csv",
            fma_features::features_csv(options, &catalog).into_bytes(),
        ),
        ("tracks.csv", metadata::tracks_csv(&catalog, &encoded)),
        ("genres.csv", metadata::genres_csv(&catalog).into_bytes()),
    ];
    for (name, table) in tables {
        save(&folder.join(name), &table)?;
    }
    Ok(summary(options, &catalog))
}

/// Renders and writes all clips on all cores. Each clip has its own random key, so the order does not matter.
fn clips(
    folder: &Path,
    options: &Options,
    catalog: &Catalog,
    reports: bool,
) -> Result<Vec<EncodedClip>> {
    let progress = Progress::new(catalog.tracks.len());
    let tracks = catalog.tracks.par_iter();
    let clips = tracks.map(|track| {
        let (encoded, bytes) = clip(options, catalog, track)?;
        if let Some(bytes) = bytes {
            save(&path(folder, track.id), &bytes)?;
        }
        if reports {
            progress.add_one();
        }
        Ok(encoded)
    });
    clips.collect()
}

/// The number of finished tracks, which is reported at intervals.
struct Progress {
    total: usize,
    /// The number of finished tracks, and the time of the last report.
    state: Mutex<(usize, Instant)>,
}

impl Progress {
    fn new(total: usize) -> Self {
        let state = Mutex::new((0, Instant::now()));
        Self { total, state }
    }

    /// Counts a track, and reports the count if one is due.
    fn add_one(&self) {
        // A thread that has panicked ends the program.
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        let (done, reported) = &mut *state;
        *done += 1;
        if reported.elapsed() >= REPORT_EVERY {
            *reported = Instant::now();
            // A closed stderr is no reason to fail.
            let _ = writeln!(io::stderr(), "   {done} of {} tracks", self.total);
        }
    }
}

/// Returns the properties of a track's clip for `tracks.csv`, and the bytes of the track's file if it has one.
fn clip(
    options: &Options,
    catalog: &Catalog,
    track: &Track,
) -> Result<(EncodedClip, Option<Vec<u8>>)> {
    let seconds = if track.clip == Clip::Short {
        0.4
    } else {
        options.seconds
    };
    let source = if track.clip == Clip::Duplicate {
        &catalog.tracks[0]
    } else {
        track
    };
    let nominal_bps = source.encoding.rate.nominal_bps();

    // A separate key, so that damaging a clip does not change its music.
    let mut rng = Rng::keyed(options.seed, &[4, u64::from(track.id)]);
    let mut encoded = EncodedClip {
        bit_rate_bps: nominal_bps.unwrap_or(0),
        seconds: seconds.round() as u32,
    };

    let bytes = match track.clip {
        Clip::Missing => return Ok((encoded, None)),
        Clip::Empty => Vec::new(),
        Clip::Garbage => damage::garbage(50_000, &mut rng),
        Clip::Text => damage::web_page(track.id),
        clip => {
            let good = sound(options, catalog, track, source, seconds)
                .with_context(|| format!("cannot encode track {}", track.id))?;
            let measured = (good.bytes.len() - good.audio_at) as f32 * 8.0 / seconds;
            encoded.bit_rate_bps = nominal_bps.unwrap_or(measured as u32);

            match clip {
                Clip::Truncated => damage::truncate(&good, 0.6 * seconds, seconds),
                Clip::TruncatedEarly => damage::truncate(&good, 0.5, seconds),
                Clip::Damaged => damage::overwrite_middle(&good, &mut rng),
                Clip::TagOnly => damage::tag_only(&good),
                _ => good.bytes,
            }
        }
    };
    Ok((encoded, Some(bytes)))
}

/// Renders the piece of `source` as an MP3 with the tag of `track`.
fn sound(
    options: &Options,
    catalog: &Catalog,
    track: &Track,
    source: &Track,
    seconds: f32,
) -> Result<Mp3> {
    let artist = &catalog.artists[source.artist];
    let mut style = artist.style.clone();
    // An unlabelled track has two genres, and both must be audible.
    if !source.labelled {
        style.guest_level = 0.9;
    }
    let mut obscuring = Rng::keyed(options.seed, &[9, u64::from(source.id)]);
    style.obscure(options.difficulty, &mut obscuring);

    // Keyed by the id of the source, so that a duplicate has exactly the samples of its original.
    let mut rng = Rng::keyed(options.seed, &[3, u64::from(source.id)]);
    let rate_hz = source.encoding.rate_hz;
    let canvas = match source.clip {
        Clip::Silence => Canvas::new(rate_hz, seconds),
        _ => styles::render(
            &artist.genre.style,
            &source.guest.style,
            &style,
            rate_hz,
            seconds,
            &mut rng,
        ),
    };

    let tag = id3v2(
        &track.title,
        &catalog.artists[track.artist].name,
        &catalog.artists[track.artist].album_title,
    );
    mp3(&canvas, source.encoding, &tag)
}

/// Returns the path in FMA's layout: a folder per thousand tracks, named by the first three digits.
fn path(folder: &Path, id: u32) -> PathBuf {
    let name = format!("{id:06}");
    folder.join(&name[..3]).join(name + ".mp3")
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // Write to a temporary name, so that a file is complete even if the program is killed: `wavemill demo` uses the
    // tables to detect a complete data set.
    let part = path.with_extension("part");
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the number of tracks and clips of each kind as one line of JSON.
fn summary(options: &Options, catalog: &Catalog) -> String {
    let tracks = &catalog.tracks;
    let listed: Vec<&Track> = tracks.iter().filter(|t| t.line == Line::Good).collect();

    // A line that cannot be parsed names no clip, so its track is not counted among the clips that may be rejected.
    let bad_rows = tracks
        .iter()
        .filter(|t| matches!(t.line, Line::TooFewFields | Line::TooManyFields));
    let bad_encoding = tracks.iter().filter(|t| t.line == Line::NotUtf8);
    let unlabelled = listed.iter().filter(|t| !t.labelled);
    let files = tracks.iter().filter(|t| t.clip != Clip::Missing);
    let mut counts = vec![
        ("seed", options.seed as usize),
        ("rows", tracks.len()),
        ("bad_row", bad_rows.count()),
        ("bad_encoding", bad_encoding.count()),
        ("unlabelled", unlabelled.count()),
        ("artists", catalog.artists.len()),
        ("genres", GENRES.played.len()),
        ("files", files.count()),
    ];

    for (clip, name, _) in CLIPS {
        counts.push((name, listed.iter().filter(|t| t.clip == clip).count()));
    }

    let fields: Vec<String> = counts
        .iter()
        .map(|(name, n)| format!("\"{name}\":{n}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}
