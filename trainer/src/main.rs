//! The `wavemill-train` command. Runs the command line and exits with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wavemill_trainer::cli::main())
}
