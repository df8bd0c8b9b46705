//! Tests of FLAC in Ogg with streams built from single pages.

use super::header::MARKER;
use super::testing::{FRAME_SAMPLES, frame, head, sealed};
use super::tests::{assert_heard, decode};
use crate::InputHasher;
use crate::ogg::testing::{FIRST, LAST, Page, bytes, packet_page};

fn audio_hash(file: &[u8]) -> Option<blake3::Hash> {
    InputHasher::default().read(file).audio
}

/// Returns the number of decoded samples at 44.1 kHz and the number of lost samples.
fn lengths(file: &[u8]) -> (usize, usize) {
    let out = decode(file).unwrap();
    (
        out.samples.len(),
        (f64::from(out.lost_s) * 44_100.0).round() as usize,
    )
}

/// Returns the first page of a generated stream.
fn first_page(info: &[u8]) -> Page {
    packet_page(FIRST, 0, 0, &[&[b"\x7FFLAC\x01\0\0\x01", info].concat()])
}

/// Returns a generated stream: a comment, and one page per frame.
fn stream_of(serial: u32, numbers: &[u8]) -> Vec<Page> {
    let comment = [0x84, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut pages = vec![first_page(&head(0)), packet_page(0, 0, 1, &[&comment])];

    for number in numbers {
        pages.push(packet_page(0, 0, pages.len() as u32, &[&frame(*number)]));
    }

    for page in &mut pages {
        page.serial = serial;
    }

    let n_pages = pages.len();
    if n_pages > 2 {
        pages[n_pages - 1].flags |= LAST;
    }

    pages
}

/// Returns the test tone with half of its frames on each of two Ogg pages.
fn flac_in_ogg() -> Vec<Page> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let flac = std::fs::read(folder.join("tone_32000_stereo.flac")).unwrap();
    let stream_info = &flac[4..42];

    // Skip the metadata up to the last block, then find the frames by their one-byte numbers.
    let mut at = 4;
    loop {
        let block = &flac[at..at + 4];
        at += 4 + u32::from_be_bytes([0, block[1], block[2], block[3]]) as usize;
        if block[0] & 0x80 != 0 {
            break;
        }
    }

    let mut starts = Vec::new();
    for at in at..flac.len() - 5 {
        if flac[at..].starts_with(&[0xFF, 0xF8]) && usize::from(flac[at + 4]) == starts.len() {
            starts.push(at);
        }
    }
    starts.push(flac.len());

    let frames: Vec<&[u8]> = starts
        .windows(2)
        .map(|ends| &flac[ends[0]..ends[1]])
        .collect();
    assert_eq!(frames.len(), 21);

    let first = [b"\x7FFLAC\x01\0\0\x01fLaC".as_slice(), stream_info].concat();
    let comment = [0x84, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = frames.len() / 2;
    let mut pages = vec![
        packet_page(FIRST, 0, 0, &[&first]),
        packet_page(0, 0, 1, &[&comment]),
    ];
    pages.push(packet_page(0, half as i64 * 2_304, 2, &frames[..half]));
    pages.push(packet_page(LAST, 48_000, 3, &frames[half..]));
    pages
}

#[test]
fn all_chained_flac_streams_are_decoded() {
    let pages = flac_in_ogg();
    // The source has 48,000 samples at 32 kHz.
    assert_eq!(lengths(&bytes(&pages)), (66_150, 0));

    let mut second = flac_in_ogg();
    for page in &mut second {
        page.serial = 77;
    }
    let chain = [bytes(&pages), bytes(&second)].concat();
    assert_eq!(lengths(&chain), (2 * 66_150, 0));
    assert_ne!(audio_hash(&chain), audio_hash(&bytes(&pages)));

    // A stream whose first page is missing is decoded as well.
    let chain = [bytes(&pages), bytes(&second[1..])].concat();
    assert_eq!(lengths(&chain), (2 * 66_150, 0));
}

#[test]
fn ogg_flac_and_native_flac_hash_alike() {
    let native = include_bytes!("../../tests/data/tone_32000_stereo.flac");
    assert_eq!(audio_hash(&bytes(&flac_in_ogg())), audio_hash(native));
}

#[test]
fn missing_or_damaged_pages_become_silence_and_count_as_lost() {
    // The third page contains 10 of 21 frames, each with 2,304 samples at 32 kHz. The file has 48,000 samples.
    let page_samples = (23_040.0_f64 * 44_100.0 / 32_000.0).round() as usize;
    let frame_samples = (2_304.0_f64 * 44_100.0 / 32_000.0).round() as usize;
    let whole = flac_in_ogg();

    let without_third = bytes(&[whole[0].clone(), whole[1].clone(), whole[3].clone()]);
    assert_eq!(lengths(&without_third), (66_150, page_samples));

    // The announced length shows how much is missing at the end.
    let without_last = bytes(&whole[..3]);
    assert_eq!(
        lengths(&without_last),
        (page_samples, 66_150 - page_samples)
    );

    // Damage to one byte of a page leaves its other frames intact.
    let mut damaged = bytes(&whole);
    let third_at = bytes(&whole[..2]).len();
    damaged[third_at + 1_000] ^= 1;
    assert_eq!(lengths(&damaged), (66_150, frame_samples));
}

#[test]
fn granule_positions_are_ignored() {
    for granule in [i64::MIN, i64::MAX, -1, 1 << 62] {
        for number in 0..4 {
            let mut pages = flac_in_ogg();
            pages[number].granule = granule;

            assert_eq!(
                lengths(&bytes(&pages)),
                (66_150, 0),
                "{granule} on page {number}"
            );
        }
    }
}

#[test]
fn packets_may_span_pages() {
    // Forty seconds of mono frames, on pages of 255 segments that split every packet except the first.
    let numbers: Vec<u8> = (0..=127).collect();
    let frames: Vec<Vec<u8>> = (0..24)
        .flat_map(|_| numbers.iter().map(|number| frame(*number)))
        .collect();
    let laced: Vec<u8> = frames.concat();
    assert!(laced.len() > 3 << 20);

    let mut file = bytes(&stream_of(7, &[]));
    file.extend(paged(&frames));

    assert_eq!(lengths(&file), (frames.len() * FRAME_SAMPLES, 0));
    assert_eq!(audio_hash(&file), audio_hash(&[head(0), laced].concat()));
}

/// Returns the pages of long packets as libogg writes them: 255 segments each, regardless of packet boundaries.
fn paged(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut segments = Vec::new();
    for packet in packets {
        segments.extend(packet.chunks(255).map(<[u8]>::to_vec));
        if packet.len() % 255 == 0 {
            segments.push(Vec::new());
        }
    }

    let mut file = Vec::new();
    let mut is_continued = false;
    for (number, segments) in segments.chunks(255).enumerate() {
        let lacing: Vec<u8> = segments.iter().map(|segment| segment.len() as u8).collect();

        let mut page = b"OggS\0".to_vec();
        page.push(u8::from(is_continued));
        page.extend([0; 8]);
        page.extend(7_u32.to_le_bytes());
        page.extend((number as u32 + 2).to_le_bytes());
        page.extend([0; 4]);
        page.push(lacing.len() as u8);
        page.extend(&lacing);
        page.extend(segments.concat());

        crate::ogg::testing::seal(&mut page);
        file.extend(page);
        is_continued = lacing.last() == Some(&255);
    }

    file
}

#[test]
fn metadata_packets_of_any_length_are_not_audio() {
    // A metadata block of 1.2 MB that contains frames, on pages of its own.
    let frames: Vec<u8> = (0..100).flat_map(frame).collect();
    let mut block = vec![2, 0x14, 0, 0];
    block.resize(700_000, 0);
    block.extend(&frames);
    block.resize(4 + (0x14 << 16), 0);

    let first = bytes(&[first_page(&head(0))]);
    let packets = [vec![block], (0..5).map(frame).collect()].concat();
    let mut file = first;
    let mut rest = paged(&packets);
    // The block begins on the second page of the stream.
    renumber(&mut rest);
    file.extend(rest);
    assert_heard(&file, &[0, 1, 2, 3, 4], 0.0);
}

/// Numbers the pages from 1.
fn renumber(file: &mut [u8]) {
    let mut at = 0;
    let mut number: u32 = 1;

    while at < file.len() {
        let n_segments = usize::from(file[at + 26]);
        let n_body: usize = file[at + 27..at + 27 + n_segments]
            .iter()
            .map(|&value| usize::from(value))
            .sum();
        let end = at + 27 + n_segments + n_body;

        file[at + 18..at + 22].copy_from_slice(&number.to_le_bytes());
        crate::ogg::testing::seal(&mut file[at..end]);

        number += 1;
        at = end;
    }
}

#[test]
fn damaged_parallel_stream_does_not_affect_audio() {
    let ours = stream_of(7, &[0, 1, 2, 3]);
    let beside = stream_of(9, &[5, 6, 7, 8]);
    let mixed: Vec<Page> = ours
        .iter()
        .zip(&beside)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    let mut file = bytes(&mixed);
    assert_heard(&file, &[0, 1, 2, 3], 0.0);

    let second_first_page = bytes(&ours[..1]).len();
    file[second_first_page + 40] ^= 1;
    assert_heard(&file, &[0, 1, 2, 3], 0.0);
}

#[test]
fn chained_streams_use_their_own_stream_info() {
    // The second stream has eight bits per sample, which only its STREAMINFO block states.
    let mut info = head(0);
    let numbers = u64::from_be_bytes(info[18..26].try_into().unwrap());
    let eight_bits = numbers & !(0x1F << 36) | 7 << 36;
    info[18..26].copy_from_slice(&eight_bits.to_be_bytes());
    assert!(info.starts_with(MARKER));
    let body = [&[0x02][..], &[10; FRAME_SAMPLES]].concat();
    let quiet = sealed(&[0xFF, 0xF8, 0x29, 0x00, 0], &body);

    let second = [first_page(&info), packet_page(LAST, 0, 1, &[&quiet])];
    let file = [bytes(&stream_of(7, &[0, 1])), bytes(&second)].concat();
    let out = decode(&file).unwrap();
    assert_eq!(out.samples.len(), 3 * FRAME_SAMPLES);
    assert_eq!(
        (out.samples[2 * FRAME_SAMPLES], out.lost_s),
        (10.0 / 128.0, 0.0)
    );
}

#[test]
fn bytes_between_consecutive_pages_are_not_lost_audio() {
    let pages = stream_of(7, &[0, 1, 2, 3]);
    let junk = [&b"junk"[..], &[0; 1_000]].concat();
    let file = [bytes(&pages[..4]), junk, bytes(&pages[4..])].concat();
    assert_heard(&file, &[0, 1, 2, 3], 0.0);
    // A duplicated page is decoded once.
    let file = [bytes(&pages[..4]), bytes(&pages[3..])].concat();
    assert_heard(&file, &[0, 1, 2, 3], 0.0);
}

#[test]
fn page_damage_affects_only_touched_frames() {
    let frames: Vec<Vec<u8>> = (0..6).map(frame).collect();
    let mut file = bytes(&stream_of(7, &[]));
    let audio_at = file.len();
    file.extend(paged(&frames));
    // Damage the third frame. All frames are on one page.
    let third = audio_at + 27 + frames.concat().len() / 255 + 2 * frames[0].len() + 100;
    file[third] ^= 1;
    assert_heard(&file, &[0, 1, -1, 3, 4, 5], 1.0);
}

#[test]
fn chained_stream_of_another_codec_is_lost_and_hashed() {
    let alone = bytes(&stream_of(7, &[0, 1, 2, 3]));
    let mut opus = stream_of(9, &[0, 1, 2, 3]);
    opus[0].packets = vec![b"OpusHead".to_vec()];
    let chained = [alone.clone(), bytes(&opus)].concat();

    let out = decode(&chained).unwrap();
    assert_eq!(out.samples.len(), 4 * FRAME_SAMPLES);
    let n_lost = out.lost_s * 44_100.0 / FRAME_SAMPLES as f32;
    assert!(
        (3.9..4.2).contains(&n_lost),
        "{n_lost} frames lost, about 4 are"
    );
    assert_ne!(audio_hash(&chained), audio_hash(&alone));
    // If the other stream is multiplexed with this one instead of chained, it does not count as lost.
    let beside: Vec<Page> = stream_of(7, &[0, 1, 2, 3])
        .into_iter()
        .zip(opus)
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert_eq!(decode(&bytes(&beside)).unwrap().lost_s, 0.0);
}
