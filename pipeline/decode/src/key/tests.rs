//! Tests that the decode key covers everything that decoding reads, and no tag.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use wavemill_schemas::reject::Reject;
use wavemill_signal::Level;

use crate::testing::flac::{FRAME_SAMPLES, block, flac_frames, frame, head, head_of, sealed};
use crate::testing::mp3::{Announced, MP3_FRAME_BYTES, mp3_frame, mp3_frames};
use crate::testing::ogg::{self as pages, CONTINUED, FIRST, LAST, Page, Setup, tagged_tone};
use crate::testing::tags::{ape, id3v1, id3v2};
use crate::testing::wav::{chunk, fmt, riff, saw};
use crate::testing::{FORMATS, Part, joined, text};
use crate::{Decode, DecodeArgs, FileDecoder, InputFacts, Pcm};

/// The results of decoding a file, with a hash of the samples. The offset of a reject is omitted: tags change it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    samples: blake3::Hash,
    n_samples: usize,
    lost_s: f32,
    duration_s: f32,
    audio_blake3: String,
}

type Outcome = Result<Row, Reject>;

/// Decodes and hashes test files with several configurations.
struct Tester {
    whole: FileDecoder,
    start: FileDecoder,
    out: Pcm,
}

impl Tester {
    fn new() -> Self {
        let whole = DecodeArgs {
            sample_rate_hz: 44_100,
            duration_s: None,
            min_duration_s: 0.05,
            keep_rate: true,
        };
        let start = DecodeArgs {
            sample_rate_hz: 16_000,
            duration_s: Some(0.2),
            min_duration_s: 0.05,
            keep_rate: false,
        };

        Self {
            whole: FileDecoder::new(whole, Level::Scalar).unwrap(),
            start: FileDecoder::new(start, Level::Scalar).unwrap(),
            out: Pcm::default(),
        }
    }

    /// Hashes a file, decodes the whole file and its start, and compares the hashes.
    fn read(&mut self, file: &[u8]) -> (InputFacts, [Outcome; 2]) {
        let facts = InputFacts::read(file);
        let decoders = [&mut self.whole, &mut self.start];
        let outcomes = decoders.map(|decoder| {
            let outcome = outcome(decoder, file, &mut self.out);
            assert_eq!(self.out.decode_key, facts.decode, "{outcome:?}");
            if let Ok(row) = &outcome {
                let audio = facts.audio.map(|hash| hash.to_hex().to_string());
                assert_eq!(audio.as_ref(), Some(&row.audio_blake3));
                assert!(facts.decode.is_some());
            }
            outcome
        });

        (facts, outcomes)
    }
}

fn outcome(decoder: &mut FileDecoder, file: &[u8], out: &mut Pcm) -> Outcome {
    // Set the key of another file, which decoding must overwrite.
    out.decode_key = Some(blake3::hash(b"of another file"));
    decoder.decode("", file, out).map_err(|reject| Reject {
        byte_offset: None,
        ..reject
    })?;

    let mut samples = blake3::Hasher::new();
    for sample in out.samples.iter() {
        samples.update(&sample.to_le_bytes());
    }
    Ok(Row {
        samples: samples.finalize(),
        n_samples: out.n_samples,
        lost_s: out.lost_s,
        duration_s: out.duration_s,
        audio_blake3: out.audio_blake3.clone(),
    })
}

#[test]
fn walk_and_decoder_compute_equal_keys() {
    let mut tester = Tester::new();
    for (name, make) in FORMATS {
        let file = joined(&make(300));
        let (facts, outcomes) = tester.read(&file);
        assert!(facts.decode.is_some(), "{name}");
        assert!(outcomes.iter().all(Result::is_ok), "{name}: {outcomes:?}");

        let mut n_keys = 0;
        for cut in (0..file.len()).step_by(file.len() / 40 + 1) {
            let (start, _) = tester.read(&file[..cut]);
            let _ = tester.read(&file[cut..]);
            n_keys += u32::from(start.decode.is_some());
        }
        assert!(n_keys > 8, "{name}: {n_keys}");
    }
}

#[test]
fn rejects_have_keys_if_the_file_contains_audio() {
    // Rates that only STREAMINFO states.
    let fast_flac = {
        let body = [&[0x02][..], &[0; 2 * FRAME_SAMPLES]].concat();
        let frames = sealed(&[0xFF, 0xF8, 0x20, 0x08, 0], &body).repeat(3);
        [head_of(400_000, 16, 0), frames]
    };

    let mut many = pages::tone(&[], 4);
    // Change the identification header of the second link, so that decoding ends before the audio that follows.
    let mut second = pages::tone(&[], 4);
    second[0].packets[0][11] = 9;
    many.extend(second);

    let mut fast = fmt(1, 1, 16);
    fast[12..16].copy_from_slice(&400_000_u32.to_le_bytes());

    let files = [
        fast_flac.concat(),
        pages::bytes(&many),
        riff(&[fast, chunk(b"data", &saw(5_000))]),
        riff(&[fmt(1, 1, 16), chunk(b"data", &saw(50))]),
        mp3_frame(0),
        [Announced::with_frames(1).frame(), mp3_frame(0)].concat(),
    ];

    let mut tester = Tester::new();
    for (number, file) in files.iter().enumerate() {
        let (facts, outcomes) = tester.read(file);
        assert!(facts.decode.is_some(), "{number}");
        assert!(outcomes.iter().all(Result::is_err), "{number}");
    }
    // Files without supported audio: Layer II, a WAV file without samples, text, and an empty file.
    let layer_2 = [&[0xFF, 0xFD, 0x50, 0xC4][..], &[0; 257]].concat();
    let none = riff(&[fmt(1, 1, 16), chunk(b"data", &[])]);
    for file in [layer_2.repeat(4), none, text(4_000), Vec::new()] {
        assert_eq!(tester.read(&file).0, InputFacts::default());
    }
}

/// Returns files with this MP3 audio and different tags at either end.
fn with_tags(audio: &[u8]) -> Vec<Vec<u8>> {
    vec![
        [audio.to_vec(), id3v1()].concat(),
        [id3v2(200), audio.to_vec()].concat(),
        [id3v2(40_000), audio.to_vec(), id3v1()].concat(),
        [audio.to_vec(), ape(50)].concat(),
        [id3v2(100), audio.to_vec(), ape(3_000), id3v1()].concat(),
    ]
}

/// Returns a FLAC file with these metadata blocks and twelve frames.
fn with_blocks(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut head = head(12 * FRAME_SAMPLES as u64);
    head[4] = 0;
    [head, blocks.concat(), flac_frames(0..12)].concat()
}

/// Returns groups of files that contain the same audio with different tags.
fn tagged() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let frames = mp3_frames(0..12);
    let mut mp3 = with_tags(&frames);
    mp3.push(frames);

    let announced = [Announced::with_frames(12).frame(), mp3_frames(0..12)].concat();
    let mut info = with_tags(&announced);
    info.push(announced.clone());
    // Change bytes of the Info frame that decoding does not read: the end of the encoder's name, and the gain.
    let mut renamed = announced;
    renamed[45] ^= 1;
    renamed[56] = 77;
    info.push(renamed);

    let data = chunk(b"data", &saw(4_000));
    let list = chunk(b"LIST", b"INFOINAM\x04\0\0\0name");
    let bext = chunk(b"bext", &text(700));
    let wav = vec![
        riff(&[fmt(1, 1, 16), data.clone()]),
        riff(&[fmt(1, 1, 16), list.clone(), data.clone()]),
        riff(&[bext.clone(), fmt(1, 1, 16), data.clone(), list.clone()]),
        riff(&[
            list,
            fmt(1, 1, 16),
            bext,
            data.clone(),
            chunk(b"id3 ", &id3v2(99)),
        ]),
        [id3v2(500), riff(&[fmt(1, 1, 16), data])].concat(),
    ];

    let comment = block(4, &text(300));
    let picture = block(6, &text(60_000));
    let padding = block(0x81, &[0; 8_192]);

    let alone = [head(12 * FRAME_SAMPLES as u64), flac_frames(0..12)].concat();
    // Change fields of STREAMINFO: the MD5 checksum of the samples, and the bounds of block and frame sizes.
    let mut unsummed = alone.clone();
    unsummed[8..18].fill(1);
    unsummed[26..42].fill(0);

    let flac = vec![
        alone.clone(),
        unsummed,
        with_blocks(&[comment.clone(), padding.clone()]),
        with_blocks(&[comment, picture, padding]),
        [id3v2(100), alone.clone(), id3v1()].concat(),
    ];

    let mut vorbis = [0, 300, 70_000, 200_000]
        .map(|n| pages::bytes(&tagged_tone(n)))
        .to_vec();
    vorbis.push([id3v2(90), vorbis[1].clone(), id3v1()].concat());

    vec![
        ("MP3", mp3),
        ("MP3 with an Info frame", info),
        ("WAV", wav),
        ("FLAC", flac),
        ("Ogg Vorbis", vorbis),
    ]
}

#[test]
fn tags_do_not_change_the_key() {
    let mut tester = Tester::new();
    for (name, files) in tagged() {
        let first = tester.read(&files[0]);
        assert!(first.1[0].is_ok(), "{name}: {first:?}");
        for (number, file) in files.iter().enumerate().skip(1) {
            assert_ne!(*file, files[0], "{name} {number}");
            assert_eq!(tester.read(file), first, "{name} {number}");
        }
    }
}

/// Files that differ from another one in one property and decode differently, although the hashes of their audio are
/// equal.
struct Pairs {
    file: Vec<u8>,
    others: Vec<(&'static str, Vec<u8>)>,
}

/// Returns an Info frame with this change, followed by twelve MP3 frames.
fn announced(change: fn(&mut Announced)) -> Vec<u8> {
    let mut announced = Announced::with_frames(12);
    change(&mut announced);
    [announced.frame(), mp3_frames(0..12)].concat()
}

/// Returns twelve MP3 frames, with `n_bytes` bytes of text after the first `before` frames.
fn mp3_with_hole(before: usize, n_bytes: usize) -> Vec<u8> {
    let mut file = mp3_frames(0..12);
    let at = before * MP3_FRAME_BYTES;
    file.splice(at..at, text(n_bytes));
    file
}

fn mp3_pairs() -> Vec<Pairs> {
    let frames = mp3_frames(0..12);
    let gap = || text(MP3_FRAME_BYTES);
    let longer = |info: &mut Announced| {
        info.n_frames = 20;
        info.n_bytes *= 20;
    };

    vec![
        Pairs {
            file: announced(|_| {}),
            others: vec![
                ("delay", announced(|info| info.delay_samples += 1)),
                ("padding", announced(|info| info.padding_samples += 1)),
                ("announced frames", announced(|info| info.n_frames += 2)),
                ("an Info frame", frames.clone()),
            ],
        },
        Pairs {
            file: announced(|info| info.n_frames = 20),
            others: vec![("announced bytes", announced(longer))],
        },
        Pairs {
            file: mp3_with_hole(4, MP3_FRAME_BYTES),
            others: vec![
                ("a hole", frames.clone()),
                ("the place of a hole", mp3_with_hole(7, MP3_FRAME_BYTES)),
            ],
        },
        // The frame before the skipped text is rejected.
        Pairs {
            file: mp3_with_hole(4, 300),
            others: vec![("the length of a hole", mp3_with_hole(4, 1_000))],
        },
        Pairs {
            file: [frames.clone(), gap(), announced(|_| {})].concat(),
            others: vec![(
                "a hole before an Info frame",
                [frames.clone(), announced(|_| {})].concat(),
            )],
        },
        Pairs {
            file: [&frames[..], &mp3_frame(13)[..100]].concat(),
            others: vec![("a frame that breaks off", frames)],
        },
    ]
}

/// Returns a WAV file with 16,000 bytes of audio data, of which the header announces `n_announced`.
fn wav(fmt: Vec<u8>, n_announced: u32) -> Vec<u8> {
    let mut data = chunk(b"data", &saw(8_000));
    data[4..8].copy_from_slice(&n_announced.to_le_bytes());
    riff(&[fmt, data])
}

fn wav_pairs() -> Vec<Pairs> {
    let mut slower = fmt(1, 1, 16);
    slower[12..16].copy_from_slice(&22_050_u32.to_le_bytes());

    vec![
        Pairs {
            file: wav(fmt(1, 1, 16), 16_000),
            others: vec![
                ("rate", wav(slower, 16_000)),
                ("channels", wav(fmt(1, 2, 16), 16_000)),
                ("bits", wav(fmt(1, 1, 32), 16_000)),
                ("announced length", wav(fmt(1, 1, 16), 17_000)),
            ],
        },
        Pairs {
            file: wav(fmt(6, 1, 8), 16_000),
            others: vec![("codec", wav(fmt(7, 1, 8), 16_000))],
        },
    ]
}

/// Returns a FLAC file whose frames refer to the STREAMINFO block for rate and bits per sample.
fn plain_flac(rate_hz: u32, bits: u8) -> Vec<u8> {
    let sample = 1_000_i16.to_be_bytes();
    // A subframe that is valid for both sizes: a constant of 16 bits, or one of 12 bits followed by 4 more bits.
    let body = [&[0x00][..], &sample].concat();
    let frame = sealed(&[0xFF, 0xF8, 0x20, 0x00, 0], &body);
    [head_of(rate_hz, bits, 0), frame.repeat(12)].concat()
}

/// Returns twelve FLAC frames with text after the first five. The frame numbers decrease, so that the length of the gap
/// is unknown.
fn flac_with_hole(n_bytes: usize) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = (9..=20).rev().map(frame).collect();
    let (start, end) = frames.split_at(5);
    [head(0), start.concat(), text(n_bytes), end.concat()].concat()
}

fn flac_pairs() -> Vec<Pairs> {
    let frames = flac_frames(0..12);
    let longer = [head(9_000), frames.clone()].concat();
    let broken_off = [&head(0), &frames[..], &frame(12)[..500]].concat();

    vec![
        Pairs {
            file: [head(0), frames].concat(),
            others: vec![
                ("announced length", longer),
                ("a frame that breaks off", broken_off),
            ],
        },
        Pairs {
            file: plain_flac(44_100, 16),
            others: vec![
                ("rate of the first block", plain_flac(32_000, 16)),
                ("bits of the first block", plain_flac(44_100, 12)),
            ],
        },
        Pairs {
            file: flac_with_hole(2_000),
            others: vec![
                ("a hole", flac_with_hole(0)),
                ("the length of a hole", flac_with_hole(4_000)),
            ],
        },
    ]
}

/// Adds `n_samples` to the granules of these Ogg pages.
fn delay(pages: &mut [Page], n_samples: i64) {
    for page in pages {
        page.granule += n_samples;
    }
}

/// Adds `n_pages` to the sequence numbers of these Ogg pages.
fn renumber(pages: &mut [Page], n_pages: u32) {
    for page in pages {
        page.sequence += n_pages;
    }
}

/// Makes an Ogg page begin with the end of a packet whose start is missing.
fn tear(page: &mut Page) {
    page.flags |= CONTINUED;
    page.packets.insert(0, b"the end of a packet".to_vec());
}

fn last(pages: &mut [Page]) -> &mut Page {
    pages.last_mut().expect("pages")
}

/// Returns the test tone as an Ogg file, after `change` has modified the pages.
fn tone_but(change: fn(&mut [Page])) -> Vec<u8> {
    let mut pages = tagged_tone(100);
    change(&mut pages);
    pages::bytes(&pages)
}

/// Returns the test tone with its later pages delayed and renumbered.
fn shifted(n_samples: i64, n_pages: u32) -> Vec<u8> {
    let mut pages = tagged_tone(100);
    delay(&mut pages[8..], n_samples);
    renumber(&mut pages[8..], n_pages);
    pages::bytes(&pages)
}

/// Returns the test tone with a packet that is none of Vorbis at this place of a page.
fn with_foreign_packet(at: usize) -> Vec<u8> {
    let mut pages = tagged_tone(100);
    pages[8].packets.insert(at, vec![1; 30]);
    pages::bytes(&pages)
}

fn ogg_pairs() -> Vec<Pairs> {
    let early_last = tone_but(|pages| {
        pages[8].granule -= 100;
        pages[8].flags |= LAST;
    });
    let torn = tone_but(|pages| {
        renumber(&mut pages[8..], 1);
        tear(&mut pages[8]);
    });
    let open = tone_but(|pages| {
        last(pages).flags = 0;
        last(pages).packets.push(vec![2; 255]);
        last(pages).is_open = true;
    });
    let early = tone_but(|pages| last(pages).granule -= 100);
    let late_by_page_9 = tone_but(|pages| delay(&mut pages[9..], 5_000));

    vec![
        Pairs {
            file: tone_but(|_| {}),
            others: vec![
                ("where the last block is cut", early),
                ("a packet that is none of Vorbis", with_foreign_packet(2)),
            ],
        },
        Pairs {
            file: tone_but(|pages| pages[8].granule -= 100),
            others: vec![("a page that says that it is the last one", early_last)],
        },
        Pairs {
            file: shifted(5_000, 0),
            others: vec![
                ("a gap", tone_but(|_| {})),
                ("the place of a gap", late_by_page_9),
                ("a hole", shifted(5_000, 1)),
            ],
        },
        Pairs {
            file: shifted(-5_000, 1),
            others: vec![("pages in a hole", shifted(-5_000, 3))],
        },
        Pairs {
            file: with_junk([200, 800]),
            others: vec![("bytes in a hole", with_junk([800, 200]))],
        },
        Pairs {
            file: padded(&shifted(0, 1)),
            others: vec![("a packet that is torn by a hole", padded(&torn))],
        },
        Pairs {
            file: tone_but(|pages| last(pages).flags = 0),
            others: vec![("a packet that never ends", open)],
        },
        Pairs {
            file: with_tail(&text(500)),
            others: vec![(
                "bytes behind a stream that never ends",
                with_tail(&text(900)),
            )],
        },
        Pairs {
            file: with_tail(&damaged_page(50_000)),
            others: vec![(
                "what the header of a damaged page claims",
                with_tail(&damaged_page(51_000)),
            )],
        },
        Pairs {
            file: with_foreign_packet(2),
            others: vec![("the place of such a packet", with_foreign_packet(3))],
        },
        Pairs {
            file: with_orphan(500),
            others: vec![("bytes of a stream that nobody knows", with_orphan(900))],
        },
        Pairs {
            file: silent(44_100, true),
            others: vec![
                ("rate in the identification header", silent(32_000, true)),
                ("blocks in the set-up header", silent(44_100, false)),
            ],
        },
    ]
}

/// Prepends a tag that pads a file to a fixed length, so that changes in the rest do not affect the length.
fn padded(file: &[u8]) -> Vec<u8> {
    let tag = id3v2(10_000 - file.len() - id3v2(0).len());
    [&tag[..], file].concat()
}

/// Returns an Ogg file with junk at two positions: in place of a missing page of unknown duration, and where no page is
/// missing.
fn with_junk(n_bytes: [usize; 2]) -> Vec<u8> {
    let mut pages = tagged_tone(100);
    delay(&mut pages[8..], -5_000);
    renumber(&mut pages[8..], 1);
    let [hole, junk] = n_bytes.map(text);
    let start = pages::bytes(&pages[..8]);
    let middle = pages::bytes(&pages[8..10]);
    let end = pages::bytes(&pages[10..]);
    padded(&[start, hole, middle, junk, end].concat())
}

/// Appends bytes to the test tone, in which no page is marked as the stream's last.
fn with_tail(bytes: &[u8]) -> Vec<u8> {
    let file = tone_but(|pages| last(pages).flags = 0);
    padded(&[&file[..], bytes].concat())
}

fn damaged_page(granule: i64) -> Vec<u8> {
    let mut page = pages::page(&pages::packet_page(0, granule, 90, &[&text(100)]));
    let end = page.len() - 1;
    page[end] ^= 1;
    page
}

/// Appends a page of an unknown Ogg stream to the test tone.
fn with_orphan(n_bytes: usize) -> Vec<u8> {
    let page = Page {
        serial: 99,
        ..pages::packet_page(0, 0, 1, &[&text(n_bytes)])
    };
    padded(&[tone_but(|_| {}), pages::page(&page)].concat())
}

/// Returns an Ogg file with packets of silence that have long or short blocks.
fn silent(rate_hz: u32, is_long: bool) -> Vec<u8> {
    let setup = Setup {
        modes: vec![false, is_long],
        ..Setup::default()
    };

    // The page of audio has no granule, so its packets determine its duration.
    pages::bytes(&[
        pages::packet_page(FIRST, 0, 0, &[&pages::ident(1, rate_hz)]),
        pages::packet_page(0, 0, 1, &[b"\x03vorbis", &setup.bytes()]),
        pages::packet_page(LAST, -1, 2, &[&[2_u8][..]; 200]),
    ])
}

#[test]
fn bytes_used_by_the_decoder_change_the_key() {
    let mut tester = Tester::new();
    let pairs = [mp3_pairs(), wav_pairs(), flac_pairs(), ogg_pairs()];
    for Pairs { file, others } in pairs.into_iter().flatten() {
        let first = tester.read(&file);
        for (differs, other) in others {
            let second = tester.read(&other);

            // A pair is a valid test only if the audio hashes of both files are equal and their outcomes differ.
            assert!(first.0.audio.is_some(), "{differs}");
            assert_eq!(first.0.audio, second.0.audio, "{differs}");
            assert_ne!(first.1, second.1, "{differs}");
            assert_ne!(first.0.decode, second.0.decode, "{differs}");
        }
    }
}

#[test]
fn removed_bytes_change_the_key() {
    let mut tester = Tester::new();
    let mut keys = Vec::new();

    for (_, make) in FORMATS {
        let parts = make(50);
        let whole = joined(&parts);

        keys.push(tester.read(&whole).0.decode);
        keys.push(tester.read(&whole[..whole.len() - 700]).0.decode);

        // Remove each audio part of the file in turn.
        for at in 0..parts.len() {
            let mut rest = parts.clone();
            if rest.remove(at).is_audio {
                keys.push(tester.read(&joined(&rest)).0.decode);
            }
        }
    }

    let known: Vec<_> = keys.into_iter().flatten().collect();
    let unique: std::collections::HashSet<_> = known.iter().collect();

    assert_eq!(unique.len(), known.len());
    assert!(known.len() > 40, "{}", known.len());
}

/// Returns the test tone with a comment, and with a gap of `n_samples` samples in the granules.
fn tone_with_gap(n_tag_bytes: usize, n_samples: i64) -> Vec<u8> {
    let mut pages = tagged_tone(n_tag_bytes);
    delay(&mut pages[8..], n_samples);
    pages::bytes(&pages)
}

#[test]
fn gap_accepted_due_to_file_size_changes_the_key() {
    let mut tester = Tester::new();
    // A gap of 36 s is more than ten times the audio that the small file can contain.
    let (small_facts, small) = tester.read(&tone_with_gap(10, 1_600_000));
    let (large_facts, large) = tester.read(&tone_with_gap(60_000, 1_600_000));
    assert_ne!(small, large);
    assert_ne!(small_facts.decode, large_facts.decode);

    // Without a gap, the decode key does not depend on the length of the file.
    assert_eq!(
        tester.read(&tone_with_gap(10, 0)),
        tester.read(&tone_with_gap(60_000, 0))
    );
}

/// One change that damages a file.
#[derive(Clone, Debug)]
struct Damage {
    /// Position of the damage as a fraction of all bytes that may be damaged.
    at: f64,
    edit: Edit,
}

#[derive(Clone, Debug)]
enum Edit {
    Flip(u8),
    Cut(usize),
    Insert(Vec<u8>),
}

impl Damage {
    /// Damages either the audio parts of a file or the other parts.
    fn apply(&self, parts: &mut [Part], is_audio: bool) {
        let damaged = parts.iter_mut().filter(|part| part.is_audio == is_audio);
        let damaged: Vec<&mut Vec<u8>> = damaged.map(|part| &mut part.bytes).collect();
        let n_bytes: usize = damaged.iter().map(|bytes| bytes.len()).sum();
        let mut at = (self.at * n_bytes as f64) as usize;

        for bytes in damaged {
            if at >= bytes.len() {
                at -= bytes.len();
                continue;
            }

            match &self.edit {
                Edit::Flip(bit) => bytes[at] ^= 1_u8 << bit,
                Edit::Cut(n_bytes) => {
                    bytes.drain(at..(at + n_bytes).min(bytes.len()));
                }
                Edit::Insert(inserted) => {
                    bytes.splice(at..at, inserted.iter().copied());
                }
            }
            return;
        }
    }
}

fn any_damage(n_most: usize) -> impl Strategy<Value = Vec<Damage>> {
    let beginnings = [
        &b"ID3\x04\0\0\0\0\0\x09"[..],
        b"TAG",
        b"APETAGEX",
        b"OggS",
        b"fLaC",
        &[0xFF, 0xFB, 0x50, 0xC4],
        &[0xFF, 0xF8, 0x29, 0x08],
        &[0; 40],
    ]
    .map(<[u8]>::to_vec);

    let edit = prop_oneof![
        3 => (0_u8..8).prop_map(Edit::Flip),
        2 => (1_usize..400).prop_map(Edit::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Edit::Insert),
        1 => prop::sample::select(beginnings.to_vec()).prop_map(Edit::Insert),
    ];

    let damage = (0.0..1.0, edit).prop_map(|(at, edit)| Damage { at, edit });
    prop::collection::vec(damage, 0..=n_most)
}

/// Two files with the same damage to their audio, and with different, damaged tags.
#[derive(Clone, Debug)]
struct Twins {
    format: usize,
    audio: Vec<Damage>,
    n_tag_bytes: [usize; 2],
    others: [Vec<Damage>; 2],
}

fn any_twins() -> impl Strategy<Value = Twins> {
    let n_tag_bytes = prop_oneof![3 => 0_usize..300, 1 => 60_000_usize..70_000];
    let format = 0..FORMATS.len();
    let tags = [n_tag_bytes.clone(), n_tag_bytes];
    let others = [any_damage(2), any_damage(2)];

    (format, any_damage(2), tags, others).prop_map(|(format, audio, n_tag_bytes, others)| Twins {
        format,
        audio,
        n_tag_bytes,
        others,
    })
}

impl Twins {
    fn file(&self, which: usize) -> Vec<u8> {
        let (_, make) = FORMATS[self.format];
        let mut parts = make(self.n_tag_bytes[which]);
        for damage in &self.audio {
            damage.apply(&mut parts, true);
        }
        for damage in &self.others[which] {
            damage.apply(&mut parts, false);
        }
        joined(&parts)
    }
}

/// Default number of twins to test. The environment variable `WAVEMILL_KEY_TWINS` overrides it.
const N_TWINS: u32 = 400;

#[test]
fn equal_keys_decode_to_equal_samples() {
    let n_twins = std::env::var("WAVEMILL_KEY_TWINS").map_or(N_TWINS, |n| n.parse().unwrap());
    let tester = RefCell::new(Tester::new());
    // Outcomes of decoding by decode key, over all files of the test, including files that are not twins.
    let known = RefCell::new(HashMap::new());
    let n_equal = RefCell::new([0; FORMATS.len()]);

    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(n_twins)
    };
    // Use a fixed seed, so that the counts below do not depend on chance.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&any_twins(), |twins| {
        let files = [twins.file(0), twins.file(1)];
        let [first, second] = files.map(|file| tester.borrow_mut().read(&file));
        let is_equal = first.0.decode.is_some() && first.0.decode == second.0.decode;
        n_equal.borrow_mut()[twins.format] += u32::from(is_equal);

        for (facts, outcomes) in [first, second] {
            let Some(key) = facts.decode else { continue };
            let mut known = known.borrow_mut();
            let same = known.entry(key).or_insert_with(|| outcomes.clone());
            prop_assert_eq!(&*same, &outcomes);
        }
        Ok(())
    });
    outcome.unwrap();

    let n_equal = n_equal.into_inner();
    println!("{n_twins} twins; of equal keys, by format: {n_equal:?}");
    let enough = n_twins / FORMATS.len() as u32 / 20;
    // Exclude the last format: its audio has a gap, so its key depends on the length of the file, and thus on the tags.
    let with_twins = &n_equal[..FORMATS.len() - 1];
    assert!(with_twins.iter().all(|&n| n >= enough), "{n_equal:?}");
}
