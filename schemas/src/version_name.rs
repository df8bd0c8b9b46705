//! How a version of a store is named: by its number, or by a tag.
//!
//! A tag is a file of its own beside the versions, [`TAGS_FOLDER`]`/NAME`, and holds a version's number and a newline. It
//! is no part of a version: it can name another one tomorrow, while a number always names the same. The pipeline and the
//! loader find these files; here is what their names and their content may be.

use std::fmt;
use std::str::FromStr;

/// Where tags lie, below the store.
pub const TAGS_FOLDER: &str = "_wavemill/tags";

/// More than the file of any tag is long: the largest number has 20 digits.
pub const TAG_FILE_BYTES_MAX: u64 = 32;

/// Characters of a tag, at most.
const TAG_CHARS_MAX: usize = 64;

/// Tags that an error names, at most.
const NAMED_MAX: usize = 10;

/// Why a text names no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the characters of a tag.
    #[error(
        "a tag is at most 64 letters (a-z, A-Z), digits, `.`, `_` and `-`, and its first one is a letter or a digit"
    )]
    Characters,
    /// Every text of digits is a number already.
    #[error("digits alone are the number of a version: a tag needs another character")]
    AllDigits,
    /// More than a number of a version can be.
    #[error("no version has so large a number")]
    TooLarge,
}

/// What is wrong with the file of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagProblem {
    /// Something else than [`tag_text`].
    #[error("it does not hold the number of a version")]
    Content,
    /// A number that is no version's.
    #[error("it names version {version}, which does not exist")]
    NoVersion {
        /// As it says.
        version: u64,
    },
    /// A tag keeps the data of its version: this one was not tagged when its data was removed.
    #[error("it names version {version}, whose data was removed by `wavemill gc`")]
    Collected {
        /// As it says.
        version: u64,
    },
    /// A name that no command takes.
    #[error("no tag can have this name")]
    Name,
}

impl TagProblem {
    /// What helps.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Content | Self::NoVersion { .. } | Self::Collected { .. } => {
                "give its name to a version again with `wavemill tag VERSION NAME`, or remove the file"
            }
            Self::Name => "remove the file",
        }
    }
}

/// The name of a tag: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, and not digits alone. So it is the name of one file, never
/// hidden, and never a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName(String);

impl TagName {
    /// As typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_made_well = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !starts_well || !is_made_well || text.len() > TAG_CHARS_MAX {
            return Err(NameError::Characters);
        }

        if is_number(text) {
            return Err(NameError::AllDigits);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionName {
    /// By its number, from 1.
    Number(u64),
    /// By a tag, which may name another version later.
    Tag(TagName),
}

impl FromStr for VersionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_number(text) {
            let number = text.parse().map_err(|_| NameError::TooLarge)?;
            return Ok(Self::Number(number));
        }
        Ok(Self::Tag(text.parse()?))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Tag(tag) => write!(f, "{tag}"),
        }
    }
}

/// What the file of a tag holds.
pub fn tag_text(version: u64) -> String {
    format!("{version}\n")
}

/// The version that the content of a tag's file names; `None` where it names none. The newline may be missing, as in a
/// file that somebody made by hand.
pub fn tagged_version(content: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(content).ok()?;
    let number = text.strip_suffix('\n').unwrap_or(text);
    // A sign, which `parse` would take, is no digit.
    if is_number(number) {
        number.parse().ok()
    } else {
        None
    }
}

/// Which tags there are, in words for an error.
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
    fn tags_are_names_of_files_and_no_numbers() {
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
            assert_eq!(
                bad.parse::<TagName>(),
                Err(NameError::Characters),
                "{bad:?}"
            );
        }
        for number in ["0", "7", "2026", "99999999999999999999999"] {
            assert_eq!(number.parse::<TagName>(), Err(NameError::AllDigits));
        }
    }

    #[test]
    fn a_version_is_named_by_number_or_tag() {
        assert_eq!("007".parse(), Ok(VersionName::Number(7)));
        let tag: VersionName = "7a".parse().expect("a tag");
        assert!(matches!(&tag, VersionName::Tag(name) if name.as_str() == "7a"));
        assert_eq!(
            (VersionName::Number(7).to_string(), tag.to_string()),
            ("7".to_owned(), "7a".to_owned())
        );

        let too_large = "99999999999999999999";
        assert_eq!(too_large.parse::<VersionName>(), Err(NameError::TooLarge));
        for bad in ["-1", "+1", "", "a/b"] {
            assert_eq!(bad.parse::<VersionName>(), Err(NameError::Characters));
        }
    }

    #[test]
    fn the_file_of_a_tag_holds_a_number_and_nothing_else() {
        for version in [1, 12, u64::MAX] {
            let text = tag_text(version);
            assert!(text.len() as u64 <= TAG_FILE_BYTES_MAX);
            assert_eq!(tagged_version(text.as_bytes()), Some(version));
        }
        assert_eq!(tagged_version(b"3"), Some(3));

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
    fn not_every_tag_of_a_store_is_named() {
        let tags: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
        assert_eq!(tags_there(&tags[..0]), "there is no tag");
        assert_eq!(tags_there(&tags[..1]), "the only tag is t0");
        assert_eq!(tags_there(&tags[..2]), "the tags are t0, t1");
        assert!(tags_there(&tags).ends_with("t8, t9 and 2 more"));
    }
}
