//! The time that each part of training takes, for `fit --profile`.
//!
//! With a GPU, each part waits for the device, so that its time is that of its own work. This makes profiled steps
//! slower.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tch::{Cuda, Device};
use wavemill_scores::records::{PROFILE_OTHERS, PROFILE_PARTS};

/// A part of training, in the order of [`PROFILE_PARTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Waiting for the batch, which reader threads prepare.
    Waiting,
    /// Converting the batch and copying it to the device, augmentation and mix-up.
    Copying,
    Forward,
    Backward,
    /// Sums over the ranks: of row weights, and of gradients.
    Sums,
    Optimizer,
    Validation,
    Checkpoint,
}

/// Number of parts that belong to each step.
const STEP_PARTS: usize = PROFILE_PARTS.len() - PROFILE_OTHERS;

/// Measured times, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Profile {
    device: Device,
    steps_max: u64,
    steps: AtomicU64,
    ns: [AtomicU64; PROFILE_PARTS.len()],
}

/// Adds the time until it is dropped to a part.
pub(crate) struct Timer {
    profile: Arc<Profile>,
    part: Part,
    start: Instant,
}

/// The result of a profile.
#[derive(Clone, Debug)]
pub struct ProfileTable {
    /// Number of measured steps.
    pub steps: u64,
    /// Name and seconds of each part; for parts of a step, of all measured steps together.
    pub seconds: Vec<(&'static str, f64)>,
}

impl Profile {
    /// Creates a profile of the first `steps` steps, and of all validations and checkpoints.
    pub(crate) fn new(steps: u64, device: Device) -> Arc<Self> {
        Arc::new(Self {
            device,
            steps_max: steps,
            steps: AtomicU64::new(0),
            ns: Default::default(),
        })
    }

    /// Starts to measure a part, unless all steps have been measured.
    pub(crate) fn start(profile: &Option<Arc<Self>>, part: Part) -> Option<Timer> {
        let profile = profile.as_ref()?;
        let is_done = profile.steps.load(Ordering::Relaxed) >= profile.steps_max;
        if is_done && (part as usize) < STEP_PARTS {
            return None;
        }
        profile.wait();
        Some(Timer {
            profile: Arc::clone(profile),
            part,
            start: Instant::now(),
        })
    }

    /// Counts a step.
    pub(crate) fn step_ended(&self) {
        if self.steps.load(Ordering::Relaxed) < self.steps_max {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the times measured so far.
    pub(crate) fn table(&self) -> ProfileTable {
        let seconds = self
            .ns
            .iter()
            .map(|ns| ns.load(Ordering::Relaxed) as f64 / 1e9);
        ProfileTable {
            steps: self.steps.load(Ordering::Relaxed),
            seconds: PROFILE_PARTS.into_iter().zip(seconds).collect(),
        }
    }

    fn wait(&self) {
        if let Device::Cuda(index) = self.device {
            Cuda::synchronize(index as i64);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.profile.wait();
        let ns = self.start.elapsed().as_nanos() as u64;
        self.profile.ns[self.part as usize].fetch_add(ns, Ordering::Relaxed);
    }
}

impl fmt::Display for ProfileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of_steps, others) = self.seconds.split_at(STEP_PARTS);
        let total: f64 = of_steps.iter().map(|(_, seconds)| seconds).sum();
        let steps = self.steps.max(1) as f64;
        writeln!(
            f,
            "{:<18} {:>11} {:>6}",
            "part of a step", "ms per step", "share"
        )?;
        for (name, seconds) in of_steps {
            let share = 100.0 * seconds / total.max(f64::MIN_POSITIVE);
            writeln!(
                f,
                "{name:<18} {:>11.2} {share:>4.0} %",
                1e3 * seconds / steps
            )?;
        }
        writeln!(
            f,
            "{:<18} {:>11.2}",
            format!("sum of {} steps", self.steps),
            1e3 * total / steps
        )?;

        for (name, seconds) in others {
            writeln!(f, "{name}: {seconds:.2} s in all")?;
        }
        Ok(())
    }
}
