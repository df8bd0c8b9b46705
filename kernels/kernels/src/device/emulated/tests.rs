//! Tests each guarantee of the emulation with a kernel that violates it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::device::{plain, sample_numbers, spectrum_step};

plain! {
    /// `Test` in tests.cu: parameters of the test kernels.
    struct Test {
        out: Address,
        n: i32,
        reserved: i32,
    }
}

const ORDERS: [Order; 5] = [
    Order::Ascending,
    Order::Descending,
    Order::Random(1),
    Order::Random(2),
    Order::Random(3),
];

fn source() -> String {
    concat!(
        include_str!("../device.cuh"),
        "#line 1 \"tests.cu\"\n",
        include_str!("tests.cu")
    )
    .to_owned()
}

fn device(order: Order) -> EmulatedDevice {
    EmulatedDevice::with_source(&source(), &[], order).unwrap()
}

fn grid(blocks: u32, threads: u32, shared_bytes: u32) -> Launch {
    Launch {
        grid: [blocks, 1],
        threads,
        shared_bytes,
    }
}

/// Launches the test kernel `kernel` with parameter `n` and returns the first `len` floats of its output, as bits.
fn run(
    device: &EmulatedDevice,
    kernel: &'static str,
    launch: Launch,
    n: i32,
    len: usize,
) -> Result<Vec<u32>, KernelError> {
    let buffer = device.alloc(4 * len)?;
    device.launch(
        kernel,
        launch,
        &Test {
            out: device.address(&buffer),
            n,
            reserved: 0,
        },
    )?;

    let mut bytes = device.alloc_host(4 * len)?;
    device.download(&buffer, 4 * len, &mut bytes)?;
    device.synchronize()?;

    Ok(bytes
        .as_ref()
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect())
}

/// Runs a kernel on a device with ascending threads.
fn run_ascending(
    kernel: &'static str,
    launch: Launch,
    n: i32,
    len: usize,
) -> Result<Vec<u32>, KernelError> {
    run(&device(Order::Ascending), kernel, launch, n, len)
}

fn fault(kernel: &'static str, launch: Launch, n: i32) -> String {
    let error = run_ascending(kernel, launch, n, 64).unwrap_err();
    error.to_string()
}

/// Checks that a kernel fails with an error that contains these texts.
fn assert_fault(kernel: &'static str, launch: Launch, n: i32, texts: &[&str]) {
    let fault = fault(kernel, launch, n);
    for text in texts {
        assert!(fault.contains(text), "{fault}");
    }
}

#[test]
fn correct_reduction_is_independent_of_thread_order() {
    let launch = Launch {
        grid: [5, 3],
        threads: 128,
        shared_bytes: 512,
    };

    let want = run_ascending("sums", launch, 1000, 15).unwrap();
    let exact: f64 = (1..=1000).map(|i| 1.0 / f64::from(i)).sum();
    assert!(
        (f64::from(f32::from_bits(want[0])) - exact).abs() < 1e-5,
        "{}",
        f32::from_bits(want[0])
    );

    for order in ORDERS {
        let got = run(&device(order), "sums", launch, 1000, 15).unwrap();
        assert_eq!(got, want, "{order:?}");
    }
}

#[test]
fn missing_barrier_changes_results_with_thread_order() {
    fn race(order: Order) -> Vec<u32> {
        run(&device(order), "race", grid(1, 64, 256), 0, 64).unwrap()
    }

    let results = [
        Order::Ascending,
        Order::Descending,
        Order::Random(1),
        Order::Random(2),
    ]
    .map(race);

    for (i, a) in results.iter().enumerate() {
        assert!(results[..i].iter().all(|b| a != b), "{i}");
    }

    assert_eq!(race(Order::Random(1)), results[2], "a seed is an order");
}

#[test]
fn threads_and_blocks_run_in_the_requested_order() {
    for (order, want) in [(Order::Ascending, [0, 0]), (Order::Descending, [0, 191])] {
        let got = run(&device(order), "first", grid(3, 64, 0), 0, 2).unwrap();
        assert_eq!(got, want, "{order:?}");
    }
}

#[test]
fn shuffles_exchange_what_lanes_hold() {
    for order in ORDERS {
        let out = run(&device(order), "shuffles", grid(2, 96, 24), 0, 4 * 96).unwrap();
        for (thread, got) in out.chunks(4).enumerate() {
            let (lane, warp) = (thread % 32, thread / 32 * 32);
            let down = if lane + 3 < 32 { thread + 3 } else { thread };
            let want = [95 * 96 / 2, down, warp + 7, warp + 31].map(|x| (x as f32).to_bits());
            assert_eq!(got, want, "thread {thread}, {order:?}");
        }
    }
}

#[test]
fn deadlocked_threads_are_reported_with_their_lines() {
    let barrier = 2 + source_line("if (threadIdx.x < 40)");

    assert_eq!(
        fault("divergent_barrier", grid(1, 64, 0), 0),
        format!(
            "emulated: launch: kernel divergent_barrier, block (0, 0), divergent barrier: thread 0 waits at the barrier at \
             tests.cu:{barrier} while thread 40 has ended"
        )
    );

    let two = [
        "thread 0 waits at the barrier at tests.cu:",
        "while thread 32 waits at the barrier at tests.cu:",
    ];
    assert_fault("two_barriers", grid(1, 64, 0), 0, &two);

    let shuffle = [
        "divergent shuffle: thread 32 waits at the shuffle at tests.cu:",
        "while thread 37 has ended",
    ];
    assert_fault("divergent_shuffle", grid(1, 64, 0), 0, &shuffle);

    let narrow = "thread 0: shuffle with mask 0000ffff at tests.cu:";
    assert_fault("narrow_shuffle", grid(1, 64, 0), 0, &[narrow]);
}

/// Returns the number of lines in tests.cu before the first line that contains `text`.
fn source_line(text: &str) -> usize {
    include_str!("tests.cu")
        .lines()
        .position(|line| line.contains(text))
        .unwrap()
}

#[test]
fn write_outside_shared_memory_reports_thread_and_byte() {
    for (n, byte) in [(31, 256), (-40, -25), (200, 932)] {
        let fault = fault("beyond_shared", grid(2, 64, 256), n);
        let want = format!(
            "block (0, 0), thread 33: wrote to byte {byte} of 256 of shared memory; then thread 33 waits"
        );
        assert!(fault.contains(&want), "{fault}");
    }

    run_ascending("beyond_shared", grid(2, 64, 256), 0, 64).unwrap();
}

#[test]
fn write_outside_a_buffer_reports_kernel_and_buffer_once() {
    let device = device(Order::Random(4));
    let _other = device.alloc(100).unwrap();

    for (n, byte) in [(16, 64), (-1, -1), (63, 252)] {
        let fault = run(&device, "beyond_global", grid(1, 32, 0), n, 16)
            .unwrap_err()
            .to_string();
        let text = format!("kernel beyond_global: wrote to byte {byte} of buffer ");
        assert!(
            fault.contains(&text) && fault.ends_with("has 64"),
            "{fault}"
        );
    }

    run(&device, "beyond_global", grid(1, 32, 0), 15, 16).unwrap();
}

#[test]
fn unwritten_memory_is_nan() {
    let out = run_ascending("uninitialised", grid(2, 64, 256), 0, 80).unwrap();
    let mut values = out.iter().map(|bits| f32::from_bits(*bits));
    assert!(values.all(f32::is_nan), "{out:?}");
}

#[test]
fn a_stack_that_was_too_small_is_reported() {
    let text = "thread 32: used more than its stack";
    assert_fault("large_stack", grid(1, 64, 0), 1, &[text]);
    run_ascending("large_stack", grid(1, 64, 0), 0, 1).unwrap();
}

#[test]
fn invalid_launches_are_rejected() {
    let launches = [
        grid(1, 48, 0),
        grid(1, 0, 0),
        grid(1, 1056, 0),
        grid(1, 32, 300_000),
    ];

    for launch in launches.into_iter().chain([Launch {
        grid: [1, 65_536],
        threads: 32,
        shared_bytes: 0,
    }]) {
        assert_fault("race", launch, 0, &["beyond what a device takes"]);
    }

    let device = device(Order::Ascending);
    let missing = run(&device, "missing", grid(1, 32, 0), 0, 1)
        .unwrap_err()
        .to_string();
    assert_eq!(missing, "emulated: launch: no kernel is named missing");

    let size = device
        .launch("race", grid(1, 32, 128), &1.0_f64)
        .unwrap_err()
        .to_string();
    assert!(
        size.ends_with("parameters of 8 bytes, where the kernel takes 16"),
        "{size}"
    );

    let nothing = run(&device, "race", grid(0, 32, 0), 0, 1).unwrap();
    assert_eq!(nothing, [u32::MAX]);
}

#[test]
fn several_threads_can_emulate_concurrently() {
    fn work(order: Order) -> Vec<Vec<u32>> {
        let device = device(order);
        (0..20)
            .map(|n| run(&device, "sums", grid(7, 256, 1024), 100 + n, 7).unwrap())
            .collect()
    }

    let want = work(Order::Ascending);
    std::thread::scope(|scope| {
        let threads = ORDERS.map(|order| scope.spawn(move || work(order)));
        for thread in threads {
            assert_eq!(thread.join().unwrap(), want);
        }
    });
}

#[test]
fn portable_fibres_give_the_same_results() {
    for order in ORDERS {
        let portable =
            EmulatedDevice::with_source(&source(), &["-DWAVEMILL_EMULATED_UCONTEXT"], order)
                .unwrap();
        let [got, want] = [portable, device(order)]
            .map(|device| run(&device, "sums", grid(3, 64, 256), 500, 3).unwrap());
        assert_eq!(got, want, "{order:?}");
    }
}

#[test]
fn transforms_match_the_definition() {
    use std::f64::consts::TAU;

    let device = device(Order::Ascending);
    for n in [1, 2, 7, 30] {
        let samples: Vec<f64> = (0..2 * n).map(|i| (i * i % 11) as f64 - 5.0).collect();
        // Complex samples have an imaginary part, which is 0.
        let mut numbers = Vec::new();
        for sample in &samples {
            numbers.push(*sample);
            numbers.resize(numbers.len() + sample_numbers(n) - 1, 0.0);
        }
        let step = spectrum_step(n);
        let mut input = device.alloc(8 * numbers.len()).unwrap();
        let mut output = device.alloc(32 * step).unwrap();

        input.write(&numbers).unwrap();
        let fft = device.plan_fft(n, 2, true).unwrap();
        device.run_fft(&fft, &mut input, &mut output).unwrap();
        let mut wide = vec![0.0_f64; 4 * step];
        output.read(&mut wide).unwrap();

        let narrow: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
        input.write(&narrow).unwrap();
        let fft = device.plan_fft(n, 2, false).unwrap();
        device.run_fft(&fft, &mut input, &mut output).unwrap();
        let mut narrow = vec![0.0_f32; 4 * step];
        output.read(&mut narrow).unwrap();

        for (at, pair) in wide.chunks(2).enumerate() {
            let (frame, bin) = (at / step, at % step);
            let mut sums = [0.0; 2];
            for i in 0..n {
                let angle = -TAU * (i * bin) as f64 / n as f64;
                sums[0] += samples[frame * n + i] * angle.cos();
                sums[1] += samples[frame * n + i] * angle.sin();
            }

            for (part, want) in sums.into_iter().enumerate() {
                assert!(
                    (pair[part] - want).abs() < 1e-11,
                    "n {n}, value {at}: {} is not {want}",
                    pair[part]
                );
                assert!(
                    (f64::from(narrow[2 * at + part]) - want).abs() < 1e-4,
                    "n {n}, value {at}"
                );
            }
        }
    }
}

fn host(device: &EmulatedDevice, bytes: &[u8]) -> EmulatedHost {
    let mut host = device.alloc_host(bytes.len()).unwrap();
    host.as_mut().copy_from_slice(bytes);
    host
}

#[test]
fn host_memory_is_used_only_after_the_wait_for_its_copies() {
    let device = device(Order::Ascending);
    let mut buffer = device.alloc(4).unwrap();

    let mut sent = host(&device, &[1; 4]);
    device.upload(&sent, 4, &mut buffer).unwrap();
    assert_eq!(
        sent.as_ref(),
        [1; 4],
        "a copy from there leaves it to readers"
    );

    let mut received = host(&device, &[0; 4]);
    device.download(&buffer, 4, &mut received).unwrap();

    let write = catch_unwind(AssertUnwindSafe(|| sent.as_mut()[0] = 2));
    assert!(write.is_err());
    let read = catch_unwind(AssertUnwindSafe(|| assert_eq!(received.as_ref().len(), 4)));
    assert!(read.is_err());

    device.synchronize().unwrap();
    sent.as_mut()[0] = 2;
    assert_eq!(received.as_ref(), [1; 4]);
}

#[test]
fn copies_keep_to_their_buffers() {
    let device = device(Order::Ascending);
    let mut buffer = device.alloc(4).unwrap();
    assert_eq!(device.address(&buffer) % 256, 0);

    device
        .upload(&host(&device, &[1, 2, 3, 4, 5]), 4, &mut buffer)
        .unwrap();
    device.zero(&mut buffer, 2).unwrap();

    let mut back = host(&device, &[9; 6]);
    device.download(&buffer, 3, &mut back).unwrap();
    device.synchronize().unwrap();
    assert_eq!(back.as_ref(), [0, 0, 3, 9, 9, 9]);

    assert!(
        device
            .upload(&host(&device, &[0; 5]), 5, &mut buffer)
            .is_err()
    );
    assert!(
        device
            .upload(&host(&device, &[0; 3]), 4, &mut buffer)
            .is_err()
    );
    assert!(device.download(&buffer, 5, &mut back).is_err());
    assert!(
        device
            .download(&buffer, 4, &mut host(&device, &[0; 3]))
            .is_err()
    );
    assert!(device.zero(&mut buffer, 5).is_err());
}

/// Measures a kernel with as many barriers as the largest real kernels, and as many blocks as some clips need.
#[test]
#[ignore = "prints a duration; run with --nocapture"]
fn measure_barriers() {
    for order in [Order::Ascending, Order::Descending, Order::Random(1)] {
        let (device, start) = (device(order), std::time::Instant::now());
        run(&device, "many_barriers", grid(10_000, 256, 1024), 12, 256).unwrap();
        println!(
            "12 barriers x 256 threads x 10,000 blocks, {order:?}: {:.2} s",
            start.elapsed().as_secs_f64()
        );
    }
}
