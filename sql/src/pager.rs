//! Output through a pager, where it is larger than the screen.
//!
//! What fits is written as it is, when it is complete. As soon as it does not fit, `$PAGER` is started and takes all.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::tcgetwinsize;

/// Taken where `PAGER` is not set: stays out of the way of what fits, keeps it on the screen, does not wrap.
const LESS: &str = "less -FRSX";

/// True while a pager has the terminal: it is then the pager that Ctrl-C is for.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Whether a pager has the terminal.
pub fn is_open() -> bool {
    IS_OPEN.load(Ordering::Relaxed)
}

/// Standard output, through a pager if need be.
pub(crate) struct PagedOutput {
    command: String,
    rows: usize,
    columns: usize,
    held: Vec<u8>,
    lines: usize,
    line_chars: usize,
    pager: Option<Child>,
}

impl PagedOutput {
    /// For the terminal that standard output is; `None` where it is none, or where no pager is wanted or there.
    pub(crate) fn open() -> Option<Self> {
        // A size of 0 means that the terminal does not know it. Nobody can tell then what fits.
        let size = tcgetwinsize(io::stdout())
            .ok()
            .filter(|size| size.ws_row > 0 && size.ws_col > 0)?;
        Some(Self {
            command: command(std::env::var("PAGER").ok())?,
            rows: usize::from(size.ws_row),
            columns: usize::from(size.ws_col),
            held: Vec::new(),
            lines: 0,
            line_chars: 0,
            pager: None,
        })
    }

    /// All is written: waits until the reader has seen it.
    ///
    /// # Errors
    /// Those of standard output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self.pager.take() {
            Some(mut pager) => {
                // The end of its input tells the pager that there is no more.
                drop(pager.stdin.take());

                // Its exit code says nothing about the answer: a reader may leave whenever enough is seen.
                let ended = pager.wait();
                IS_OPEN.store(false, Ordering::Relaxed);
                ended.map(|_| ())
            }
            None => {
                let held = std::mem::take(&mut self.held);
                io::stdout()
                    .write_all(&held)
                    .and_then(|()| io::stdout().flush())
            }
        }
    }

    /// Whether what is held is larger than the screen; one line of it is the prompt's.
    fn is_too_large(&mut self, added: &[u8]) -> bool {
        let mut is_wide = false;
        for &byte in added {
            match byte {
                b'\n' => {
                    self.lines += 1;
                    self.line_chars = 0;
                }
                // Bytes behind the first of a character.
                0x80..=0xbf => {}
                _ => self.line_chars += 1,
            }
            is_wide |= self.line_chars > self.columns;
        }

        is_wide || self.lines >= self.rows
    }

    fn start(&mut self) -> io::Result<()> {
        // Through a shell, because `$PAGER` may have arguments, as our own default has.
        let pager = Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .stdin(Stdio::piped())
            .spawn()?;
        // Before anything is written to it: from its first line on, Ctrl-C is the pager's.
        IS_OPEN.store(true, Ordering::Relaxed);
        self.pager = Some(pager);

        let held = std::mem::take(&mut self.held);
        self.write_all(&held)
    }
}

impl Write for PagedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(stdin) = self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            return stdin.write(bytes);
        }

        // Held first: a pager that is started now takes these bytes with all the others.
        self.held.extend_from_slice(bytes);
        if self.is_too_large(bytes) {
            self.start()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            Some(stdin) => stdin.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for PagedOutput {
    fn drop(&mut self) {
        // Of a query that failed midway: what it gave is shown, and the pager has the terminal until its reader leaves.
        let _ = self.finish();
    }
}

/// What is started: `PAGER`, where it is set and not empty, else less where that is installed.
fn command(variable: Option<String>) -> Option<String> {
    match variable {
        Some(command) => Some(command).filter(|command| !matches!(command.trim(), "" | "cat")),
        None => is_installed("less").then(|| LESS.to_owned()),
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paged(rows: usize, columns: usize) -> PagedOutput {
        PagedOutput {
            command: "cat".into(),
            rows,
            columns,
            held: Vec::new(),
            lines: 0,
            line_chars: 0,
            pager: None,
        }
    }

    #[test]
    fn what_fits_the_screen_needs_no_pager() {
        assert!(!paged(4, 10).is_too_large("0123456789\néééééééééé\n".as_bytes()));
        assert!(paged(4, 10).is_too_large(b"0123456789a\n"));
        assert!(paged(2, 10).is_too_large(b"a\nb\n"));
    }

    #[test]
    fn an_empty_variable_and_cat_are_no_pager() {
        for none in ["", " ", "cat"] {
            assert_eq!(command(Some(none.to_owned())), None);
        }
        assert_eq!(command(Some("more".to_owned())).as_deref(), Some("more"));
    }
}
