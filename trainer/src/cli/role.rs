//! Determines whether this process is one of a job's ranks or their launcher.

use anyhow::Result;
use wavemill_terminal::interrupt;

use crate::ffi;
use crate::strategy::{self, Ranks};

/// Role of this process in its job.
pub(crate) enum Role {
    /// One of the job's ranks, possibly the only one.
    Rank(Ranks),
    /// The launcher of the ranks. They have ended, with this exit code.
    Launcher(u8),
}

/// Determines the role: a rank if the environment says so, else the launcher of `nproc` ranks, or the only rank if
/// `nproc` is at most 1.
///
/// # Errors
/// The environment variables are inconsistent, or the ranks cannot be started.
pub(crate) fn role(nproc: Option<u16>) -> Result<Role> {
    let ranks = match (Ranks::from_env()?, nproc) {
        (Some(ranks), _) => ranks,
        (None, Some(nproc)) if nproc > 1 => {
            // This process only starts the ranks and forwards signals to them.
            interrupt::leave_to_others();
            let code = strategy::launch(usize::from(nproc))?;
            return Ok(Role::Launcher(code.try_into().unwrap_or(1)));
        }
        _ => Ranks::solo(),
    };

    // From here on, libtorch starts threads, which must not run signal handlers.
    ffi::keep_signals_away();
    Ok(Role::Rank(ranks))
}
