//! What convolutions and poolings do to the length of an axis, and how long it must be for something to be left.
//!
//! Layers are made from the same constants, so a row that is too short is told before any tensor is made.

/// A window that slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Values it covers.
    pub kernel: i64,
    /// Values it moves by.
    pub stride: i64,
    /// Zeros (for a maximum: nothing) before and behind the axis.
    pub padding: i64,
}

impl Window {
    /// Of odd length, step 1; the axis keeps its length.
    #[must_use]
    pub(crate) const fn same(kernel: i64) -> Self {
        Self {
            kernel,
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// Step 1, nothing added.
    #[must_use]
    pub(crate) const fn valid(kernel: i64) -> Self {
        Self {
            kernel,
            stride: 1,
            padding: 0,
        }
    }

    /// Side by side, as poolings are.
    #[must_use]
    pub(crate) const fn tile(kernel: i64) -> Self {
        Self {
            kernel,
            stride: kernel,
            padding: 0,
        }
    }

    /// Places that it takes on an axis of `length`: ⌊(length + 2 · padding − kernel) / stride⌋ + 1, or 0.
    #[must_use]
    pub(crate) fn places(self, length: i64) -> i64 {
        let room = length + 2 * self.padding - self.kernel;
        if room < 0 { 0 } else { room / self.stride + 1 }
    }

    /// The shortest axis on which it takes `places` places.
    #[must_use]
    pub(crate) fn least(self, places: i64) -> i64 {
        ((places - 1) * self.stride + self.kernel - 2 * self.padding).max(1)
    }
}

/// Length of an axis behind `windows`, one after another.
#[must_use]
pub(crate) fn length_behind(windows: &[Window], length: i64) -> i64 {
    windows
        .iter()
        .fold(length, |length, window| window.places(length))
}

/// The shortest axis of which `windows` leave one value.
#[must_use]
pub(crate) fn least_before(windows: &[Window]) -> i64 {
    windows
        .iter()
        .rev()
        // From the one value that is left, back through the windows.
        .fold(1, |length, window| window.least(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_length_leaves_one_value_and_one_less_leaves_none() {
        let chains: [&[Window]; 4] = [
            &[
                Window::valid(3),
                Window::tile(3),
                Window::valid(3),
                Window::tile(4),
                Window::valid(3),
                Window::tile(4),
            ],
            &[
                Window {
                    kernel: 3,
                    stride: 2,
                    padding: 0,
                },
                Window::valid(3),
            ],
            &[Window::same(5), Window::tile(2), Window::tile(7)],
            &[
                Window {
                    kernel: 3,
                    stride: 2,
                    padding: 1,
                },
                Window::valid(2),
            ],
        ];
        for chain in chains {
            let least = least_before(chain);
            assert_eq!(length_behind(chain, least), 1, "{chain:?}");
            assert_eq!(length_behind(chain, least - 1), 0, "{chain:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_torch() {
        let pool = Window {
            kernel: 3,
            stride: 2,
            padding: 1,
        };
        assert_eq!(
            (
                pool.places(1292),
                pool.places(646),
                Window::same(5).places(7)
            ),
            (646, 323, 7)
        );
        assert_eq!(
            Window {
                kernel: 2,
                stride: 2,
                padding: 1
            }
            .places(322),
            162
        );
    }
}
