//! From the plan to the folder: clips on all cores, then the tables, then the summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::damage;
use crate::encode::{Mp3, id3v2, mp3};
use crate::metadata::{self, Encoded};
use crate::rng::Rng;
use crate::styles;
use crate::synth::Canvas;
use crate::tracks::{Clip, Line, Options, Plan, Track, plan};

const METADATA: &str = "fma_metadata";
const AUDIO: &str = "fma_demo";

/// Makes the folder. One that is not empty is refused; with `force` our two folders in it are removed, and nothing else.
///
/// # Errors
/// When it is not empty, or cannot be made or cleared.
pub fn prepare(out_dir: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(out_dir).with_context(|| format!("cannot make {}", out_dir.display()))?;
    let mut entries = fs::read_dir(out_dir).with_context(|| format!("cannot read {}", out_dir.display()))?;
    if entries.next().is_some() && !force {
        bail!("{} is not empty: choose another folder, or add --force", out_dir.display());
    }
    for folder in [METADATA, AUDIO].map(|name| out_dir.join(name)).iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    Ok(())
}

/// Writes clips and tables below `out_dir`; returns the summary as one line of JSON.
///
/// # Errors
/// When a file cannot be written or a clip cannot be encoded.
pub fn dataset(out_dir: &Path, options: &Options) -> Result<String> {
    let plan = plan(options);
    let encoded = clips(&out_dir.join(AUDIO), options, &plan)?;
    let folder = out_dir.join(METADATA);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    save(&folder.join("tracks.csv"), &metadata::tracks_csv(&plan, &encoded))?;
    save(&folder.join("genres.csv"), metadata::genres_csv(&plan).as_bytes())?;
    Ok(summary(options, &plan))
}

/// Renders and writes every clip on all cores; the order of work does not matter, since each draws from its own key.
fn clips(folder: &Path, options: &Options, plan: &Plan) -> Result<Vec<Encoded>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Encoded)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(track) = plan.tracks.get(index) else { return Ok(done) };
            let (encoded, bytes) = clip(options, plan, track)?;
            if let Some(bytes) = bytes {
                save(&path(folder, track.id), &bytes)?;
            }
            done.push((index, encoded));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut all = thread::scope(|scope| -> Result<Vec<(usize, Encoded)>> {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??);
        }
        Ok(all)
    })?;
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, encoded)| encoded).collect())
}

/// What the table says of a track's clip, and the bytes of its file where there is one.
fn clip(options: &Options, plan: &Plan, track: &Track) -> Result<(Encoded, Option<Vec<u8>>)> {
    let seconds = if track.clip == Clip::Short { 0.4 } else { options.seconds };
    let source = if track.clip == Clip::Duplicate { &plan.tracks[0] } else { track };
    let nominal_bps = source.encoding.rate.nominal_bps();
    let mut rng = Rng::keyed(options.seed, &[4, u64::from(track.id)]);
    let mut encoded = Encoded { bit_rate_bps: nominal_bps.unwrap_or(0), seconds: seconds.round() as u32 };
    let bytes = match track.clip {
        Clip::Missing => return Ok((encoded, None)),
        Clip::Empty => Vec::new(),
        Clip::Garbage => damage::garbage(50_000, &mut rng),
        Clip::Text => damage::web_page(track.id),
        clip => {
            let good = sound(options, plan, track, source, seconds)
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

/// The piece of `source` under the tag of `track`, as an MP3.
fn sound(options: &Options, plan: &Plan, track: &Track, source: &Track, seconds: f32) -> Result<Mp3> {
    let artist = &plan.artists[source.artist];
    let mut manner = artist.manner.clone();
    if !source.labelled {
        manner.guest_level = 0.9;
    }
    let mut rng = Rng::keyed(options.seed, &[3, u64::from(source.id)]);
    let rate_hz = source.encoding.rate_hz;
    let canvas = match source.clip {
        Clip::Silence => Canvas::new(rate_hz, seconds),
        _ => styles::render(artist.genre, source.guest, &manner, rate_hz, seconds, &mut rng),
    };
    let tag = id3v2(&track.title, &plan.artists[track.artist].name, &plan.artists[track.artist].album_title);
    mp3(&canvas, source.encoding, &tag)
}

fn path(folder: &Path, id: u32) -> PathBuf {
    let name = format!("{id:06}");
    folder.join(&name[..3]).join(name + ".mp3")
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Counts a kind: `wavemill demo` and the tests compare them with what came out.
fn summary(options: &Options, plan: &Plan) -> String {
    let count = |wanted: &dyn Fn(&Track) -> bool| plan.tracks.iter().filter(|track| wanted(track)).count();
    let listed = |track: &Track| track.line == Line::Good;
    let clip = |clip: Clip| count(&|track| listed(track) && track.clip == clip);
    let counts = [
        ("seed", options.seed as usize),
        ("rows", plan.tracks.len()),
        ("bad_row", count(&|track| matches!(track.line, Line::TooFewFields | Line::TooManyFields))),
        ("bad_encoding", count(&|track| track.line == Line::NotUtf8)),
        ("unlabelled", count(&|track| listed(track) && !track.labelled)),
        ("artists", plan.artists.len()),
        ("genres", crate::genres::PLAYED.len()),
        ("files", count(&|track| track.clip != Clip::Missing)),
        ("whole", clip(Clip::Whole)),
        ("duplicate", clip(Clip::Duplicate)),
        ("silence", clip(Clip::Silence)),
        ("short", clip(Clip::Short)),
        ("missing", clip(Clip::Missing)),
        ("truncated", clip(Clip::Truncated)),
        ("truncated_early", clip(Clip::TruncatedEarly)),
        ("damaged", clip(Clip::Damaged)),
        ("tag_only", clip(Clip::TagOnly)),
        ("empty", clip(Clip::Empty)),
        ("garbage", clip(Clip::Garbage)),
        ("text", clip(Clip::Text)),
    ];
    let fields: Vec<String> = counts.iter().map(|(name, n)| format!("\"{name}\":{n}")).collect();
    format!("{{{}}}", fields.join(","))
}
