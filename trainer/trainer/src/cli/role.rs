//! Determines whether this process is one of a job's ranks or the launcher that starts them.

use anyhow::Result;

use crate::ffi;
use crate::strategy::{self, Ranks};

/// Role of this process in its job.
pub(crate) enum Role {
    /// One of the job's ranks, or the only one.
    Rank(Ranks),
    /// The launcher of the ranks, after all of them have ended; contains the exit code of the job.
    Launcher(u8),
}

/// Determines the role of this process: a rank if environment variables define one, else the launcher of `nproc` ranks,
/// or the only rank if `nproc` is at most 1.
///
/// # Errors
/// The environment variables of a rank are inconsistent, or the ranks cannot be started.
pub(crate) fn role(nproc: Option<u16>) -> Result<Role> {
    let ranks = match (Ranks::from_env()?, nproc) {
        (Some(ranks), _) => ranks,
        (None, Some(nproc)) if nproc > 1 => {
            let code = strategy::launch(usize::from(nproc))?;
            return Ok(Role::Launcher(code.try_into().unwrap_or(1)));
        }
        _ => Ranks::solo(),
    };

    // libtorch starts threads after this call, which must not run signal handlers.
    ffi::keep_signals_away();
    Ok(Role::Rank(ranks))
}
