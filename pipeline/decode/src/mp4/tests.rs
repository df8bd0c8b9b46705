//! Tests of tables, edits, fragments and damage with uncompressed packets, and of AAC with a file of ffmpeg.

use wavemill_schemas::reject::{Reason, Reject};

use crate::testing::mp4::{
    PACKET_SAMPLES, RATE_HZ, TestTrack, alac_channels_packet, alac_packet, mp4_box, numbers,
};
use crate::{InputFacts, Pcm, longest_s, testing};

/// Number of samples of the test tracks: five packets, of which the last one is shorter.
const N_SAMPLES: usize = 4 * PACKET_SAMPLES + 100;

/// Returns samples that are all different.
fn ramp() -> Vec<i16> {
    (0..N_SAMPLES as i16).map(|at| at * 7 - 8_000).collect()
}

/// Returns the samples of the first packets and the number of those in the lost ones.
fn first(n_packets: usize, n_lost: usize) -> Result<(Vec<f32>, usize), Reject> {
    let samples = wanted(0..(n_packets * PACKET_SAMPLES).min(N_SAMPLES));
    Ok((samples, n_lost * PACKET_SAMPLES))
}

fn track() -> TestTrack {
    TestTrack::alac(&ramp())
}

/// Returns the samples and the number of lost samples.
fn decode(file: &[u8]) -> Result<(Vec<f32>, usize), Reject> {
    let mut out = Pcm::default();
    let outcome = testing::decode(file, RATE_HZ, &mut out);
    assert_eq!(InputFacts::read(file).decode, out.decode_key);
    outcome?;
    assert!(longest_s(file) >= f64::from(out.duration_s) - 1e-6);
    let n_lost = testing::n_lost(&out, RATE_HZ);
    Ok((out.samples.to_vec(), n_lost))
}

/// Returns the samples of a range as they are decoded.
fn wanted(range: std::ops::Range<usize>) -> Vec<f32> {
    let samples = ramp()[range].to_vec();
    samples
        .iter()
        .map(|&sample| f32::from(sample) / 32_768.0)
        .collect()
}

#[test]
fn packets_of_all_chunks_are_decoded_exactly() {
    assert_eq!(decode(&track().file()), first(5, 0));

    // A tag before the file shifts all positions.
    let tag = b"ID3\x04\0\0\0\0\0\x05.....";
    let tagged = [&tag[..], &track().file()].concat();
    assert_eq!(decode(&tagged), first(5, 0));
}

#[test]
fn files_of_quicktime_without_ftyp_are_decoded() {
    let [_, mdat] = track().parts();
    let wide = mp4_box(b"wide", b"");
    let free = mp4_box(b"free", &[0; 24]);
    let preview = mp4_box(b"pnot", &[0; 12]);
    for leading in [
        vec![],
        wide.clone(),
        [&free[..], &wide].concat(),
        preview,
        mp4_box(b"skip", b"moov"),
    ] {
        // The packets come first, and the index after them.
        let mut offset = (leading.len() + 8) as u32;
        let mut offsets = Vec::new();
        for chunk in track().packets.chunks(2) {
            offsets.push(offset);
            offset += chunk.concat().len() as u32;
        }
        let moov = track().index(&offsets);
        let file = [&leading[..], &mdat, &moov].concat();
        assert_eq!(decode(&file), first(5, 0));

        // The index comes first.
        let shift = moov.len() as u32;
        let shifted: Vec<u32> = offsets.iter().map(|offset| offset + shift).collect();
        let file = [&leading[..], &track().index(&shifted), &mdat].concat();
        assert_eq!(decode(&file), first(5, 0));

        let reject = decode(&[leading, mdat.clone()].concat()).unwrap_err();
        assert_eq!(reject.reason, Reason::Damaged, "{}", reject.detail);
    }

    let compressed = mp4_box(b"moov", &mp4_box(b"cmov", &[0; 40]));
    let reject = decode(&[mdat, compressed].concat()).unwrap_err();
    assert_eq!(reject.reason, Reason::UnsupportedCodec, "{}", reject.detail);
}

#[test]
fn alac_of_up_to_eight_channels_is_decoded_to_the_mean() {
    for n_channels in 3..=8_usize {
        // Each element has one channel; in the last one, samples are zeros.
        let packet = |samples: &[i16]| {
            let channels = std::iter::repeat_n(samples.to_vec(), n_channels - 1);
            let channels = channels.chain([vec![0; samples.len()]]);
            alac_channels_packet(&channels.collect::<Vec<_>>())
        };
        let mut wide = track();
        let at = wide.entry.len() - 24 + 9;
        wide.entry[at] = n_channels as u8;
        wide.packets = ramp().chunks(PACKET_SAMPLES).map(packet).collect();

        let (samples, n_lost) = decode(&wide.file()).unwrap();
        assert_eq!((samples.len(), n_lost), (N_SAMPLES, 0));
        let part = (n_channels - 1) as f32 / n_channels as f32;
        for (sample, wanted) in samples.iter().zip(wanted(0..N_SAMPLES)) {
            assert!((sample - wanted * part).abs() < 1e-7, "{sample}, {wanted}");
        }
    }
}

#[test]
fn edit_lists_and_tags_trim_the_recording() {
    let mut edited = track();
    // 23 ms are 1,014 samples. The end of the durations is not near, so it does not replace this end.
    edited.edits = vec![[40, u32::MAX], [23, 200]];
    assert_eq!(decode(&edited.file()), Ok((wanted(200..1_214), 0)));

    // 45 ms are 1,985 samples. According to the durations, the end is 2 samples later, which is within a millisecond.
    edited.edits = vec![[45, 200]];
    edited.n_samples = 2_187;
    assert_eq!(decode(&edited.file()), Ok((wanted(200..2_187), 0)));

    // Several parts cannot be represented, so the whole track is decoded.
    edited.edits = vec![[10, 0], [10, 900]];
    edited.n_samples = N_SAMPLES as u32;
    assert_eq!(decode(&edited.file()), first(5, 0));

    let mut tagged = track();
    let text = b" 00000000 00000064 00000050 0000000000000400 00000000";
    let data = [&numbers(&[1, 0])[..], text].concat();
    let name = [&numbers(&[0])[..], b"iTunSMPB"].concat();
    tagged.tags = [mp4_box(b"name", &name), mp4_box(b"data", &data)].concat();
    assert_eq!(decode(&tagged.file()), Ok((wanted(100..100 + 1_024), 0)));
}

#[test]
fn cut_and_damaged_packets_are_lost() {
    let file = track().file();
    let n_last = track().packets.last().unwrap().len();

    // The file ends within the last packet, or with the third one.
    let cut = &file[..file.len() - 1];
    assert_eq!(decode(cut), first(4, 1));
    let n_fourth = track().packets[3].len();
    let cut = &file[..file.len() - n_last - n_fourth];
    assert_eq!(decode(cut), first(3, 2));

    // The second packet begins with an element that does not exist in mono.
    let mut damaged = file.clone();
    let n_first = track().packets[0].len();
    let at = file.len() - track().packets.concat().len() + n_first;
    damaged[at] = 0xFF;
    let (samples, n_lost) = decode(&damaged).unwrap();
    assert_eq!((samples.len(), n_lost), (N_SAMPLES, PACKET_SAMPLES));
    assert_eq!(
        samples[2 * PACKET_SAMPLES..],
        wanted(2 * PACKET_SAMPLES..N_SAMPLES)
    );
    assert!(
        samples[PACKET_SAMPLES..2 * PACKET_SAMPLES]
            .iter()
            .all(|&sample| sample == 0.0)
    );
}

#[test]
fn chunks_outside_of_the_file_become_silence() {
    let track = track();
    let file = track.file();
    let begin = (file.len() - track.packets.concat().len()) as u32;
    let n_chunk = (track.packets[0].len() + track.packets[1].len()) as u32;

    // A damaged size puts its packet and the rest of its chunk outside of the file.
    let mut large = file.clone();
    let at = place(&file, b"stsz", 0) + 16;
    large[at] = 0x40;
    let (samples, n_lost) = decode(&large).unwrap();
    assert_eq!((samples.len(), n_lost), (N_SAMPLES, 2 * PACKET_SAMPLES));

    // The second of three chunks is far behind the end.
    let offsets = [begin, 1 << 30, begin + 2 * n_chunk];
    let index = track.index(&offsets);
    let mut moved = file.clone();
    let at = begin as usize - 8 - index.len();
    moved[at..at + index.len()].copy_from_slice(&index);
    let (samples, n_lost) = decode(&moved).unwrap();
    assert_eq!((samples.len(), n_lost), (N_SAMPLES, 2 * PACKET_SAMPLES));
    assert_eq!(
        samples[4 * PACKET_SAMPLES..],
        wanted(4 * PACKET_SAMPLES..N_SAMPLES)
    );
}

#[test]
fn packets_after_as_many_bytes_as_the_file_has_are_lost() {
    // A damaged size makes the second packet extend over those after it.
    let mut file = track().file();
    let at = place(&file, b"stsz", 0) + 20;
    file[at + 2] |= 8;
    assert_eq!(decode(&file), first(2, 3));

    // In fragments, the packet after the second one still fits.
    let mut file = fragmented();
    let at = place(&file, b"trun", 1) + 16;
    file[at + 2] |= 8;
    assert_eq!(decode(&file), first(3, 2));
}

#[test]
fn recordings_that_begin_too_late_are_rejects() {
    let mut late = track();
    late.edits = vec![[1_000, i32::MAX as u32]];
    assert_eq!(decode(&late.file()).unwrap_err().reason, Reason::TooLarge);
}

/// Returns a file whose index lists no packet, and whose packets are in three fragments. Another track's packet is
/// before them in each fragment; positions in the second track refer to the end of the first one's data.
fn fragmented() -> Vec<u8> {
    let whole = track();
    let other = b"other";
    let trex = |id| mp4_box(b"trex", &numbers(&[0, id, 1, 0, 0, 0]));
    let empty = TestTrack {
        packets: Vec::new(),
        n_samples: 0,
        tags: mp4_box(b"mvex", &[trex(1), trex(2)].concat()),
        ..track()
    };
    let mut file = [mp4_box(b"ftyp", b"M4A \0\0\0\0"), empty.index(&[])].concat();

    let fragments = [
        &whole.packets[..2],
        &whole.packets[2..4],
        &whole.packets[4..],
    ];
    for (number, packets) in (0..).zip(fragments) {
        let sizes: Vec<u32> = packets.iter().map(|packet| packet.len() as u32).collect();
        // The data begin after all boxes of the fragment and the header of their own box.
        let n_before = 8 + 16 + (8 + 16 + 24) + (8 + 16 + 16 + 16 + 4 * sizes.len() as u32) + 8;
        let of_other = [
            mp4_box(b"tfhd", &numbers(&[0, 2])),
            mp4_box(b"trun", &numbers(&[0x201, 1, n_before, other.len() as u32])),
        ];
        let trun = [numbers(&[0x200, sizes.len() as u32]), numbers(&sizes)].concat();
        let time = number * 2 * PACKET_SAMPLES as u32;
        let of_track = [
            mp4_box(b"tfhd", &numbers(&[0, 1])),
            mp4_box(b"tfdt", &numbers(&[0, 9_000 + time])),
            mp4_box(b"trun", &trun),
        ];
        let moof = [
            mp4_box(b"mfhd", &numbers(&[0, number])),
            mp4_box(b"traf", &of_other.concat()),
            mp4_box(b"traf", &of_track.concat()),
        ];
        file.extend(mp4_box(b"moof", &moof.concat()));
        file.extend(mp4_box(b"mdat", &[&other[..], &packets.concat()].concat()));
    }
    file
}

/// Returns the offset of the `n`-th name of a box, from 0.
fn place(file: &[u8], name: &[u8; 4], n: usize) -> usize {
    memchr::memmem::find_iter(file, name).nth(n).unwrap()
}

#[test]
fn fragments_are_decoded_like_tables() {
    let file = fragmented();
    assert_eq!(decode(&file), first(5, 0));

    // The file ends within the last fragment's packet.
    assert_eq!(decode(&file[..file.len() - 1]), first(4, 1));
}

#[test]
fn damaged_fragments_are_lost_and_later_ones_keep_their_time() {
    let file = fragmented();
    let damages = [
        // The second fragment's head, its size, its table, and the box that contains the table.
        (place(&file, b"moof", 1), 0xFF),
        (place(&file, b"moof", 1) - 1, 5),
        (place(&file, b"trun", 3), 0xFF),
        (place(&file, b"traf", 3), 0xFF),
    ];
    for (at, byte) in damages {
        let mut damaged = file.clone();
        damaged[at] = byte;
        let (samples, n_lost) = decode(&damaged).unwrap();
        let place = format!("byte {at}");
        assert_eq!(
            (samples.len(), n_lost),
            (N_SAMPLES, 2 * PACKET_SAMPLES),
            "{place}"
        );
        let last = wanted(4 * PACKET_SAMPLES..N_SAMPLES);
        assert_eq!(samples[4 * PACKET_SAMPLES..], last, "{place}");
    }

    // A time that is far too late is wrong, and nothing is missing.
    let mut late = file.clone();
    let at = place(&file, b"tfdt", 1);
    late[at + 8] = 1;
    assert_eq!(decode(&late), first(5, 0));
}

/// Each fragment ends with the file, so that a reader that follows sizes would read the end of the file again and again.
#[test]
fn nested_fragments_take_linear_time() {
    let mut file = fragmented();
    for _ in 0..20_000 {
        file.extend(b"\0\0\0\0moof\0\0\0\0mfhd");
    }
    file.extend(b"\0\0\0\x08free".repeat(60_000));
    assert_eq!(decode(&file), first(5, 0));
}

#[test]
fn files_without_a_track_that_can_be_decoded_are_rejects() {
    let reason = |track: &TestTrack| decode(&track.file()).unwrap_err().reason;
    let with_entry = |entry: Vec<u8>| TestTrack { entry, ..track() };

    let mut wide = track();
    let at = wide.entry.len() - 24 + 9;
    wide.entry[at] = 9;
    assert_eq!(reason(&wide), Reason::TooLarge);

    let mut long = track();
    let at = long.entry.len() - 24;
    long.entry[at] = 0xFF;
    assert_eq!(reason(&long), Reason::UnsupportedCodec);

    for (entry, wanted) in [
        (mp4_box(b"ac-3", &[0; 40]), Reason::UnsupportedCodec),
        (mp4_box(b"drms", &[0; 40]), Reason::UnsupportedCodec),
        (mp4_box(b"mp4a", &[0; 28]), Reason::Damaged),
        (Vec::new(), Reason::Damaged),
    ] {
        assert_eq!(reason(&with_entry(entry)), wanted);
    }

    let file = track().file();
    assert_eq!(decode(&file[..20]).unwrap_err().reason, Reason::Damaged);
    let at = memchr::memmem::find(&file, b"soun").unwrap();
    let mut video = file.clone();
    video[at..at + 4].copy_from_slice(b"vide");
    assert_eq!(decode(&video).unwrap_err().reason, Reason::NoAudio);
}

/// Tables of a few bytes may list billions of packets, or the same bytes again and again.
#[test]
fn false_tables_take_linear_time() {
    let mut many = track();
    let packet = alac_packet(&[1; 8]);
    many.packets = vec![packet; 2];
    let mut file = many.file();
    let at = memchr::memmem::find(&file, b"stsz").unwrap();
    // All packets have one byte, and there are four billion of them, all in one chunk.
    file[at + 8..at + 16].copy_from_slice(&numbers(&[1, u32::MAX]));
    let at = memchr::memmem::find(&file, b"stsc").unwrap();
    file[at + 16..at + 20].copy_from_slice(&numbers(&[u32::MAX]));
    let outcome = decode(&file);
    assert_eq!(outcome.unwrap_err().reason, Reason::Damaged);
}

/// Reading a track searches the whole index.
#[test]
fn many_wide_tracks_take_linear_time() {
    let mut wide = track();
    let at = wide.entry.len() - 24 + 9;
    wide.entry[at] = 9;

    // The packets precede the index, so their positions do not depend on its size.
    let ftyp = mp4_box(b"ftyp", b"M4A \0\0\0\0");
    let mdat = mp4_box(b"mdat", &track().packets.concat());
    let begin = ftyp.len() as u32 + 8;
    let n_chunk = 2 * track().packets[0].len() as u32;
    let offsets = [begin, begin + n_chunk, begin + 2 * n_chunk];
    let trak = |track: &TestTrack| {
        let index = track.index(&offsets);
        index[place(&index, b"trak", 0) - 4..].to_vec()
    };

    let mvhd = mp4_box(b"mvhd", &numbers(&[0, 0, 0, 1_000, 0]));
    let traks = [mvhd, trak(&wide).repeat(20_000), trak(&track())];
    let file = [ftyp, mdat, mp4_box(b"moov", &traks.concat())].concat();
    assert_eq!(decode(&file), first(5, 0));
}

/// A run of a few bytes may list billions of packets, too.
#[test]
fn false_runs_take_linear_time() {
    let mut file = fragmented();
    // Packets have no bytes, because the track's defaults do not state their size.
    let trun = mp4_box(b"trun", &numbers(&[0, u32::MAX]));
    let traf = [mp4_box(b"tfhd", &numbers(&[0, 1])), trun.repeat(1_000)];
    let moof = [
        mp4_box(b"mfhd", &numbers(&[0, 9])),
        mp4_box(b"traf", &traf.concat()),
    ];
    file.extend(mp4_box(b"moof", &moof.concat()));
    // So many packets are not credible, and only those before count.
    assert_eq!(decode(&file).unwrap(), decode(&fragmented()).unwrap());
}
