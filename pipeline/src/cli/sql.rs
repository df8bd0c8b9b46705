//! `wavemill sql`.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::sql::{self, Format, Limits};

/// Ask a store in SQL.
#[derive(Debug, Args)]
pub struct SqlCommand {
    /// The store's folder
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Which version; default: the latest
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// The query; without one a prompt, or standard input where that is no terminal
    pub query: Option<String>,
    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl SqlCommand {
    /// Runs the query.
    ///
    /// # Errors
    /// [`crate::sql::SqlError`], whose `exit_code` is the command's.
    pub fn run(&self) -> Result<()> {
        let manifest = sql::manifest(&self.store, self.version)?;
        let limits = Limits { memory_bytes: 1 << 30, threads: 2, allow_write: false };
        let session = sql::open(&self.store, &manifest, limits)?;
        let mut query = self.query.clone().unwrap_or_default();
        if self.query.is_none() && !std::io::stdin().is_terminal() {
            std::io::stdin().read_to_string(&mut query)?;
        }
        let mut sink = sql::output::sink(self.format, std::io::stdout());
        session.run(&query, sink.as_mut())?;
        std::io::stdout().flush()?;
        Ok(())
    }
}
