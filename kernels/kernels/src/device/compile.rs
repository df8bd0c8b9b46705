//! Compiles device code to machine code of one architecture with NVRTC at start, and caches it in the process and
//! between runs.
//!
//! The cached file is a cubin, which the driver loads unchanged, so that no compiler of a driver affects any bit.
#![allow(unsafe_code)] // calls NVRTC

mod cache;

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cudarc::nvrtc::{result, sys};

use self::cache::{Cache, hash};
use crate::error::KernelError;

/// NVRTC options in addition to the architecture. Multiplications and additions are fused where the source permits it;
/// all other floating-point semantics are strict.
const OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=true", "--generate-line-info"];

/// Compiled kernels of this process, by the hash of everything that determines them.
static COMPILED: LazyLock<Mutex<HashMap<u128, Arc<[u8]>>>> = LazyLock::new(Mutex::default);

/// Compiles `source` for `architecture` (for example `sm_90`) with NVRTC of version `nvrtc`, or returns the result of an
/// earlier call in this process or from the cache.
///
/// Errors: NVRTC's log; an architecture that NVRTC does not support. If the cache cannot be used, only time is lost.
pub(crate) fn cubin(
    source: &str,
    architecture: &str,
    nvrtc: [i32; 2],
) -> Result<Arc<[u8]>, KernelError> {
    let version = nvrtc.map(|number| number.to_string()).join(".");
    // The key contains everything that determines the machine code.
    let parts = [source, architecture, &version, &OPTIONS.join(" ")];
    let key = hash(parts.map(str::as_bytes));

    // The lock is held while kernels are compiled, so that other threads wait for them instead of compiling them too.
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cubin) = compiled.get(&key) {
        return Ok(Arc::clone(cubin));
    }

    let cubin: Arc<[u8]> = cached_or_compiled(source, architecture, key)
        .map_err(|detail| {
            KernelError::device(format!("NVRTC {version}"), "compile kernels", detail)
        })?
        .into();
    compiled.insert(key, Arc::clone(&cubin));
    Ok(cubin)
}

fn cached_or_compiled(source: &str, architecture: &str, key: u128) -> Result<Vec<u8>, String> {
    let cache = Cache::open();
    if let Some(cubin) = cache
        .as_ref()
        .and_then(|cache| cache.get(architecture, key))
    {
        return Ok(cubin);
    }

    let cubin = compile(source, architecture)?;
    if let Some(cache) = cache {
        cache.put(architecture, key, &cubin);
    }
    Ok(cubin)
}

/// An NVRTC program, destroyed on drop.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created by `create_program` and is destroyed once. An error cannot be handled.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, String> {
    let known = architectures().map_err(|error| format!("{:?}", error.0))?;
    if !known
        .iter()
        .any(|number| architecture == format!("sm_{number}"))
    {
        let known = known
            .iter()
            .map(|number| format!("sm_{number}"))
            .collect::<Vec<_>>()
            .join(", ");
        return Err(format!(
            "the device is {architecture}, but this NVRTC supports {known}: install a newer one"
        ));
    }

    let source = CString::new(source).map_err(|error| error.to_string())?;
    // NVRTC's program may refer to `source` as long as it exists.
    let program =
        Program(result::create_program(&source, None).map_err(|error| format!("{:?}", error.0))?);

    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.map(str::to_owned));

    // SAFETY: the program is alive and not compiled yet; the options contain no NUL.
    if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
        return Err(format!(
            "for {architecture}: {:?}\n{}",
            error.0,
            log(&program)
        ));
    }

    take_cubin(&program).map_err(|error| format!("{:?}", error.0))
}

/// Returns the GPU architectures for which NVRTC can compile: 75, 80, …
fn architectures() -> Result<Vec<i32>, result::NvrtcError> {
    let mut count = 0;
    // SAFETY: NVRTC writes one number, to `count`.
    unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result()?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];

    // SAFETY: NVRTC writes as many numbers as the previous call returned, which is the length of `known`.
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result()?;
    Ok(known)
}

fn log(program: &Program) -> String {
    // SAFETY: the program is alive and has been compiled.
    let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();

    let bytes: Vec<u8> = log
        .iter()
        .map(|&c| c.cast_unsigned())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn take_cubin(program: &Program) -> Result<Vec<u8>, result::NvrtcError> {
    let mut size = 0;
    // SAFETY: the program is alive and has been compiled for a real architecture; writes one number.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }.result()?;

    let mut cubin = vec![0_u8; size];
    // SAFETY: as for the previous call; NVRTC writes `size` bytes, which is the length of `cubin`.
    unsafe { sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()) }.result()?;
    Ok(cubin)
}

/// These tests need NVRTC, but no GPU: `LD_LIBRARY_PATH=$PWD/.cuda cargo test -p wavemill-kernels --lib -- --ignored`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::libraries::open_nvrtc;
    use crate::device::source::unit;

    /// Reports whether `bytes` is a 64-bit ELF file for machine 190, which is NVIDIA's.
    fn is_cubin(bytes: &[u8]) -> bool {
        bytes.starts_with(b"\x7fELF\x02") && bytes.get(18..20) == Some(&[190, 0])
    }

    #[test]
    #[ignore = "needs NVRTC: scripts/cuda_check.sh gets it, LD_LIBRARY_PATH=.cuda finds it"]
    fn the_unit_compiles_to_machine_code() {
        open_nvrtc().unwrap();
        // One generation is enough to test the calls of NVRTC in this file. scripts/cuda_check.sh compiles the same
        // source with NVRTC for every generation, and checks the resources that the kernels use.
        let cubin = compile(&unit(), "sm_90").unwrap();
        assert!(is_cubin(&cubin), "{:?}", &cubin[..20.min(cubin.len())]);
    }

    #[test]
    #[ignore = "needs NVRTC: scripts/cuda_check.sh gets it, LD_LIBRARY_PATH=.cuda finds it"]
    fn compile_error_contains_nvrtc_log_and_file() {
        let version = open_nvrtc().unwrap();
        let source = "#line 7 \"kernels/kernels/src/mel/mel.cu\"\nextern \"C\" __global__ void k() { undeclared = 1; }\n";
        let error = cubin(source, "sm_90", version).unwrap_err().to_string();

        assert!(error.contains("compile kernels: for sm_90"), "{error}");
        assert!(
            error.contains(
                "kernels/kernels/src/mel/mel.cu(7): error: identifier \"undeclared\" is undefined"
            ),
            "{error}"
        );
    }

    #[test]
    #[ignore = "needs NVRTC: scripts/cuda_check.sh gets it, LD_LIBRARY_PATH=.cuda finds it"]
    fn unknown_architecture_is_named() {
        open_nvrtc().unwrap();
        let error = compile("", "sm_35").unwrap_err();
        assert!(
            error.starts_with("the device is sm_35, but this NVRTC supports sm_"),
            "{error}"
        );
    }
}
