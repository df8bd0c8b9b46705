//! `wavemill info --devices`: shows the devices of this machine that compute features, and the parts missing for a GPU.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use indicatif::BinaryBytes;
use wavemill_extract::onnx::find_onnx_runtime;
use wavemill_kernels::{CudaReport, FoundLibrary};
use wavemill_schemas::text::shown;
use wavemill_terminal::output::stdout;

/// Examines the GPUs and CUDA libraries of this machine, and writes a report to stdout.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn print(json: bool) -> Result<()> {
    let mut report = CudaReport::detect();
    report.libraries.push(onnx_runtime());
    if json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(stdout(), "{}", describe(&report))?;
    }
    Ok(())
}

/// Describes the library that runs models.
fn onnx_runtime() -> FoundLibrary {
    let (version, path, problem) = match find_onnx_runtime() {
        Ok(found) => (Some(found.version), Some(found.path), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    FoundLibrary {
        name: "ONNX Runtime",
        version,
        path,
        problem,
        tried: Vec::new(),
    }
}

fn describe(report: &CudaReport) -> String {
    let mut text = match &report.problem {
        None => "features can be computed on these devices:\n".to_owned(),
        Some(problem) => format!("features are computed on the CPU: {}\n", shown(problem)),
    };
    for device in &report.devices {
        let memory = BinaryBytes(device.memory_bytes as u64);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "{}: {}, {}, {memory}",
            device.device,
            shown(&device.name),
            device.architecture
        );
    }

    for library in &report.libraries {
        text += &describe_library(library);
    }
    text
}

fn describe_library(library: &FoundLibrary) -> String {
    let path = library
        .path
        .as_ref()
        .map(|path| format!(", {}", shown(&path.to_string_lossy())))
        .unwrap_or_default();
    if let Some(version) = &library.version {
        return format!("{} {version}{path}\n", library.name);
    }

    let problem = library.problem.as_deref().unwrap_or("unknown version");
    let mut text = format!("{}: {}{path}\n", library.name, shown(problem));
    for folder in &library.tried {
        text += &format!("  not in {}\n", shown(&folder.to_string_lossy()));
    }
    text
}

#[cfg(test)]
mod tests {
    use wavemill_kernels::FoundDevice;

    use super::*;

    #[test]
    fn a_machine_is_described_with_what_it_lacks() {
        let cufft = FoundLibrary {
            name: "cuFFT",
            version: Some("12.0.0".to_owned()),
            path: Some("/opt/libcufft.so.12".into()),
            problem: None,
            tried: Vec::new(),
        };
        let nccl = FoundLibrary {
            name: "NCCL",
            version: None,
            path: None,
            problem: Some("no NCCL (libnccl.so.2) was found: install it".to_owned()),
            tried: vec![
                "/usr/local/cuda/lib64".into(),
                "/opt/site-packages/nvidia/nccl/lib".into(),
            ],
        };
        let device = FoundDevice {
            device: "cuda:0".to_owned(),
            name: "NVIDIA Fake".to_owned(),
            architecture: "sm_90".to_owned(),
            memory_bytes: 8 << 30,
        };
        let mut report = CudaReport {
            usable: true,
            problem: None,
            devices: vec![device],
            libraries: vec![cufft, nccl],
        };
        let libraries = "cuFFT 12.0.0, /opt/libcufft.so.12\nNCCL: no NCCL (libnccl.so.2) was found: install it\n  \
                         not in /usr/local/cuda/lib64\n  not in /opt/site-packages/nvidia/nccl/lib\n";
        let wanted = format!(
            "features can be computed on these devices:\ncuda:0: NVIDIA Fake, sm_90, 8.00 GiB\n{libraries}"
        );
        assert_eq!(describe(&report), wanted);

        report.devices.clear();
        report.problem = Some("no CUDA driver".to_owned());
        let wanted = format!("features are computed on the CPU: no CUDA driver\n{libraries}");
        assert_eq!(describe(&report), wanted);
    }
}
