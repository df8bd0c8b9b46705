//! Measures clips per second on a GPU and the time of each step: 30-s clips to log-mel features, with and without
//! resampling.
//!
//! A plain program, so that it runs on a machine without cargo. Without a device it prints a message and succeeds,
//! unless `WAVEMILL_REQUIRE_CUDA=1` requires a device. For each case it prints the time of each kind of work of a batch
//! on the stream, with the share of the memory bandwidth for kernels that mainly move bytes and the number of blocks
//! that a multiprocessor holds at once; clips per second with samples on the device; and clips per second of distinct
//! clips including copies, with all lanes in parallel: to page-locked memory, and to rows, compared with the rate of
//! pinned copies in the same run. Every figure is the median of 20, after a second of work that raises the clock rates;
//! the last two kinds are wall-clock times. `--once` computes a few batches for a profiler, without measuring.

use std::ops::Range;
use std::sync::Arc;

use wavemill_kernels::{
    Backend, CheckedDevices, Clip, Cuda, DbArgs, DbRef, DbSpec, FeatureArgs, FeatureSpec,
    KernelError, Normalize, SampleBuffer, Samples, SpareTensors, Work, median_s,
};
use wavemill_tests::options;

/// Length of an FMA clip in seconds, and the sample rate of its features.
const CLIP_S: usize = 30;
const RATE_HZ: u32 = 22_050;
/// Batches per lane in each round of the measurement that includes copies between host and device.
const BATCHES: usize = 8;
/// Rounds of each measurement, whose median is reported.
const ROUNDS: usize = 20;
/// Limit for the buffers of rows that are kept for the next batch of a lane.
const SPARE_BYTES: usize = 64 << 20;

/// Properties of the source clips in one case of the benchmark.
struct Case {
    name: &'static str,
    sample_rate_hz: u32,
    channels: usize,
}

const CASES: [Case; 4] = [
    Case {
        name: "48,000 Hz stereo s16",
        sample_rate_hz: 48_000,
        channels: 2,
    },
    Case {
        name: "44,100 Hz stereo s16",
        sample_rate_hz: 44_100,
        channels: 2,
    },
    Case {
        name: "22,050 Hz stereo s16",
        sample_rate_hz: RATE_HZ,
        channels: 2,
    },
    Case {
        name: "22,050 Hz mono s16",
        sample_rate_hz: RATE_HZ,
        channels: 1,
    },
];

fn main() -> Result<(), KernelError> {
    let Some(cuda) = CheckedDevices::from_environment()?.cuda()? else {
        println!(
            "no CUDA device: not run (WAVEMILL_REQUIRE_CUDA=1 makes this a failure, and says why)"
        );
        return Ok(());
    };

    let memory = cuda.memory_bytes_per_s()?.map_or(String::new(), |rate| {
        format!(", memory {:.2} TB/s", rate / 1e12)
    });
    println!("{}: {}{memory}", cuda.devices(), cuda.level());
    if std::env::args().any(|word| word == "--once") {
        return CASES[1].once(&cuda);
    }

    CASES.iter().try_for_each(|case| case.measure(&cuda))
}

/// Returns the log-mel feature of 128 bands in f16, as in the demo's recipe.
fn features() -> Result<Vec<FeatureArgs>, KernelError> {
    let db = DbArgs {
        reference: DbRef::Max,
        ..DbArgs::default()
    };
    let log_mel = options!(db: DbSpec::from(db), normalize: Normalize::MinMax);

    Ok(vec![log_mel.resolve(&[], RATE_HZ)?])
}

/// Noise, so that every band contains energy. Each seed gives other noise.
fn noise(seed: u32, n: usize) -> Vec<i16> {
    let mut state = seed;
    let mut samples = Vec::with_capacity(n);
    for _ in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        samples.push((state >> 16) as i16 / 2);
    }
    samples
}

/// A function that computes a batch of clips on one lane.
type Run = Box<dyn FnMut(&[Clip<'_>]) -> Result<(), KernelError> + Send>;

/// Returns a function that computes a batch and gives the buffers of its rows back, like the writer of a run.
fn to_rows(cuda: &Cuda, lane: usize, features: &[FeatureArgs]) -> Result<Run, KernelError> {
    let mut plan = cuda.plan(lane, features)?;
    let spare = Arc::new(SpareTensors::new(SPARE_BYTES));
    plan.reuse(&spare);
    Ok(Box::new(move |clips| {
        for row in plan.run(clips)? {
            row?.tensors
                .into_iter()
                .for_each(|tensor| spare.give_back(tensor));
        }
        Ok(())
    }))
}

fn to_pinned(cuda: &Cuda, lane: usize, features: &[FeatureArgs]) -> Result<Run, KernelError> {
    let mut batch = cuda.without_rows(lane, features)?;
    Ok(Box::new(move |clips| batch.run(clips)))
}

/// Returns the median of the seconds in which all lanes in parallel run [`BATCHES`] batches each, including copies.
fn all_lanes_s(mut lanes: Vec<Run>, clips: &[Clip<'_>]) -> Result<f64, KernelError> {
    median_s(ROUNDS, || {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for run in &mut lanes {
                threads.push(scope.spawn(|| (0..BATCHES).try_for_each(|_| run(clips))));
            }

            for thread in threads {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })
    })
}

impl Case {
    /// Creates a clip in memory to which decoders write for a GPU.
    fn samples(&self, cuda: &Cuda, seed: u32) -> SampleBuffer<i16> {
        let mut samples = cuda.sample_buffer_of();
        let noise = noise(seed, CLIP_S * self.sample_rate_hz as usize * self.channels);
        samples.clear_for(noise.len());
        samples.extend_from_slice(&noise);
        samples
    }

    /// Runs one batch four times without measuring, for use in a profiler, which slows each kernel down many times.
    fn once(&self, cuda: &Cuda) -> Result<(), KernelError> {
        let samples = self.samples(cuda, 1);
        let row = 0..CLIP_S * RATE_HZ as usize;
        let mut plan = cuda.plan(0, &features()?)?;
        let clips = vec![self.clip(&samples, &row); cuda.batch_clips()];
        (0..4).try_for_each(|_| plan.run(&clips).map(drop))
    }

    fn clip<'a>(&self, samples: &'a [i16], row: &'a Range<usize>) -> Clip<'a> {
        Clip {
            samples: Samples::S16(samples),
            channels: self.channels,
            sample_rate_hz: self.sample_rate_hz,
            rows: std::slice::from_ref(row),
        }
    }

    fn measure(&self, cuda: &Cuda) -> Result<(), KernelError> {
        let features = features()?;
        // Distinct clips, because a single one would stay in the processor's cache.
        let seeds = 1..=cuda.batch_clips() as u32;
        let samples: Vec<_> = seeds.map(|seed| self.samples(cuda, seed)).collect();
        let row = 0..CLIP_S * RATE_HZ as usize;
        let clips: Vec<_> = samples.iter().map(|clip| self.clip(clip, &row)).collect();
        println!("\n{}, batches of {} clips", self.name, clips.len());
        let works = cuda.profile(&features, &clips, ROUNDS)?;
        self.print(&works, clips.len(), cuda.memory_bytes_per_s()?);

        let mut resident = cuda.resident(&features, &clips)?;
        let resident_s = median_s(ROUNDS, || resident.run())?;
        println!(
            "samples on the device: {:.0} clips/s",
            clips.len() as f64 / resident_s
        );

        let copy = works.iter().find(|work| work.what == "copy to the device");
        let alone = copy.map(|copy| copy.bytes as f64 / copy.ms * 1e3);
        if let Some(alone) = alone {
            println!("pinned copies alone: {:.1} GB/s", alone / 1e9);
        }

        let n_clips = (cuda.lanes() * BATCHES * clips.len()) as f64;
        let clip_bytes = size_of_val(&samples[0][..]) as f64;
        let lanes = 0..cuda.lanes();
        let pinned = lanes.clone().map(|lane| to_pinned(cuda, lane, &features));
        let rows = lanes.map(|lane| to_rows(cuda, lane, &features));
        for (to, lanes) in [
            ("page-locked memory", pinned.collect::<Result<Vec<_>, _>>()),
            ("rows", rows.collect()),
        ] {
            let clips_per_s = n_clips / all_lanes_s(lanes?, &clips)?;
            let bytes_per_s = clips_per_s * clip_bytes;
            let share = alone.map_or(0.0, |alone| bytes_per_s / alone * 100.0);
            println!(
                "with copies to {to}, {} lanes: {clips_per_s:.0} clips/s, {:.1} GB/s, {share:.0} % of copies alone",
                cuda.lanes(),
                bytes_per_s / 1e9
            );
        }
        Ok(())
    }

    /// Prints one line of measurements for each kind of work on the GPU, whose memory moves `memory_bytes_per_s`, if
    /// known.
    fn print(&self, works: &[Work], n_clips: usize, memory_bytes_per_s: Option<f64>) {
        for Work {
            what,
            times,
            bytes,
            blocks,
            ms,
        } in works
        {
            let moved = if *bytes > 0 {
                *bytes as f64
            } else {
                self.moved(what) * n_clips as f64
            };

            let rate = moved / ms * 1e3;
            let share = match (*bytes, moved > 0.0, memory_bytes_per_s) {
                (0, true, Some(memory_bytes_per_s)) => format!(
                    "{:.0} MB, {:.0} % of memory's rate",
                    moved / 1e6,
                    rate / memory_bytes_per_s * 100.0
                ),
                (0, false, _) => String::new(),
                _ => format!("{:.0} MB, {:.1} GB/s", moved / 1e6, rate / 1e9),
            };

            let blocks = blocks.map_or(String::new(), |n| format!("{n} blocks/SM"));
            println!("  {what:<22} {times:>3} x  {ms:>9.3} ms  {blocks:<12} {share}");
        }
    }

    /// Returns the minimum number of bytes that a kernel must read and write per clip, for known kernels that mainly
    /// move bytes; otherwise 0.
    fn moved(&self, kernel: &str) -> f64 {
        let source = (CLIP_S * self.sample_rate_hz as usize * self.channels * 2) as f64;
        let mono = (CLIP_S * RATE_HZ as usize * 4) as f64;
        let bands = (128 * (1 + CLIP_S * RATE_HZ as usize / 512) * 4) as f64;

        // A kernel may have several instances, whose names begin with its own: `decimate_s16_stereo`, `fused_mel_2048`.
        let bytes = [
            ("copy_clips", source + mono),
            ("decimate", source + mono),
            ("polyphase", source + mono),
            ("fused_mel", mono + bands),
            ("pack", bands + bands / 2.0),
        ];
        bytes
            .into_iter()
            .find(|(name, _)| kernel.starts_with(name))
            .map_or(0.0, |(_, bytes)| bytes)
    }
}
