//! Opens NVIDIA's libraries on demand. A missing library is an error that states what to install.
//!
//! cudarc panics at the first call of a missing library, so [`open`] must succeed before any other call of cudarc.
#![allow(unsafe_code)] // loads foreign code and calls its version functions

use std::collections::HashSet;
use std::ffi::{OsString, c_int};
use std::fmt;
use std::path::{Path, PathBuf};

use cudarc::{cufft as cudarc_cufft, driver, nvrtc};

use super::cufft;
use super::report::FoundLibrary;
use crate::error::KernelError;

/// Minimum CUDA version of the driver: the first with `cuCtxSetFlags`, the latest function that cudarc calls here.
const DRIVER_MIN: i32 = 12_010;
/// CUDA version of the first driver that runs the libraries of CUDA 13, and the code that they generate.
const DRIVER_13: i32 = 13_000;
/// Minimum major version of NVRTC: that of CUDA 12, because older versions lack functions that are called here.
const NVRTC_MAJOR_MIN: i32 = 12;
/// Minimum major version of cuFFT: that of CUDA 12.
const CUFFT_MAJOR_MIN: i32 = 11;

/// Versions of the driver, cuFFT and NVRTC that were found.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    /// CUDA version that the driver implements, 1000 × major + 10 × minor.
    pub(crate) driver: i32,
    /// Version of the driver itself, if the operating system reports it.
    pub(crate) module: Option<String>,
    /// Version of cuFFT: major, minor, patch.
    pub(crate) cufft: [i32; 3],
    /// Version of NVRTC: major, minor.
    pub(crate) nvrtc: [i32; 2],
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cuFFT {}, NVRTC {}, driver {}",
            dotted(&self.cufft),
            dotted(&self.nvrtc),
            cuda_version(self.driver)
        )?;
        self.module
            .as_ref()
            .map_or(Ok(()), |version| write!(f, " ({version})"))
    }
}

/// One of NVIDIA's shared libraries, and how to find it.
struct Library {
    name: &'static str,
    /// Name passed to the dynamic loader, which is also the file name in a wheel.
    file: &'static str,
    /// Reports whether cudarc finds the library under one of the names that it tries.
    is_present: unsafe fn() -> bool,
    /// Location in a folder of Python wheels. `None` for a library that is part of the system and is found only by the
    /// dynamic loader.
    wheel: Option<&'static str>,
    /// Prefix of the names of files that the library itself opens later by name, from its own folder.
    helpers: Option<&'static str>,
    remedy: &'static str,
}

const DRIVER: Library = Library {
    name: "CUDA driver",
    file: "libcuda.so.1",
    is_present: driver::sys::is_culib_present,
    wheel: None,
    helpers: None,
    remedy: "install NVIDIA's driver, 580 or later (530 or later with the libraries of CUDA 12)",
};

/// cuFFT, NVRTC and NCCL of one major version of CUDA. A driver does not run libraries of a later major version, nor the code
/// that they generate.
struct Toolkit {
    cufft: Library,
    nvrtc: Library,
    nccl: Library,
}

const CUDA_13: Toolkit = Toolkit {
    cufft: Library {
        name: "cuFFT",
        file: "libcufft.so.12",
        is_present: cudarc_cufft::sys::is_culib_present,
        wheel: Some("nvidia/cu13/lib"),
        helpers: None,
        remedy: "pip install nvidia-cufft==12.0.0.61, or the distribution's package of CUDA 13's toolkit; add its \
                 folder to LD_LIBRARY_PATH",
    },
    nvrtc: Library {
        name: "NVRTC",
        file: "libnvrtc.so.13",
        is_present: nvrtc::sys::is_culib_present,
        wheel: Some("nvidia/cu13/lib"),
        // The prefix has no minor version: the helper must have that of the NVRTC in the same folder.
        helpers: Some("libnvrtc-builtins.so.13."),
        remedy: "pip install nvidia-cuda-nvrtc==13.0.88, or the distribution's package of CUDA 13's toolkit; add its \
                 folder to LD_LIBRARY_PATH",
    },
    nccl: NCCL,
};

const CUDA_12: Toolkit = Toolkit {
    cufft: Library {
        file: "libcufft.so.11",
        wheel: Some("nvidia/cufft/lib"),
        remedy: "pip install nvidia-cufft-cu12, or the distribution's package of CUDA 12's toolkit; add its folder to \
                 LD_LIBRARY_PATH",
        ..CUDA_13.cufft
    },
    nvrtc: Library {
        file: "libnvrtc.so.12",
        wheel: Some("nvidia/cuda_nvrtc/lib"),
        helpers: Some("libnvrtc-builtins.so.12."),
        remedy: "pip install nvidia-cuda-nvrtc-cu12, or the distribution's package of CUDA 12's toolkit; add its \
                 folder to LD_LIBRARY_PATH",
        ..CUDA_13.nvrtc
    },
    nccl: Library {
        remedy: "pip install nvidia-nccl-cu12: without it, training on several GPUs sums gradients in host memory",
        ..NCCL
    },
};

impl Toolkit {
    /// Returns the libraries for a driver of a CUDA version.
    fn for_driver(version: i32) -> Self {
        if version < DRIVER_13 {
            CUDA_12
        } else {
            CUDA_13
        }
    }
}

/// Used only by the trainer, which finds NCCL without this module; included in [`super::report`].
const NCCL: Library = Library {
    name: "NCCL",
    file: "libnccl.so.2",
    is_present: nccl_is_present,
    wheel: Some("nvidia/nccl/lib"),
    helpers: None,
    remedy: "pip install nvidia-nccl-cu13==2.28.9: without it, training on several GPUs sums gradients in host memory",
};

/// Opens the driver, and cuFFT and NVRTC of its major version. Errors: names the first library that is missing, too old
/// or too new for the driver, with the remedy.
pub(crate) fn open() -> Result<Versions, KernelError> {
    // Find each library before it is called, because calling a missing library would panic.
    DRIVER.find()?;
    let driver = driver_version()?;
    if driver < DRIVER_MIN {
        return Err(refused(format!(
            "the driver supports CUDA {}, but {} is required: {}",
            cuda_version(driver),
            cuda_version(DRIVER_MIN),
            DRIVER.remedy
        )));
    }

    let toolkit = Toolkit::for_driver(driver);
    toolkit.cufft.find()?;
    toolkit.nvrtc.find()?;

    let nvrtc = nvrtc_version()?;
    let cuda_major = driver / 1000;
    if !(NVRTC_MAJOR_MIN..=cuda_major).contains(&nvrtc[0]) {
        return Err(toolkit.nvrtc.unfit(&nvrtc, driver));
    }

    // cuFFT's major version is one less than CUDA's.
    let cufft = cufft_version()?;
    if !(CUFFT_MAJOR_MIN..cuda_major).contains(&cufft[0]) {
        return Err(toolkit.cufft.unfit(&cufft, driver));
    }

    Ok(Versions {
        driver,
        module: module_version(),
        cufft,
        nvrtc,
    })
}

/// Examines all libraries for [`super::report`].
pub(crate) fn inspect() -> Vec<FoundLibrary> {
    let driver = DRIVER.find().and_then(|()| driver_version());
    // Without a driver, name the libraries of the driver that is recommended.
    let toolkit = Toolkit::for_driver(driver.unwrap_or(DRIVER_13));
    vec![
        DRIVER.inspected(describe_driver),
        toolkit.cufft.inspected(|| Ok(dotted(&cufft_version()?))),
        toolkit.nvrtc.inspected(|| Ok(dotted(&nvrtc_version()?))),
        toolkit.nccl.inspected(nccl_version),
    ]
}

/// Returns the driver's own version, if the operating system reports it, and CUDA's version.
fn describe_driver() -> Result<String, KernelError> {
    let cuda = cuda_version(driver_version()?);
    Ok(match module_version() {
        Some(module) => format!("{module} (CUDA {cuda})"),
        None => format!("CUDA {cuda}"),
    })
}

/// Opens only NVRTC, which needs no driver.
#[cfg(test)]
pub(crate) fn open_nvrtc() -> Result<[i32; 2], KernelError> {
    // These tests accept every version of NVRTC.
    CUDA_13.nvrtc.find()?;
    nvrtc_version()
}

/// Creates the error for a CUDA installation that cannot be used.
pub(crate) fn refused(why: impl ToString) -> KernelError {
    KernelError::device("cuda", "open", why)
}

impl Library {
    /// Makes sure that cudarc can open the library. Errors: the library is not installed.
    fn find(&self) -> Result<(), KernelError> {
        // cudarc opens libraries by name. After a library has been opened by path, the loader also finds it by name.
        if self.can_be_opened() || self.open_elsewhere() && self.can_be_opened() {
            return Ok(());
        }
        Err(refused(format!(
            "no {} ({}) was found: {}",
            self.name, self.file, self.remedy
        )))
    }

    fn can_be_opened(&self) -> bool {
        // SAFETY: loads NVIDIA's library, whose initialisers have no preconditions in this process.
        unsafe { (self.is_present)() }
    }

    /// Returns the folders to search in addition to the loader's search path, in this order.
    fn folders(&self) -> Vec<PathBuf> {
        let Some(wheel) = self.wheel else {
            return Vec::new();
        };
        let mut folders = vec![toolkit()];
        folders.extend(wheel_roots().into_iter().map(|root| root.join(wheel)));
        folders
    }

    /// Opens the library by path and keeps it open, so that the loader finds it by name.
    fn open_elsewhere(&self) -> bool {
        let Some(folder) = self
            .folders()
            .into_iter()
            .find(|folder| folder.join(self.file).is_file())
        else {
            return false;
        };

        if let Some(prefix) = self.helpers {
            for helper in beginning_with(&folder, prefix) {
                // Ignore a helper that cannot be opened: if the library needs it, the library reports the error.
                open_for_good(&helper);
            }
        }
        open_for_good(&folder.join(self.file))
    }

    fn inspected(&self, version: impl FnOnce() -> Result<String, KernelError>) -> FoundLibrary {
        let found = self.find().and_then(|()| version());
        let is_found = found.is_ok();
        let (version, problem) = match found {
            Ok(version) => (Some(version), None),
            // The report contains the library's name already, so the error's detail is sufficient.
            Err(KernelError::Device { detail, .. }) => (None, Some(detail)),
            Err(error) => (None, Some(error.to_string())),
        };

        FoundLibrary {
            name: self.name,
            version,
            path: self.loaded_path(),
            problem,
            tried: if is_found { Vec::new() } else { self.folders() },
        }
    }

    /// Returns the path of the library's loaded file.
    fn loaded_path(&self) -> Option<PathBuf> {
        // The loader may have found a file of another version, so only the name up to `.so` is compared.
        let base = self
            .file
            .split_once(".so")
            .map_or(self.file, |(base, _)| base);
        loaded_from(&format!("{base}.so"))
    }

    /// Creates the error for a library that is too old, or too new for a driver that supports CUDA `driver`. The loader
    /// would find it again, even if another version is installed, so the first remedy is to remove its folder.
    fn unfit(&self, version: &[i32], driver: i32) -> KernelError {
        let path = self
            .loaded_path()
            .map_or(String::new(), |path| format!(" ({})", path.display()));
        refused(format!(
            "{} {}{path} cannot be used with a driver that supports CUDA {}: remove its folder from LD_LIBRARY_PATH, and \
             install another version: {}",
            self.name,
            dotted(version),
            cuda_version(driver),
            self.remedy
        ))
    }
}

/// Opens a library and keeps it open until the process ends. Reports whether that succeeded.
fn open_for_good(file: &Path) -> bool {
    // SAFETY: loads NVIDIA's library, whose initialisers have no preconditions in this process.
    unsafe { libloading::Library::new(file) }
        .map(std::mem::forget)
        .is_ok()
}

/// Returns the files in the subfolder `folder` of PyPI's wheels whose names start with `prefix`. The files in the most
/// likely wheel are first.
pub fn wheel_files(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let roots = wheel_roots().into_iter();
    roots
        .flat_map(|root| beginning_with(&root.join(folder), prefix))
        .collect()
}

/// Returns the files of a folder whose names start with `prefix`, sorted by path.
fn beginning_with(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };

    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_named(path, prefix))
        .collect();
    found.sort();
    found
}

/// Reports whether a file's name starts with `prefix`.
fn is_named(file: &Path, prefix: &str) -> bool {
    file.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn toolkit() -> PathBuf {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(variable);
    named
        .map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from)
        .join("lib64")
}

/// Returns the folders in which PyPI wheels are unpacked: of the active environment, next to this program, next to
/// torch, below the folders of LD_LIBRARY_PATH, and of every `python3` on PATH. The list has no duplicates and begins
/// with the most likely folder.
fn wheel_roots() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    if let Some(environment) = variable("VIRTUAL_ENV") {
        roots.extend(site_packages(Path::new(&environment)));
    }
    if let Ok(program) = std::env::current_exe() {
        // The program's own folder and its parent.
        roots.extend(program.ancestors().skip(1).take(2).map(Path::to_owned));
    }

    // LIBTORCH is the folder `torch`, which is in the same folder as `nvidia`.
    if let Some(libtorch) = variable("LIBTORCH") {
        roots.extend(Path::new(&libtorch).parent().map(Path::to_owned));
    }

    for folder in variable("LD_LIBRARY_PATH")
        .iter()
        .flat_map(std::env::split_paths)
    {
        if folder.ends_with("torch/lib") {
            // `torch/lib` is two levels below the folder of the wheels.
            roots.extend(folder.ancestors().nth(2).map(Path::to_owned));
        }
        roots.push(folder);
    }

    for folder in variable("PATH").iter().flat_map(std::env::split_paths) {
        roots.extend(packages_of_python(&folder.join("python3")));
    }

    let mut seen = HashSet::new();
    // A folder that was found twice keeps its first position.
    roots.retain(|root| seen.insert(root.clone()));
    roots
}

/// Returns the package folders of a Python program without running it: first those of its virtual environment, then
/// those of the Python to which its path links.
fn packages_of_python(python: &Path) -> Vec<PathBuf> {
    let Ok(itself) = python.canonicalize() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for program in [python, &itself] {
        if let Some(prefix) = program.ancestors().nth(2) {
            found.extend(site_packages(prefix));
            // Debian's own Python has further package folders below `local`.
            found.extend(site_packages(&prefix.join("local")));
        }
    }
    found
}

/// Returns `lib/python3*/site-packages` below a prefix, and `dist-packages`, which is Debian's name for it.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for version in beginning_with(&prefix.join("lib"), "python3") {
        for name in ["site-packages", "dist-packages"] {
            let folder = version.join(name);
            if folder.is_dir() {
                found.push(folder);
            }
        }
    }
    found
}

fn driver_version() -> Result<i32, KernelError> {
    let mut version = 0;
    // SAFETY: writes one number and uses no device; the library is loaded.
    let result = unsafe { driver::sys::cuDriverGetVersion(&mut version) };
    result
        .result()
        .map(|()| version)
        .map_err(|error| refused(format!("cannot query the driver's version: {:?}", error.0)))
}

fn nvrtc_version() -> Result<[i32; 2], KernelError> {
    let [mut major, mut minor] = [0; 2];
    // SAFETY: writes two numbers; the library is loaded.
    let result = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    result
        .result()
        .map(|()| [major, minor])
        .map_err(|error| refused(format!("cannot query NVRTC's version: {:?}", error.0)))
}

fn cufft_version() -> Result<[i32; 3], KernelError> {
    cufft::version().map_err(|error| refused(format!("cannot query cuFFT's version: {error}")))
}

/// Returns the version of the driver's kernel module, as reported by the operating system.
fn module_version() -> Option<String> {
    find_version(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// Returns the first word of a text that consists of numbers separated by points.
fn find_version(text: &str) -> Option<String> {
    text.split_whitespace()
        .find(|word| is_version(word))
        .map(str::to_owned)
}

fn is_version(word: &str) -> bool {
    let mut numbers = word.split('.');
    word.contains('.')
        && numbers.all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Returns the path of a loaded library whose file name starts with `prefix`, from the kernel's list of mapped files.
fn loaded_from(prefix: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| is_named(path, prefix))
        .map(Path::to_owned)
}

/// # Safety
/// Loads NVIDIA's NCCL, whose initialisers have no preconditions in this process.
unsafe fn nccl_is_present() -> bool {
    open_for_good(Path::new(NCCL.file))
}

fn nccl_version() -> Result<String, KernelError> {
    let mut version = 0;
    // SAFETY: NCCL has been opened and stays open; every version has this function, which writes one number.
    let result = unsafe {
        let nccl = libloading::Library::new(NCCL.file).map_err(no_nccl_version)?;
        let get = nccl
            .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"ncclGetVersion")
            .map_err(no_nccl_version)?;
        get(&raw mut version)
    };

    match result {
        0 => Ok(format!(
            "{}.{}.{}",
            version / 10_000,
            version / 100 % 100,
            version % 100
        )),
        error => Err(refused(format!(
            "cannot query NCCL's version: error {error}"
        ))),
    }
}

fn no_nccl_version(error: libloading::Error) -> KernelError {
    refused(format!("cannot query NCCL's version: {error}"))
}

/// Formats the parts of a version, for example `12.0.0`.
fn dotted(version: &[i32]) -> String {
    let parts: Vec<String> = version.iter().map(ToString::to_string).collect();
    parts.join(".")
}

fn cuda_version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        let mut versions = Versions {
            driver: 13_000,
            module: None,
            cufft: [12, 0, 0],
            nvrtc: [13, 0],
        };
        assert_eq!(
            versions.to_string(),
            "cuFFT 12.0.0, NVRTC 13.0, driver 13.0"
        );

        versions.module = Some("580.65.06".to_owned());
        assert_eq!(
            versions.to_string(),
            "cuFFT 12.0.0, NVRTC 13.0, driver 13.0 (580.65.06)"
        );

        assert_eq!(cuda_version(12_040), "12.4");
    }

    #[test]
    fn the_driver_s_own_version_is_read_from_both_kinds_of_module() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: gcc 12.2.0";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)";
        assert_eq!(find_version(closed).as_deref(), Some("535.183.01"));
        assert_eq!(find_version(open).as_deref(), Some("580.65.06"));
        assert_eq!(find_version("NVRM version: none"), None);
    }

    #[test]
    fn wheels_are_searched_below_python_and_its_link_target() {
        let folder = std::env::temp_dir().join(format!("wavemill-pythons-{}", std::process::id()));
        let wheels = [
            folder.join("venv/lib/python3.12/site-packages"),
            folder.join("usr/lib/python3/dist-packages"),
        ];

        for path in wheels
            .iter()
            .chain(&[folder.join("venv/bin"), folder.join("usr/bin")])
        {
            std::fs::create_dir_all(path).unwrap();
        }

        std::fs::write(folder.join("usr/bin/python3.12"), "").unwrap();
        let python = folder.join("venv/bin/python3");
        let _ = std::fs::remove_file(&python);
        std::os::unix::fs::symlink(folder.join("usr/bin/python3.12"), &python).unwrap();

        let found = packages_of_python(&python);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, wheels);

        assert_eq!(
            packages_of_python(&folder.join("nosuch/python3")),
            Vec::<PathBuf>::new()
        );
    }
}
