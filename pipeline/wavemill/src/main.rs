//! The `wavemill` command: parse, run, map to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wavemill::cli::main(std::env::args_os()))
}
