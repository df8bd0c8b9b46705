//! From the catalogue to the folder: clips on all cores, then the tables, then the summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::damage;
use crate::encode::{Mp3, id3v2, mp3};
use crate::features;
use crate::metadata::{self, EncodedClip};
use crate::rng::Rng;
use crate::styles;
use crate::synth::Canvas;
use crate::tracks::{Catalog, Clip, Line, Options, Track};

const METADATA: &str = "fma_metadata";
const AUDIO: &str = "fma_demo";

/// Makes the folder. One that is not empty is refused; with `force` our two folders in it are removed, and nothing else.
///
/// # Errors
/// When it is not empty, or cannot be made or cleared.
pub(crate) fn prepare(out_dir: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(out_dir).with_context(|| format!("cannot make {}", out_dir.display()))?;
    let mut entries =
        fs::read_dir(out_dir).with_context(|| format!("cannot read {}", out_dir.display()))?;
    if entries.next().is_some() && !force {
        bail!(
            "{} is not empty: choose another folder, or add --force",
            out_dir.display()
        );
    }

    // Old clips would stay beside the new ones: another seed gives other names.
    for name in [METADATA, AUDIO] {
        let folder = out_dir.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot clear {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Writes clips and tables below `out_dir`; returns the summary as one line of JSON.
///
/// # Errors
/// When a file cannot be written or a clip cannot be encoded.
pub(crate) fn dataset(out_dir: &Path, options: &Options) -> Result<String> {
    let catalog = Catalog::draw(options);

    // Clips first: the table states their bit rates, and a variable one is known only after encoding.
    let encoded = clips(&out_dir.join(AUDIO), options, &catalog)?;

    let folder = out_dir.join(METADATA);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let tables = [
        (
            "features.csv",
            features::features_csv(options.seed, &catalog).into_bytes(),
        ),
        ("tracks.csv", metadata::tracks_csv(&catalog, &encoded)),
        ("genres.csv", metadata::genres_csv(&catalog).into_bytes()),
    ];
    for (name, table) in tables {
        save(&folder.join(name), &table)?;
    }
    Ok(summary(options, &catalog))
}

/// Renders and writes every clip on all cores; the order of work does not matter, since each draws from its own key.
fn clips(folder: &Path, options: &Options, catalog: &Catalog) -> Result<Vec<EncodedClip>> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut written = thread::scope(|scope| -> Result<Vec<WrittenClip>> {
        let mut threads = Vec::new();
        for _ in 0..workers {
            threads.push(scope.spawn(|| take_clips(&next, folder, options, catalog)));
        }

        let mut written = Vec::new();
        for thread in threads {
            let by_thread = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))?;
            written.extend(by_thread?);
        }
        Ok(written)
    })?;

    // Threads end in any order; the table has the catalogue's.
    written.sort_by_key(|clip| clip.index);
    Ok(written.into_iter().map(|clip| clip.encoded).collect())
}

/// A clip that one of the threads wrote.
struct WrittenClip {
    /// Of its track in the catalogue.
    index: usize,
    encoded: EncodedClip,
}

/// What one thread does: the next track that no thread has taken, until there is none.
fn take_clips(
    next: &AtomicUsize,
    folder: &Path,
    options: &Options,
    catalog: &Catalog,
) -> Result<Vec<WrittenClip>> {
    let mut written = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(track) = catalog.tracks.get(index) else {
            return Ok(written);
        };

        let (encoded, bytes) = clip(options, catalog, track)?;
        if let Some(bytes) = bytes {
            save(&path(folder, track.id), &bytes)?;
        }
        written.push(WrittenClip { index, encoded });
    }
}

/// What the table says of a track's clip, and the bytes of its file where there is one.
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

    // A key of its own, so that what damages a clip does not change what is played in it.
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

/// The piece of `source` under the tag of `track`, as an MP3.
fn sound(
    options: &Options,
    catalog: &Catalog,
    track: &Track,
    source: &Track,
    seconds: f32,
) -> Result<Mp3> {
    let artist = &catalog.artists[source.artist];
    let mut style = artist.style.clone();
    // A track of two genres has no label, and both are to be heard.
    if !source.labelled {
        style.guest_level = 0.9;
    }

    // By the id of the source: a duplicate has the very samples of its original.
    let mut rng = Rng::keyed(options.seed, &[3, u64::from(source.id)]);
    let rate_hz = source.encoding.rate_hz;
    let canvas = match source.clip {
        Clip::Silence => Canvas::new(rate_hz, seconds),
        _ => styles::render(
            artist.genre,
            source.guest,
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

/// As in FMA: folders of a thousand tracks, named by the first three digits.
fn path(folder: &Path, id: u32) -> PathBuf {
    let name = format!("{id:06}");
    folder.join(&name[..3]).join(name + ".mp3")
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // A file that has its name is whole, also after a kill: `wavemill demo` looks for the tables to tell whether a data
    // set is complete.
    let part = path.with_extension("part");
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// How many of each kind were made, as one line of JSON.
fn summary(options: &Options, catalog: &Catalog) -> String {
    let tracks = &catalog.tracks;
    let listed: Vec<&Track> = tracks.iter().filter(|t| t.line == Line::Good).collect();

    // A line that cannot be read names no clip: its track is none of the clips that can be rejected.
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
        ("genres", crate::genres::PLAYED.len()),
        ("files", files.count()),
    ];

    for (name, clip) in CLIPS {
        counts.push((name, listed.iter().filter(|t| t.clip == clip).count()));
    }

    let fields: Vec<String> = counts
        .iter()
        .map(|(name, n)| format!("\"{name}\":{n}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// What the summary calls each kind of clip, in its order.
const CLIPS: [(&str, Clip); 12] = [
    ("whole", Clip::Whole),
    ("duplicate", Clip::Duplicate),
    ("silence", Clip::Silence),
    ("short", Clip::Short),
    ("missing", Clip::Missing),
    ("truncated", Clip::Truncated),
    ("truncated_early", Clip::TruncatedEarly),
    ("damaged", Clip::Damaged),
    ("tag_only", Clip::TagOnly),
    ("empty", Clip::Empty),
    ("garbage", Clip::Garbage),
    ("text", Clip::Text),
];
