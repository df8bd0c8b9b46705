//! Rules that decide which files are clips and which keys they have, for folders and zips alike.
//!
//! The audio root is derived from the positions of the clips: as long as a folder contains no clip directly and only
//! one of its subfolders contains clips, the search descends into that subfolder, unless clips are directly in it. So
//! `fma_large/`, its parent and a zip with that leading folder all result in `000/000002.mp3`, and a single genre keeps
//! its folder. A zip's leading folder with the name of the zip is always stripped: `clips.zip` then equals the folder
//! `clips`.

use std::ffi::OsStr;
use std::path::Path;

use super::others::{NoClip, extension_of};

/// The kind of the clips: recordings or pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Audio recordings.
    Audio,
    /// Pictures, such as images of spectrograms.
    Pictures,
}

impl Media {
    /// Returns the file extensions of clips, which are compared case-insensitively. All other files are ignored.
    pub const fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Audio => &[
                "mp3", "mpga", "wav", "wave", "bwf", "rf64", "flac", "ogg", "oga", "ogx", "ogv",
                "opus", "m4a", "m4b", "m4r", "f4a", "f4v", "aac", "adts", "aif", "aiff", "aifc",
                "mp4", "m4v", "mov", "qt", "3gp", "3gpp", "3g2",
            ],
            Self::Pictures => &["png", "jpg", "jpeg"],
        }
    }

    /// Returns the extensions of file formats that may contain clips but that wavemill does not decode.
    pub const fn unsupported_extensions(self) -> &'static [&'static str] {
        match self {
            Self::Audio => &[
                "aax", "ac3", "alac", "amr", "ape", "asf", "au", "avi", "awb", "caf", "dff",
                "divx", "dsf", "dts", "ec3", "eac3", "flv", "m2ts", "m4p", "mk3d", "mka", "mkv",
                "mp1", "mp2", "mpa", "mpc", "mpeg", "mpg", "mts", "mxf", "ogm", "oma", "ra", "rm",
                "shn", "snd", "spx", "tak", "tta", "vob", "voc", "w64", "weba", "webm", "wma",
                "wmv", "wv",
            ],
            Self::Pictures => &[
                "avif", "bmp", "gif", "heic", "heif", "jp2", "jxl", "tif", "tiff", "webp",
            ],
        }
    }

    /// Returns the reason why a file is not a clip. The file must not be hidden or have a clip's name.
    pub fn no_clip(self, path: &str) -> NoClip {
        let extension = extension_of(path);
        if self.unsupported_extensions().contains(&extension.as_str()) {
            NoClip::Unsupported
        } else {
            NoClip::OtherKind
        }
    }

    /// Reports whether a file name is that of a clip. Names with a leading dot are not, because editors and macOS
    /// create hidden copies of files.
    pub fn is_clip_name(self, name: &OsStr) -> bool {
        let extension = Path::new(name).extension();
        let known = self
            .extensions()
            .iter()
            .any(|known| extension.is_some_and(|found| found.eq_ignore_ascii_case(known)));
        known && !name.as_encoded_bytes().starts_with(b".")
    }
}

/// Returns the length of the audio root, the prefix of every clip in `paths`: empty, or ending in `/`.
pub(super) fn root_len<'a>(mut paths: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = paths.next() else {
        return 0;
    };

    // The audio root must contain every clip in its subfolders, and no clip directly.
    let root = paths.fold(above_folder(first).as_bytes(), |root, path| {
        let other = above_folder(path).as_bytes();
        let same = root.iter().zip(other).take_while(|(a, b)| a == b).count();
        let slash = root[..same].iter().rposition(|&byte| byte == b'/');
        &root[..slash.map_or(0, |slash| slash + 1)]
    });
    root.len()
}

/// Returns the part of a path before the name of the folder that contains the file.
fn above_folder(path: &str) -> &str {
    let folder = path.rfind('/').map_or("", |slash| &path[..slash]);
    folder.rfind('/').map_or("", |slash| &folder[..=slash])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root<'a>(paths: &[&'a str]) -> &'a str {
        &paths[0][..root_len(paths.iter().copied())]
    }

    #[test]
    fn root_holds_the_numbered_or_genre_folders() {
        assert_eq!(root(&["000/000002.mp3", "000/000005.mp3"]), "");
        assert_eq!(root(&["000/000002.mp3", "155/155066.mp3"]), "");
        assert_eq!(
            root(&["fma_large/000/000002.mp3", "fma_large/155/155066.mp3"]),
            "fma_large/"
        );
        assert_eq!(root(&["data/fma_large/000/000002.mp3"]), "data/fma_large/");

        assert_eq!(
            root(&["genres/blues/a.mp3", "genres/rock/b.mp3"]),
            "genres/"
        );
        assert_eq!(root(&["rock/b.mp3"]), "");
        assert_eq!(root(&["a.mp3", "genres/rock/b.mp3"]), "");
        assert_eq!(root(&["genres/a.mp3", "genres/rock/b.mp3"]), "");

        assert_eq!(root(&["fma_large/000/a.mp3", "fma_small/000/a.mp3"]), "");
        assert_eq!(root_len([].into_iter()), 0);
    }

    #[test]
    fn clips_are_recognized_by_extension() {
        for name in ["a.mp3", "b.MP3", "c.Flac", "-d.oga", "e f.wav"] {
            assert!(Media::Audio.is_clip_name(OsStr::new(name)), "{name}");
            assert!(!Media::Pictures.is_clip_name(OsStr::new(name)), "{name}");
        }

        for name in [
            "tracks.csv",
            "README",
            "mp3",
            ".mp3",
            "._000002.mp3",
            "a.mp3.part",
        ] {
            assert!(!Media::Audio.is_clip_name(OsStr::new(name)), "{name}");
            assert!(!Media::Pictures.is_clip_name(OsStr::new(name)), "{name}");
        }

        for name in ["a.png", "b.JPG", "c.jpeg"] {
            assert!(Media::Pictures.is_clip_name(OsStr::new(name)), "{name}");
            assert!(!Media::Audio.is_clip_name(OsStr::new(name)), "{name}");
        }
    }
}
