//! Sizes in bytes, as options and the environment give them.

/// Parses a size such as `512MiB`, `1GiB`, `2T` or `1000000` to bytes; units are powers of 1024.
///
/// # Errors
/// The reason why `text` is not a size, or that it is too large.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("give a size such as 512MiB or 1GiB".to_owned()),
    };

    let count: usize = digits
        .trim()
        .parse()
        .map_err(|_| "give a size such as 512MiB or 1GiB".to_owned())?;
    count
        .checked_mul(1 << shift)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// Parses a size like [`parse_bytes`], for an option whose minimum is `least` bytes.
///
/// # Errors
/// The errors of [`parse_bytes`]; the minimum, with the units if `text` has none.
pub fn parse_at_least(text: &str, least: usize) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if bytes >= least {
        return Ok(bytes);
    }
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    let remedy = if has_unit {
        ""
    } else {
        ": give a unit, such as 4GiB"
    };
    Err(format!("must be at least {}MiB{remedy}", least >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_below_the_minimum_states_it_and_the_missing_unit() {
        let least = 256 << 20;
        assert_eq!(parse_at_least("256MiB", least), Ok(least));
        for (text, message) in [
            ("4", "must be at least 256MiB: give a unit, such as 4GiB"),
            ("4MiB", "must be at least 256MiB"),
            ("four", "give a size such as 512MiB or 1GiB"),
        ] {
            assert_eq!(parse_at_least(text, least), Err(message.to_owned()));
        }
    }

    #[test]
    fn units_are_binary() {
        assert_eq!(parse_bytes("2T"), Ok(2 << 40));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("200000kb"), Ok(200_000 << 10));
        assert_eq!(parse_bytes("268435456"), Ok(256 << 20));
        for text in ["GiB", "", "-1GiB", "1PiB", "99999999999999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
