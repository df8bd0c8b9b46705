//! Names of store versions: a number, a tag, or `latest`.
//!
//! A tag is a file next to the versions, [`TAGS_FOLDER`]`/NAME`, that contains a version number and its checksum. Tags
//! are not part of a version: a tag can be moved to another version, while a number always refers to the same one. The
//! crate `reader` reads these files and `store` writes them; this module defines their names and their content.

use std::fmt;
use std::str::FromStr;

use crate::exit::PlainError;
use crate::manifest::sealed;

/// Folder of the manifests of all versions, relative to the store.
pub const VERSIONS_FOLDER: &str = "_wavemill/versions";

/// Folder of the tags, relative to the store.
pub const TAGS_FOLDER: &str = "_wavemill/tags";

/// Upper bound on the size of a tag's file in bytes: the largest number has 20 digits, and its checksum 64.
pub const TAG_FILE_BYTES_MAX: u64 = 128;

/// Maximum length of a tag in characters.
const TAG_CHARS_MAX: usize = 64;

/// Message for a text that contains characters that tags may not contain, or is too long.
const CHARACTERS: &str = "a tag has at most 64 letters (a-z, A-Z), digits, `.`, `_` and `-`, and starts with a letter or a \
                          digit";

/// Name of the latest version.
const LATEST: &str = "latest";

/// Message for a tag with the name of the latest version.
const LATEST_TAG: &str =
    "`latest` always names the latest version: choose another name for the tag";

/// Message for a text of digits only, which is a version number and not a tag.
const ALL_DIGITS: &str = "a name of digits only is a version number, which precedes the tag, as in `wavemill tag 1 paper`";

/// Message for a number that exceeds the maximum version number.
const TOO_LARGE: &str = "the version number is too large";

/// Maximum number of tags listed in an error message.
const NAMED_MAX: usize = 10;

/// A valid tag: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, but not only digits, and not `latest`. It is therefore a valid name
/// of a visible file, and not a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName(String);

impl TagName {
    /// Returns the tag as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagName {
    type Err = PlainError;

    fn from_str(text: &str) -> Result<Self, PlainError> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_made_well = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !starts_well || !is_made_well || text.len() > TAG_CHARS_MAX {
            return Err(PlainError::usage(CHARACTERS));
        }

        if is_number(text) {
            return Err(PlainError::usage(ALL_DIGITS));
        }
        if text == LATEST {
            return Err(PlainError::usage(LATEST_TAG));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version as named by a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionName {
    /// Number of the version, from 1.
    Number(u64),
    /// The latest version: another one after each commit.
    Latest,
    /// Tag of the version; it may refer to another version later.
    Tag(TagName),
}

impl FromStr for VersionName {
    type Err = PlainError;

    fn from_str(text: &str) -> Result<Self, PlainError> {
        if is_number(text) {
            let number = text.parse().map_err(|_| PlainError::usage(TOO_LARGE))?;
            return Ok(Self::Number(number));
        }
        if text == LATEST {
            return Ok(Self::Latest);
        }
        Ok(Self::Tag(text.parse()?))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Latest => f.write_str(LATEST),
            Self::Tag(tag) => write!(f, "{tag}"),
        }
    }
}

/// Returns the content of the file of a tag that names `version`: the number, and its checksum in a second line.
pub fn tag_text(version: u64) -> String {
    sealed(&version.to_string())
}

/// Parses the content of a tag's file; `None` if it is not a version number, or another one than its checksum says. The
/// checksum and the newline may be missing, as in a file of an earlier version or written by hand.
pub fn tagged_version(content: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(content).ok()?;
    let number = match text.split_once('\n') {
        None => text,
        Some((number, "")) => number,
        Some((number, _)) => Some(number).filter(|number| sealed(number) == text)?,
    };
    // `parse` accepts a sign before the number, but a tag's file must not contain one.
    if is_number(number) {
        number.parse().ok()
    } else {
        None
    }
}

/// Describes the existing tags for an error message.
pub fn tags_there(tags: &[String]) -> String {
    match tags {
        [] => "there is no tag".to_owned(),
        [one] => format!("the only tag is {one}"),
        all if all.len() <= NAMED_MAX => format!("the tags are {}", all.join(", ")),
        all => {
            let named = all[..NAMED_MAX].join(", ");
            format!("the tags are {named} and {} more", all.len() - NAMED_MAX)
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_file_names_other_than_numbers() {
        let longest = "x".repeat(64);
        for good in ["a", "7b", "v1.2", "2026-11-20", "Paper_final", &longest] {
            let tag: TagName = good.parse().expect(good);
            assert_eq!(tag.as_str(), good);
        }

        let too_long = "x".repeat(65);
        for bad in [
            "", ".", "..", ".a", "-a", "_a", "a/b", "../a", "a b", "a\n", "é", "a\u{301}",
            &too_long,
        ] {
            let refused = bad.parse::<TagName>().expect_err(bad);
            assert_eq!(refused.to_string(), CHARACTERS, "{bad:?}");
        }
        let latest = "latest".parse::<TagName>().expect_err("no tag");
        assert_eq!(latest.to_string(), LATEST_TAG);
        for number in ["0", "7", "2026", "99999999999999999999999"] {
            let refused = number.parse::<TagName>().expect_err(number);
            assert_eq!(refused.to_string(), ALL_DIGITS);
        }
    }

    #[test]
    fn a_version_is_named_by_number_or_tag() {
        let number: VersionName = "007".parse().expect("a number");
        assert_eq!(number, VersionName::Number(7));
        let latest: VersionName = "latest".parse().expect("a name");
        assert_eq!(
            (&latest, latest.to_string()),
            (&VersionName::Latest, LATEST.to_owned())
        );
        let tag: VersionName = "7a".parse().expect("a tag");
        assert!(matches!(&tag, VersionName::Tag(name) if name.as_str() == "7a"));
        assert_eq!(
            (VersionName::Number(7).to_string(), tag.to_string()),
            ("7".to_owned(), "7a".to_owned())
        );

        for (bad, problem) in [
            ("99999999999999999999", TOO_LARGE),
            ("-1", CHARACTERS),
            ("+1", CHARACTERS),
            ("", CHARACTERS),
            ("a/b", CHARACTERS),
        ] {
            let refused = bad.parse::<VersionName>().expect_err(bad);
            assert_eq!(refused.to_string(), problem);
        }
    }

    #[test]
    fn the_file_of_a_tag_holds_a_number_and_nothing_else() {
        for version in [1, 12, u64::MAX] {
            let text = tag_text(version);
            assert!(text.len() as u64 <= TAG_FILE_BYTES_MAX);
            assert_eq!(tagged_version(text.as_bytes()), Some(version));
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1;
                assert_eq!(tagged_version(&bytes), None, "byte {at}");
            }
        }
        assert_eq!(tagged_version(b"3"), Some(3));
        assert_eq!(tagged_version(b"3\n"), Some(3));

        for garbage in [
            &b""[..],
            b"\n",
            b"+3\n",
            b" 3\n",
            b"3 \n",
            b"3\n\n",
            b"3\n4\n",
            b"three\n",
            b"3\r\n",
            b"\xff\n",
            b"99999999999999999999\n",
        ] {
            assert_eq!(tagged_version(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn long_tag_lists_are_shortened() {
        let tags: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
        assert_eq!(tags_there(&tags[..0]), "there is no tag");
        assert_eq!(tags_there(&tags[..1]), "the only tag is t0");
        assert_eq!(tags_there(&tags[..2]), "the tags are t0, t1");
        assert!(tags_there(&tags).ends_with("t8, t9 and 2 more"));
    }
}
