//! Stops a job on a signal. After the first signal, the job has half a second to end, or as long as it needs if it is
//! extracting or committing. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wavemill_runtime::course::Course;
use wavemill_terminal::interrupt::{SignalGuard, end};

/// Time that a job has to end in order after a signal, in a phase that may be abandoned at any moment.
const GRACE: Duration = Duration::from_millis(500);

/// The last line that the process prints after a second signal.
pub(super) const STOPPED_AT_ONCE: &str =
    "stopped at once by a second signal; run the same command again to continue";

/// Makes signals stop the job that `course` controls, until the returned guard is dropped.
pub(super) fn stops(course: &Arc<Course>) -> SignalGuard {
    let course = Arc::clone(course);
    SignalGuard::new(move || stop(&course))
}

fn stop(course: &Arc<Course>) {
    if course.stop.swap(true, Ordering::Relaxed) {
        end(STOPPED_AT_ONCE);
    }
    if course.phase().ends_in_order() {
        wavemill_terminal::say!(
            "stopping after the clips in flight; a second signal stops at once"
        );
        return;
    }

    // The time limit is watched by a separate thread, so that a second signal still ends the process at once.
    let course = Arc::clone(course);
    let last_resort = std::thread::Builder::new().spawn(move || end_late(&course));
    if last_resort.is_err() {
        end("interrupted");
    }
}

/// Ends the process if the job has not ended in time, unless the job is in a phase that it has to complete.
fn end_late(course: &Course) {
    std::thread::sleep(GRACE);
    // The phase is read again: the job may have begun to extract meanwhile, and then the process waits for it.
    let phase = course.phase();
    if !phase.ends_in_order() {
        end(&format!(
            "interrupted while {phase}; {}",
            phase.left_behind()
        ));
    }
}
