//! Creates the data set of `wavemill demo`: synthetic music of ten genres as real MP3s, with FMA's metadata tables.
//!
//! This is a separate program because the encoder (LAME) is LGPL and must not be linked into `wavemill`. All audio is
//! synthesized, and equal seeds give equal bytes.

mod csv;
mod damage;
mod encode;
mod fma_features;
mod genres;
mod metadata;
mod names;
mod rng;
mod styles;
mod synth;
mod tracks;
mod write;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

/// Make a small synthetic music archive in the layout of FMA: real MP3s, tracks.csv, genres.csv, features.csv, and some broken MP3s and rows
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder to create; gets fma_metadata/ and fma_demo/
    out_dir: PathBuf,
    /// Number of labelled tracks with an intact clip; about 5 % unlabelled and 15 faulty ones are added
    #[arg(long, default_value_t = 320)]
    tracks: usize,
    /// Random seed; equal seeds give equal bytes
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Length of a clip in seconds, 2 to 60
    #[arg(long, default_value_t = 10.0)]
    seconds: f32,
    /// Difficulty of learning the genres, 0 to 1. At 1, a second genre is up to 80 % as loud as the track's own, noise
    /// is up to 10 dB below the music, the first genre has about six times as many tracks as the last one, and then a
    /// quarter of the labels is replaced by the second genre
    #[arg(long, default_value_t = 0.0)]
    difficulty: f32,
    /// Replace fma_metadata/ and fma_demo/ in a folder that is not empty
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // A closed stderr is no reason to panic.
            let _ = writeln!(io::stderr(), "demo-audio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<String> {
    ensure!(
        (2.0..=60.0).contains(&args.seconds),
        "--seconds {}: must be 2 to 60",
        args.seconds
    );
    ensure!(
        (1..=2000).contains(&args.tracks),
        "--tracks {}: must be 1 to 2000",
        args.tracks
    );
    ensure!(
        (0.0..=1.0).contains(&args.difficulty),
        "--difficulty {}: must be 0 to 1",
        args.difficulty
    );
    write::prepare(&args.out_dir, args.force)?;
    let options = tracks::Options {
        seed: args.seed,
        tracks: args.tracks,
        seconds: args.seconds,
        difficulty: args.difficulty,
    };
    write::dataset(&args.out_dir, &options)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, run};

    #[test]
    fn difficulty_must_be_in_range() {
        for value in ["-0.1", "1.1", "NaN", "inf"] {
            let option = format!("--difficulty={value}");
            let args = Args::parse_from(["demo-audio", "not-created", &option]);
            let error = run(&args).expect_err(value);
            assert_eq!(
                error.to_string(),
                format!("--difficulty {value}: must be 0 to 1")
            );
        }
    }
}
