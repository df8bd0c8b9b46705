//! The device code of all operations as one translation unit.

/// Source files in the order of their dependencies: name for compiler messages, and text.
const FILES: &[(&str, &str)] = &[
    ("device/device.cuh", include_str!("device.cuh")),
    ("stft/frames.cu", include_str!("../stft/frames.cu")),
    ("mel/mel.cu", include_str!("../mel/mel.cu")),
    ("stft/fused.cu", include_str!("../stft/fused.cu")),
    ("db/db.cu", include_str!("../db/db.cu")),
    ("mfcc/mfcc.cu", include_str!("../mfcc/mfcc.cu")),
    ("delta/delta.cu", include_str!("../delta/delta.cu")),
    (
        "normalize/normalize.cu",
        include_str!("../normalize/normalize.cu"),
    ),
    ("pack/pack.cu", include_str!("../pack/pack.cu")),
    (
        "resample/resample.cu",
        include_str!("../resample/resample.cu"),
    ),
];

/// Returns CUDA C++17 source without includes; compiler messages contain the names of the files under `kernels/kernels/src`.
pub(crate) fn unit() -> String {
    FILES
        .iter()
        .map(|(name, text)| format!("#line 1 \"kernels/kernels/src/{name}\"\n{text}\n"))
        .collect()
}
