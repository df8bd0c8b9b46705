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

use self::tracks::Options;

/// Make a small synthetic music archive in the layout of FMA: real MP3s, tracks.csv, genres.csv, features.csv, and some broken MP3s and rows
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder to create; gets fma_metadata/ and fma_demo/
    out_dir: PathBuf,
    #[command(flatten)]
    options: Options,
    /// Report the number of finished tracks on stderr, every few seconds
    #[arg(long)]
    progress: bool,
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
    let Options {
        tracks,
        seconds,
        difficulty,
        ..
    } = args.options;
    ensure!(
        (2.0..=60.0).contains(&seconds),
        "--seconds {seconds}: must be 2 to 60"
    );
    ensure!(
        (1..=2000).contains(&tracks),
        "--tracks {tracks}: must be 1 to 2000"
    );
    ensure!(
        (0.0..=1.0).contains(&difficulty),
        "--difficulty {difficulty}: must be 0 to 1"
    );
    write::prepare(&args.out_dir, args.force)?;
    write::dataset(&args.out_dir, &args.options, args.progress)
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
