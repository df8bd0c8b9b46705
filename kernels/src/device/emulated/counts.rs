//! A device for tests that counts what the memory accesses of kernels would cost on a GPU: the host side of counts.h.

use super::{EmulatedDevice, Order};
use crate::device::unit;
use crate::error::KernelError;

/// Compiler options that turn every memory access in the source into a call of a function of counts.h. Nothing is
/// optimised, so that counts do not depend on the compiler's version. The sanitizer's own library is not linked.
const OPTIONS: [&str; 6] = [
    "-DWAVEMILL_EMULATED_COUNT",
    "-O0",
    "-fsanitize=thread",
    "-ftls-model=global-dynamic", // needs more thread-local memory than dlopen reserves
    "-nodefaultlibs",
    "-Wl,--no-as-needed,-lstdc++,-lm,-lc,-lgcc_s",
];

/// `Counts` in counts.h: memory accesses of a kernel. An access of a warp comprises the accesses of all its lanes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) shared_accesses: u64,
    /// Number of sequential accesses to shared memory.
    pub(crate) shared_wavefronts: u64,
    pub(crate) global_accesses: u64,
    /// Number of lines of 128 bytes of global memory that were accessed.
    pub(crate) global_lines: u64,
}

impl Counts {
    /// Returns the number of sequential operations of the level-1 cache.
    pub(crate) fn sum(&self) -> u64 {
        self.shared_wavefronts + self.global_lines
    }
}

/// `Zone` in counts.h: the address range of a buffer.
#[repr(C)]
struct Zone {
    start: usize,
    bytes: usize,
}

/// Keeps the buffers of a device registered with counts.h until it is dropped.
pub(super) struct Zones<'a> {
    device: &'a EmulatedDevice,
    _all: Vec<Zone>,
}

impl Drop for Zones<'_> {
    fn drop(&mut self) {
        self.device.set_zones(&[]);
    }
}

impl EmulatedDevice {
    /// Creates a counting device with wavemill's kernels. Errors: no g++.
    pub(crate) fn counting() -> Result<Self, KernelError> {
        Self::counting_of(&unit())
    }

    /// Like [`Self::counting`], for the kernels in `source`.
    pub(super) fn counting_of(source: &str) -> Result<Self, KernelError> {
        Self::with_source(source, &OPTIONS, Order::Ascending)
    }

    /// Returns and resets the counts of a kernel's launches on this thread.
    pub(crate) fn take_counts(&self, kernel: &str) -> Counts {
        let take = self
            .unit
            .symbol::<unsafe extern "C" fn(*const std::ffi::c_char, *mut Counts)>(
                "emulated_take_counts",
            );
        let take = take.expect("a unit that counts");

        let kernel = std::ffi::CString::new(kernel).expect("a kernel's name");
        let mut counts = Counts::default();
        // SAFETY: the signature is that of counts.h; the function does not keep the name.
        unsafe { take(kernel.as_ptr(), &raw mut counts) };
        counts
    }

    /// Registers this device's buffers with counts.h, if the kernels were compiled for counting.
    pub(super) fn count_zones(&self) -> Zones<'_> {
        let all: Vec<Zone> = self
            .buffers
            .ranges()
            .into_iter()
            .map(|memory| Zone {
                start: memory.start,
                bytes: memory.bytes,
            })
            .collect();
        self.set_zones(&all);
        Zones {
            device: self,
            _all: all,
        }
    }

    fn set_zones(&self, zones: &[Zone]) {
        if let Some(set) = self
            .unit
            .symbol::<unsafe extern "C" fn(*const Zone, usize)>("emulated_count_in")
        {
            // SAFETY: the signature is that of counts.h. `Zones` keeps the array alive until it has unregistered it.
            unsafe { set(zones.as_ptr(), zones.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Address, Device, Launch, plain};

    plain! {
        /// `Test` in tests.cu: parameters of the test kernels.
        struct Test {
            out: Address,
            n: i32,
            reserved: i32,
        }
    }

    /// Launches one warp of the test kernel `kernel` and returns its counts.
    fn counted(kernel: &'static str, n: i32) -> Result<Counts, KernelError> {
        let source = concat!(
            include_str!("../device.cuh"),
            "#line 1 \"tests.cu\"\n",
            include_str!("tests.cu")
        );

        let device = EmulatedDevice::counting_of(source)?;
        let buffer = device.alloc(32 * 32 * 16)?;
        let launch = Launch {
            grid: [1, 1],
            threads: 32,
            shared_bytes: 32 * 33 * 16,
        };

        device.take_counts(kernel);
        device.launch(
            kernel,
            launch,
            &Test {
                out: device.address(&buffer),
                n,
                reserved: 0,
            },
        )?;

        Ok(device.take_counts(kernel))
    }

    fn assert_strided(
        kernel: &'static str,
        stride: i32,
        shared_wavefronts: u64,
        global_lines: u64,
    ) {
        let want = Counts {
            shared_accesses: 1,
            shared_wavefronts,
            global_accesses: 1,
            global_lines,
        };

        assert_eq!(
            counted(kernel, stride).unwrap(),
            want,
            "{kernel}, stride {stride}"
        );
    }

    #[test]
    fn bank_conflicts_serialize_and_lines_have_128_bytes() {
        assert_strided("strided_4", 0, 1, 1);
        assert_strided("strided_4", 1, 1, 1);
        assert_strided("strided_4", 2, 2, 2);
        assert_strided("strided_4", 5, 1, 5);
        assert_strided("strided_4", 32, 32, 32);

        assert_strided("strided_8", 0, 1, 1);
        assert_strided("strided_8", 1, 2, 2);
        assert_strided("strided_8", 4, 8, 8);
        assert_strided("strided_8", 3, 2, 6);

        assert_strided("strided_16", 1, 4, 4);
        assert_strided("strided_16", 2, 8, 8);
        assert_strided("strided_16", 8, 32, 32);
    }

    #[test]
    fn the_nth_time_of_each_lane_is_one_access() {
        let counts = counted("uneven_turns", 0).unwrap();
        // Global: 31 writes of one line, and one after the barrier. Shared: a write, and a read after the barrier.
        let want = Counts {
            shared_accesses: 2,
            shared_wavefronts: 2,
            global_accesses: 32,
            global_lines: 32,
        };
        assert_eq!(counts, want);
    }

    #[test]
    fn misaligned_accesses_are_errors() {
        counted("misaligned", 0).unwrap();
        let error = counted("misaligned", 8).unwrap_err().to_string();
        assert!(
            error.contains("thread 0: an access of 16 bytes that is not aligned to them"),
            "{error}"
        );
    }
}
