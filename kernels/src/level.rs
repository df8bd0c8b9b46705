//! Instruction set levels of the CPU's fast path. Only here, code is compiled twice and selected at run time.
//!
//! A level has a name and is not just detected, because a store's bytes depend on it: equal levels produce equal bits
//! on every machine. Loops work on fixed lanes without fused multiply-add, so they round identically on every level;
//! only the FFT, which has a planner per level, differs.

use std::fmt;

/// An instruction set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Instructions that every machine of the target supports.
    Scalar,
    /// The instructions of the x86-64-v3 definition: AVX2, FMA, and the bit manipulation of BMI1, BMI2, LZCNT and MOVBE.
    X86_64V3,
}

impl Level {
    /// Returns the highest level that this machine supports.
    pub fn detect() -> Self {
        if Self::X86_64V3.is_available() {
            Self::X86_64V3
        } else {
            Self::Scalar
        }
    }

    /// Reports whether this machine supports the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::X86_64V3 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("movbe")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::X86_64V3 => false,
        }
    }

    /// Returns `scalar` or `x86-64-v3`.
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

/// A level that this machine supports; needed to run code compiled for it.
#[derive(Clone, Copy, Debug)]
pub struct Lanes(Level);

impl Lanes {
    /// Creates a `Lanes` for the level; returns `None` if the machine does not support the level.
    pub fn new(level: Level) -> Option<Self> {
        level.is_available().then_some(Self(level))
    }

    /// Returns the instruction set level.
    pub const fn level(self) -> Level {
        self.0
    }

    /// Runs `body` compiled for the instruction set level. Functions called by `body` must be inlined
    /// (`#[inline(always)]`) to be compiled for the same level.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,movbe,popcnt")]
        fn v3<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        match self.0 {
            Level::Scalar => body(),
            // SAFETY: a `Lanes` of this level exists only if `new` has detected these features.
            Level::X86_64V3 => unsafe { v3(body) },
        }
    }

    /// Runs `body` unchanged; processors other than x86-64 have only one level.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn run<R>(self, body: impl FnOnce() -> R) -> R {
        body()
    }
}
