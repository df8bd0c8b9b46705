//! Tests of [`open`] with folders and zips, intact and damaged.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

use super::*;

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn zip_of(path: &Path, method: zip::CompressionMethod, entries: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        // `large_file` writes every size of an entry in the 64-bit form as well.
        zip.start_file(
            *name,
            SimpleFileOptions::default()
                .compression_method(method)
                .large_file(true),
        )
        .unwrap();
        zip.write_all(bytes).unwrap();
    }

    zip.finish().unwrap();
}

/// Writes a zip of one entry byte by byte, because the zip crate cannot write bzip2 here. `sizes` are the entry's
/// compressed and uncompressed size in the directory.
fn raw_zip(path: &Path, method: u16, name: &str, content: &[u8], data: &[u8], sizes: (u64, u64)) {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();

    // An extra field of 20 bytes contains the 64-bit sizes: uncompressed, then compressed.
    let extra = [
        &[1, 0, 16, 0][..],
        &sizes.1.to_le_bytes(),
        &sizes.0.to_le_bytes(),
    ]
    .concat();

    let shared = [
        &[45, 0, 0, 0][..],
        &method.to_le_bytes(),
        &[0; 4],
        &crc.sum().to_le_bytes(),
        &[0xff; 8],
        &name_len,
        &[20, 0],
    ]
    .concat();

    let local = [
        b"PK\x03\x04".as_slice(),
        &shared,
        name.as_bytes(),
        &extra,
        data,
    ]
    .concat();

    let directory = [
        b"PK\x01\x02\x2d\x00".as_slice(),
        &shared,
        &[0; 14],
        name.as_bytes(),
        &extra,
    ]
    .concat();

    let [at, length] = [&local, &directory].map(|part| (part.len() as u32).to_le_bytes());
    let counts = [0, 0, 0, 0, 1, 0, 1, 0];
    let end = [&b"PK\x05\x06"[..], &counts, &length, &at, &[0; 2]].concat();

    fs::write(path, [local, directory, end].concat()).unwrap();
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn lengths(data: &[u8], content: &[u8]) -> (u64, u64) {
    (data.len() as u64, content.len() as u64)
}

fn keys(source: &dyn Source) -> Vec<&str> {
    source.index().keys().map(String::as_str).collect()
}

fn read(source: &dyn Source, key: &str) -> Result<Vec<u8>, Reason> {
    let mut buffer = b"from the clip before".to_vec();
    match source.read(key, &mut buffer) {
        Ok(()) => Ok(buffer),
        Err(ReadFailure::Reject(reject)) => Err(reject.reason),
        Err(ReadFailure::Io(error)) => panic!("{key}: {error}"),
    }
}

fn opened(path: &Path) -> Box<dyn Source> {
    open(path, Media::Audio, false).unwrap()
}

fn read_in(path: &Path, key: &str) -> Result<Vec<u8>, Reason> {
    read(&*opened(path), key)
}

fn reasons(source: &dyn Source) -> Vec<Reason> {
    let rejects = source.rejects().iter();
    rejects.map(|reject| reject.reason).collect()
}

/// Overwrites every occurrence of `old` in the file.
fn patch(path: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> = (0..=bytes.len() - old.len())
        .filter(|&at| bytes[at..].starts_with(old))
        .collect();
    assert!(!places.is_empty());
    places
        .iter()
        .for_each(|&at| bytes[at..at + new.len()].copy_from_slice(new));
    fs::write(path, bytes).unwrap();
}

/// Overwrites bytes of the first entry in a zip's directory, `offset` bytes after the start of the entry's signature.
fn patch_directory(path: &Path, offset: usize, new: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes
        .windows(4)
        .position(|window| window == b"PK\x01\x02")
        .unwrap()
        + offset;
    bytes[at..at + new.len()].copy_from_slice(new);
    fs::write(path, bytes).unwrap();
}

#[test]
fn folder_parent_and_zip_give_equal_keys_and_bytes() {
    let temp = TempDir::new().unwrap();
    let clips: [(&str, &[u8]); 3] = [
        ("fma_large/000/000002.mp3", b"two"),
        ("fma_large/155/155066.MP3", &[7; 9_999]),
        ("fma_large/000/000005.mp3", b""),
    ];

    let parent = temp.path().join("data");
    clips
        .iter()
        .for_each(|(name, bytes)| put(&parent, name, bytes));
    put(&parent, "fma_large/README.txt", b"no clip");
    put(&parent, "fma_large/000/._000002.mp3", b"no clip either");

    let [stored, deflated] = ["fma_large.zip", "renamed.zip"].map(|name| temp.path().join(name));
    zip_of(&stored, Stored, &clips);
    zip_of(&deflated, Deflated, &clips);

    for path in [&parent, &parent.join("fma_large"), &stored, &deflated] {
        let source = opened(path);
        assert_eq!(
            keys(&*source),
            ["000/000002.mp3", "000/000005.mp3", "155/155066.MP3"],
            "{}",
            path.display()
        );

        assert_eq!(read(&*source, "000/000002.mp3").unwrap(), b"two");
        assert_eq!(read(&*source, "155/155066.MP3").unwrap(), [7; 9_999]);
        assert_eq!(read(&*source, "000/000005.mp3").unwrap(), b"");
        assert_eq!(read(&*source, "000/000003.mp3"), Err(Reason::MissingFile));
        assert_eq!(source.index()["155/155066.MP3"].bytes, 9_999);
    }
}

#[test]
fn entries_of_one_name_that_are_no_clips_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let names = [
        "a/x.mp3",
        "a/k.txt",
        "a/./k.txt",
        "a//k.txt",
        "a/x.ape",
        "./a/x.ape",
    ];
    let entries = names.map(|name| (name, &b"content"[..]));
    zip_of(&path, zip::CompressionMethod::Stored, &entries);

    let source = opened(&path);
    let counts = source.others().counts.values();
    let counts: Vec<(u64, u64)> = counts.map(|count| (count.files, count.bytes)).collect();
    assert_eq!(counts, [(1, 7), (1, 7)]);
}

#[test]
fn a_place_that_contains_only_archives_is_refused_with_the_remedy() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("a.zip");
    zip_of(
        &zip,
        Stored,
        &[("1.zip", b""), ("b/2.ZIP", b""), ("b/c.tar", b"")],
    );
    put(temp.path(), "notes.txt", b"");

    for (path, archives) in [(&*zip, "1 tar, 2 zip"), (temp.path(), "1 zip")] {
        let refusal = refusal(path);
        let wanted = format!("it contains {archives}, and archives in it are not opened: unpack");
        assert!(refusal.contains(&wanted), "{refusal}");
    }
}

#[test]
fn zip_of_a_flat_folder_equals_the_folder() {
    let temp = TempDir::new().unwrap();
    put(temp.path(), "clips/a.mp3", b"a");
    zip_of(
        &temp.path().join("clips.zip"),
        Stored,
        &[("clips/a.mp3", b"a")],
    );

    for name in ["clips", "clips.zip"] {
        let source = opened(&temp.path().join(name));
        assert_eq!(keys(&*source), ["a.mp3"], "{name}");
    }
}

#[test]
fn odd_files_are_listed_and_rejected_without_hanging() {
    let temp = TempDir::new().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));

    put(&root, "good.mp3", b"good");
    put(&outside, "secret.mp3", b"secret");
    put(&outside, "more/far.mp3", b"far");
    fs::create_dir(root.join("folder.mp3")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(root.join("pipe.mp3"))
            .status()
            .unwrap()
            .success()
    );

    symlink("nowhere.mp3", root.join("dangling.mp3")).unwrap();
    symlink("good.mp3", root.join("inside.mp3")).unwrap();
    symlink("/dev/zero", root.join("zero.mp3")).unwrap();
    symlink(outside.join("secret.mp3"), root.join("out.mp3")).unwrap();
    symlink(outside.join("more"), root.join("linked")).unwrap();
    symlink("..", root.join("loop")).unwrap();
    symlink(".", root.join("self")).unwrap();

    let source = opened(&root);
    assert_eq!(read(&*source, "good.mp3").unwrap(), b"good");
    assert_eq!(read(&*source, "inside.mp3").unwrap(), b"good");
    assert_eq!(read(&*source, "folder.mp3"), Err(Reason::NotAudio));
    assert_eq!(read(&*source, "pipe.mp3"), Err(Reason::NotAudio));
    assert_eq!(read(&*source, "dangling.mp3"), Err(Reason::MissingFile));
    assert_eq!(read(&*source, "out.mp3"), Err(Reason::OutsideRoot));
    assert_eq!(read(&*source, "zero.mp3"), Err(Reason::OutsideRoot));

    assert_eq!(source.index().len(), 7);
    assert_eq!(reasons(&*source), [Reason::OutsideRoot]);

    let source = open(&root, Media::Audio, true).unwrap();
    assert_eq!(read(&*source, "out.mp3").unwrap(), b"secret");
    assert_eq!(read(&*source, "linked/far.mp3").unwrap(), b"far");
    assert_eq!(read(&*source, "zero.mp3"), Err(Reason::NotAudio));
    assert_eq!(source.rejects(), []);
}

#[test]
fn odd_names_are_keys_unless_they_are_not_utf8() {
    let temp = TempDir::new().unwrap();
    let names = [
        "name with space.mp3",
        "näme-ünï-日本.mp3",
        "new\nline.mp3",
        "-dash.mp3",
        "quote'\".mp3",
        "semi;colon,comma.mp3",
    ];

    names
        .iter()
        .for_each(|name| put(temp.path(), name, name.as_bytes()));
    fs::write(
        temp.path().join(OsStr::from_bytes(b"caf\xe9.mp3")),
        b"latin 1",
    )
    .unwrap();

    let source = opened(temp.path());
    names
        .iter()
        .for_each(|name| assert_eq!(read(&*source, name).unwrap(), name.as_bytes()));
    assert_eq!(source.index().len(), names.len());
    assert_eq!(source.rejects()[0].reason, Reason::BadEncoding);
}

/// A reject would stay with its clip: the file's size and time are the same again when a disk returns.
#[test]
fn files_that_change_after_listing_are_no_rejects() {
    let temp = TempDir::new().unwrap();
    let names = ["gone.mp3", "grown.mp3", "cut.mp3", "folder.mp3"];
    for name in names {
        put(temp.path(), name, b"abc");
    }
    let source = opened(temp.path());

    fs::remove_file(temp.path().join("gone.mp3")).unwrap();
    put(temp.path(), "grown.mp3", b"abcdef");
    put(temp.path(), "cut.mp3", b"a");
    fs::remove_file(temp.path().join("folder.mp3")).unwrap();
    fs::create_dir(temp.path().join("folder.mp3")).unwrap();

    let problems = [
        "vanished",
        "6 bytes, and 3",
        "1 bytes, and 3",
        "no longer a",
    ];
    for (name, problem) in names.into_iter().zip(problems) {
        match source.read(name, &mut Vec::new()) {
            Err(ReadFailure::Io(error)) => assert!(error.to_string().contains(problem), "{error}"),
            read => panic!("{name}: {read:?}"),
        }
    }
}

#[test]
fn invalid_sources_are_errors() {
    let temp = TempDir::new().unwrap();
    put(temp.path(), "tracks.csv", b"track_id");

    let open = |name: &str| open(&temp.path().join(name), Media::Audio, false);
    let is_error = |name: &str, is_wanted: fn(&SourceError) -> bool| {
        let error = open(name).err();
        assert!(error.as_ref().is_some_and(is_wanted), "{name}: {error:?}");
    };

    is_error("", |error| matches!(error, SourceError::NoClips { .. }));
    is_error("tracks.csv", |error| {
        matches!(error, SourceError::NotAPlace { .. })
    });
    is_error("absent", |error| {
        matches!(error, SourceError::NotAPlace { .. })
    });

    let cut = temp.path().join("cut.zip");
    zip_of(&cut, Stored, &[("a/b.mp3", b"x")]);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 40]).unwrap();
    is_error("cut.zip", |error| {
        matches!(error, SourceError::BrokenZip { .. })
    });
}

#[test]
fn damaged_and_hostile_entries_are_rejects() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let text = b"some audio of which one byte will change".as_slice();

    zip_of(&zip, Stored, &[("a.mp3", text)]);
    patch(&zip, b"some", b"sore");
    assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Damaged));

    zip_of(&zip, Deflated, &[("a.mp3", &[1; 100_000])]);
    patch(&zip, b"a.mp3", b"b.mp3");
    assert_eq!(read_in(&zip, "b.mp3").unwrap(), [1; 100_000]);

    // Bit 0 of an entry's flags: encrypted.
    zip_of(&zip, Stored, &[("a.mp3", text)]);
    patch_directory(&zip, 8, &[1, 0]);
    assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Encrypted));

    // A zip bomb whose directory first contains the real size, then a false one.
    zip_of(&zip, Deflated, &[("a.mp3", &[0; 1_000_000])]);
    patch_directory(
        &zip,
        24,
        &u32::try_from(CLIP_BYTES_MAX + 1).unwrap().to_le_bytes(),
    );
    assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::TooLarge));
    patch_directory(&zip, 24, &1_000_u32.to_le_bytes());
    assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Damaged));

    // The directory contains a compressed size that reaches past the end of the file.
    patch_directory(&zip, 20, &0x7fff_ffff_u32.to_le_bytes());
    assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Damaged));
}

#[test]
fn entry_names_stay_inside_the_root() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    zip_of(
        &zip,
        Stored,
        &[
            ("g/./a.mp3", b"a"),
            ("g/AA/bb.mp3", b"up"),
            ("Xabs.mp3", b"abs"),
            ("g/caf\u{e9}.mp3", b"marked as UTF-8"),
        ],
    );

    patch(&zip, b"g/AA/b", b"../../");
    patch(&zip, b"Xabs", b"/abs");
    patch(&zip, "caf\u{e9}".as_bytes(), b"caf\xe9.");

    let source = opened(&zip);
    assert_eq!(keys(&*source), ["g/a.mp3"]);

    let [outside, encoding] = [Reason::OutsideRoot, Reason::BadEncoding];
    assert_eq!(reasons(&*source), [outside, outside, encoding]);
}

/// An entry whose name is stored with these bytes.
#[derive(Clone, Copy)]
struct NamedEntry<'a> {
    name: &'a [u8],
    /// Number of the system that made the entry.
    system: u8,
    is_marked_utf8: bool,
    extra: &'a [u8],
}

/// Writes a zip of entries with other names than the zip crate can write. The content of each entry is its name.
fn zip_of_names(path: &Path, entries: &[NamedEntry]) {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut crc = flate2::Crc::new();
        crc.update(entry.name);
        let size = (entry.name.len() as u32).to_le_bytes();
        let shared = [
            &[20, 0, 0, 8 * u8::from(entry.is_marked_utf8)][..],
            &[0; 6],
            &crc.sum().to_le_bytes(),
            &size,
            &size,
            &size[..2],
            &(entry.extra.len() as u16).to_le_bytes(),
        ]
        .concat();

        let start = (bytes.len() as u32).to_le_bytes();
        let made_by = [20, entry.system];
        directory.extend([b"PK\x01\x02", &made_by[..], &shared, &[0; 10], &start].concat());
        directory.extend([entry.name, entry.extra].concat());
        bytes.extend(
            [
                b"PK\x03\x04",
                &shared[..],
                entry.name,
                entry.extra,
                entry.name,
            ]
            .concat(),
        );
    }

    let n_entries = (entries.len() as u16).to_le_bytes();
    let [directory_bytes, start] = [directory.len(), bytes.len()].map(|n| (n as u32).to_le_bytes());
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06", &[0; 4][..], &n_entries, &n_entries].concat());
    bytes.extend([&directory_bytes[..], &start, &[0; 2]].concat());
    fs::write(path, bytes).unwrap();
}

const FAT: u8 = 0;
const UNIX: u8 = 3;
const NTFS: u8 = 10;

/// Tests names in the forms that programs on Windows write. The expected keys are the paths that Info-ZIP and 7-Zip
/// unpack on Windows.
#[test]
fn names_from_windows_keep_their_folders() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    type Case<'a> = (u8, &'a [&'a [u8]], &'a [&'a str]);
    let cases: [Case; 10] = [
        (
            UNIX,
            &[b"set\\rock\\a.mp3", b"set\\jazz\\c.mp3", b"notes.txt"],
            &["jazz/c.mp3", "rock/a.mp3"],
        ),
        (
            FAT,
            &[b"set\\", b"set\\rock\\a.mp3", b"set/jazz\\c.mp3"],
            &["jazz/c.mp3", "rock/a.mp3"],
        ),
        (
            NTFS,
            &[b"a/", b"b\\c.mp3", b"b/a\\d.mp3"],
            &["b/a/d.mp3", "b/c.mp3"],
        ),
        // On Linux, a file name may contain a backslash.
        (
            UNIX,
            &[b"a/AC\\DC.mp3", b"b/c.mp3"],
            &["a/AC\\DC.mp3", "b/c.mp3"],
        ),
        // A name in code page 437, and with the same bytes as in code page 932, where it has one character.
        (
            FAT,
            &[b"a/caf\x82.mp3", b"b/c.mp3"],
            &["a/caf\u{e9}.mp3", "b/c.mp3"],
        ),
        (
            UNIX,
            &[b"a/\x80\xff\xe1.mp3", b"b/c.mp3"],
            &["a/\u{c7}\u{a0}\u{df}.mp3", "b/c.mp3"],
        ),
        (
            FAT,
            &[b"a/\x83\\.mp3", b"b/c.mp3"],
            &["a/\u{e2}\\.mp3", "b/c.mp3"],
        ),
        (
            FAT,
            &[b"a\\caf\x82.mp3", b"b\\c.mp3"],
            &["a/caf\u{e9}.mp3", "b/c.mp3"],
        ),
        // UTF-8 without the mark.
        (
            UNIX,
            &["a/caf\u{e9}.mp3".as_bytes(), b"b/c.mp3"],
            &["a/caf\u{e9}.mp3", "b/c.mp3"],
        ),
        (
            FAT,
            &["a/cafe\u{301}.mp3".as_bytes(), b"b/c.mp3"],
            &["a/cafe\u{301}.mp3", "b/c.mp3"],
        ),
    ];
    for (system, names, expected) in cases {
        let entries = names.iter().map(|&name| NamedEntry {
            name,
            system,
            is_marked_utf8: false,
            extra: b"",
        });
        zip_of_names(&zip, &Vec::from_iter(entries));

        let source = opened(&zip);
        assert_eq!(keys(&*source), expected);
        assert_eq!(source.rejects(), []);
        let n_others = source.others().counts.values().map(|count| count.files);
        assert_eq!(
            n_others.sum::<u64>(),
            u64::from(names.contains(&&b"notes.txt"[..]))
        );
        for key in keys(&*source) {
            let content = read(&*source, key).unwrap();
            assert!(names.contains(&&*content), "{key}: {content:?}");
        }

        let files = metadata::Files::open(&zip).unwrap();
        let n_files = names
            .iter()
            .filter(|name| !name.ends_with(b"/") && !name.ends_with(b"\\"));
        assert_eq!(files.names().count(), n_files.count(), "{expected:?}");
    }
}

#[test]
fn names_from_windows_stay_inside_the_root() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let names: [&[u8]; 8] = [
        b"..\\a.mp3",
        b"set\\..\\..\\a.mp3",
        b"\\a.mp3",
        b"\\\\host\\share\\a.mp3",
        b"C:\\a.mp3",
        b"c:/a.mp3",
        b".\\C:\\a.mp3",
        b"..\\caf\x82.mp3",
    ];
    for system in [FAT, NTFS, UNIX] {
        for name in names {
            let [good, bad] = [b"set\\good.mp3", name].map(|name| NamedEntry {
                name,
                system,
                is_marked_utf8: false,
                extra: b"",
            });
            zip_of_names(&zip, &[good, bad]);

            let source = opened(&zip);
            let name = name.escape_ascii();
            assert_eq!(reasons(&*source), [Reason::OutsideRoot], "{name}");
        }
    }
}

#[test]
fn the_unicode_name_of_an_entry_has_priority_over_its_code_page() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let name = b"set\\\xe3\xa5.mp3";
    let unicode = "set\\\u{65e5}.mp3";
    let extra = |crc: u32| {
        let bytes = (5 + unicode.len() as u16).to_le_bytes();
        [
            b"up",
            &bytes[..],
            &[1],
            &crc.to_le_bytes(),
            unicode.as_bytes(),
        ]
        .concat()
    };
    let mut crc = flate2::Crc::new();
    crc.update(name);

    // The field is that of another name if its CRC-32 differs.
    for (crc, expected) in [(crc.sum(), "\u{65e5}.mp3"), (0, "\u{3c0}\u{d1}.mp3")] {
        let extra = extra(crc);
        let entry = NamedEntry {
            name,
            system: FAT,
            is_marked_utf8: false,
            extra: &extra,
        };
        zip_of_names(&zip, &[entry]);
        let source = opened(&zip);
        assert_eq!(keys(&*source), [format!("set/{expected}")]);
        assert_eq!(read(&*source, keys(&*source)[0]).unwrap(), name);
    }
}

/// Tests two entries whose names are equal or normalize to the same name. A third clip must not be affected.
#[test]
fn duplicate_entries_are_not_used() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    for second in ["g/Y.mp3", "g/./X.mp3", "g//X.mp3", "./g/X.mp3"] {
        zip_of(
            &zip,
            Stored,
            &[
                ("g/X.mp3", b"first"),
                (second, b"second"),
                ("g/c.mp3", b"third"),
            ],
        );
        if second == "g/Y.mp3" {
            patch(&zip, b"g/Y.mp3", b"g/X.mp3");
        }

        let source = opened(&zip);
        assert_eq!(keys(&*source), ["g/X.mp3", "g/c.mp3"], "{second}");
        assert_eq!(
            read(&*source, "g/X.mp3"),
            Err(Reason::DuplicateEntry),
            "{second}"
        );
        assert_eq!(read(&*source, "g/c.mp3").unwrap(), b"third");
        assert_eq!(source.rejects(), []);
    }
}

#[test]
fn threads_read_one_zip_at_once() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    let clips: Vec<(String, Vec<u8>)> = (0..64_u8)
        .map(|i| (format!("g/{i}.mp3"), vec![i; 10_000 + usize::from(i)]))
        .collect();
    let entries: Vec<(&str, &[u8])> = clips
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();

    zip_of(&zip, Deflated, &entries);
    let source = opened(&zip);

    let read_all = || {
        for (name, bytes) in &clips {
            assert_eq!(read(&*source, name).unwrap(), *bytes);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(read_all))));
}

/// Reads the entry `a.mp3` of a zip as a stream.
fn streamed(zip: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let files = metadata::Files::open(zip).unwrap();
    files.read("a.mp3").unwrap().read_to_end(&mut content)?;
    Ok(content)
}

#[test]
fn bzip2_entries_are_read_whole_and_as_streams() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    // Test contents: longer than one bzip2 block of 900,000 bytes, short, and empty.
    let long: Vec<u8> = (0..2_000_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();

    for content in [&long[..], b"short", b""] {
        let data = bzip2(content);
        raw_zip(&zip, 12, "a.mp3", content, &data, lengths(&data, content));
        assert_eq!(read_in(&zip, "a.mp3").unwrap(), content);

        assert_eq!(streamed(&zip).unwrap(), content);
    }
}

#[test]
fn damaged_bzip2_is_a_reject_and_ends_a_stream() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    let content = [5; 10_000];
    let good = bzip2(&content);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let cut = &good[..good.len() - 4];
    let (whole, compressed) = (content.len() as u64, good.len() as u64);

    let cases: [(&[u8], (u64, u64)); 4] = [
        (&flipped, (compressed, whole)),
        (cut, (compressed - 4, whole)),
        (&good, (compressed, whole - 1)),
        (&good, (compressed, whole + 1)),
    ];

    for (data, sizes) in cases {
        raw_zip(&zip, 12, "a.mp3", &content, data, sizes);
        assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Damaged), "{sizes:?}");

        let kind = streamed(&zip).map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::InvalidData), "{sizes:?}");
    }
}

#[test]
fn unknown_compression_is_a_reject_with_a_remedy() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    raw_zip(&zip, 14, "a.mp3", b"lzma", b"lzma", (4, 4));

    let reject = reject_of(&zip, "a.mp3");
    assert_eq!(reject.reason, Reason::UnsupportedCodec);
    let wanted = "compression method 14: unpack it (7z x x.zip) and give the folder";
    assert!(reject.detail.contains(wanted), "{}", reject.detail);

    let Err(SourceError::Open { source, .. }) = metadata::Files::open(&zip).unwrap().read("a.mp3")
    else {
        panic!("opened");
    };
    assert_eq!(source.to_string(), wanted);
}

/// Tests a flip of every bit of the directory and of an entry's header: either the archive as a whole is refused, or
/// one clip is rejected, renamed or takes another's name. Reading never returns wrong bytes, and no flip stops the run.
#[test]
fn flipped_bit_of_a_zip_affects_one_clip() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let clips: [(&str, &[u8]); 3] = [
        ("000/a.mp3", b"first"),
        ("100/b.mp3", &[7; 300]),
        ("200/c.mp3", b"third"),
    ];

    let mut opened = 0;
    for method in [Stored, Deflated] {
        zip_of(&zip, method, &clips);
        let good = fs::read(&zip).unwrap();
        for at in 0..good.len() {
            for bit in [at % 8, (at + 3) % 8] {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&zip, &flipped).unwrap();

                let source = match open(&zip, Media::Audio, false) {
                    Ok(source) => source,
                    Err(
                        SourceError::BrokenZip { .. }
                        | SourceError::NotAPlace { .. }
                        | SourceError::SplitZip { .. },
                    ) => continue,
                    Err(error) => panic!("byte {at}, bit {bit}: {error:?}"),
                };
                opened += 1;

                let right = clips.iter().filter(|(name, bytes)| {
                    source.index().contains_key(*name)
                        && read(&*source, name).is_ok_and(|read| read == *bytes)
                });
                let n_right = right.count();
                let shares_a_name = source.index().len() < clips.len();
                assert!(
                    n_right >= if shares_a_name { 1 } else { 2 },
                    "byte {at}, bit {bit}: {:?}",
                    keys(&*source)
                );

                for key in source.index().keys() {
                    let known = clips
                        .iter()
                        .any(|(_, bytes)| read(&*source, key).is_ok_and(|read| read == *bytes));
                    assert!(
                        known || read(&*source, key).is_err(),
                        "byte {at}, bit {bit}: {key}"
                    );
                }
            }
        }
    }

    assert!(opened > 500, "{opened}");
}

/// Reads a clip of a zip and returns the reject.
fn reject_of(zip: &Path, key: &str) -> Reject {
    let source = opened(zip);
    match source.read(key, &mut Vec::new()) {
        Err(ReadFailure::Reject(reject)) => reject,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_whose_own_header_disagrees_is_a_reject() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let clips: [(&str, &[u8]); 2] = [("000/a.mp3", b"some audio"), ("100/b.mp3", b"other")];

    zip_of(&zip, Stored, &clips);
    patch_directory(&zip, 10, &[16, 0]);
    let Reject { reason, detail, .. } = reject_of(&zip, "000/a.mp3");
    assert_eq!(reason, Reason::Damaged);
    assert!(
        detail.contains("method 16 in the directory, 0 in its own header"),
        "{detail}"
    );

    // An entry of the directory points to another entry, and past the end of the file.
    let bytes = fs::read(&zip).unwrap();
    let last = bytes.windows(4).rposition(|w| w == b"PK\x03\x04");
    for place in [last.unwrap() as u32, u32::MAX - 9] {
        zip_of(&zip, Stored, &clips);
        patch_directory(&zip, 42, &place.to_le_bytes());
        let Reject { reason, detail, .. } = reject_of(&zip, "000/a.mp3");
        assert_eq!(reason, Reason::Damaged, "{detail}");
    }
}

/// Rewrites a zip as `zip -s` does, with a new file at each of the `cuts`: the last file keeps the name.
fn span(zip: &Path, cuts: &[usize]) {
    let mut bytes = [b"PK\x07\x08", &fs::read(zip).unwrap()[..]].concat();
    let number_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    // Positions are those in a file, and the marker at the beginning of the first file is a part of it.
    let place = |at: usize| {
        let disk = cuts.iter().filter(|cut| **cut <= at).count();
        let start = disk.checked_sub(1).map_or(0, |n| cuts[n]);
        (
            (disk as u16).to_le_bytes(),
            ((at - start) as u32).to_le_bytes(),
        )
    };

    let end = bytes.len() - 22;
    let directory = number_at(&bytes, end + 16) + 4;
    let mut at = directory;
    while at < end {
        let (disk, offset) = place(number_at(&bytes, at + 42) + 4);
        bytes[at + 34..at + 36].copy_from_slice(&disk);
        bytes[at + 42..at + 46].copy_from_slice(&offset);
        let lengths = [28, 30, 32].map(|n| number_at(&bytes, at + n) & 0xffff);
        at += 46 + lengths.iter().sum::<usize>();
    }
    let (disk, offset) = place(directory);
    bytes[end + 4..end + 6].copy_from_slice(&place(end).0);
    bytes[end + 6..end + 8].copy_from_slice(&disk);
    bytes[end + 16..end + 20].copy_from_slice(&offset);

    let starts = [&[0], cuts].concat();
    let ends = [cuts, &[bytes.len()]].concat();
    for (n, (start, end)) in starts.into_iter().zip(ends).enumerate() {
        let name = match n == cuts.len() {
            true => zip.to_owned(),
            false => zip.with_extension(format!("z{:02}", n + 1)),
        };
        fs::write(name, &bytes[start..end]).unwrap();
    }
}

const SPANNED: [(&str, &[u8]); 4] = [
    ("set/rock/", b""),
    ("set/rock/a.mp3", &[1; 3_000]),
    ("set/rock/b.mp3", &[2; 3_000]),
    ("set/jazz/c.mp3", &[3; 3_000]),
];

fn assert_all_are_read(zip: &Path) {
    let source = opened(zip);
    assert_eq!(
        keys(&*source),
        ["jazz/c.mp3", "rock/a.mp3", "rock/b.mp3"],
        "{zip:?}"
    );
    for (name, content) in &SPANNED[1..] {
        assert_eq!(read(&*source, &name[4..]).unwrap(), *content, "{name}");
    }
}

/// Returns the error of a zip that cannot be opened, which stops the command with exit code 2.
fn refusal(zip: &Path) -> String {
    let error = match open(zip, Media::Audio, false) {
        Ok(source) => panic!("{} has the clips {:?}", zip.display(), keys(&*source)),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    error.to_string()
}

#[test]
fn a_split_zip_is_read_as_one() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    // The second file begins within an entry, or with an entry, or in the directory, or has a number over 9.
    let headers = |bytes: &[u8]| {
        let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"PK\x03\x04"));
        starts.map(|at| at + 4).collect::<Vec<_>>()
    };
    for method in [Stored, Deflated] {
        zip_of(&zip, method, &SPANNED);
        let bytes = fs::read(&zip).unwrap();
        let starts = headers(&bytes);
        let in_directory = bytes.len() - 100;
        let many: Vec<usize> = (10..bytes.len()).step_by(bytes.len() / 15).collect();
        for cuts in [
            &[starts[1] + 50][..],
            &[starts[2]],
            &[starts[2] + 50, in_directory],
            &[bytes.len() - 18],
            &many,
        ] {
            zip_of(&zip, method, &SPANNED);
            span(&zip, cuts);
            assert_all_are_read(&zip);
        }
    }

    // A single file of `zip -s` has the marker as well.
    zip_of(&zip, Stored, &SPANNED);
    span(&zip, &[]);
    assert_all_are_read(&zip);
}

#[test]
fn a_zip_cut_into_pieces_is_read_as_one() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    zip_of(&zip, Stored, &SPANNED);
    let bytes = fs::read(&zip).unwrap();
    for (n, piece) in bytes.chunks(4_000).enumerate() {
        fs::write(temp.path().join(format!("x.zip.{:03}", n + 1)), piece).unwrap();
    }
    fs::remove_file(&zip).unwrap();

    let first = temp.path().join("x.zip.001");
    assert_all_are_read(&first);
    let remedy = "cat 'x.zip'.??? > 'x.zip'";
    let third = temp.path().join("x.zip.003");
    let last = fs::read(&third).unwrap();
    for damaged in [&last[..100], &last[1..], &[b"more", &last[..]].concat()] {
        fs::write(&third, damaged).unwrap();
        let refusal = refusal(&first);
        assert!(refusal.contains(remedy), "{refusal}");
    }
    fs::remove_file(&third).unwrap();
    assert!(refusal(&first).contains(remedy));
    let second = refusal(&temp.path().join("x.zip.002"));
    assert!(
        second.ends_with("the one that ends in .zip or .zip.001"),
        "{second}"
    );
}

#[test]
fn a_split_zip_without_all_of_its_bytes_is_refused() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    zip_of(&zip, Stored, &SPANNED);
    span(&zip, &[2_000, 5_000, 7_000]);
    assert_all_are_read(&zip);
    // Position of the entry that begins in the second file.
    let second = fs::read(zip.with_extension("z02")).unwrap();
    let begin = second.windows(4).position(|bytes| bytes == b"PK\x03\x04");
    let begin = begin.unwrap();

    let remedy = "zip -s 0 'x.zip' --out 'x-joined.zip'";
    for n in 1..=3 {
        let part = zip.with_extension(format!("z{n:02}"));
        let bytes = fs::read(&part).unwrap();
        let cases = [
            bytes[..bytes.len() - 1].to_vec(),
            bytes[..100].to_vec(),
            bytes[..begin].to_vec(),
            Vec::new(),
            [&bytes[..], &[0; 100]].concat(),
        ];
        for case in cases {
            fs::write(&part, case).unwrap();
            let refusal = refusal(&zip);
            let named = [format!("file {n} or"), format!("or {n} does")];
            assert!(named.iter().any(|name| refusal.contains(name)), "{refusal}");
            assert!(refusal.contains(remedy), "{refusal}");
        }

        fs::remove_file(&part).unwrap();
        let problem = format!("{} is missing", part.display());
        let refusal = refusal(&zip);
        assert!(
            refusal.contains(&problem) && refusal.contains(remedy),
            "{refusal}"
        );
        fs::write(&part, bytes).unwrap();
    }
    let first = refusal(&zip.with_extension("z01"));
    assert!(
        first.ends_with("the one that ends in .zip or .zip.001"),
        "{first}"
    );
    assert_all_are_read(&zip);
}

#[test]
fn zips_behind_other_data_with_comments_and_tails_are_read() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    let mut writer = zip::ZipWriter::new(File::create(&zip).unwrap());
    writer
        .start_file("g/a.mp3", SimpleFileOptions::default())
        .unwrap();
    writer.write_all(b"some audio").unwrap();
    writer
        .set_comment("PK\x05\x06 is how the end begins")
        .unwrap();
    writer.finish().unwrap();

    let good = fs::read(&zip).unwrap();
    let before = [b"PK\x03\x04 and more before".as_slice(), &good].concat();
    let behind = [&good, b"a tail".as_slice()].concat();

    for bytes in [good, before, behind] {
        fs::write(&zip, bytes).unwrap();
        assert_eq!(read_in(&zip, "g/a.mp3").unwrap(), b"some audio");
    }
}

#[test]
fn a_zip_of_over_65535_entries_is_read() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    let mut writer = zip::ZipWriter::new(std::io::BufWriter::new(File::create(&zip).unwrap()));
    let options = SimpleFileOptions::default().compression_method(Stored);
    for i in 0..65_600 {
        writer
            .start_file(format!("{:03}/{i}.mp3", i % 100), options)
            .unwrap();
    }
    writer.finish().unwrap().flush().unwrap();

    assert_eq!(opened(&zip).index().len(), 65_600);
}

#[test]
fn impossible_entry_sizes_are_rejects() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    let compressed = [u64::MAX, u64::MAX - 40, 1 << 40, 70_000];
    let sizes = compressed.into_iter().map(|size| (size, 4));
    for sizes in sizes.chain([(1 << 28, 1 << 28)]) {
        for method in [0, 8, 12] {
            raw_zip(&zip, method, "a.mp3", b"some", b"some", sizes);
            let case = format!("{method}: {sizes:?}");
            assert_eq!(read_in(&zip, "a.mp3"), Err(Reason::Damaged), "{case}");
            let files = metadata::Files::open(&zip).unwrap();
            assert!(files.read("a.mp3").is_err(), "{case}");
        }
    }
}
