//! Near copies: `split.group_duplicates = "near"`, with music that is made by code.

use std::f64::consts::TAU;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    Inputs, argv, contains, kill, receipts, run, same, same_versions, scratch, sql, sql_number,
    start, versions, wait_until, wavemill, within,
};

const RECIPE: &str = r#"
name = "near"
[catalog]
dataset = "folders"
[[targets]]
name = "genre"
column = "genre"
[split]
rule = "stratified"
fractions = [0.4, 0.3, 0.3]
group_duplicates = "near"
[audio]
sample_rate_hz = 8000
duration_s = 2.0
[[features]]
name = "wave"
op = "pcm"
[shards]
clips = 8
"#;

/// Number of pieces of music, of which the first have a copy each.
const PIECES: u64 = 10;
/// Length of a piece in seconds.
const PIECE_S: f64 = 16.0;

/// An excerpt of a piece of music.
struct Excerpt {
    piece: u64,
    from_s: f64,
    seconds: f64,
    rate_hz: u32,
    gain: f64,
    /// Level of noise, as an encoder adds it.
    noise: f64,
}

impl Excerpt {
    fn whole(piece: u64) -> Self {
        Self {
            piece,
            from_s: 0.0,
            seconds: PIECE_S,
            rate_hz: 16_000,
            gain: 1.0,
            noise: 0.0,
        }
    }

    /// Returns a WAVE file of 16 bits.
    fn wav(&self) -> Vec<u8> {
        let mut random = Random(self.piece);
        let chords: Vec<[f64; 3]> = (0..(4.0 * PIECE_S) as usize)
            .map(|_| [0; 3].map(|_| 110.0 * (4.0 * random.next()).exp2()))
            .collect();

        let mut random = Random(self.piece + 1000);
        let mut samples = Vec::new();
        for index in 0..(self.seconds * f64::from(self.rate_hz)) as u32 {
            let time_s = self.from_s + f64::from(index) / f64::from(self.rate_hz);
            let chord = chords[((4.0 * time_s) as usize).min(chords.len() - 1)];
            let tones = chord
                .iter()
                .map(|hz| (TAU * hz * time_s).sin())
                .sum::<f64>();
            let value = 6_000.0 * self.gain * (tones + self.noise * (random.next() - 0.5));
            samples.extend((value as i16).to_le_bytes());
        }
        in_wave(&samples, self.rate_hz)
    }
}

/// A generator of numbers between 0 and 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn in_wave(samples: &[u8], rate_hz: u32) -> Vec<u8> {
    let n_bytes = samples.len() as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + n_bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate_hz.to_le_bytes());
    file.extend((2 * rate_hz).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(n_bytes.to_le_bytes());
    file.extend(samples);
    file
}

/// The copies: what was done to the piece, and by how many seconds the recording begins later in the copy.
fn copies() -> Vec<(&'static str, Excerpt, f64)> {
    vec![
        (
            "rate",
            Excerpt {
                rate_hz: 22_050,
                ..Excerpt::whole(0)
            },
            0.0,
        ),
        (
            "shift",
            Excerpt {
                from_s: 1.19,
                seconds: PIECE_S - 1.19,
                ..Excerpt::whole(1)
            },
            -1.19,
        ),
        (
            "cut",
            Excerpt {
                from_s: 4.0,
                seconds: 8.0,
                ..Excerpt::whole(2)
            },
            -4.0,
        ),
        (
            "quiet",
            Excerpt {
                gain: 0.1,
                ..Excerpt::whole(3)
            },
            0.0,
        ),
        (
            "noise",
            Excerpt {
                noise: 0.3,
                ..Excerpt::whole(4)
            },
            0.0,
        ),
    ]
}

/// Writes an archive: pieces, copies, and files that have no fingerprint.
fn archive(name: &str) -> Result<(PathBuf, Inputs), Failed> {
    let folder = scratch(name);
    let audio = folder.join("audio");
    for genre in ["own", "again", "odd"] {
        fs::create_dir_all(audio.join(genre))?;
    }
    for piece in 0..PIECES {
        fs::write(
            audio.join(format!("own/{piece}.wav")),
            Excerpt::whole(piece).wav(),
        )?;
    }
    for (what, excerpt, _) in copies() {
        fs::write(audio.join(format!("again/{what}.wav")), excerpt.wav())?;
    }

    let short = Excerpt {
        seconds: 2.5,
        ..Excerpt::whole(5)
    };
    fs::write(audio.join("odd/short.wav"), short.wav())?;
    fs::write(audio.join("odd/noise.mp3"), [0x55; 5_000])?;
    fs::write(audio.join("odd/empty.mp3"), [])?;
    for seconds in [10, 11] {
        let silence = vec![0; 2 * 8_000 * seconds];
        fs::write(
            audio.join(format!("odd/silence{seconds}.wav")),
            in_wave(&silence, 8_000),
        )?;
    }

    let recipe = folder.join("near.toml");
    fs::write(&recipe, RECIPE)?;
    let inputs = Inputs::without_metadata(audio, recipe);
    Ok((folder, inputs))
}

/// Pairs of near copies in different splits.
const PARTED: &str = "SELECT count(*) FROM near_copies n JOIN tracks a ON a.clip_key = n.clip_key \
                      JOIN tracks b ON b.clip_key = n.other WHERE a.split_stratified <> b.split_stratified";

#[apply(trial)]
fn copies_in_another_form_share_a_split() -> Result<(), Failed> {
    let (folder, inputs) = archive("near")?;
    let store = folder.join("store");
    let report = run(inputs.extract(&store).arg("--json")).exits(0)?.out;
    let report: Value = serde_json::from_str(&report)?;
    same(
        "near",
        report["duplicates"]["clips_near"].as_u64(),
        Some(10),
    )?;

    let found = sql(
        &store,
        "SELECT * FROM near_copies WHERE other LIKE 'again/%'",
    )?;
    same("pairs", found.len() as u64, PIECES / 2)?;
    same(
        "both ways",
        sql_number(&store, "SELECT count(*) FROM near_copies")?,
        PIECES,
    )?;
    for (what, excerpt, offset_s) in copies() {
        let (own, other) = (
            format!("own/{}.wav", excerpt.piece),
            format!("again/{what}.wav"),
        );
        let row = found
            .iter()
            .find(|row| row["other"] == other.as_str())
            .ok_or(what)?;
        same(what, row["clip_key"].as_str(), Some(own.as_str()))?;
        let error_s = (row["offset_s"].as_f64().ok_or("an offset")? - offset_s).abs();
        within(&format!("{what}: offset"), error_s, 0.0..0.1)?;
        let similarity = row["similarity"].as_f64().ok_or("a similarity")?;
        within(&format!("{what}: similarity"), similarity, 0.97..1.001)?;
    }
    same("parted", sql_number(&store, PARTED)?, 0)?;

    // The rule alone parts some of them. Without the option there is no table.
    let alone = folder.join("alone");
    run(inputs
        .extract(&alone)
        .args(["--set", "split.group_duplicates=true"]))
    .exits(0)?;
    let pairs = found.iter().map(|row| {
        format!(
            "(a.clip_key = {} AND b.clip_key = {})",
            quoted(&row["clip_key"]),
            quoted(&row["other"])
        )
    });
    let parted = format!(
        "SELECT count(*) FROM tracks a, tracks b WHERE a.split_stratified <> b.split_stratified AND ({})",
        pairs.collect::<Vec<_>>().join(" OR ")
    );
    same(
        "parted by the rule alone",
        sql_number(&alone, &parted)? > 0,
        true,
    )?;
    let query = ["sql", "SELECT * FROM near_copies", "--store"];
    contains(
        run(wavemill(query).arg(&alone)).exits(2)?.error()?,
        "near_copies",
    )
}

fn quoted(text: &Value) -> String {
    format!("'{}'", text.as_str().unwrap_or_default())
}

/// Threads, kills, several processes and growth change no byte.
#[apply(trial)]
fn near_copies_do_not_depend_on_how_they_were_found() -> Result<(), Failed> {
    let (folder, inputs) = archive("near-equal")?;
    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;

    let threads = folder.join("threads");
    run(inputs
        .extract(&threads)
        .args(argv("--threads 7 --memory-limit 256MiB")))
    .exits(0)?;
    same_versions(&store, &threads)?;

    let killed = folder.join("killed");
    let mut slow = inputs.extract(&killed);
    let mut child = start(slow.env("FAILPOINTS", "worker-panic=sleep(50)"));
    wait_until(&mut child, "a receipt", || receipts(&killed) >= 1)?;
    kill(child)?;
    run(&mut inputs.extract(&killed)).exits(0)?;
    same_versions(&store, &killed)?;

    // A copy that is added later gets the split of the piece, and only its own fingerprint is made.
    let late = Excerpt {
        from_s: 0.77,
        seconds: PIECE_S - 0.77,
        ..Excerpt::whole(7)
    };
    fs::write(inputs.audio.join("again/late.wav"), late.wav())?;
    run(inputs.extract(&store).arg("--new-version")).exits(0)?;
    let fresh = folder.join("fresh");
    run(&mut inputs.extract(&fresh)).exits(0)?;
    for table in ["near_copies", "fingerprints"] {
        let rows = format!("SELECT * FROM {table} ORDER BY 1, 2");
        same(table, sql(&store, &rows)?, sql(&fresh, &rows)?)?;
    }
    same("parted", sql_number(&store, PARTED)?, 0)?;
    same("versions", versions(&store).len(), 2)
}
