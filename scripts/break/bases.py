"""Whole, short audio files as lists of parts: what the mutator breaks.

A part is a piece that the format knows: a tag, a chunk, a metadata block, a frame, a page. WAV and FLAC are made here, by
code; MP3 comes from demo-audio; FLAC of another encoder, also in Ogg, and Ogg Vorbis from the tests' data.
"""

import math
import random
import struct
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TEST_DATA = REPOSITORY / "pipeline/tests/data"
# Bytes of an MP3 that are kept: half a second to two seconds.
MP3_BYTES = 12_000


class Base:
    """A whole file: its name, its format, and its parts."""

    def __init__(self, name, kind, parts):
        self.name, self.kind, self.parts = name, kind, parts


def all_bases(demo_audio, data):
    """Every base file. `data` may be None; then MP3s of rare rates are missing, and Ogg is one file."""
    return wavs() + flacs() + oggs(data) + mp3s(demo_audio, data)


def tone(n_samples, rate_hz, amplitude):
    """A sine that slides, with some noise on it: predictors have residuals, and never silence."""
    noise = random.Random(n_samples)
    return [
        int(amplitude * (0.7 * math.sin(2 * math.pi * (200 + at / 20) * at / rate_hz) + 0.2 * noise.uniform(-1, 1)))
        for at in range(n_samples)
    ]


# --- WAV ---


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(tag, channels, rate_hz, bits):
    frame_bytes = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, bits)


def extensible(tag, channels, rate_hz, bits):
    """A `fmt ` body with a mask of speakers and the format as a GUID."""
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return fmt(0xFFFE, channels, rate_hz, bits) + struct.pack("<HHI", 22, bits, 3) + guid


def wav_samples(tag, bits, samples):
    """Samples of full scale 1 << 31, as stored."""
    if tag == 3:
        code = "<f" if bits == 32 else "<d"
        return b"".join(struct.pack(code, sample / (1 << 31)) for sample in samples)
    if tag in (6, 7):
        return bytes((sample >> 24) & 0xFF for sample in samples)
    if bits == 8:
        return bytes((sample >> 24) + 128 for sample in samples)
    return b"".join((sample >> (32 - bits)).to_bytes(bits // 8, "little", signed=True) for sample in samples)


def wavs():
    """Every kind of sample, with chunks before and behind the data."""
    bases = []
    kinds = [(1, 8, 1), (1, 16, 1), (1, 16, 2), (1, 24, 2), (1, 32, 1), (3, 32, 2), (3, 64, 1), (6, 8, 1), (7, 8, 2)]
    for at, (tag, bits, channels) in enumerate(kinds):
        rate_hz = [8_000, 11_025, 16_000, 22_050, 44_100][at % 5]
        samples = tone(int(0.3 * rate_hz) * channels, rate_hz, 1 << 30)
        head = chunk(b"fmt ", (extensible if at % 3 == 1 else fmt)(tag, channels, rate_hz, bits))
        data = chunk(b"data", wav_samples(tag, bits, samples))
        body = [head, data]
        if at % 2:
            text = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"A name\0") + chunk(b"IART", b"An artist"))
            body = [head, chunk(b"fact", struct.pack("<I", len(samples))), text, data, text]
        riff = b"RIFF" + struct.pack("<I", 4 + sum(map(len, body))) + b"WAVE"
        bases.append(Base(f"wav_{tag}_{bits}_{channels}", "wav", [riff, *body]))
    return bases


# --- FLAC ---


def crc_table(bits, polynomial):
    table = []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) & 1 else 0)
        table.append(value & ((1 << bits) - 1))
    return table


CRC8 = crc_table(8, 0x07)
CRC16 = crc_table(16, 0x8005)
CRC32 = crc_table(32, 0x04C11DB7)


def crc(table, bits, data):
    """A checksum, most significant bit first, from 0."""
    value, mask, shift = 0, (1 << bits) - 1, bits - 8
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> shift ^ byte]
    return value


class Bits:
    """Bits, most significant first."""

    def __init__(self):
        self.text = []

    def put(self, value, n):
        self.text.append(format(value & ((1 << n) - 1), f"0{n}b") if n else "")

    def bytes(self):
        text = "".join(self.text)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""


def coded_number(number):
    """As UTF-8 would code it, up to 36 bits."""
    if number < 0x80:
        return bytes([number])
    n_more = next(n for n in range(1, 7) if number < 1 << (5 * n + 6))
    first = 0xFF00 >> (n_more + 1) & 0xFF | number >> 6 * n_more
    return bytes([first] + [0x80 | number >> 6 * at & 0x3F for at in reversed(range(n_more))])


def flac_subframe(bits, samples, width, order):
    """A constant, verbatim (order None), or fixed predictor of this order with one Rice partition."""
    if len(set(samples)) == 1:
        bits.put(0, 8)
        bits.put(samples[0], width)
        return
    if order is None:
        bits.put(1 << 1, 8)
        for sample in samples:
            bits.put(sample, width)
        return

    bits.put((0x08 | order) << 1, 8)
    for sample in samples[:order]:
        bits.put(sample, width)
    residual = samples
    for _ in range(order):
        residual = [b - a for a, b in zip(residual, residual[1:])]
    folded = [2 * value if value >= 0 else -2 * value - 1 for value in residual]
    rice = min(30, (sum(folded) // max(1, len(folded))).bit_length())
    # The second method has a bit more for the parameter.
    method = int(rice > 14)
    bits.put(method, 2)
    bits.put(0, 4)
    bits.put(rice, 4 + method)
    for value in folded:
        bits.text.append("0" * (value >> rice) + "1")
        bits.put(value, rice)


def flac_frame(number, channels, width, rate_code, order, is_variable):
    """One frame of planar samples; two channels are stored as left and side, or as mid and side."""
    n_samples = len(channels[0])
    layout = 0
    if len(channels) == 2:
        left, right = channels
        side = [a - b for a, b in zip(left, right)]
        layout = 8 if number % 2 else 10
        channels = [left if layout == 8 else [(a + b) >> 1 for a, b in zip(left, right)], side]
    width_code = {8: 1, 12: 2, 16: 4, 20: 5, 24: 6}[width]
    header = bytes([0xFF, 0xF8 | is_variable, 7 << 4 | rate_code, layout << 4 | width_code << 1])
    header += coded_number(number) + struct.pack(">H", n_samples - 1)
    header += bytes([crc(CRC8, 8, header)])
    bits = Bits()
    for at, samples in enumerate(channels):
        flac_subframe(bits, samples, width + (layout and at == 1), order)
    frame = header + bits.bytes()
    return frame + struct.pack(">H", crc(CRC16, 16, frame))


def flac_block(kind, body, is_last=False):
    return bytes([kind | is_last << 7]) + struct.pack(">I", len(body))[1:] + body


def flacs():
    """Every predictor of the fixed kind, constant and verbatim frames, counted in frames and in samples."""
    bases = []
    # Width, channels, rate with its code, order of the predictor, variable frame sizes.
    kinds = [
        (16, 1, 16_000, 5, 0, False),
        (16, 2, 22_050, 6, 2, False),
        (8, 1, 8_000, 4, None, True),
        (24, 2, 44_100, 9, 4, True),
        (16, 1, 48_000, 10, 3, False),
        (20, 2, 32_000, 8, 1, False),
    ]
    for at, (width, n_channels, rate_hz, rate_code, order, is_variable) in enumerate(kinds):
        n_samples = int(0.25 * rate_hz)
        planes = [tone(n_samples, rate_hz, (1 << (width - 2)) - 7 * channel) for channel in range(n_channels)]
        if at == 4:
            planes = [[5] * 1_200 + plane[1_200:] for plane in planes]
        frames, start = [], 0
        while start < n_samples:
            size = 600 + 200 * (len(frames) % 3) if is_variable else 600
            channels = [plane[start : start + size] for plane in planes]
            number = start if is_variable else len(frames)
            frames.append(flac_frame(number, channels, width, rate_code, order, is_variable))
            start += size
        numbers = rate_hz << 44 | (n_channels - 1) << 41 | (width - 1) << 36 | n_samples
        info = struct.pack(">HH", 600, 1_000 if is_variable else 600) + bytes(6) + struct.pack(">Q", numbers) + bytes(16)
        parts = [b"fLaC", flac_block(0, info)]
        if at % 2:
            parts.append(flac_block(3, struct.pack(">QQH", 0, 0, 600)))
            parts.append(flac_block(4, struct.pack("<I4sI", 4, b"test", 1) + struct.pack("<I", 8) + b"TITLE=ab"))
            kind, text = struct.pack(">II", 3, 9) + b"image/png", struct.pack(">I", 0)
            parts.append(flac_block(6, kind + text + struct.pack(">IIIII", 8, 8, 24, 0, 64) + bytes(64)))
        parts.append(flac_block(1, bytes(32), is_last=True))
        bases.append(Base(f"flac_{width}_{n_channels}_{order}", "flac", parts + frames))
    return bases + [flac_of_another_encoder()]


# Samples of a frame of the file below.
FLAC_LPC_FRAME_SAMPLES = 2_304


def flac_of_another_encoder():
    """A file with linear predictors, in parts: frames end where the checksum over them is 0."""
    file = (TEST_DATA / "tone_32000_stereo.flac").read_bytes()
    parts, at = [file[:4]], 4
    while True:
        end = at + 4 + int.from_bytes(file[at + 1 : at + 4], "big")
        parts.append(file[at:end])
        is_last, at = file[at] & 0x80, end
        if is_last:
            break
    while at < len(file):
        end = at + 10
        while end < len(file) and not (file[end : end + 2] == file[at : at + 2] and not crc(CRC16, 16, file[at:end])):
            end += 1
        parts.append(file[at:end])
        at = end
    # The metadata and the first six frames: a third of a second and more.
    return Base("flac_lpc", "flac", parts[: parts.index(next(p for p in parts[1:] if p[:1] == b"\xff")) + 6])


# --- Ogg: Vorbis and FLAC ---

OGG_FIRST, OGG_LAST = 2, 4


def ogg_page(flags, granule, sequence, packets):
    """A page of whole packets."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, 1, sequence, 0) + bytes([len(lacing)])
    page = bytearray(header + lacing + b"".join(packets))
    page[22:26] = struct.pack("<I", crc(CRC32, 32, page))
    return bytes(page)


def flac_in_ogg():
    """The FLAC of another encoder, two frames a page."""
    marker, *parts = flac_of_another_encoder().parts
    blocks = [part for part in parts if part[:1] != b"\xff"]
    frames = [part for part in parts if part[:1] == b"\xff"]
    mapping = struct.pack(">B4sBBH", 0x7F, b"FLAC", 1, 0, len(blocks) - 1)
    pages = [ogg_page(OGG_FIRST, 0, 0, [mapping + marker + blocks[0]]), ogg_page(0, 0, 1, blocks[1:])]
    for at in range(0, len(frames), 2):
        flags = OGG_LAST if at + 2 >= len(frames) else 0
        pages.append(ogg_page(flags, (at + 2) * FLAC_LPC_FRAME_SAMPLES, len(pages), frames[at : at + 2]))
    return Base("ogg_flac", "ogg", pages)


def ogg_pages(file):
    """The pages of a whole file."""
    pages, at = [], 0
    while at + 27 <= len(file):
        segments = file[at + 26]
        end = at + 27 + segments + sum(file[at + 27 : at + 27 + segments])
        pages.append(file[at:end])
        at = end
    return pages


def oggs(data):
    """The tests' own file, and a longer one of several pages where there is one."""
    files = [TEST_DATA / "tone_32000_mono.ogg"]
    if data is not None:
        files += [path for path in [data / "hostile/ogg_loss/00_ref.ogg"] if path.is_file()]
    vorbis = [Base(f"ogg_{path.stem}", "ogg", ogg_pages(path.read_bytes())) for path in files]
    return vorbis + [flac_in_ogg()]


# --- MP3 ---

KBPS_1 = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
KBPS_2 = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]


def mp3_parts(file):
    """The tag, and as many frames as are wanted."""
    parts, at = [], 0
    if file[:3] == b"ID3":
        at = 10 + sum(byte << shift for byte, shift in zip(file[6:10], (21, 14, 7, 0)))
        parts.append(file[:at])
    start = at
    while at + 4 <= len(file) and at - start < MP3_BYTES:
        _, version, rates, _ = file[at : at + 4]
        is_mpeg1 = version >> 3 & 3 == 3
        shift = {3: 0, 2: 1, 0: 2}.get(version >> 3 & 3, 0)
        if file[at] != 0xFF or rates >> 4 in (0, 15) or rates >> 2 & 3 == 3:
            break
        rate_hz = [44_100, 48_000, 32_000][rates >> 2 & 3] >> shift
        kbps = (KBPS_1 if is_mpeg1 else KBPS_2)[rates >> 4]
        size = (144 if is_mpeg1 else 72) * kbps * 1_000 // rate_hz + (rates >> 1 & 1)
        parts.append(file[at : at + size])
        at += size
    return parts


def mp3s(demo_audio, data):
    """One of each encoding of the demo, and the rates that it has not."""
    with tempfile.TemporaryDirectory() as folder:
        words = [demo_audio, f"{folder}/demo", "--tracks", "24", "--seconds", "2"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        files = [path.read_bytes() for path in sorted(Path(folder).rglob("*.mp3"))]
    if data is not None:
        files += [path.read_bytes() for path in sorted((data / "rate_variants").glob("mpeg2*.mp3"))]

    bases, kinds = [], set()
    for file in files:
        parts = mp3_parts(file)
        # Broken clips of the demo have few frames; one base for each header is enough.
        kind = parts[-1][1:4] if len(parts) > 8 else None
        if kind and kind not in kinds:
            kinds.add(kind)
            bases.append(Base(f"mp3_{kind.hex()}", "mp3", parts))
    return bases
