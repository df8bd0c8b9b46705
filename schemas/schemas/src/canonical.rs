//! Canonical JSON, and the hashes and ids that are computed from it.
//!
//! Equal values have equal bytes on every machine: `serde_json` sorts the keys of its maps, because its
//! `preserve_order` feature is off.

use serde::Serialize;

/// Returns the canonical JSON of `value`: sorted keys, no white space.
///
/// # Errors
/// Fails if JSON cannot represent `value`, such as a map whose keys are not text.
pub fn to_json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    // `Value` stores maps as BTreeMap, so the fields of structs are sorted by name too.
    serde_json::to_string(&serde_json::to_value(value)?)
}

/// Returns the BLAKE3 hash of the canonical JSON of `value` as lower-case hex.
pub fn id<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(blake3::hash(to_json(value)?.as_bytes())
        .to_hex()
        .to_string())
}

/// Text around the checksum in the text of [`checked`], whose last key it is.
const CHECKSUM: (&str, &str) = (",\n  \"blake3\": \"", "\"\n}\n");

/// Returns the indented JSON of `value`, an object with fields, and a last key `blake3`: the hash of the text before it.
///
/// # Errors
/// Fails if JSON cannot represent `value`.
pub fn checked<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string_pretty(value)?;
    let fields = text.strip_suffix("\n}").unwrap_or(&text);
    let hash = blake3::hash(fields.as_bytes()).to_hex();
    Ok(format!("{fields}{}{hash}{}", CHECKSUM.0, CHECKSUM.1))
}

/// Reports whether the text of [`checked`] is unchanged; `None` if it has no checksum, as earlier versions wrote it.
pub fn is_unchanged(text: &[u8]) -> Option<bool> {
    let text = text.strip_suffix(CHECKSUM.1.as_bytes())?;
    let at = text.len().checked_sub(blake3::OUT_LEN * 2)?;
    let (fields, hash) = text.split_at(at);
    let fields = fields.strip_suffix(CHECKSUM.0.as_bytes())?;
    Some(blake3::hash(fields).to_hex().as_bytes() == hash)
}

/// Returns a 64-bit hash of `key` with `seed`, in the domain `domain` (`limit`, `shard`, `order`, `split`, …).
///
/// Suitable for ordering, and for buckets modulo a power of two: equal on every machine and independent between
/// domains.
pub fn hash(domain: &str, seed: u64, key: &str) -> u64 {
    hashes(domain, seed)(key)
}

/// Returns a function that computes [`hash`] for many keys and hashes domain and seed only once.
pub fn hashes(domain: &str, seed: u64) -> impl Fn(&str) -> u64 {
    // The key derivation mode of BLAKE3 is used: equal clip keys have unrelated hashes in different domains.
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

/// Computes the id of a clip without an id in its data set: the first 63 bits of blake3(`clip_key`).
pub fn track_id(clip_key: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(clip_key.as_bytes()).as_bytes()[..8]);
    // 63 bits keep the id non-negative; FMA's "none" is negative.
    (u64::from_be_bytes(first) >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_a_checked_object_is_found() {
        let value = serde_json::json!({"a": 1.5, "b": ["x", "y"]});
        let text = checked(&value).unwrap();
        assert_eq!(is_unchanged(text.as_bytes()), Some(true));
        assert_eq!(is_unchanged(b"{\n  \"a\": 1\n}\n"), None);

        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_ne!(is_unchanged(&bytes), Some(true), "byte {at}, bit {bit}");

                // Without a readable checksum, the fields are those that were written, or the text is no JSON.
                let read = serde_json::from_slice::<serde_json::Value>(&bytes);
                if let (None, Ok(read)) = (is_unchanged(&bytes), read) {
                    assert_eq!((&read["a"], &read["b"]), (&value["a"], &value["b"]), "{at}");
                }
            }
        }
    }

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
