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
    let (crc, name_len) = (
        crc.sum().to_le_bytes(),
        u16::try_from(name.len()).unwrap().to_le_bytes(),
    );

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
        &crc,
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

    let (at, length) = (
        u32::try_from(local.len()).unwrap(),
        u32::try_from(directory.len()).unwrap(),
    );

    let counts = [0, 0, 0, 0, 1, 0, 1, 0];
    let end = [
        b"PK\x05\x06".as_slice(),
        &counts,
        &length.to_le_bytes(),
        &at.to_le_bytes(),
        &[0; 2],
    ]
    .concat();

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

    let (stored, deflated) = (
        temp.path().join("fma_large.zip"),
        temp.path().join("renamed.zip"),
    );
    zip_of(&stored, Stored, &clips);
    zip_of(&deflated, Deflated, &clips);

    for path in [&parent, &parent.join("fma_large"), &stored, &deflated] {
        let source = open(path, Media::Audio, false).unwrap();
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

    let source = open(&path, Media::Audio, false).unwrap();
    let counts = source.others().counts.values();
    let counts: Vec<(u64, u64)> = counts.map(|count| (count.files, count.bytes)).collect();
    assert_eq!(counts, [(1, 7), (1, 7)]);
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
        assert_eq!(
            keys(&*open(&temp.path().join(name), Media::Audio, false).unwrap()),
            ["a.mp3"],
            "{name}"
        );
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

    let source = open(&root, Media::Audio, false).unwrap();
    assert_eq!(read(&*source, "good.mp3").unwrap(), b"good");
    assert_eq!(read(&*source, "inside.mp3").unwrap(), b"good");
    assert_eq!(read(&*source, "folder.mp3"), Err(Reason::NotAudio));
    assert_eq!(read(&*source, "pipe.mp3"), Err(Reason::NotAudio));
    assert_eq!(read(&*source, "dangling.mp3"), Err(Reason::MissingFile));
    assert_eq!(read(&*source, "out.mp3"), Err(Reason::OutsideRoot));
    assert_eq!(read(&*source, "zero.mp3"), Err(Reason::OutsideRoot));

    assert_eq!(source.index().len(), 7);
    assert!(
        source
            .rejects()
            .iter()
            .all(|reject| reject.reason == Reason::OutsideRoot)
    );
    assert_eq!(source.rejects().len(), 1);

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

    let source = open(temp.path(), Media::Audio, false).unwrap();
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
    let source = open(temp.path(), Media::Audio, false).unwrap();

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

    assert!(matches!(
        open(temp.path(), Media::Audio, false),
        Err(SourceError::NoClips { .. })
    ));
    assert!(matches!(
        open(&temp.path().join("tracks.csv"), Media::Audio, false),
        Err(SourceError::NotAPlace { .. })
    ));
    assert!(matches!(
        open(&temp.path().join("absent"), Media::Audio, false),
        Err(SourceError::Open { .. })
    ));

    zip_of(&temp.path().join("cut.zip"), Stored, &[("a/b.mp3", b"x")]);
    let bytes = fs::read(temp.path().join("cut.zip")).unwrap();
    fs::write(temp.path().join("cut.zip"), &bytes[..bytes.len() - 40]).unwrap();
    assert!(matches!(
        open(&temp.path().join("cut.zip"), Media::Audio, false),
        Err(SourceError::BrokenZip { .. })
    ));
}

#[test]
fn damaged_and_hostile_entries_are_rejects() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");
    let text = b"some audio of which one byte will change".as_slice();

    zip_of(&zip, Stored, &[("a.mp3", text)]);
    patch(&zip, b"some", b"sore");
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
        Err(Reason::Damaged)
    );

    zip_of(&zip, Deflated, &[("a.mp3", &[1; 100_000])]);
    patch(&zip, b"a.mp3", b"b.mp3");
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "b.mp3").unwrap(),
        [1; 100_000]
    );

    // Bit 0 of an entry's flags: encrypted.
    zip_of(&zip, Stored, &[("a.mp3", text)]);
    patch_directory(&zip, 8, &[1, 0]);
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
        Err(Reason::Encrypted)
    );

    // A zip bomb whose directory first contains the real size, then a false one.
    zip_of(&zip, Deflated, &[("a.mp3", &[0; 1_000_000])]);
    patch_directory(
        &zip,
        24,
        &u32::try_from(CLIP_BYTES_MAX + 1).unwrap().to_le_bytes(),
    );
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
        Err(Reason::TooLarge)
    );
    patch_directory(&zip, 24, &1_000_u32.to_le_bytes());
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
        Err(Reason::Damaged)
    );

    // The directory contains a compressed size that reaches past the end of the file.
    patch_directory(&zip, 20, &0x7fff_ffff_u32.to_le_bytes());
    assert_eq!(
        read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
        Err(Reason::Damaged)
    );
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
            ("g/caf_.mp3", b"latin"),
        ],
    );

    patch(&zip, b"g/AA/b", b"../../");
    patch(&zip, b"Xabs", b"/abs");
    patch(&zip, b"caf_", b"caf\xe9");

    let source = open(&zip, Media::Audio, false).unwrap();
    assert_eq!(keys(&*source), ["g/a.mp3"]);

    let reasons: Vec<Reason> = source
        .rejects()
        .iter()
        .map(|reject| reject.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            Reason::OutsideRoot,
            Reason::OutsideRoot,
            Reason::BadEncoding
        ],
        "{:?}",
        source.rejects()
    );
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

        let source = open(&zip, Media::Audio, false).unwrap();
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
    let source = open(&zip, Media::Audio, false).unwrap();

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                clips
                    .iter()
                    .for_each(|(name, bytes)| assert_eq!(read(&*source, name).unwrap(), *bytes))
            });
        }
    });
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
        assert_eq!(
            read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3").unwrap(),
            content
        );

        let mut streamed = Vec::new();
        let files = metadata::Files::open(&zip).unwrap();
        files
            .read("a.mp3")
            .unwrap()
            .read_to_end(&mut streamed)
            .unwrap();
        assert_eq!(streamed, content);
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
        assert_eq!(
            read(&*open(&zip, Media::Audio, false).unwrap(), "a.mp3"),
            Err(Reason::Damaged),
            "{sizes:?}"
        );

        let files = metadata::Files::open(&zip).unwrap();
        let error = files
            .read("a.mp3")
            .unwrap()
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::InvalidData,
            "{sizes:?}: {error}"
        );
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
                    Err(SourceError::BrokenZip { .. } | SourceError::NotAPlace { .. }) => continue,
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
    let source = open(zip, Media::Audio, false).unwrap();
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
    for place in [
        u32::try_from(
            fs::read(&zip)
                .unwrap()
                .windows(4)
                .rposition(|w| w == b"PK\x03\x04")
                .unwrap(),
        )
        .unwrap(),
        u32::MAX - 9,
    ] {
        zip_of(&zip, Stored, &clips);
        patch_directory(&zip, 42, &place.to_le_bytes());
        let Reject { reason, detail, .. } = reject_of(&zip, "000/a.mp3");
        assert_eq!(reason, Reason::Damaged, "{detail}");
    }
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
        assert_eq!(
            read(&*open(&zip, Media::Audio, false).unwrap(), "g/a.mp3").unwrap(),
            b"some audio"
        );
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

    assert_eq!(
        open(&zip, Media::Audio, false).unwrap().index().len(),
        65_600
    );
}

#[test]
fn impossible_entry_sizes_are_rejects() {
    let temp = TempDir::new().unwrap();
    let zip = temp.path().join("x.zip");

    for method in [0, 8, 12] {
        for sizes in [
            (u64::MAX, 4),
            (u64::MAX - 40, 4),
            (1 << 40, 4),
            (70_000, 4),
            (1 << 28, 1 << 28),
        ] {
            raw_zip(&zip, method, "a.mp3", b"some", b"some", sizes);
            let source = open(&zip, Media::Audio, false).unwrap();

            assert_eq!(
                read(&*source, "a.mp3"),
                Err(Reason::Damaged),
                "{method}: {sizes:?}"
            );
            assert!(
                metadata::Files::open(&zip).unwrap().read("a.mp3").is_err(),
                "{method}: {sizes:?}"
            );
        }
    }
}
