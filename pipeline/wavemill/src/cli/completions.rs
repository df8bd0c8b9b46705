//! `wavemill completions`: writes the completion scripts of shells.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;
use wavemill_terminal::help::with_pages;
use wavemill_terminal::output::stdout;

use super::definition;

const EXAMPLES: &str = "\
Examples:
  wavemill completions bash \\
      > ~/.local/share/bash-completion/completions/wavemill
  wavemill completions zsh > ~/.zfunc/_wavemill
  wavemill completions fish > ~/.config/fish/completions/wavemill.fish";

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsCommand {
    /// Shell to write the script for
    shell: Shell,
}

impl CompletionsCommand {
    /// Writes the script to stdout.
    pub(super) fn run(&self) -> Result<u8> {
        // The script is generated in memory first, because the generator panics if the reader closes its pipe.
        let mut script = Vec::new();
        let mut command = with_pages(definition(), true);
        clap_complete::generate(self.shell, &mut command, "wavemill", &mut script);
        stdout().write_all(&script)?;
        Ok(0)
    }
}
