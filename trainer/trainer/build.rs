//! Compiles the C++ functions that tch does not provide, and sets the path of libtorch in the binaries.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=src/ffi/shim.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");

    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!(
            "cargo::error=LIBTORCH is unset: run scripts/libtorch.sh, or point it at a libtorch 2.11"
        );
        return;
    };

    let libtorch = match libtorch.canonicalize() {
        Ok(folder) if folder.join("include").is_dir() => folder,
        _ => {
            println!(
                "cargo::error=no libtorch in {}: run scripts/libtorch.sh",
                libtorch.display()
            );
            return;
        }
    };

    cc::Build::new()
        .cpp(true)
        .warnings(false)
        .std("c++17")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .file("src/ffi/shim.cpp")
        .compile("wavemill_shim");

    // An old-style RPATH also applies to libraries that libtorch loads later (NCCL, cuDNN), without LD_LIBRARY_PATH.
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    // A program that was moved finds the libraries beside it, or in a libtorch beside it.
    for folder in ["$ORIGIN", "$ORIGIN/../lib", "$ORIGIN/libtorch/lib"] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
    for folder in [
        "lib",
        "../nvidia/cu13/lib",
        "../nvidia/nccl/lib",
        "../nvidia/cudnn/lib",
    ] {
        println!(
            "cargo::rustc-link-arg=-Wl,-rpath,{}",
            libtorch.join(folder).display()
        );
    }
}
