//! Canonical JSON and the hashes that name things.
//!
//! Two values that are equal have equal bytes here, on every machine: `serde_json`'s maps are ordered (its
//! `preserve_order` feature is off), so keys come out sorted.

use serde::Serialize;

/// Canonical JSON: sorted keys, no white space.
///
/// # Errors
/// When `value` holds something JSON cannot (a map with keys that are not text).
pub fn to_json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    // Through `Value`, whose map is a BTreeMap: a struct's fields come out sorted too.
    serde_json::to_string(&serde_json::to_value(value)?)
}

/// blake3 of the canonical JSON of `value`, lower-case hex.
///
/// # Errors
/// As [`to_json`].
pub fn id<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(blake3::hash(to_json(value)?.as_bytes())
        .to_hex()
        .to_string())
}

/// A 64-bit hash of `key` under `seed`, in the domain named `domain` (`limit`, `shard`, `order`, `split`, …).
///
/// Order by it, or take it modulo a power of two: reproducible on every machine, independent between domains.
pub fn hash(domain: &str, seed: u64, key: &str) -> u64 {
    hashes(domain, seed)(key)
}

/// [`hash`] for many keys: what domain and seed add to it is made once.
pub fn hashes(domain: &str, seed: u64) -> impl Fn(&str) -> u64 {
    // In this mode of blake3 the domain is a key: equal keys of clips in two domains have unrelated hashes.
    let mut start = blake3::Hasher::new_derive_key(domain);
    start.update(&seed.to_le_bytes());

    move |key| {
        let mut first = [0; 8];
        start
            .clone()
            .update(key.as_bytes())
            .finalize_xof()
            .fill(&mut first);
        u64::from_le_bytes(first)
    }
}

/// The id of a clip that its data set gives none: the first 63 bits of blake3(`clip_key`).
pub fn track_id(clip_key: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(clip_key.as_bytes()).as_bytes()[..8]);
    // 63 bits: an id is never negative, as FMA's "none" is.
    (u64::from_be_bytes(first) >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_sorted_whatever_their_order_in_the_struct() {
        #[derive(Serialize)]
        struct Unsorted {
            b: i32,
            a: &'static str,
        }
        let json = to_json(&Unsorted { b: 1, a: "x" }).expect("plain struct");
        assert_eq!(json, r#"{"a":"x","b":1}"#);
    }

    #[test]
    fn domains_and_seeds_are_independent() {
        let values = [
            hash("shard", 42, "a"),
            hash("order", 42, "a"),
            hash("shard", 43, "a"),
            hash("shard", 42, "b"),
        ];
        for (i, left) in values.iter().enumerate() {
            assert!(values[i + 1..].iter().all(|right| left != right));
        }
        assert_eq!(hash("shard", 42, "a"), values[0]);
    }

    #[test]
    fn track_ids_are_never_negative() {
        assert!((0..1000).all(|i| track_id(&format!("{i}")) >= 0));
    }
}
