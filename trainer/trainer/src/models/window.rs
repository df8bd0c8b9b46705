//! Effect of convolutions and poolings on the length of an axis, and the minimum length that leaves one value or more.
//!
//! Layers are built from the same windows, so a row that is too short is reported before any tensor is created.

/// The window of a convolution or pooling that slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Number of values that the window covers.
    pub kernel: i64,
    /// Number of values by which the window moves.
    pub stride: i64,
    /// Number of zeros added before and after the axis; a maximum ignores them.
    pub padding: i64,
}

impl Window {
    /// Returns a window that is padded by half of its length.
    pub(crate) const fn stepping(kernel: i64, stride: i64) -> Self {
        Self {
            kernel,
            stride,
            padding: kernel / 2,
        }
    }

    /// Returns a window of odd length, with stride 1 and with padding that preserves the length of the axis.
    pub(crate) const fn same(kernel: i64) -> Self {
        Self::stepping(kernel, 1)
    }

    /// Returns a window with stride 1 and without padding.
    pub(crate) const fn valid(kernel: i64) -> Self {
        Self {
            kernel,
            stride: 1,
            padding: 0,
        }
    }

    /// Returns a window whose stride is its length, as used for pooling.
    pub(crate) const fn tile(kernel: i64) -> Self {
        Self {
            kernel,
            stride: kernel,
            padding: 0,
        }
    }

    /// Returns the window's number of positions on an axis of `length`, which is ⌊(length + 2 · padding − kernel) /
    /// stride⌋ + 1, or 0 if the axis is too short.
    pub(crate) fn places(self, length: i64) -> i64 {
        let room = length + 2 * self.padding - self.kernel;
        if room < 0 { 0 } else { room / self.stride + 1 }
    }

    /// Returns the minimum length of an axis on which the window has `places` positions.
    pub(crate) fn least(self, places: i64) -> i64 {
        ((places - 1) * self.stride + self.kernel - 2 * self.padding).max(1)
    }
}

/// Describes kernels, strides and paddings in words, such as `3 × 3, stride 2, padding 1`. Strides are omitted if each
/// window has the stride that `usual` returns.
pub(crate) fn describe_windows(windows: &[Window], usual: fn(&Window) -> i64) -> String {
    let kernels: Vec<String> = windows.iter().map(|w| w.kernel.to_string()).collect();
    let mut message = kernels.join(" × ");

    if windows.iter().any(|window| window.stride != usual(window)) {
        let strides: Vec<i64> = windows.iter().map(|w| w.stride).collect();
        message += &format!(", stride {}", format_numbers(&strides));
    }
    if windows.iter().any(|window| window.padding > 0) {
        let paddings: Vec<i64> = windows.iter().map(|w| w.padding).collect();
        message += &format!(", padding {}", format_numbers(&paddings));
    }
    message
}

/// Formats one number per axis, or a single number if the numbers of all axes are equal.
fn format_numbers(numbers: &[i64]) -> String {
    match numbers {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => first.to_string(),
        _ => {
            let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            words.join(" × ")
        }
    }
}

/// Returns the minimum length of an axis that `windows` reduce to one value.
pub(crate) fn least_before(windows: &[Window]) -> i64 {
    windows
        .iter()
        .rev()
        // Begin with one remaining value and apply the windows in reverse order.
        .fold(1, |length, window| window.least(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the length of an axis after applying `windows` in order.
    fn length_behind(windows: &[Window], length: i64) -> i64 {
        windows
            .iter()
            .fold(length, |length, window| window.places(length))
    }

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
    fn descriptions_contain_only_unusual_settings() {
        assert_eq!(describe_windows(&[Window::same(5)], |_| 1), "5, padding 2");
        assert_eq!(describe_windows(&[Window::tile(4)], |w| w.kernel), "4");
        let uneven = [Window::tile(2), Window::tile(4)];
        assert_eq!(describe_windows(&uneven, |w| w.kernel), "2 × 4");
        assert_eq!(describe_windows(&uneven, |_| 1), "2 × 4, stride 2 × 4");
    }

    #[test]
    fn lengths_match_torch() {
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
