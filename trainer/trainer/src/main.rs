//! The `wavemill-train` command. Runs the command line and exits with the returned exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wavemill_trainer::cli::main())
}
