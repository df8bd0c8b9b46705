//! Tests with Ogg files made page by page: decoded samples, lost samples, and refused headers.

use wavemill_schemas::reject::{Reason, Reject};

use super::super::{Channels, InputFacts, Pcm};
use super::granules::{Density, LossBudget};
use super::headers::Ident;
use super::pages::checksum;
use super::setup;
use crate::testing;
use crate::testing::flac::{frame, head};
use crate::testing::ogg::{
    BitWriter, CONTINUED, FIRST, LAST, Page, Setup, book, bytes, floor1, ident, packet_page,
};

const RATE_HZ: u32 = 44_100;
/// Number of samples that a packet with a long block adds after another such packet.
const PACKET_SAMPLES: usize = 1_024;
/// A silent Vorbis packet with a long block.
const LONG: &[u8] = &[2];

/// Creates the two Ogg pages of Vorbis headers.
fn headers(rate_hz: u32, setup: &[u8]) -> Vec<Page> {
    let comment = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";
    vec![
        packet_page(FIRST, 0, 0, &[&ident(1, rate_hz)]),
        packet_page(0, 0, 1, &[comment, setup]),
    ]
}

/// Creates an Ogg stream with `n_pages` pages of ten long packets each. The first packet adds no samples.
fn stream(n_pages: u32) -> Vec<Page> {
    let mut pages = headers(RATE_HZ, &Setup::default().bytes());
    for number in 1..=n_pages {
        let granule = i64::from(number * 10 - 1) * PACKET_SAMPLES as i64;
        let flags = if number == n_pages { LAST } else { 0 };
        pages.push(packet_page(flags, granule, number + 1, &[LONG; 10]));
    }
    pages
}

/// Decodes an Ogg file and returns the number of decoded samples and of lost samples.
fn decode(file: &[u8]) -> Result<(usize, usize), Reject> {
    let mut out = Pcm::default();
    testing::decode(file, RATE_HZ, &mut out)?;
    Ok((out.samples.len(), testing::n_lost(&out, RATE_HZ)))
}

fn decoded(pages: &[Page]) -> (usize, usize) {
    decode(&bytes(pages)).unwrap()
}

fn reason(file: &[u8]) -> Reason {
    decode(file).unwrap_err().reason
}

#[test]
fn a_whole_stream_is_decoded_and_trimmed_by_its_last_granule() {
    assert_eq!(decoded(&stream(3)), (29 * PACKET_SAMPLES, 0));

    let mut trimmed = stream(3);
    trimmed[4].granule -= 1_500;
    assert_eq!(decoded(&trimmed), (29 * PACKET_SAMPLES - 1_500, 0));

    // With a single page of audio, the page's granule is the length of the audio.
    let mut single = stream(1);
    single[2].granule = 5_000;
    assert_eq!(decoded(&single), (5_000, 0));

    // A stream that was cut from a longer one has a late first granule and has lost no audio.
    let mut late = stream(3);
    late.iter_mut()
        .skip(2)
        .for_each(|page| page.granule += 1_000_000);
    assert_eq!(decoded(&late), (29 * PACKET_SAMPLES, 0));
}

#[test]
fn missing_pages_become_silence_of_their_length() {
    let mut pages = stream(5);
    pages.remove(4);
    assert_eq!(decoded(&pages), (49 * PACKET_SAMPLES, 11 * PACKET_SAMPLES));

    // Nothing replaces a page missing at the start. The first packet after the page adds no samples either.
    let mut pages = stream(5);
    pages.remove(2);
    assert_eq!(decoded(&pages), (39 * PACKET_SAMPLES, 10 * PACKET_SAMPLES));

    // If page numbers jump but granules do not, no audio is missing.
    let mut pages = stream(5);
    pages.iter_mut().skip(4).for_each(|page| page.sequence += 3);
    assert_eq!(decoded(&pages), (49 * PACKET_SAMPLES, 0));
}

#[test]
fn stream_joined_late_has_no_loss_at_the_start() {
    let mut pages = stream(5);
    for page in pages.iter_mut().skip(2) {
        page.sequence += 5_000;
        page.granule += 100_000;
    }
    assert_eq!(decoded(&pages), (49 * PACKET_SAMPLES, 0));
}

#[test]
fn damaged_pages_become_silence_and_trailing_ones_are_lost() {
    let pages = stream(5);
    for number in [3, 4, 5] {
        let mut file = bytes(&pages);
        let at = bytes(&pages[..number]).len();
        file[at + 40] ^= 1;
        assert_eq!(
            decode(&file).unwrap(),
            (49 * PACKET_SAMPLES, 11 * PACKET_SAMPLES),
            "page {number}"
        );
    }

    // The header of the damaged last page states the audio's length. A header with too large a length is ignored.
    let at = bytes(&pages[..6]).len();
    let mut file = bytes(&pages);
    file[at + 40] ^= 1;
    assert_eq!(
        decode(&file).unwrap(),
        (39 * PACKET_SAMPLES, 10 * PACKET_SAMPLES)
    );
    file[at + 10] = 1;
    let (n_samples, n_lost) = decode(&file).unwrap();
    assert!(
        n_samples == 39 * PACKET_SAMPLES && n_lost > 0 && n_lost < 80 * PACKET_SAMPLES,
        "{n_lost} lost"
    );
}

#[test]
fn granules_beyond_the_file_size_are_ignored() {
    for granule in [i64::MAX, i64::MIN, -1, 1 << 40, 100_000_000] {
        for number in 2..7 {
            let mut pages = stream(5);
            pages[number].granule = granule;

            assert_eq!(
                decoded(&pages),
                (49 * PACKET_SAMPLES, 0),
                "{granule} on page {number}"
            );
        }
    }
}

#[test]
fn packets_span_pages_and_torn_packets_are_lost() {
    let long = [LONG, &[0; 1_019]].concat();
    let mut pages = stream(3);
    pages[2].packets.push(long[..510].to_vec());
    pages[2].is_open = true;
    pages[3].packets.insert(0, long[510..].to_vec());
    pages[3].flags = CONTINUED;
    pages[3].granule += PACKET_SAMPLES as i64;
    pages[4].granule += PACKET_SAMPLES as i64;

    assert_eq!(decoded(&pages), (30 * PACKET_SAMPLES, 0));

    // The end of the long packet is missing. Lost are the long packet and the next one, which overlaps with it.
    pages[3].flags = 0;
    pages[3].packets.remove(0);
    assert_eq!(decoded(&pages), (30 * PACKET_SAMPLES, 2 * PACKET_SAMPLES));

    // The file ends within the long packet, which is lost.
    assert_eq!(decoded(&pages[..3]), (9 * PACKET_SAMPLES, PACKET_SAMPLES));
}

#[test]
fn chained_streams_are_decoded_one_after_the_other() {
    let first = stream(3);
    let mut second = stream(2);
    let both = [bytes(&first), bytes(&second)].concat();
    assert_eq!(decode(&both).unwrap(), (48 * PACKET_SAMPLES, 0));

    // A link with two channels is also decoded, and so is a link with another rate.
    second[0].packets[0] = ident(2, RATE_HZ).to_vec();
    let both = [bytes(&first), bytes(&second)].concat();
    assert_eq!(decode(&both).unwrap(), (48 * PACKET_SAMPLES, 0));
    second[0].packets[0] = ident(1, RATE_HZ / 2).to_vec();
    let both = [bytes(&first), bytes(&second)].concat();
    assert_eq!(decode(&both).unwrap(), ((29 + 2 * 19) * PACKET_SAMPLES, 0));

    // If a link's set-up header is broken, the granules state the length of the link.
    second[0].packets[0] = ident(1, RATE_HZ).to_vec();
    second[1].packets[1][20] ^= 1;
    let both = [bytes(&first), bytes(&second)].concat();
    assert_eq!(
        decode(&both).unwrap(),
        (48 * PACKET_SAMPLES, 19 * PACKET_SAMPLES)
    );

    // If the first page is damaged, the rest of the link is unknown. The loss is estimated from the link's bytes.
    let mut both = [bytes(&first), bytes(&stream(2))].concat();
    both[bytes(&first).len() + 40] ^= 1;
    let (n_samples, n_lost) = decode(&both).unwrap();
    assert!(
        n_samples == 29 * PACKET_SAMPLES && n_lost > 19 * PACKET_SAMPLES,
        "{n_lost} lost"
    );
}

#[test]
fn vorbis_is_selected_among_parallel_streams() {
    let mut video = vec![
        packet_page(FIRST, 0, 0, &[b"\x80theora......"]),
        packet_page(0, 0, 1, &[&[0x81; 900]]),
    ];
    video.push(packet_page(LAST, 99, 2, &[&[0x55; 5_000]]));
    video.iter_mut().for_each(|page| page.serial = 3);
    let audio = stream(3);
    let mut both = vec![video[0].clone(), audio[0].clone(), video[1].clone()];
    both.extend_from_slice(&audio[1..]);
    both.push(video[2].clone());
    assert_eq!(decoded(&both), (29 * PACKET_SAMPLES, 0));

    assert_eq!(reason(&bytes(&video)), Reason::UnsupportedCodec);
    assert_eq!(reason(&bytes(&stream(3)[1..])), Reason::NotAudio);
    assert_eq!(reason(b"OggS and nothing more"), Reason::NotAudio);
}

#[test]
fn rejects_name_the_codec_of_streams_that_are_not_decoded() {
    // Write a STREAMINFO block, a comment, and frames, as a FLAC encoder stores them in Ogg.
    let flac = [
        packet_page(
            FIRST,
            0,
            0,
            &[&[b"\x7FFLAC\x01\0\0\x01", &head(0)[..]].concat()],
        ),
        packet_page(0, 0, 1, &[&[0x84, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]]),
        packet_page(LAST, 1_152, 2, &[&frame(0), &frame(1)]),
    ];
    let speex = packet_page(FIRST, 0, 0, &[b"Speex   1.2"]);
    let video = packet_page(FIRST, 0, 0, &[b"\x80theora......"]);

    for (file, detail) in [
        (bytes(&flac), "FLAC in Ogg is not decoded"),
        (bytes(&[speex]), "Speex in Ogg is not decoded"),
        (bytes(&[video]), "no audio track of a known codec"),
    ] {
        let reject = decode(&file).unwrap_err();
        assert_eq!(
            (reject.reason, &reject.detail[..]),
            (Reason::UnsupportedCodec, detail)
        );
        assert_eq!(InputFacts::read(&file), InputFacts::default());
    }
}

#[test]
fn hole_before_a_page_without_granule_counts_once() {
    // Page 4 is missing. On page 5 a packet continues, but no packet ends.
    let mut pages = stream(6);
    pages.remove(4);
    pages[4].packets = vec![[LONG, &[0; 254]].concat()];
    pages[4].is_open = true;
    pages[4].granule = -1;
    pages[5].flags = CONTINUED;
    pages[5].packets[0] = vec![0; 10];

    let total = 59 * PACKET_SAMPLES;
    // Lost are the packets of two pages, and the packet that overlaps with them.
    assert_eq!(decoded(&pages), (total, 21 * PACKET_SAMPLES));
}

#[test]
fn foreign_bytes_around_pages_are_not_lost_audio() {
    let pages = stream(3);
    let file = [
        bytes(&pages[..4]),
        b"OggS foreign bytes".to_vec(),
        bytes(&pages[4..]),
        b"TAG".repeat(40),
    ]
    .concat();
    assert_eq!(decode(&file).unwrap(), (29 * PACKET_SAMPLES, 0));
}

#[test]
fn nested_headers_take_linear_time() {
    // Each of these headers begins a page that claims the following 65,025 bytes, and none of the pages is valid.
    let mut head = b"OggS\0\0".to_vec();
    head.resize(26, 0xFF);
    head.push(0xFF);

    let mut file = bytes(&stream(1));
    file.extend(head.repeat(100_000));

    let start = std::time::Instant::now();
    decode(&file).unwrap();

    // Checksums over 2.7 MB take milliseconds; over the square of that number of bytes they would take hours.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Returns the reason why a set-up header is refused, if it is.
fn refused(setup: &Setup) -> Option<Reason> {
    let ident = Ident::parse(&ident(1, RATE_HZ)).unwrap();
    let reason = setup::parse(&setup.bytes(), &ident)
        .err()
        .map(|reject| reject.reason);

    // Decoding a file with this header is refused for the same reason, without a panic.
    let mut pages = stream(1);
    pages[1].packets[1] = setup.bytes();
    assert_eq!(
        decode(&bytes(&pages)).err().map(|reject| reject.reason),
        reason
    );
    reason
}

/// Creates a Vorbis code book, but only the fields before the lengths of its code words.
fn book_of(n_dimensions: u64, n_entries: u64) -> BitWriter {
    let mut bits = BitWriter::default();
    bits.write_all([(0x56_4342, 24), (n_dimensions, 16), (n_entries, 24)]);
    bits
}

fn with_book(book: BitWriter) -> Setup {
    let mut setup = Setup::default();
    setup.books.push(book);
    setup
}

fn with_books(books: Vec<BitWriter>) -> Setup {
    Setup {
        books,
        ..Setup::default()
    }
}

fn with_floor(floor: BitWriter) -> Setup {
    Setup {
        floor,
        ..Setup::default()
    }
}

#[test]
fn code_books_that_are_not_trees_are_rejected() {
    assert_eq!(refused(&Setup::default()), None);
    assert_eq!(refused(&with_book(book(true))), None);

    // Code books with too many code words, with too few, and with a word longer than 32 bits in an ordered list.
    let mut many = book_of(1, 3);
    many.write_all([(0, 2), (0, 15), (0, 4)]);
    assert_eq!(refused(&with_book(many)), Some(Reason::Damaged));

    let mut few = book_of(1, 2);
    few.write_all([(0, 2), (1, 10), (0, 4)]);
    assert_eq!(refused(&with_book(few)), Some(Reason::Damaged));

    let mut long = book_of(1, 2);
    long.write_all([(1, 1), (31, 5), (0, 2), (2, 2), (0, 4)]);
    assert_eq!(refused(&with_book(long)), Some(Reason::Damaged));

    // A book with one entry of one bit is also valid. A book without entries is allowed if it is never used.
    let mut single = book_of(1, 1);
    single.write_all([(0, 2), (0, 5), (0, 4)]);
    assert_eq!(refused(&with_book(single.clone())), None);

    let mut empty = book_of(1, 4);
    empty.write_all([(2, 2), (0, 4), (0, 4)]);
    assert_eq!(refused(&with_book(empty.clone())), None);

    assert_eq!(
        refused(&with_books(vec![empty, book(true)])),
        Some(Reason::Damaged)
    );

    // Both books have no vectors, but the residue needs some.
    assert_eq!(
        refused(&with_books(vec![book(false), book(false)])),
        Some(Reason::Damaged)
    );
    assert_eq!(refused(&with_book(book_of(0, 2))), Some(Reason::Damaged));
}

/// Returns why a stream of `n_channels` is refused whose residue has the type `kind`, with the classes of `group_size`
/// partitions of four in a code word, and with these couplings and numbers of submaps.
fn channels_refused(
    n_channels: u8,
    (kind, group_size): (u64, u64),
    couplings: &[[u64; 2]],
    submap_of: &[u64],
) -> Option<Reason> {
    let mut classes = book_of(group_size, 2);
    classes.write_all([(0, 2), (0, 5), (0, 5), (0, 4)]);
    let mut setup = with_book(classes);

    setup.residue = BitWriter::default();
    setup.residue.write_all([(kind, 16), (0, 24), (128, 24)]);
    setup.residue.write_all([(31, 24), (0, 6), (2, 8)]);
    setup.residue.write_all([(1, 3), (0, 1), (1, 8)]);

    let n_submaps = submap_of.iter().max().map_or(1, |last| last + 1);
    setup.mapping = BitWriter::default();
    let mapping = setup.mapping.write(0, 16);
    match n_submaps {
        1 => mapping.write(0, 1),
        _ => mapping.write(1, 1).write(n_submaps - 1, 4),
    };
    mapping.write(u64::from(!couplings.is_empty()), 1);
    if !couplings.is_empty() {
        mapping.write(couplings.len() as u64 - 1, 8);
    }
    for channel in couplings.as_flattened() {
        mapping.write(*channel, setup::ilog(u32::from(n_channels) - 1));
    }
    mapping.write(0, 2);
    for submap in submap_of {
        mapping.write(*submap, 4);
    }
    for _ in 0..n_submaps {
        mapping.write(0, 24);
    }

    let ident = Ident::parse(&ident(n_channels, RATE_HZ)).unwrap();
    let reject = setup::parse(&setup.bytes(), &ident).err();
    reject.map(|reject| reject.reason)
}

/// Reads symphonia 0.6.1's code: what it would decode to other samples is refused.
#[test]
fn channels_that_symphonia_mistakes_are_rejects() {
    let refused = Some(Reason::UnsupportedCodec);
    for kind in [0, 1] {
        assert_eq!(channels_refused(1, (kind, 3), &[], &[]), None);
        assert_eq!(channels_refused(2, (kind, 2), &[], &[]), None);
        assert_eq!(channels_refused(2, (kind, 3), &[], &[]), refused);
        assert_eq!(channels_refused(2, (kind, 3), &[], &[0, 1]), None);
    }
    assert_eq!(channels_refused(2, (2, 3), &[[0, 1]], &[]), None);
    assert_eq!(channels_refused(4, (2, 1), &[[0, 1], [3, 2]], &[]), None);
    assert_eq!(channels_refused(3, (2, 1), &[[0, 1], [0, 2]], &[]), refused);
    assert_eq!(channels_refused(3, (2, 1), &[], &[0, 0, 1]), None);
    assert_eq!(channels_refused(3, (2, 1), &[], &[0, 1, 1]), refused);
}

#[test]
fn oversized_code_books_are_too_large() {
    assert_eq!(refused(&with_book(book_of(33, 2))), Some(Reason::TooLarge));
    assert_eq!(
        refused(&with_book(book_of(1, 1 << 18))),
        Some(Reason::TooLarge)
    );

    // A header of a few bytes with 2^17 entries of 17 bits, each a vector of 31 values: 16 MB of memory for a book.
    let mut vectors = book_of(31, 1 << 17);
    vectors.write_all([
        (1, 1),
        (16, 5),
        (1 << 17, 18),
        (1, 4),
        (0, 64),
        (0, 4),
        (0, 1),
        (0, 1),
    ]);
    let mut setup = with_book(vectors.clone());
    setup.books.extend([vectors.clone(), vectors]);
    assert_eq!(refused(&setup), Some(Reason::TooLarge));

    assert_eq!(
        refused(&with_books(vec![book(true); 256])),
        Some(Reason::TooLarge)
    );
    assert_eq!(refused(&with_books(vec![book(true); 255])), None);
}

#[test]
fn lattices_with_wrong_root_in_symphonia_are_rejected() {
    // Numbers of entries that are a power of the number of values, and one less. Headers that are refused made
    // symphonia panic or read on at the wrong position.
    for n_dimensions in 1..=16_u32 {
        for side in 2..=64_u64 {
            let Some(power) = side
                .checked_pow(n_dimensions)
                .filter(|&power| power <= 4_096)
            else {
                break;
            };

            for n_entries in [power, power - 1] {
                if n_entries < 2 {
                    continue;
                }

                let is_power = n_entries == power;
                let n_values = if is_power { side } else { side - 1 };

                let mut book = book_of(u64::from(n_dimensions), n_entries);
                // Write a sparse list with two code words.
                book.write_all([(2, 2), (1, 1), (0, 5), (1, 1), (0, 5)]);
                for _ in 2..n_entries {
                    book.write(0, 1);
                }

                book.write_all([(1, 4), (0, 64), (0, 4), (0, 1)]);
                for _ in 0..n_values {
                    book.write(0, 1);
                }

                let refused = refused(&with_book(book));
                assert!(
                    matches!(refused, None | Some(Reason::UnsupportedCodec)),
                    "{n_entries}, {n_dimensions}: {refused:?}"
                );
            }
        }
    }
}

#[test]
fn checksum_matches_the_definition() {
    // A fixed page header, in which the checksum takes four bytes at offset 22, and up to 73 bytes after the header.
    let page: Vec<u8> = (0..100_u32).map(|i| (i * i + 7) as u8).collect();

    for n_bytes in 27..=page.len() {
        let mut want = 0_u32;
        for (at, &byte) in page[..n_bytes].iter().enumerate() {
            want ^= if (22..26).contains(&at) {
                0
            } else {
                u32::from(byte) << 24
            };
            for _ in 0..8 {
                want = want << 1 ^ if want >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
            }
        }
        assert_eq!(checksum(&page[..n_bytes]), want, "{n_bytes} bytes");
    }
}

#[test]
fn ilog_returns_the_number_of_bits() {
    let numbers = [0, 1, 7, 8, u32::MAX];
    assert_eq!(numbers.map(setup::ilog), [0, 1, 3, 4, 32]);
}

#[test]
fn floors_that_divide_by_zero_are_rejected() {
    assert_eq!(refused(&with_floor(floor1(&[1, 127]))), None);
    for points in [[20, 20], [0, 20]] {
        assert_eq!(
            refused(&with_floor(floor1(&points))),
            Some(Reason::Damaged),
            "{points:?}"
        );
    }

    // A floor with more than 65 points: nine partitions of class 0 with 8 points each.
    let mut many = BitWriter::default();
    many.write_all([
        (1, 16),
        (9, 5),
        (0, 36),
        (7, 3),
        (0, 2),
        (1, 8),
        (0, 2),
        (10, 4),
    ]);
    for point in 1..=72 {
        many.write(point, 10);
    }
    assert_eq!(refused(&with_floor(many)), Some(Reason::Damaged));

    // A floor with the number of a code book that does not exist.
    let mut other = BitWriter::default();
    other.write_all([
        (1, 16),
        (1, 5),
        (0, 4),
        (0, 3),
        (0, 2),
        (9, 8),
        (0, 2),
        (7, 4),
        (3, 7),
    ]);
    assert_eq!(refused(&with_floor(other)), Some(Reason::Damaged));
}

fn with_floor0(order: u64, n_books: u64) -> Setup {
    let mut bits = BitWriter::default();
    bits.write_all([
        (0, 16),
        (order, 8),
        (44_100, 16),
        (64, 16),
        (6, 6),
        (100, 8),
        (n_books - 1, 4),
    ]);
    for _ in 0..n_books {
        bits.write(1, 8);
    }

    with_floor(bits)
}

#[test]
fn floors_of_type_0_may_have_15_books() {
    assert_eq!(refused(&with_floor0(8, 15)), None);
    assert_eq!(refused(&with_floor0(8, 16)), Some(Reason::UnsupportedCodec));
    assert_eq!(refused(&with_floor0(0, 1)), Some(Reason::Damaged));
}

#[test]
fn truncated_or_flipped_headers_never_panic() {
    let good = Setup::default().bytes();
    let ident = Ident::parse(&ident(1, RATE_HZ)).unwrap();
    for n_bytes in 7..good.len() {
        assert!(
            setup::parse(&good[..n_bytes], &ident).is_err(),
            "{n_bytes} bytes"
        );
    }

    let packets: Vec<Vec<u8>> = (0..=255)
        .map(|first| vec![first, 0x5A, 0xA5, 0xFF, 0x0F, 0x33])
        .collect();
    for bit in 7 * 8..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut pages = stream(1);
        pages[1].packets[1] = flipped;
        pages[2].packets = packets[..200].to_vec();
        let _ = decode(&bytes(&pages));
    }
}

#[test]
fn estimates_are_limited_by_the_loss_budget() {
    // A tenth of the file's bytes held 1,000 samples, so the file holds 10,000, and up to 90,000 may be missing.
    let file_bytes = 5_000;
    let mut heard = Density::default();
    heard.add(1_000, &[&[0; 500]]);
    let mut room = LossBudget::new(file_bytes);
    room.measure(&heard);

    assert_eq!(room.take_most(50_000, 4_096), 50_000);
    assert_eq!(room.take_most(50_000, 4_096), 40_000);
    assert_eq!(room.take_most(1, 4_096), 0);
}

#[test]
fn loss_of_a_link_without_headers_is_limited_by_file_size() {
    // Packets of two bytes without a set-up header. Each could have 4,096 samples if its block were long.
    let mut headless = stream(1);
    headless[0].packets[0][28] = 0xDD;
    headless[1].packets.truncate(1);

    let mut pages = vec![headless[0].clone(), headless[1].clone()];
    for number in 0..40 {
        let granule = i64::from(number + 1) * 200 * 4_096;
        pages.push(packet_page(0, granule, number + 2, &[LONG; 200]));
    }

    // Make the packets of the decoded link long: a hundred bytes each for a quarter of the samples.
    let mut sound = stream(3);
    for packet in sound.iter_mut().skip(2).flat_map(|page| &mut page.packets) {
        packet.resize(100, 0);
    }

    let file = [bytes(&pages), bytes(&sound)].concat();
    let (n_samples, n_lost) = decode(&file).unwrap();

    let file_samples = 29 * PACKET_SAMPLES * file.len() / (30 * 100);
    assert_eq!(n_samples, 29 * PACKET_SAMPLES);
    assert!(
        n_lost > 0 && n_lost <= 9 * file_samples + 1,
        "{n_lost} lost, at most {}",
        9 * file_samples
    );
}

#[test]
fn chained_stream_of_another_codec_is_lost_and_hashed() {
    let alone = bytes(&stream(3));
    let mut speex = stream(3);
    for page in &mut speex {
        page.serial = 9;
    }
    speex[0].packets = vec![b"Speex   ".to_vec()];
    let chained = [alone.clone(), bytes(&speex)].concat();

    let (n_samples, n_lost) = decode(&chained).unwrap();
    assert_eq!(n_samples, 29 * PACKET_SAMPLES);
    assert!(
        n_lost > 29 * PACKET_SAMPLES && n_lost <= 9 * (29 + 60) * PACKET_SAMPLES,
        "{n_lost} lost"
    );
    let [first, second] = [&chained, &alone].map(|file| InputFacts::read(file));
    assert_ne!(first.audio, second.audio);
}

#[test]
fn link_with_unsupported_rate_adds_no_long_loss() {
    let mut slow = stream(3);
    slow[0].packets[0][12..16].copy_from_slice(&1_u32.to_le_bytes());
    slow.iter_mut().for_each(|page| page.serial = 9);

    let (n_samples, n_lost) = decode(&[bytes(&stream(3)), bytes(&slow)].concat()).unwrap();

    // The total length of the packets in seconds at 8 kHz, the lowest supported rate.
    let expected = (29 * PACKET_SAMPLES) as f64 * 44_100.0 / 8_000.0;
    assert!(
        (n_lost as f64 - expected).abs() < 2.0,
        "{n_lost} lost, {expected} are"
    );
    assert!(n_samples <= 29 * PACKET_SAMPLES + expected as usize + 1);
}

/// Returns the pages of a stream of Opus with three packets of 20 ms per page.
fn opus_stream(n_pages: u32, pre_skip: u8, gain: i8) -> Vec<Page> {
    let mut head = b"OpusHead\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    head[10] = pre_skip;
    head[17] = gain as u8;
    let mut pages = vec![
        packet_page(FIRST, 0, 0, &[&head]),
        packet_page(0, 0, 1, &[b"OpusTags"]),
    ];
    for number in 0..n_pages {
        let packet = |at: u32| [&[0xF8][..], &(number * 97 + at).to_be_bytes().repeat(15)].concat();
        let packets = [packet(0), packet(1), packet(2)];
        let packets = [&packets[0][..], &packets[1], &packets[2]];
        let granule = i64::from(number + 1) * OPUS_PAGE_SAMPLES as i64;
        pages.push(packet_page(0, granule, number + 2, &packets));
    }
    pages
}

/// Number of samples on a page of the test streams of Opus.
const OPUS_PAGE_SAMPLES: usize = 3 * 960;

/// Returns the samples at 48 kHz and the number of lost samples.
fn decode_opus(pages: &[Page]) -> (Vec<f32>, usize) {
    let mut out = Pcm::default();
    testing::decode(&bytes(pages), 48_000, &mut out).unwrap();
    let n_lost = testing::n_lost(&out, 48_000);
    (out.samples.to_vec(), n_lost)
}

#[test]
fn opus_begins_after_its_pre_skip_and_ends_at_its_granule() {
    let (whole, n_lost) = decode_opus(&opus_stream(4, 0, 0));
    assert_eq!((whole.len(), n_lost), (4 * OPUS_PAGE_SAMPLES, 0));
    assert!(whole.iter().any(|&sample| sample.abs() > 0.001));

    let mut trimmed = opus_stream(4, 200, 0);
    trimmed[5].granule -= 500;
    trimmed[5].flags = LAST;
    let (samples, n_lost) = decode_opus(&trimmed);
    assert_eq!(n_lost, 0);
    assert_eq!(samples, whole[200..4 * OPUS_PAGE_SAMPLES - 500]);

    // A gain of 6 · 256 / 256 dB, which is not exactly a factor of two.
    let (louder, _) = decode_opus(&opus_stream(4, 0, 6));
    let factor = 10_f32.powf(6.0 / 20.0);
    let pairs = whole.iter().zip(&louder);
    assert!(
        pairs
            .into_iter()
            .all(|(one, two)| (one * factor - two).abs() < 1e-5)
    );
}

#[test]
fn missing_and_broken_packets_of_opus_are_lost() {
    let mut pages = opus_stream(6, 0, 0);
    pages.remove(4);
    let (samples, n_lost) = decode_opus(&pages);
    assert_eq!(
        (samples.len(), n_lost),
        (6 * OPUS_PAGE_SAMPLES, OPUS_PAGE_SAMPLES)
    );
    let silent = &samples[2 * OPUS_PAGE_SAMPLES..3 * OPUS_PAGE_SAMPLES];
    assert!(silent.iter().all(|&sample| sample == 0.0));

    // The second packet announces two frames of equal size and has an odd number of bytes, so it cannot be decoded.
    let mut pages = opus_stream(6, 0, 0);
    pages[3].packets[1] = vec![0xF0 | 1, 0, 0, 0];
    let (samples, n_lost) = decode_opus(&pages);
    assert_eq!((samples.len(), n_lost), (6 * OPUS_PAGE_SAMPLES, 960));
}

#[test]
fn links_of_opus_and_vorbis_follow_each_other_at_one_rate() {
    let mut second = opus_stream(2, 100, 0);
    second.iter_mut().for_each(|page| page.serial = 9);
    let (first, _) = decode_opus(&opus_stream(3, 0, 0));
    let (samples, n_lost) = decode_opus(&[opus_stream(3, 0, 0), second].concat());
    assert_eq!((samples.len(), n_lost), (5 * OPUS_PAGE_SAMPLES - 100, 0));
    assert_eq!(samples[..first.len()], first);
}

/// Every stream of a packet is the packet of the mono file, so the mean of the channels equals that file.
#[test]
fn opus_of_several_streams_is_decoded_to_the_mean() {
    let mono = opus_stream(3, 100, 0);
    let (wanted, _) = decode_opus(&mono);
    for (family, n_channels) in [(255, 2_u8), (1, 3), (1, 6), (1, 8), (255, 8)] {
        let mut pages = mono.clone();
        let head = &mut pages[0].packets[0];
        (head[9], head[18]) = (n_channels, family);
        head.extend([n_channels, 0]);
        head.extend(0..n_channels);
        for page in &mut pages[2..] {
            for packet in &mut page.packets {
                // All streams except the last one state their size after the first byte (RFC 6716 appendix B).
                let size = packet.len() as u8 - 1;
                let stream = [&[packet[0], size], &packet[1..]].concat();
                let streams = stream.repeat(usize::from(n_channels) - 1);
                packet.splice(0..0, streams);
            }
        }

        assert!(decode_opus(&pages) == (wanted.clone(), 0), "{n_channels}");
        // A channel of the mapping may be silent.
        pages[0].packets[0][21] = 255;
        let (samples, _) = decode_opus(&pages);
        let part = f32::from(n_channels - 1) / f32::from(n_channels);
        for (sample, wanted) in samples.iter().zip(&wanted) {
            assert!((sample - wanted * part).abs() < 1e-6, "{sample}, {wanted}");
        }
    }
}

#[test]
fn vorbis_of_up_to_eight_channels_is_decoded() {
    let mut wide = stream(3);
    for n_channels in [3, 8] {
        wide[0].packets[0] = ident(n_channels, RATE_HZ).to_vec();
        let file = bytes(&wide);
        assert_eq!(decode(&file).unwrap(), (29 * PACKET_SAMPLES, 0));
        let channels = Channels::decode(&file, None).unwrap();
        assert_eq!(channels.planes.len(), usize::from(n_channels));
    }

    wide[0].packets[0] = ident(9, RATE_HZ).to_vec();
    assert_eq!(reason(&bytes(&wide)), Reason::TooLarge);
}

/// The mean of the channels is always the clip: parts with fewer channels have their mean in each.
#[test]
fn links_with_other_channels_keep_their_mean() {
    let wide = {
        let mut pages = opus_stream(2, 0, 0);
        let head = &mut pages[0].packets[0];
        (head[9], head[18]) = (4, 255);
        head.extend([1, 0, 0, 0, 0, 255]);
        pages.iter_mut().for_each(|page| page.serial = 9);
        pages
    };
    let narrow = opus_stream(1, 0, 0);
    for links in [[narrow.clone(), wide.clone()], [wide, narrow]] {
        let pages = links.concat();
        let channels = Channels::decode(&bytes(&pages), None).unwrap();
        let planes = &channels.planes;
        assert_eq!(planes.len(), 4);
        let (mono, _) = decode_opus(&pages);
        for (at, sample) in mono.iter().enumerate() {
            let mean = planes.iter().map(|plane| plane[at]).sum::<f32>() / 4.0;
            assert_eq!(mean, *sample);
        }
    }
}
