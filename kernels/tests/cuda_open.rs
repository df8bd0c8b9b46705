//! What a user reads where CUDA cannot be used, and that kernels are compiled once: shown without a GPU, by a library
//! that stands in for NVIDIA's (`fake_cuda.c`). Whether anything runs on a GPU is not shown here.

#![allow(clippy::unwrap_used)] // as in every test

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use wavemill_kernels::{BackendChoice, Level};

/// Opens what the variables ask for, in a process of its own: libraries are found once a process.
#[test]
#[ignore = "started by the other tests"]
fn open() {
    let choice: BackendChoice = env::var("OPEN").unwrap().parse().unwrap();
    let devices: Vec<usize> =
        env::var("OPEN_DEVICES").unwrap().split_terminator(',').map(|x| x.parse().unwrap()).collect();
    match choice.open(&devices, Level::Scalar) {
        Ok(opened) => {
            let (kind, level, lanes) = (opened.backend.kind(), opened.backend.level(), opened.backend.lanes());
            println!("<<{kind}; {level}; {lanes} lanes; {}>>", opened.notice.unwrap_or_default());
        }
        Err(error) => println!("<<{error}>>"),
    }
}

/// A machine with some of NVIDIA's libraries.
struct Machine {
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Machine {
    /// With all libraries but `missing`, and one GPU.
    fn without(name: &str, missing: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("lib")).unwrap();
        for library in ["cuda", "cufft", "nvrtc"] {
            // The loader stops at a file that is none of its kind: so what this machine itself may have stays unseen.
            let names = ["", ".13", ".12", ".11", ".10", ".9", ".1"].map(|end| format!("lib{library}.so{end}"));
            for file in names {
                fs::write(folder.join("lib").join(file), "no library").unwrap();
            }
            if !missing.contains(&library) {
                fs::copy(fake(), folder.join(format!("lib/lib{library}.so"))).unwrap();
            }
        }
        Self { folder, variables: Vec::new() }
    }

    fn new(name: &str) -> Self {
        Self::without(name, &[])
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// What [`open`] prints.
    fn open(&self, choice: &str, devices: &str) -> String {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "open", "--ignored", "--nocapture"])
            .env_remove("VIRTUAL_ENV")
            .env("CUDA_HOME", &self.folder)
            .env("XDG_CACHE_HOME", self.cache())
            .env("LD_LIBRARY_PATH", self.folder.join("lib"))
            .env("FAKE_COMPILED", self.folder.join("compiled"))
            .envs([("OPEN", choice), ("OPEN_DEVICES", devices)])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text.split_once("<<").and_then(|(_, rest)| rest.split_once(">>"));
        said.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr))).0.to_owned()
    }

    /// A line for each time that kernels were compiled: the options.
    fn compiled(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("compiled")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// The library that stands in, compiled once.
fn fake() -> &'static Path {
    static FAKE: OnceLock<PathBuf> = OnceLock::new();
    FAKE.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake_cuda-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_cuda.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
        assert!(built.success(), "cc fails on fake_cuda.c");
        library
    })
}

#[test]
fn a_missing_library_is_named_with_what_to_install() {
    let cases = [
        ("cuda", "cuda: open: no CUDA driver (libcuda.so.1) was found: install NVIDIA's driver, 580 or later"),
        (
            "cufft",
            "cuda: open: no cuFFT (libcufft.so.12) was found: pip install nvidia-cufft==12.0.0.61, or the \
             distribution's package of CUDA 13's toolkit; LD_LIBRARY_PATH names its folder",
        ),
        (
            "nvrtc",
            "cuda: open: no NVRTC (libnvrtc.so.13) was found: pip install nvidia-cuda-nvrtc==13.0.88, or the \
             distribution's package of CUDA 13's toolkit; LD_LIBRARY_PATH names its folder",
        ),
    ];
    for (library, refusal) in cases {
        let machine = Machine::without(&format!("no-{library}"), &[library]);
        assert_eq!(machine.open("cuda", ""), refusal);
    }
}

#[test]
fn auto_falls_back_with_one_line() {
    let machine = Machine::without("fallback", &["cuda", "cufft", "nvrtc"]);
    let why = "no CUDA driver (libcuda.so.1) was found: install NVIDIA's driver, 580 or later";
    assert_eq!(machine.open("auto", ""), format!("cpu; scalar; 1 lanes; features are computed on the CPU: {why}"));
    assert_eq!(machine.open("auto", "0"), format!("cuda: open: {why}"), "a device was named: the CPU is none");
    assert_eq!(machine.open("cpu", ""), "cpu; scalar; 1 lanes; ");
}

#[test]
fn an_old_driver_or_library_says_what_is_needed() {
    let refusal = |name: &'static str, value| Machine::new(&format!("old-{name}")).with(name, value).open("cuda", "");
    let driver =
        "cuda: open: the driver is one of CUDA 12.4, and 13.0 is needed: install NVIDIA's driver, 580 or later";
    assert_eq!(refusal("FAKE_DRIVER", "12040"), driver);
    assert!(
        refusal("FAKE_NVRTC", "11").starts_with("cuda: open: NVRTC 11.0 is too old: pip install nvidia-cuda-nvrtc")
    );
    assert!(
        refusal("FAKE_CUFFT", "10,2,1").starts_with("cuda: open: cuFFT 10.2.1 is too old: pip install nvidia-cufft")
    );
}

#[test]
fn no_gpu_or_a_driver_that_fails_says_so() {
    let none = "cuda: open: the driver sees no GPU (nvidia-smi lists them, CUDA_VISIBLE_DEVICES may hide them)";
    assert_eq!(Machine::new("no-device").with("FAKE_INIT", "100").open("cuda", ""), none);
    assert_eq!(Machine::new("zero-devices").with("FAKE_GPUS", "0").open("cuda", ""), none);
    let mismatch = Machine::new("mismatch").with("FAKE_INIT", "803").open("cuda", "");
    let words = "system has unsupported display driver / cuda driver combination";
    assert_eq!(mismatch, format!("cuda: open: {words} (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"));
}

#[test]
fn devices_are_those_that_are_there_and_of_one_kind() {
    let refusal = |machine: Machine, devices| machine.with("FAKE_GPUS", "2").open("cuda", devices);
    assert_eq!(refusal(Machine::new("range"), "0,2"), "device = 2: must be 0 to 1: the driver sees 2 GPUs");
    let names = Machine::new("names").with("FAKE_NAMES", "NVIDIA A,NVIDIA B");
    let kinds = "cuda:0 (NVIDIA A, sm_90) and cuda:1 (NVIDIA B, sm_90) are of different kinds: their bits may differ";
    assert_eq!(refusal(names, "0,1"), format!("cuda: open: {kinds}"));
    let capabilities = Machine::new("capabilities").with("FAKE_CAPABILITIES", "80,90");
    assert!(refusal(capabilities, "1,0").contains("cuda:1 (NVIDIA Fake, sm_90) and cuda:0 (NVIDIA Fake, sm_80)"));
}

#[test]
fn what_nvrtc_cannot_compile_says_why() {
    let unknown = Machine::new("unknown").with("FAKE_CAPABILITIES", "103").open("cuda", "");
    let why = "the device is sm_103, and this NVRTC knows sm_80, sm_90: install a newer one";
    assert_eq!(unknown, format!("NVRTC 13.0: compile kernels: {why}"));
    let log = "mel.cu(7): error: identifier \"x\" is undefined";
    let failed = Machine::new("log").with("FAKE_LOG", log);
    let why = format!("for sm_90: NVRTC_ERROR_COMPILATION\n{log}");
    assert_eq!(failed.open("cuda", ""), format!("NVRTC 13.0: compile kernels: {why}"));
    assert_eq!(failed.compiled().len(), 1);
}

#[test]
fn kernels_are_compiled_once_and_again_if_what_was_kept_is_damaged() {
    let machine = Machine::new("cache");
    let opened = "features are computed on cuda:0 (NVIDIA Fake)";
    assert!(machine.open("auto", "").ends_with(opened));
    assert!(machine.open("cuda", "").ends_with(opened));
    let options = "--gpu-architecture=sm_90 --std=c++17 --fmad=true --generate-line-info";
    assert_eq!(machine.compiled(), [options]);

    let folder = machine.cache().join("wavemill/kernels");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let [entry] = &fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!("one entry");
    };
    let mut bytes = fs::read(entry).unwrap();
    bytes[3] ^= 0x40;
    fs::write(entry, bytes).unwrap();
    assert!(machine.open("cuda", "").ends_with(opened));
    assert!(machine.open("cuda", "").ends_with(opened));
    assert_eq!(machine.compiled(), [options; 2]);
}

#[test]
fn without_a_cache_folder_kernels_are_compiled_each_time() {
    let machine = Machine::new("no-cache");
    fs::write(machine.cache(), "a file, where a folder should be").unwrap();
    for _ in 0..2 {
        assert!(machine.open("cuda", "").contains("cuda; sm_90, cuFFT 12.0.0, NVRTC 13.0, driver 13.0"));
    }
    assert_eq!(machine.compiled().len(), 2);
}

#[test]
fn two_gpus_of_one_kind_have_two_streams_each() {
    let machine = Machine::new("two").with("FAKE_GPUS", "2");
    let opened = machine.open("cuda", "1,0");
    assert!(
        opened.ends_with("; 4 lanes; features are computed on cuda:1 (NVIDIA Fake), cuda:0 (NVIDIA Fake)"),
        "{opened}"
    );
}
