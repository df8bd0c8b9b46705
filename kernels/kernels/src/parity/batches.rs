//! Checks that a row's bytes depend only on its samples: not on its batch, its position in the batch, its lane, or
//! earlier batches.

use super::*;

/// One clip of a test batch.
struct BatchClip {
    samples: Vec<f32>,
    sample_rate_hz: u32,
    rows: Vec<std::ops::Range<usize>>,
}

/// Returns features for both methods of computing bands, both precisions, odd lengths, and steps with a separate pass.
fn features() -> Vec<FeatureArgs> {
    let plain = options!(
        db: db(DbRef::Max, 80.0), normalize: Normalize::MinMax; of_length(1024, 256)
    );
    // A range of more than 80 dB requires double precision.
    let wide = FeatureSpec {
        db: Some(DbSpec {
            reference: DbRef::Max.into(),
            amin: 1e-10,
            top_db: None,
        }),
        ..of_length(512, 200)
    };
    let other_power = options!(power: 1.5, normalize: Normalize::None; of_length(601, 300));
    let with_deltas = options!(delta: 2; small_mel());
    let odd_length = options!(n_fft: 999; small());

    vec![
        librosa(Op::Mel, plain),
        librosa(Op::Mel, wide),
        librosa(Op::Mel, of_length(735, 147)),
        librosa(Op::Mel, other_power),
        librosa(Op::Mfcc, with_deltas),
        librosa(Op::Stft, odd_length),
    ]
}

fn of_length(n_fft: usize, hop_length: usize) -> FeatureSpec {
    options!(n_fft, hop_length; small_mel())
}

/// Returns clips of several lengths and sample rates, some of them cut into segments, one silent.
fn batch_clips() -> Vec<BatchClip> {
    let mut batch_clips = Vec::new();
    for (place, n) in [5000, 12_345, 3000, 30_011, 22_050, 4001, 9000, 16_000, 2500]
        .into_iter()
        .enumerate()
    {
        let sample_rate_hz = [22_050, 44_100, 48_000, 32_000][place % 4];

        let mut samples = signal(n);
        if place == 6 {
            samples.fill(0.0);
        }
        let rows = if place % 3 == 0 {
            vec![0..2000, 1500..4500]
        } else {
            std::iter::once(0..2400).collect()
        };

        batch_clips.push(BatchClip {
            samples,
            sample_rate_hz,
            rows,
        });
    }
    batch_clips
}

/// Returns the tensors of every row, in the order of the clips.
fn run(plan: &mut dyn Plan, batch_clips: &[&BatchClip]) -> Vec<Row> {
    let mut clips = Vec::new();
    for batch_clip in batch_clips {
        let samples = Samples::F32(&batch_clip.samples);
        clips.push(Clip {
            samples,
            channels: 1,
            sample_rate_hz: batch_clip.sample_rate_hz,
            rows: &batch_clip.rows,
        });
    }
    super::run(plan, &clips)
}

fn batches_change_no_byte(on: &Machines) {
    let features = features();
    let batch_clips = batch_clips();
    let all: Vec<&BatchClip> = batch_clips.iter().collect();
    for backend in &on.devices {
        let mut plan = backend.plan(0, &features).unwrap();
        let want = run(&mut *plan, &all);
        assert_eq!(
            run(&mut *plan, &all),
            want,
            "{}: the same batch again",
            name(&**backend)
        );

        // In smaller batches, a clip has other neighbours and other positions in the buffers.
        for size in [1, 2, 5] {
            let mut got = Vec::new();
            for some in all.chunks(size) {
                got.extend(run(&mut *plan, some));
            }
            assert_eq!(got, want, "{}: batches of {size}", name(&**backend));
        }

        // Reverse the order of the clips; the rows of a clip remain in order.
        let backwards: Vec<&BatchClip> = all.iter().rev().copied().collect();
        let mut got = run(&mut *backend.plan(0, &features).unwrap(), &backwards).into_iter();
        let mut by_clip = Vec::new();
        for clip in &backwards {
            by_clip.push(got.by_ref().take(clip.rows.len()).collect::<Vec<Row>>());
        }
        by_clip.reverse();
        assert_eq!(
            by_clip.concat(),
            want,
            "{}: in another order",
            name(&**backend)
        );
    }
}

/// Lanes run in parallel, as in `extract`.
fn lanes_give_equal_bits(on: &Machines) {
    let features = features();
    let batch_clips = batch_clips();
    let all: Vec<&BatchClip> = batch_clips.iter().collect();
    for backend in &on.devices {
        let want = run(&mut *backend.plan(0, &features).unwrap(), &all);

        std::thread::scope(|scope| {
            for lane in 0..backend.lanes() {
                let features = &features;
                let all = &all;
                let want = &want;
                scope.spawn(move || {
                    let mut plan = backend.plan(lane, features).unwrap();
                    for _ in 0..3 {
                        assert_eq!(
                            run(&mut *plan, all),
                            *want,
                            "{}: lane {lane}",
                            name(&**backend)
                        );
                    }
                });
            }
        });
    }
}

parity!(batches_change_no_byte, lanes_give_equal_bits);
