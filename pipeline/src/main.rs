//! The `wavemill` command.

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Sql(wavemill::cli::sql::SqlCommand),
}

fn main() -> std::process::ExitCode {
    let Command::Sql(sql) = Cli::parse().command;
    match sql.run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavemill: {error:#}");
            let code = error.downcast_ref::<wavemill::sql::SqlError>().map_or(1, wavemill::sql::SqlError::exit_code);
            std::process::ExitCode::from(code)
        }
    }
}
