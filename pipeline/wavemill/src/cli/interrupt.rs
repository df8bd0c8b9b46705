//! Stops a job on a signal. After the first signal, the job has half a second to end, or as long as it needs if it is
//! extracting or committing. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wavemill_runtime::progress::Progress;
use wavemill_terminal::interrupt::{SignalGuard, end};

/// Time that a job has to end in order after a signal, in a phase that may be abandoned at any moment.
const GRACE: Duration = Duration::from_millis(500);

/// The last line that the process prints after a second signal.
pub(super) const STOPPED_AT_ONCE: &str =
    "stopped at once by a second signal; run the same command again to continue";

/// Makes signals stop the job that `progress` controls, until the returned guard is dropped.
pub(super) fn stops(progress: &Arc<Progress>) -> SignalGuard {
    let progress = Arc::clone(progress);
    SignalGuard::new(move || stop(&progress))
}

fn stop(progress: &Arc<Progress>) {
    if progress.stop.swap(true, Ordering::Relaxed) {
        end(STOPPED_AT_ONCE);
    }
    if progress.phase().ends_in_order() {
        wavemill_terminal::say!(
            "stopping after the clips in flight; a second signal stops at once"
        );
        return;
    }

    // The time limit is watched by a separate thread, so that a second signal still ends the process at once.
    let progress = Arc::clone(progress);
    let last_resort = std::thread::Builder::new().spawn(move || end_late(&progress));
    if last_resort.is_err() {
        end("interrupted");
    }
}

/// Ends the process if the job has not ended in time, unless the job is in a phase that it has to complete.
fn end_late(progress: &Progress) {
    std::thread::sleep(GRACE);
    // The phase is read again: the job may have begun to extract meanwhile, and then the process waits for it.
    let phase = progress.phase();
    if !phase.ends_in_order() {
        end(&format!(
            "interrupted while {phase}; {}",
            phase.left_behind()
        ));
    }
}
