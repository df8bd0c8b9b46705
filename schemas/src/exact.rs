//! Arrays in a recipe or a configuration have just so many elements. serde itself overlooks those beyond the last.

use serde::de::{Deserialize, Deserializer, Error};

/// An array of `N` elements.
///
/// # Errors
/// Another number of them, or an element of another type.
pub(crate) fn array<'de, D, T, const N: usize>(deserializer: D) -> Result<[T; N], D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let elements = Vec::deserialize(deserializer)?;
    let n_found = elements.len();
    elements.try_into().map_err(|_| {
        let expected = format!("an array of length {N}");
        D::Error::invalid_length(n_found, &expected.as_str())
    })
}

/// The same of a key that may be absent.
///
/// # Errors
/// As [`array`].
pub(crate) fn optional_array<'de, D, T, const N: usize>(
    deserializer: D,
) -> Result<Option<[T; N]>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    array(deserializer).map(Some)
}
