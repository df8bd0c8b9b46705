//! NVIDIA's libraries, opened when asked for: found, or named together with what to install.
//!
//! cudarc panics at the first call of a library that is not there, so nothing else may call it before [`open`] has.
#![allow(unsafe_code)] // foreign code is loaded and asked for its version

use std::fmt;
use std::path::{Path, PathBuf};

use cudarc::{cufft, driver, nvrtc};

use crate::error::KernelError;

/// The first driver that runs what CUDA 13's libraries hand it.
const DRIVER_MIN: i32 = 13_000;
/// CUDA 12's; older ones lack calls that are made here.
const NVRTC_MAJOR_MIN: i32 = 12;
/// CUDA 12's.
const CUFFT_MAJOR_MIN: i32 = 11;

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    /// CUDA's version that the driver implements, 1000 × major + 10 × minor.
    pub(crate) driver: i32,
    /// The driver's own version, where the kernel tells it.
    pub(crate) module: Option<String>,
    /// Major, minor, patch.
    pub(crate) cufft: [i32; 3],
    /// Major, minor.
    pub(crate) nvrtc: [i32; 2],
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.cufft;
        let [nvrtc_major, nvrtc_minor] = self.nvrtc;
        let driver = cuda_version(self.driver);
        write!(f, "cuFFT {major}.{minor}.{patch}, NVRTC {nvrtc_major}.{nvrtc_minor}, driver {driver}")?;
        self.module.as_ref().map_or(Ok(()), |version| write!(f, " ({version})"))
    }
}

/// A shared library of NVIDIA's.
struct Library {
    name: &'static str,
    file: &'static str,
    /// Whether cudarc will find it under one of the names that it tries.
    is_present: unsafe fn() -> bool,
    /// Files to open where it lies off the loader's path; later ones need the earlier.
    files: &'static [&'static str],
    remedy: &'static str,
}

const DRIVER: Library = Library {
    name: "CUDA driver",
    file: "libcuda.so.1",
    is_present: driver::sys::is_culib_present,
    files: &[],
    remedy: "install NVIDIA's driver, 580 or later",
};

const CUFFT: Library = Library {
    name: "cuFFT",
    file: "libcufft.so.12",
    is_present: cufft::sys::is_culib_present,
    files: &["libcufft.so.12"],
    remedy: "pip install nvidia-cufft==12.0.0.61, or the distribution's package of CUDA 13's toolkit; \
             LD_LIBRARY_PATH names its folder",
};

const NVRTC: Library = Library {
    name: "NVRTC",
    file: "libnvrtc.so.13",
    is_present: nvrtc::sys::is_culib_present,
    files: &["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"],
    remedy: "pip install nvidia-cuda-nvrtc==13.0.88, or the distribution's package of CUDA 13's toolkit; \
             LD_LIBRARY_PATH names its folder",
};

/// Opens driver, cuFFT and NVRTC. Errors: the first that is missing or too old, with the remedy.
pub(crate) fn open() -> Result<Versions, KernelError> {
    for library in [&DRIVER, &CUFFT, &NVRTC] {
        library.find()?;
    }
    let driver = driver_version()?;
    if driver < DRIVER_MIN {
        let (has, wants) = (cuda_version(driver), cuda_version(DRIVER_MIN));
        return Err(refused(format!("the driver is one of CUDA {has}, and {wants} is needed: {}", DRIVER.remedy)));
    }
    let nvrtc = nvrtc_version()?;
    if nvrtc[0] < NVRTC_MAJOR_MIN {
        return Err(NVRTC.too_old(&format!("{}.{}", nvrtc[0], nvrtc[1])));
    }
    let cufft = cufft_version()?;
    if cufft[0] < CUFFT_MAJOR_MIN {
        return Err(CUFFT.too_old(&format!("{}.{}.{}", cufft[0], cufft[1], cufft[2])));
    }
    Ok(Versions { driver, module: module_version(), cufft, nvrtc })
}

/// Opens NVRTC alone, which needs no driver.
#[cfg(test)]
pub(crate) fn open_nvrtc() -> Result<[i32; 2], KernelError> {
    NVRTC.find()?;
    nvrtc_version()
}

/// CUDA that cannot be used, and why.
pub(crate) fn refused(why: impl ToString) -> KernelError {
    KernelError::device("cuda", "open", why)
}

impl Library {
    fn find(&self) -> Result<(), KernelError> {
        // SAFETY: loads NVIDIA's library, whose initialisers need nothing of this process.
        let is_present = || unsafe { (self.is_present)() };
        if is_present() || self.open_elsewhere() && is_present() {
            return Ok(());
        }
        Err(refused(format!("no {} ({}) was found: {}", self.name, self.file, self.remedy)))
    }

    /// Opens the library by its path, for good: the loader then knows it under its name.
    fn open_elsewhere(&self) -> bool {
        let Some(main) = self.files.last() else { return false };
        let Some(folder) = folders().into_iter().find(|folder| folder.join(main).is_file()) else { return false };
        // SAFETY: as in `find`.
        let open = |file: &&str| unsafe { libloading::Library::new(folder.join(file)) }.map(std::mem::forget);
        self.files.iter().map(open).all(|opened| opened.is_ok())
    }

    fn too_old(&self, version: &str) -> KernelError {
        refused(format!("{} {version} is too old: {}", self.name, self.remedy))
    }
}

/// Where the libraries lie that the loader does not find by itself: a toolkit, and PyPI's wheels in the active
/// environment, beside this program, or under a folder of LD_LIBRARY_PATH.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(variable).map(PathBuf::from);
    let mut folders = vec![toolkit.unwrap_or_else(|| PathBuf::from("/usr/local/cuda")).join("lib64")];

    let mut wheels: Vec<PathBuf> =
        variable("VIRTUAL_ENV").map(|folder| site_packages(Path::new(&folder))).unwrap_or_default();
    if let Ok(program) = std::env::current_exe() {
        wheels.extend(program.ancestors().skip(1).take(2).map(Path::to_owned));
    }
    wheels.extend(variable("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    folders.extend(wheels.into_iter().map(|folder| folder.join("nvidia/cu13/lib")));
    folders
}

/// `lib/python3.*/site-packages` of a virtual environment.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(environment.join("lib")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().join("site-packages")).collect()
}

fn driver_version() -> Result<i32, KernelError> {
    let mut version = 0;
    // SAFETY: writes one number; asks nothing of any device, and the library is there.
    let result = unsafe { driver::sys::cuDriverGetVersion(&mut version) };
    result.result().map(|()| version).map_err(|error| refused(format!("the driver tells no version: {:?}", error.0)))
}

fn nvrtc_version() -> Result<[i32; 2], KernelError> {
    let [mut major, mut minor] = [0; 2];
    // SAFETY: writes two numbers, and the library is there.
    let result = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
    result.result().map(|()| [major, minor]).map_err(|error| refused(format!("NVRTC tells no version: {:?}", error.0)))
}

fn cufft_version() -> Result<[i32; 3], KernelError> {
    use cufft::sys::libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL};
    let property = |which| cufft::result::get_property(which);
    let version = || Ok([property(MAJOR_VERSION)?, property(MINOR_VERSION)?, property(PATCH_LEVEL)?]);
    version().map_err(|error: cufft::result::CufftError| refused(format!("cuFFT tells no version: {:?}", error.0)))
}

/// The version of the kernel's part of the driver.
fn module_version() -> Option<String> {
    find_version(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The first word that is numbers with points between them.
fn find_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.split_whitespace().find(is_version).map(str::to_owned)
}

fn cuda_version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        let mut versions = Versions { driver: 13_000, module: None, cufft: [12, 0, 0], nvrtc: [13, 0] };
        assert_eq!(versions.to_string(), "cuFFT 12.0.0, NVRTC 13.0, driver 13.0");
        versions.module = Some("580.65.06".to_owned());
        assert_eq!(versions.to_string(), "cuFFT 12.0.0, NVRTC 13.0, driver 13.0 (580.65.06)");
        assert_eq!(cuda_version(12_040), "12.4");
    }

    #[test]
    fn the_driver_s_own_version_is_read_from_both_kinds_of_module() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: gcc 12.2.0";
        let open =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)";
        assert_eq!(find_version(closed).as_deref(), Some("535.183.01"));
        assert_eq!(find_version(open).as_deref(), Some("580.65.06"));
        assert_eq!(find_version("NVRM version: none"), None);
    }
}
