//! Tests memory and copies on a GPU. They are ignored without one.

use std::time::Instant;

use wavemill_signal::SampleBuffer;

use super::testing::{cuda, fetched, noise, sent};
use super::{CudaReport, Device, bytes_of, lending, sample_numbers, spectrum_step};

#[test]
#[ignore = "needs a GPU"]
fn report_names_device_and_libraries() {
    let report = CudaReport::detect();
    assert!(report.usable && report.problem.is_none(), "{report:?}");
    assert!(
        !report.devices.is_empty() && report.devices[0].memory_bytes > 1 << 30,
        "{report:?}"
    );

    for library in report
        .libraries
        .iter()
        .filter(|library| library.name != "NCCL")
    {
        assert!(
            library.version.is_some() && library.path.is_some(),
            "{library:?}"
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn pinned_copies_preserve_all_bytes() {
    let device = cuda();
    for n in [1, 3, 255, 256, 4097, 1 << 20, (24 << 20) + 5] {
        let values = noise(n);
        let buffer = sent(&device, &values);
        assert!(
            fetched(&device, &buffer, 4 * n) == bytes_of(&values),
            "{n} values"
        );
    }
}

/// Checks that clearing and partial copies do not change the bytes that follow.
#[test]
#[ignore = "needs a GPU"]
fn clearing_and_partial_copies_stay_in_range() {
    let device = cuda();
    let mut buffer = sent(&device, &[1.5_f32; 1000]);
    device.zero(&mut buffer, 400).unwrap();
    let mut host = device.alloc_host(100).unwrap();
    host.as_mut().fill(0xff);
    device.upload(&host, 100, &mut buffer).unwrap();

    let got = fetched(&device, &buffer, 4000);
    assert!(got[..100].iter().all(|byte| *byte == 0xff));
    assert!(got[100..400].iter().all(|byte| *byte == 0));
    assert_eq!(&got[400..], bytes_of(&[1.5_f32; 900]));
}

/// Tests copies from page-locked and from ordinary memory to any offset.
#[test]
#[ignore = "needs a GPU"]
fn lent_memory_is_copied_to_its_place() {
    const N: usize = 100_003;
    let device = cuda();

    let ordinary = noise(N);
    let mut locked = crate::backend::Cuda::open(&[]).unwrap().sample_buffer_of();
    locked.extend(noise(N).into_iter().map(|x| -x));

    let mut buffer = sent(&device, &vec![0.5_f32; 2 * N + 8]);
    lending(&device, |loans| {
        loans.upload(bytes_of(&ordinary), &mut buffer, 16)?;
        loans.upload(bytes_of(&locked), &mut buffer, 16 + 4 * N)
    })
    .unwrap();

    let got = fetched(&device, &buffer, 8 * N + 32);
    assert_eq!(got[..16], *bytes_of(&[0.5_f32; 4]));
    assert!(got[16..16 + 4 * N] == *bytes_of(&ordinary));
    assert!(got[16 + 4 * N..16 + 8 * N] == *bytes_of(&locked));
    assert_eq!(got[16 + 8 * N..], *bytes_of(&[0.5_f32; 4]));

    let too_far = lending(&device, |loans| {
        loans.upload(bytes_of(&ordinary), &mut buffer, 4 * N + 33)
    });
    assert!(too_far.is_err());
}

#[test]
#[ignore = "needs a GPU"]
fn page_locked_samples_equal_ordinary_ones() {
    let mut locked = crate::backend::Cuda::open(&[]).unwrap().sample_buffer_of();
    let mut ordinary = SampleBuffer::<f32>::default();
    for samples in [&mut locked, &mut ordinary] {
        samples.clear_for(10);
        assert_eq!(samples.capacity(), 10);

        for n in 0..40 {
            let piece = noise(n);
            samples.extend_from_slice(&piece);
            samples.extend(piece.iter().map(|x| -x));
            samples.push(n as f32);
        }
        samples.truncate(samples.len() - 5);
        samples.pad_to(samples.len() + 7, 0.25);
    }

    assert_eq!(locked[..], ordinary[..]);
    assert!(!locked.lacks_lock());
    assert!(format!("{locked:?}").contains("page-locked"));
}

#[test]
#[ignore = "needs a GPU"]
fn oversized_copies_are_rejected() {
    let device = cuda();
    let mut buffer = device.alloc(100).unwrap();
    let mut host = device.alloc_host(50).unwrap();
    assert!(device.upload(&host, 51, &mut buffer).is_err());
    assert!(device.download(&buffer, 101, &mut host).is_err());
    assert!(device.zero(&mut buffer, 101).is_err());
    device.synchronize().unwrap();
}

/// Prints how long the copy took, for comparison with the benchmark.
#[test]
#[ignore = "needs a GPU"]
fn dropping_host_memory_waits_for_copies() {
    const BYTES: usize = 256 << 20;
    let device = cuda();
    let mut buffer = device.alloc(BYTES).unwrap();

    let start = Instant::now();
    for round in 0..4u8 {
        let mut host = device.alloc_host(BYTES).unwrap();
        host.as_mut().fill(round);
        device.upload(&host, BYTES, &mut buffer).unwrap();
    }

    let got = fetched(&device, &buffer, BYTES);
    assert!(got.iter().all(|byte| *byte == 3));

    println!(
        "{:.1} s for 4 copies of 256 MiB, their memory taken and filled anew",
        start.elapsed().as_secs_f64()
    );
}

/// Checks that the bits of a transform depend neither on the other transforms of the call nor on its position.
#[test]
#[ignore = "needs a GPU"]
fn transforms_do_not_depend_on_their_neighbours() {
    let device = cuda();
    for n in (1..=64).chain([255, 400, 551, 735, 999, 1000, 1102, 4096, 4097, 22_049]) {
        let count = 6;
        let frame = n * sample_numbers(n);
        let values = noise(count * frame);
        // In the second call, all frames are at other positions, with other neighbours: 0 1 2 3 4 5, and 5 2 0 4 1 3.
        let order = [5, 2, 0, 4, 1, 3];
        let moved: Vec<f32> = order
            .iter()
            .flat_map(|at| &values[at * frame..][..frame])
            .copied()
            .collect();

        let fft = device.plan_fft(n, count, false).unwrap();
        let bytes = spectrum_step(n) * 8;
        let [there, moved] = [values, moved].map(|values| {
            let mut input = sent(&device, &values);
            let mut output = device.alloc(count * bytes).unwrap();
            device.run_fft(&fft, &mut input, &mut output).unwrap();
            fetched(&device, &output, count * bytes)
        });
        for (to, from) in order.into_iter().enumerate() {
            let [there, moved] = [&there[from * bytes..], &moved[to * bytes..]];
            assert!(
                there[..bytes] == moved[..bytes],
                "{n} samples, transform {from}"
            );
        }
    }
}
