//! Measures the crates `rosa` and `spectrograms` for `shapes.py --time --crates PROGRAM CLIP.wav`.
//!
//! usage: crates CLIP.wav [FOLDER]      a 16-bit mono WAV; each result is written to FOLDER/CRATE.OP in f32
//!
//! Prints `{"rosa": {"rms": {"ms": 1.5, "shape": [1, 1292]}, …}, "spectrograms": {…}}`: the smallest of eight CPU
//! times from samples to the feature, on one thread. Options are librosa's defaults, as far as a crate has them. rosa
//! computes in f64; spectrograms also in f32, which is measured. Not counted are the samples' conversion to f64 and the
//! plan of the mel spectrogram, which a user makes once for all clips.

use std::{env, fs, hint::black_box};

use anyhow::Context;
use non_empty_slice::NonEmptyVec;
use rosa::{BeatTrackParams, MelSpectrogramParams, OnsetStrengthParams, TempoParams, TempogramParams};
use rosa::{ChromaCensParams, ChromaCqtParams, ChromaStftParams, CqtParams, Matrix, VqtParams, complex_magnitude};
use rustix::time::{ClockId, clock_gettime};
use spectrograms::{
    ChromaNorm, ChromaParams, MelNorm, MelParams, Power, SpectrogramParams, SpectrogramPlanner, StftParams,
};
use spectrograms::{WindowType, nzu};

const FRAME: usize = 2048;
const HOP: usize = 512;

struct Bench {
    folder: Option<String>,
    report: serde_json::Value,
}

impl Bench {
    /// Measures an operation, whose result `values` turns into rows: their number and all values.
    fn time<T>(
        &mut self,
        name: &str,
        op: &str,
        mut run: impl FnMut() -> T,
        values: impl FnOnce(T) -> (usize, Vec<f32>),
    ) {
        let mut ms = f64::INFINITY;
        for _ in 0..8 {
            let start = cpu_ms();
            black_box(run());
            ms = ms.min(cpu_ms() - start);
        }
        let (rows, values) = values(run());
        self.report[name][op] = serde_json::json!({"ms": ms, "shape": [rows, values.len() / rows]});
        if let Some(folder) = &self.folder {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            fs::write(format!("{folder}/{name}.{op}"), bytes).expect("the folder takes files");
        }
    }
}

fn cpu_ms() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

fn rosa(bench: &mut Bench, y: &[f64], sr: f64) {
    let row = |x: Vec<f64>| (1, x.iter().map(|&x| x as f32).collect());
    let rows = |x: Matrix| (x.rows(), x.as_slice().iter().map(|&x| x as f32).collect());
    let s = || rosa::spectrogram(y, &rosa::StftParams::new(FRAME), 1.0);
    let hz = || rosa::fft_frequencies(sr, FRAME);
    let bandwidth = |s, hz: &[f64]| rosa::spectral_bandwidth(&s, hz, &rosa::spectral_centroid(&s, hz), 2.0, true);
    let mel = || rosa::mel_spectrogram(y, &MelSpectrogramParams::new(sr));
    let onsets = || rosa::onset_strength(y, &OnsetStrengthParams::new(sr));
    let cqt = || rosa::cqt(y, &CqtParams { sr, ..Default::default() });
    let vqt = || rosa::vqt(y, &VqtParams { sr, ..Default::default() });
    let beats = || {
        let onsets = onsets();
        let (_, beats) = rosa::beat_track(&onsets, &BeatTrackParams::new(sr));
        (0..onsets.len()).map(|frame| f64::from(u8::from(beats.contains(&frame)))).collect()
    };

    bench.time("rosa", "rms", || rosa::rms(y, FRAME, HOP, true), row);
    bench.time("rosa", "zero_crossing_rate", || rosa::zero_crossing_rate(y, FRAME, HOP, true), row);
    bench.time("rosa", "spectral_centroid", || rosa::spectral_centroid(&s(), &hz()), row);
    bench.time("rosa", "spectral_bandwidth", || bandwidth(s(), &hz()), row);
    bench.time("rosa", "spectral_flatness", || rosa::spectral_flatness(&s(), 1e-10, 2.0), row);
    bench.time("rosa", "spectral_contrast", || rosa::spectral_contrast(&s(), &hz(), 200.0, 6, 0.02, false), rows);
    bench.time("rosa", "spectral_rolloff", || rosa::spectral_rolloff(&s(), &hz(), 0.85), row);
    bench.time("rosa", "chroma_stft", || rosa::chroma_stft(y, &ChromaStftParams { sr, ..Default::default() }), rows);
    bench.time("rosa", "cqt", cqt, |(re, im)| rows(complex_magnitude(&re, &im)));
    bench.time("rosa", "vqt", vqt, |(re, im)| rows(complex_magnitude(&re, &im)));
    bench.time("rosa", "chroma_cqt", || rosa::chroma_cqt(y, &ChromaCqtParams { sr, ..Default::default() }), rows);
    bench.time("rosa", "chroma_cens", || rosa::chroma_cens(y, &ChromaCensParams { sr, ..Default::default() }), rows);
    bench.time("rosa", "tonnetz", || rosa::tonnetz(Some(y), sr, None), rows);
    bench.time("rosa", "onset_strength", onsets, row);
    bench.time("rosa", "tempogram", || rosa::tempogram(&onsets(), &TempogramParams::new(sr)), rows);
    bench.time("rosa", "tempo", || vec![rosa::tempo(&onsets(), &TempoParams::new(sr))], row);
    bench.time("rosa", "beat_track", beats, row);
    bench.time("rosa", "melspectrogram", mel, rows);
    bench.time("rosa", "mfcc", || rosa::mfcc(&mel(), &rosa::MfccParams::default()), rows);
}

fn spectrograms(bench: &mut Bench, y: &NonEmptyVec<f32>, sr: f64) -> anyhow::Result<()> {
    let rows = |x: ndarray::Array2<f32>| (x.nrows(), x.iter().copied().collect());
    let valid = "options are valid";
    let stft = StftParams::new(nzu!(FRAME), nzu!(HOP), WindowType::Hanning, true)?;
    let mel = MelParams::with_norm(nzu!(128), 0.0, sr / 2.0, MelNorm::Slaney)?;
    let mut mel =
        SpectrogramPlanner::new().mel_plan::<Power, f32>(&SpectrogramParams::new(stft.clone(), sr)?, &mel, None)?;
    let mfcc = spectrograms::MfccParams::new(nzu!(20)).with_lifter(0);
    let chroma = ChromaParams::default().with_norm(ChromaNorm::Max);
    let cqt = spectrograms::CqtParams::new(nzu!(12), nzu!(7), 32.703_195_662_574_83)?;

    bench.time(
        "spectrograms",
        "chroma_stft",
        || spectrograms::chromagram(y, &stft, sr, &chroma),
        |x| rows(x.expect(valid).data),
    );
    bench.time(
        "spectrograms",
        "cqt",
        || spectrograms::cqt(y, sr, &cqt, nzu!(HOP)),
        |x| rows(x.expect(valid).to_magnitude()),
    );
    bench.time("spectrograms", "melspectrogram", || mel.compute(y), |x| rows(x.expect(valid).into_data()));
    bench.time(
        "spectrograms",
        "mfcc",
        || spectrograms::mfcc(y, &stft, sr, nzu!(128), &mfcc),
        |x| rows(x.expect(valid).data),
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let mut wav = hound::WavReader::open(args.next().context("usage: crates CLIP.wav [FOLDER]")?)?;
    let sr = f64::from(wav.spec().sample_rate);
    let samples = wav.samples::<i16>().map(|x| Ok(f32::from(x?) / 32768.0)).collect::<anyhow::Result<Vec<f32>>>()?;
    let mut bench = Bench { folder: args.next(), report: serde_json::json!({}) };
    rosa(&mut bench, &samples.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), sr);
    spectrograms(&mut bench, &NonEmptyVec::new(samples).ok().context("no samples")?, sr)?;
    println!("{}", bench.report);
    Ok(())
}
