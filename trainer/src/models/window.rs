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
    pub(crate) const fn same(kernel: i64) -> Self {
        Self {
            kernel,
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// Step 1, nothing added.
    pub(crate) const fn valid(kernel: i64) -> Self {
        Self {
            kernel,
            stride: 1,
            padding: 0,
        }
    }

    /// Side by side, as poolings are.
    pub(crate) const fn tile(kernel: i64) -> Self {
        Self {
            kernel,
            stride: kernel,
            padding: 0,
        }
    }

    /// Places that it takes on an axis of `length`: ⌊(length + 2 · padding − kernel) / stride⌋ + 1, or 0.
    pub(crate) fn places(self, length: i64) -> i64 {
        let room = length + 2 * self.padding - self.kernel;
        if room < 0 { 0 } else { room / self.stride + 1 }
    }

    /// The shortest axis on which it takes `places` places.
    pub(crate) fn least(self, places: i64) -> i64 {
        ((places - 1) * self.stride + self.kernel - 2 * self.padding).max(1)
    }
}

/// Kernels, strides and paddings in words, such as `3 × 3, stride 2, padding 1`. A stride as `usual` has it is not told.
pub(crate) fn windows_in_words(windows: &[Window], usual: fn(&Window) -> i64) -> String {
    let kernels: Vec<String> = windows.iter().map(|w| w.kernel.to_string()).collect();
    let mut words = kernels.join(" × ");

    if windows.iter().any(|window| window.stride != usual(window)) {
        let strides: Vec<i64> = windows.iter().map(|w| w.stride).collect();
        words += &format!(", stride {}", numbers_in_words(&strides));
    }
    if windows.iter().any(|window| window.padding > 0) {
        let paddings: Vec<i64> = windows.iter().map(|w| w.padding).collect();
        words += &format!(", padding {}", numbers_in_words(&paddings));
    }
    words
}

/// A number an axis, or one where all are the same.
fn numbers_in_words(numbers: &[i64]) -> String {
    match numbers {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => first.to_string(),
        _ => {
            let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            words.join(" × ")
        }
    }
}

/// Length of an axis behind `windows`, one after another.
pub(crate) fn length_behind(windows: &[Window], length: i64) -> i64 {
    windows
        .iter()
        .fold(length, |length, window| window.places(length))
}

/// The shortest axis of which `windows` leave one value.
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
    fn words_name_what_is_not_usual() {
        assert_eq!(windows_in_words(&[Window::same(5)], |_| 1), "5, padding 2");
        assert_eq!(windows_in_words(&[Window::tile(4)], |w| w.kernel), "4");
        let uneven = [Window::tile(2), Window::tile(4)];
        assert_eq!(windows_in_words(&uneven, |w| w.kernel), "2 × 4");
        assert_eq!(windows_in_words(&uneven, |_| 1), "2 × 4, stride 2 × 4");
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
