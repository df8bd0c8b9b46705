//! Finds the frames of an MP3 file and their main data, as far as these tests need
//! them.

use wavemill_decode::layer3::{
    FRAME_SAMPLES, FrameDecoder, FrameError, FrameHeader, MainData, SideInfo, Version,
};

/// Size of a frame header in bytes.
pub(crate) const HEADER_BYTES: usize = 4;
/// Bit rates in kbit/s of MPEG-1 and of MPEG-2, by the index in the frame header.
const KBPS: [[usize; 16]; 2] = [
    [
        0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0,
    ],
    [
        0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0,
    ],
];

/// A complete MP3 frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub header: FrameHeader,
    pub rate_hz: usize,
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the side info and the bytes after it, or fewer bytes if the frame is too short.
    pub(crate) fn side_and_main(&self) -> (&'a [u8], &'a [u8]) {
        let has_crc = self.bytes[1] & 1 == 0;
        let start = HEADER_BYTES + if has_crc { 2 } else { 0 };
        let rest = &self.bytes[start..];
        rest.split_at(rest.len().min(self.header.side_info_bytes()))
    }
}

/// Returns the frames of a file without free-format frames. A frame counts only if another one, or the end of the file,
/// follows it.
pub(crate) fn frames(file: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= file.len() {
        let Some((header, rate_hz, n_bytes)) = parse(&file[at..]) else {
            at += 1;
            continue;
        };

        let end = at + n_bytes;
        let is_followed =
            end == file.len() || file.get(end..).is_some_and(|rest| parse(rest).is_some());
        if !is_followed {
            at += 1;
            continue;
        }

        frames.push(Frame {
            header,
            rate_hz,
            bytes: &file[at..end],
        });
        at = end;
    }

    frames
}

fn parse(bytes: &[u8]) -> Option<(FrameHeader, usize, usize)> {
    let head: [u8; HEADER_BYTES] = *bytes.first_chunk()?;
    let header = FrameHeader::parse(head)?;
    let is_mpeg1 = header.version == Version::Mpeg1;
    let kbps = KBPS[usize::from(!is_mpeg1)][usize::from(head[2] >> 4)];

    let shift = match header.version {
        Version::Mpeg1 => 0,
        Version::Mpeg2 => 1,
        Version::Mpeg25 => 2,
    };
    let rate_hz = [44_100, 48_000, 32_000][usize::from(head[2] >> 2 & 3)] >> shift;

    let slots = if is_mpeg1 { 144 } else { 72 };
    let n_bytes = slots * kbps * 1_000 / rate_hz + usize::from(head[2] >> 1 & 1);

    (kbps > 0).then_some((header, rate_hz, n_bytes))
}

/// The bit reservoir: bytes of main data that later frames may refer back to.
#[derive(Default)]
pub(crate) struct Reservoir {
    bytes: Vec<u8>,
}

impl Reservoir {
    /// Passes a frame's side info and main data to `decode`, and returns the result.
    pub(crate) fn feed<T>(
        &mut self,
        frame: &Frame,
        decode: impl FnOnce(&SideInfo, MainData) -> Result<T, FrameError>,
    ) -> Result<T, FrameError> {
        let (side_bytes, main_bytes) = frame.side_and_main();

        let decoded = SideInfo::parse(&frame.header, side_bytes).and_then(|side| {
            // Drop bytes that the previous frame did not use and that this frame does not refer back to.
            let n_unread = self.bytes.len();
            let n_reused = side.main_data_begin.min(n_unread);
            self.bytes.drain(..n_unread - n_reused);
            self.bytes.extend(main_bytes);

            let n_missing_bits = 8 * (side.main_data_begin - n_reused);
            let main = MainData {
                bytes: &self.bytes,
                n_missing_bits,
            };
            let decoded = decode(&side, main)?;

            let mut n_bits: usize = 0;
            let mut n_skipped: usize = 0;
            for granule in side.granule_bits() {
                if n_skipped < n_missing_bits {
                    n_skipped += granule;
                    n_bits = n_skipped.saturating_sub(n_missing_bits);
                } else {
                    n_bits += granule;
                }
            }

            self.bytes.drain(..n_bits.div_ceil(8).min(self.bytes.len()));
            Ok(decoded)
        });

        if decoded.is_err() {
            self.bytes.clear();
        }
        decoded
    }
}

/// An MP3 decoder and the state that it needs between frames.
pub(crate) struct Stream {
    decoder: FrameDecoder,
    reservoir: Reservoir,
    planes: [[f32; FRAME_SAMPLES]; 2],
}

impl Stream {
    pub(crate) fn new(decoder: FrameDecoder) -> Self {
        Self {
            decoder,
            reservoir: Reservoir::default(),
            planes: [[0.0; FRAME_SAMPLES]; 2],
        }
    }

    /// Decodes a frame and returns its samples, one plane per channel.
    pub(crate) fn decode(&mut self, frame: &Frame) -> Result<Vec<&[f32]>, FrameError> {
        let [left, right] = &mut self.planes;
        let n = self.reservoir.feed(frame, |side, main| {
            self.decoder
                .decode(&frame.header, side, main, [left, right])
        })?;
        let planes = self.planes[..frame.header.n_channels()].iter();
        Ok(planes.map(|plane| &plane[..n]).collect())
    }
}
