//! Computes a map of vectors, for comparison with other programs (scripts/peers/map.py).
//!
//! usage: map IN.f32 WIDTH PERPLEXITY SEED
//!
//! IN.f32: vectors of WIDTH values, one vector after another, as little-endian f32. Prints the x and y of each vector
//! as JSON.

use std::time::Instant;

use anyhow::{Context, Result};
use wavemill_scores::map::{MapSettings, map, perplexity_for};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, width, perplexity, seed] = args.as_slice() else {
        anyhow::bail!("usage: map IN.f32 WIDTH PERPLEXITY SEED");
    };
    let bytes = std::fs::read(file).with_context(|| file.clone())?;
    let words = bytes.as_chunks::<4>().0.iter();
    let vectors: Vec<f32> = words.map(|word| f32::from_le_bytes(*word)).collect();

    let settings = MapSettings {
        perplexity: perplexity.parse()?,
        seed: seed.parse()?,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let start = Instant::now();
    let rows: Vec<&[f32]> = vectors.chunks_exact(width.parse()?).collect();
    let found = map(&rows, &settings, &mut |_| {})?;
    eprintln!(
        "{} vectors, perplexity {}, {:.1} s",
        found.len(),
        perplexity_for(found.len(), settings.perplexity),
        start.elapsed().as_secs_f64()
    );
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}
