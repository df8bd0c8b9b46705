//! Local paths, as opposed to addresses of remote files.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::exit::PlainError;

/// Returns `path`, unless it begins with a scheme such as `s3://`, which the file system would treat as a folder `s3:`.
///
/// # Errors
/// An error if the path begins with such a scheme.
pub fn require_local(path: PathBuf) -> Result<PathBuf, PlainError> {
    match scheme(path.as_os_str()) {
        Some(scheme) => Err(PlainError::usage(format!(
            "must be a path on this machine, not an address with `{scheme}://`"
        ))),
        None => Ok(path),
    }
}

/// Returns the scheme of an address, as RFC 3986 defines it; `None` for a path.
pub fn scheme(text: &OsStr) -> Option<String> {
    let text = text.to_string_lossy();
    let (scheme, _) = text.split_once("://")?;
    let begins_with_letter = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (begins_with_letter && scheme.chars().all(is_scheme)).then(|| scheme.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_not_local_paths() {
        for address in [
            "s3://bucket/store",
            "file:///tmp/store",
            "HTTPS://x",
            "abfs+x.1-y://",
        ] {
            let refused = require_local(address.into()).expect_err(address);
            let (scheme, _) = address.split_once("://").expect("a scheme");
            assert_eq!(
                refused.to_string(),
                format!("must be a path on this machine, not an address with `{scheme}://`")
            );
        }

        for path in [
            "store",
            "",
            "./s3://store",
            "s3:/store",
            "a b://c",
            "7z://c",
            "://c",
            "-",
        ] {
            assert_eq!(require_local(path.into()).expect(path), PathBuf::from(path));
        }
    }
}
