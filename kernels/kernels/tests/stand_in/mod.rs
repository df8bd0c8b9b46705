//! Emulates a machine with a GPU: a library that replaces the driver, cuFFT and NVRTC, and processes started so that
//! they find only this library.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

/// An emulated machine with some of NVIDIA's libraries.
pub(crate) struct Machine {
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Machine {
    /// Creates a machine with all libraries but `missing`, and one GPU.
    pub(crate) fn without(name: &str, missing: &[&str]) -> Self {
        let folder = root().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("lib")).unwrap();

        for library in ["cuda", "cufft", "nvrtc"] {
            // The loader stops at a file that is not a library, so that libraries installed on the host are not found.
            let names = ["", ".13", ".12", ".11", ".10", ".9", ".1"]
                .map(|end| format!("lib{library}.so{end}"));
            for file in names {
                fs::write(folder.join("lib").join(file), "no library").unwrap();
            }

            if !missing.contains(&library) {
                fs::copy(fake(), folder.join(format!("lib/lib{library}.so"))).unwrap();
            }
        }

        Self {
            folder,
            variables: Vec::new(),
        }
    }

    /// Creates a machine with all libraries.
    pub(crate) fn new(name: &str) -> Self {
        Self::without(name, &[])
    }

    /// Sets an environment variable that controls the fake library; `fake_cuda.c` defines the names.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Adds libraries like those of PyPI's wheels, among the packages of the `python3` on PATH.
    pub(crate) fn with_wheels(self, files: &[&str]) -> Self {
        fs::create_dir_all(self.folder.join("bin")).unwrap();
        fs::write(self.folder.join("bin/python3"), "never run").unwrap();

        let packages = self.folder.join("lib/python3.12/site-packages");
        for file in files {
            let path = packages.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            build(&path, &[&format!("-Wl,-soname,{name}")]);
        }

        self
    }

    /// Returns the cache folder of kernels.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Returns the file in which the fake library records compilations.
    pub(crate) fn notes(&self) -> PathBuf {
        self.folder.join("compiled")
    }

    /// Starts this program on the machine, in a separate process, because libraries are searched once per process.
    pub(crate) fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(arguments);

        for name in [
            "VIRTUAL_ENV",
            "WAVEMILL_REQUIRE_CUDA",
            "WAVEMILL_PARITY_DEVICES",
        ] {
            command.env_remove(name);
        }

        command
            // Exclude the host's Python, whose wheels might be searched.
            .env("PATH", self.folder.join("bin"))
            .env("CUDA_HOME", &self.folder)
            .env("XDG_CACHE_HOME", self.cache())
            .env("LD_LIBRARY_PATH", self.folder.join("lib"))
            .env("FAKE_COMPILED", self.notes())
            .envs(variables.iter().copied())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));

        command.output().unwrap()
    }
}

/// Returns the folder that contains the emulated machines. cargo provides no folder for unit tests of the library.
fn root() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR")
        .map_or_else(|| env::temp_dir().join("wavemill-stand-in"), PathBuf::from)
}

/// Returns the fake library, compiled once.
fn fake() -> &'static Path {
    static FAKE: OnceLock<PathBuf> = OnceLock::new();
    FAKE.get_or_init(|| {
        fs::create_dir_all(root()).unwrap();
        let library = root().join(format!("fake_cuda-{}.so", std::process::id()));
        build(&library, &[]);
        library
    })
}

fn build(library: &Path, options: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/fake_cuda.c");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC"])
        .args(options)
        .arg("-o")
        .arg(library)
        .arg(source);

    assert!(
        compiler.status().unwrap().success(),
        "cc fails on fake_cuda.c"
    );
}
