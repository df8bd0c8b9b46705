//! What this process is to a job of several ranks.

use anyhow::Result;

use super::interrupt;
use crate::strategy::{self, Ranks};

/// What this process is to its job.
pub(crate) enum Role {
    /// One of the job's ranks, maybe the only one.
    Rank(Ranks),
    /// It started the ranks. They have ended, with this exit code.
    Launcher(u8),
}

/// A rank where the environment says so; else the launcher of `nproc` ranks, or, without several of them, alone.
///
/// # Errors
/// Variables of the environment that do not fit together; ranks that cannot be started.
pub(crate) fn role(nproc: Option<u16>) -> Result<Role> {
    let ranks = match (Ranks::from_env()?, nproc) {
        (Some(ranks), _) => ranks,
        (None, Some(nproc)) if nproc > 1 => {
            // This process starts the ranks and passes signals on; it trains nothing.
            interrupt::leave_to_others();
            let code = strategy::launch(usize::from(nproc))?;
            return Ok(Role::Launcher(code.try_into().unwrap_or(1)));
        }
        _ => Ranks::solo(),
    };

    // From here on libtorch starts threads, which must never run a signal's handler.
    interrupt::keep_away();
    Ok(Role::Rank(ranks))
}
