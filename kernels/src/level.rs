//! Which instructions the fast path may use: the one place where code is compiled twice and chosen at run time.
//!
//! A level is named and not merely detected, because it is part of what fixes a store's bytes: equal levels give equal
//! bits on every machine. Loops are written over fixed lanes, without fused multiply-add; so they round alike on every
//! level, and only the FFT, which has a planner for each, differs.

use std::fmt;

/// An instruction set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every machine of the target has.
    Scalar,
    /// AVX2 and FMA, as in the x86-64-v3 definition.
    X86_64V3,
}

impl Level {
    /// The best level of this machine.
    pub fn detect() -> Self {
        if Self::X86_64V3.is_available() {
            Self::X86_64V3
        } else {
            Self::Scalar
        }
    }

    /// Whether this machine has the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::X86_64V3 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::X86_64V3 => false,
        }
    }

    /// `scalar` or `x86-64-v3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::X86_64V3 => "x86-64-v3",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level that was seen to be available; the only way to run code compiled for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes(Level);

impl Lanes {
    /// `None` where the machine lacks the level.
    pub(crate) fn new(level: Level) -> Option<Self> {
        level.is_available().then_some(Self(level))
    }

    /// The level.
    pub(crate) const fn level(self) -> Level {
        self.0
    }

    /// Runs `body` compiled for the level. What it calls must be inlined (`#[inline(always)]`) to gain from it.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn v3<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        match self.0 {
            Level::Scalar => body(),
            // SAFETY: a `Lanes` of this level exists only where `new` found AVX2 and FMA.
            Level::X86_64V3 => unsafe { v3(body) },
        }
    }

    /// Runs `body`; other targets have one level.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        body()
    }
}
