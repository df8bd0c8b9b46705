//! Deserializers for arrays of fixed length. Unlike serde's own, they reject excess elements.

use serde::de::{Deserialize, Deserializer, Error};

/// Deserializes an array of exactly `N` elements.
///
/// # Errors
/// If the array has another number of elements than `N`, or an element cannot be deserialized.
pub fn array<'de, D, T, const N: usize>(deserializer: D) -> Result<[T; N], D::Error>
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

/// Deserializes an array of exactly `N` elements for a key that may be absent.
///
/// # Errors
/// As for [`array()`].
pub fn optional_array<'de, D, T, const N: usize>(
    deserializer: D,
) -> Result<Option<[T; N]>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    array(deserializer).map(Some)
}
