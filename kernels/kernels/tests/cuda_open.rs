//! Tests the messages for machines on which CUDA cannot be used, and that kernels are compiled only once. The tests
//! need no GPU: a library replaces NVIDIA's (`stand_in/fake_cuda.c`). They do not test whether anything runs on a GPU.

#![allow(clippy::unwrap_used)] // as in all tests

mod stand_in;

use std::os::unix::fs::PermissionsExt;
use std::{env, fs};

use serde_json::{Value, json};
use wavemill_kernels::{BackendChoice, CheckedDevices, Cuda, CudaReport, Level};

use stand_in::Machine;

/// Opens the backend that environment variables select. Runs in a separate process, because libraries are searched once
/// per process.
#[test]
#[ignore = "started by the other tests"]
fn open() {
    let choice: BackendChoice = env::var("OPEN").unwrap().parse().unwrap();
    let devices: Vec<usize> = env::var("OPEN_DEVICES")
        .unwrap()
        .split_terminator(',')
        .map(|x| x.parse().unwrap())
        .collect();

    match choice.open(&devices, Level::Scalar, None) {
        Ok(opened) => {
            let backend = opened.backend;
            let (kind, level, lanes) = (backend.kind(), backend.level(), backend.lanes());
            let notice = opened.notice.unwrap_or_default();
            println!("<<{kind}; {level}; {lanes} lanes; {notice}>>");
        }
        Err(error) => println!("<<{error}>>"),
    }
}

/// Returns the output of the test [`open`], run on a machine.
fn said(machine: &Machine, choice: &str, devices: &str) -> String {
    let arguments = ["--exact", "open", "--ignored", "--nocapture"];
    let output = machine.start(&arguments, &[("OPEN", choice), ("OPEN_DEVICES", devices)]);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = between_marks(&text);
    said.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
        .to_owned()
}

/// Returns the output of opening CUDA on a machine.
fn opening(machine: &Machine) -> String {
    said(machine, "cuda", "")
}

/// Returns the text that a test of another process printed for this one.
fn between_marks(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<<")?;
    Some(rest.split_once(">>")?.0)
}

/// Returns one line per compilation of kernels on a machine. The line contains the compiler options.
fn compiled(machine: &Machine) -> Vec<String> {
    let text = fs::read_to_string(machine.notes()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_missing_library_is_named_with_what_to_install() {
    let cases = [
        (
            "cuda",
            "cuda: open: no CUDA driver (libcuda.so.1) was found: install NVIDIA's driver, 580 or later (530 or later \
             with the libraries of CUDA 12)",
        ),
        (
            "cufft",
            "cuda: open: no cuFFT (libcufft.so.12) was found: pip install nvidia-cufft==12.0.0.61, or the \
             distribution's package of CUDA 13's toolkit; add its folder to LD_LIBRARY_PATH",
        ),
        (
            "nvrtc",
            "cuda: open: no NVRTC (libnvrtc.so.13) was found: pip install nvidia-cuda-nvrtc==13.0.88, or the \
             distribution's package of CUDA 13's toolkit; add its folder to LD_LIBRARY_PATH",
        ),
    ];

    for (library, refusal) in cases {
        let machine = Machine::without(&format!("no-{library}"), &[library]);
        assert_eq!(opening(&machine), refusal);
    }
}

#[test]
fn auto_falls_back_with_one_message() {
    let machine = Machine::without("fallback", &["cuda", "cufft", "nvrtc"]);
    let why = "no CUDA driver (libcuda.so.1) was found: install NVIDIA's driver, 580 or later (530 or later with the \
               libraries of CUDA 12)";

    assert_eq!(
        said(&machine, "auto", ""),
        format!("cpu; scalar; 1 lanes; features are computed on the CPU: {why}")
    );
    assert_eq!(
        said(&machine, "auto", "0"),
        format!("cuda: open: {why}"),
        "a device was named: the CPU is none"
    );
    assert_eq!(said(&machine, "cpu", ""), "cpu; scalar; 1 lanes; ");
}

/// Returns the message of a machine whose driver, NVRTC and cuFFT have the given versions. `LIB` replaces the folder of its
/// libraries.
fn said_of_versions(name: &str, driver: &str, nvrtc: &str, cufft: &str) -> String {
    let machine = Machine::new(name)
        .with("FAKE_DRIVER", driver)
        .with("FAKE_NVRTC", nvrtc)
        .with("FAKE_CUFFT", cufft);
    let libraries = format!("{}/{name}/lib", env!("CARGO_TARGET_TMPDIR"));
    opening(&machine).replace(&libraries, "LIB")
}

#[test]
fn old_driver_error_states_the_required_version() {
    assert_eq!(
        said_of_versions("old-driver", "12000", "12", "11,0,0"),
        "cuda: open: the driver supports CUDA 12.0, but 12.1 is required: install NVIDIA's driver, 580 or later (530 or \
         later with the libraries of CUDA 12)"
    );
}

#[test]
fn a_driver_of_cuda_12_takes_the_libraries_of_cuda_12() {
    let opened = said_of_versions("cuda-12", "12040", "12", "11,2,1");
    let level = "cuda; sm_90, cuFFT 11.2.1, NVRTC 12.0, driver 12.4";
    assert_eq!(opened.get(..level.len()), Some(level), "{opened}");

    // A later driver also runs the libraries of CUDA 12.
    let opened = said_of_versions("cuda-13", "13000", "12", "11,2,1");
    let level = "cuda; sm_90, cuFFT 11.2.1, NVRTC 12.0, driver 13.0";
    assert_eq!(opened.get(..level.len()), Some(level), "{opened}");
}

#[test]
fn libraries_that_do_not_fit_the_driver_are_refused() {
    let cases = [
        (
            ["13000", "11", "12,0,0"],
            "NVRTC 11.0 (LIB/libnvrtc.so) cannot be used with a driver that supports CUDA 13.0: remove its folder from \
             LD_LIBRARY_PATH, and install another version: pip install nvidia-cuda-nvrtc==",
        ),
        (
            ["13000", "13", "10,2,1"],
            "cuFFT 10.2.1 (LIB/libcufft.so) cannot be used with a driver that supports CUDA 13.0: remove its folder from \
             LD_LIBRARY_PATH, and install another version: pip install nvidia-cufft==",
        ),
        (
            ["12040", "13", "11,2,1"],
            "NVRTC 13.0 (LIB/libnvrtc.so) cannot be used with a driver that supports CUDA 12.4: remove its folder from \
             LD_LIBRARY_PATH, and install another version: pip install nvidia-cuda-nvrtc-cu12, or",
        ),
        (
            ["12040", "12", "12,0,0"],
            "cuFFT 12.0.0 (LIB/libcufft.so) cannot be used with a driver that supports CUDA 12.4: remove its folder from \
             LD_LIBRARY_PATH, and install another version: pip install nvidia-cufft-cu12, or",
        ),
    ];

    for (at, ([driver, nvrtc, cufft], want)) in cases.into_iter().enumerate() {
        let got = said_of_versions(&format!("unfit-{at}"), driver, nvrtc, cufft);
        let want = format!("cuda: open: {want}");
        assert_eq!(got.get(..want.len()), Some(&*want), "{got}");
    }
}

#[test]
fn missing_gpu_or_failing_driver_is_reported() {
    let none = "cuda: open: the driver sees no GPU (check nvidia-smi and CUDA_VISIBLE_DEVICES)";
    assert_eq!(
        opening(&Machine::new("no-device").with("FAKE_INIT", "100")),
        none
    );
    assert_eq!(
        opening(&Machine::new("zero-devices").with("FAKE_GPUS", "0")),
        none
    );

    let mismatch = opening(&Machine::new("mismatch").with("FAKE_INIT", "803"));
    let message = "system has unsupported display driver / cuda driver combination";
    assert_eq!(
        mismatch,
        format!("cuda: open: {message} (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)")
    );
}

#[test]
fn devices_are_those_that_are_there_and_of_one_kind() {
    let refusal =
        |machine: Machine, devices| said(&machine.with("FAKE_GPUS", "2"), "cuda", devices);

    assert_eq!(
        refusal(Machine::new("range"), "0,2"),
        "device = 2: must be 0 to 1: the driver sees 2 GPUs"
    );

    let names = Machine::new("names").with("FAKE_NAMES", "NVIDIA A,NVIDIA B");
    let kinds = "cuda:0 (NVIDIA A, sm_90) and cuda:1 (NVIDIA B, sm_90) are different models: their results may differ in \
                 the last bits";
    assert_eq!(refusal(names, "0,1"), format!("cuda: open: {kinds}"));

    let old = Machine::new("old").with("FAKE_CAPABILITIES", "70");
    assert_eq!(
        refusal(old, "0"),
        "cuda: open: cuda:0 (NVIDIA Fake, sm_70) is too old: sm_75 or later is required"
    );

    let capabilities = Machine::new("capabilities").with("FAKE_CAPABILITIES", "80,90");
    assert!(
        refusal(capabilities, "1,0")
            .contains("cuda:1 (NVIDIA Fake, sm_90) and cuda:0 (NVIDIA Fake, sm_80)")
    );
}

#[test]
fn compile_errors_contain_the_reason() {
    let unknown = opening(&Machine::new("unknown").with("FAKE_CAPABILITIES", "103"));
    let why = "the device is sm_103, but this NVRTC supports sm_80, sm_90: install a newer one";
    assert_eq!(unknown, format!("NVRTC 13.0: compile kernels: {why}"));

    let log = "mel.cu(7): error: identifier \"x\" is undefined";
    let failed = Machine::new("log").with("FAKE_LOG", log);
    let why = format!("for sm_90: NVRTC_ERROR_COMPILATION\n{log}");
    assert_eq!(
        opening(&failed),
        format!("NVRTC 13.0: compile kernels: {why}")
    );
    assert_eq!(compiled(&failed).len(), 1);
}

#[test]
fn kernels_are_recompiled_if_the_cache_is_damaged() {
    let machine = Machine::new("cache");
    let opened = "features are computed on cuda:0 (NVIDIA Fake)";
    assert!(said(&machine, "auto", "").ends_with(opened));
    assert!(opening(&machine).ends_with(opened));
    let options = "--gpu-architecture=sm_90 --std=c++17 --fmad=true --generate-line-info";
    assert_eq!(compiled(&machine), [options]);

    let folder = machine.cache().join("wavemill/kernels");
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );

    let [entry] = &fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one entry");
    };

    let mut bytes = fs::read(entry).unwrap();
    bytes[3] ^= 0x40;
    fs::write(entry, bytes).unwrap();

    assert!(opening(&machine).ends_with(opened));
    assert!(opening(&machine).ends_with(opened));
    assert_eq!(compiled(&machine), [options; 2]);
}

/// Opens CUDA twice in one process.
#[test]
#[ignore = "started by the other tests"]
fn open_twice() {
    for _ in 0..2 {
        Cuda::open(&[]).unwrap();
    }
}

#[test]
fn without_a_cache_folder_kernels_are_compiled_once_per_process() {
    let machine = Machine::new("no-cache");
    fs::write(machine.cache(), "a file, where a folder should be").unwrap();
    for processes in 1..=2 {
        let arguments = ["--exact", "open_twice", "--ignored", "--nocapture"];
        let output = machine.start(&arguments, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(compiled(&machine).len(), processes);
    }
}

#[test]
fn two_gpus_of_one_kind_have_two_streams_each() {
    let machine = Machine::new("two").with("FAKE_GPUS", "2");
    let opened = said(&machine, "cuda", "1,0");
    assert!(
        opened.ends_with(
            "; 4 lanes; features are computed on cuda:1 (NVIDIA Fake), cuda:0 (NVIDIA Fake)"
        ),
        "{opened}"
    );
}

/// Opens the GPU that checks require, in a separate process.
#[test]
#[ignore = "started by the other tests"]
fn check() {
    let cuda = CheckedDevices::from_environment().unwrap().cuda();
    println!(
        "<<{}>>",
        cuda.map_or_else(
            |error| error.to_string(),
            |cuda| format!("{:?}", cuda.map(|c| c.devices()))
        )
    );
}

#[test]
fn refusing_gpu_is_an_error_if_required() {
    let refusing = Machine::new("check").with("FAKE_INIT", "999");
    let message = "cuda: open: fake error (CUDA_ERROR_UNKNOWN)";
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[], "None"),
        (&[("WAVEMILL_REQUIRE_CUDA", "1")], message),
        (&[("WAVEMILL_PARITY_DEVICES", "cuda")], message),
    ];

    for (variables, want) in cases {
        let output = refusing.start(&["--exact", "check", "--ignored", "--nocapture"], variables);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(between_marks(&text), Some(want), "{variables:?}");
    }
}

/// Prints the CUDA report, in a separate process.
#[test]
#[ignore = "started by the other tests"]
fn report() {
    println!(
        "<<{}>>",
        serde_json::to_string(&CudaReport::detect()).unwrap()
    );
}

fn reported(machine: &Machine) -> Value {
    let output = machine.start(&["--exact", "report", "--ignored", "--nocapture"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(between_marks(&text).unwrap()).unwrap()
}

#[test]
fn wheels_of_the_python_on_path_are_found_whatever_their_minor_version() {
    // NVRTC's helper has another minor version than the one that wavemill recommends.
    let cuda_13 = [
        "nvidia/cu13/lib/libcufft.so.12",
        "nvidia/cu13/lib/libnvrtc.so.13",
        "nvidia/cu13/lib/libnvrtc-builtins.so.13.9",
    ];
    let cuda_12 = [
        "nvidia/cufft/lib/libcufft.so.11",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.3",
    ];

    for (driver, wheels, nvrtc, cufft) in [
        ("13000", cuda_13, "13", "12,0,0"),
        ("12040", cuda_12, "12", "11,2,1"),
    ] {
        let machine = Machine::without(&format!("wheels-{driver}"), &["cufft", "nvrtc"])
            .with_wheels(&wheels)
            .with("FAKE_DRIVER", driver)
            .with("FAKE_NVRTC", nvrtc)
            .with("FAKE_CUFFT", cufft);
        let opened = opening(&machine);
        assert!(
            opened.ends_with("features are computed on cuda:0 (NVIDIA Fake)"),
            "{opened}"
        );

        let found = reported(&machine);
        for (place, file) in [(1, wheels[0]), (2, wheels[1])] {
            let path = found["libraries"][place]["path"].as_str().unwrap();
            assert!(path.ends_with(file), "{path}");
        }
    }
}

#[test]
fn a_report_names_devices_and_libraries_with_version_and_file() {
    let machine = Machine::new("report")
        .with("FAKE_GPUS", "2")
        .with("FAKE_NAMES", "NVIDIA A,NVIDIA B");
    let found = reported(&machine);
    assert_eq!(
        (&found["usable"], &found["problem"]),
        (&json!(true), &Value::Null)
    );

    let memory = 143_771_u64 << 20;
    assert_eq!(
        found["devices"],
        json!([
            {"device": "cuda:0", "name": "NVIDIA A", "architecture": "sm_90", "memory_bytes": memory},
            {"device": "cuda:1", "name": "NVIDIA B", "architecture": "sm_90", "memory_bytes": memory},
        ])
    );

    let versions: Vec<&str> = (1..3)
        .map(|place| found["libraries"][place]["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["12.0.0", "13.0"]);

    for (place, file) in ["libcuda.so", "libcufft.so", "libnvrtc.so"]
        .into_iter()
        .enumerate()
    {
        assert!(
            found["libraries"][place]["path"]
                .as_str()
                .unwrap()
                .ends_with(file),
            "{found}"
        );
    }
}

#[test]
fn report_names_missing_libraries_remedy_and_searched_paths() {
    let found = reported(&Machine::without("report-missing", &["cufft"]));
    let missing = &found["libraries"][1];
    assert_eq!(
        (&found["usable"], &missing["version"], &missing["path"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    assert!(
        missing["problem"]
            .as_str()
            .unwrap()
            .starts_with("no cuFFT (libcufft.so.12) was found: pip install")
    );
    assert_eq!(found["problem"], missing["problem"]);

    let tried: Vec<&str> = missing["tried"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        tried[0].ends_with("report-missing/lib64"),
        "the toolkit first: {tried:?}"
    );
    assert!(
        tried
            .iter()
            .any(|folder| folder.ends_with("report-missing/lib/nvidia/cu13/lib")),
        "{tried:?}"
    );

    let refusing = reported(&Machine::new("report-refusing").with("FAKE_INIT", "100"));
    let why = refusing["problem"].as_str().unwrap();
    assert!(
        why.starts_with("the driver sees no GPU") && refusing["devices"] == json!([]),
        "{refusing}"
    );
}
