"""Damages files, each with its own seed: the same seed gives the same bytes."""

import random
import struct

from bases import CRC8, CRC16, CRC32, crc

# Values that are written to size and number fields.
EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 63, -1]
# Limit on the size of a mutated file. Larger files, as from repeated doubling, show nothing new.
FILE_BYTES_MAX = 200_000
# The marker `fLaC`, or RIFF with its size.
MARKER_BYTES_MAX = 12


def mutated(bases, seed):
    """Returns the name, extension and bytes of one damaged file."""
    rng = random.Random(seed)
    base = rng.choice(bases)
    parts = [bytearray(part) for part in base.parts]
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5])):
        mutate = rng.choices(MUTATIONS, [weight for weight, _ in WEIGHTED])[0]
        mutate(rng, parts, bases, base)
        names.append(mutate.__name__)

    # Half of the mutations get correct checksums, so that the code after the checksum test is reached, too.
    if rng.random() < 0.5:
        for part in parts:
            seal(base.kind, part)
    if rng.random() < 0.1:
        cut(rng, parts, bases, base)
        names.append("cut")
    file = b"".join(map(bytes, parts))[:FILE_BYTES_MAX]
    return f"{base.name}-{'-'.join(names)}", base.kind, file


def seal(kind, part):
    """Corrects the checksums of a frame or page, if it has any."""
    if kind == "flac" and part[:1] == b"\xff" and len(part) > 12:
        n_header = flac_header_bytes(part)
        if n_header < len(part) - 2:
            part[n_header] = crc(CRC8, 8, part[:n_header])
        part[-2:] = struct.pack(">H", crc(CRC16, 16, part[:-2]))
    elif kind == "ogg" and part[:4] == b"OggS" and len(part) >= 27:
        part[22:26] = bytes(4)
        part[22:26] = struct.pack("<I", crc(CRC32, 32, part))


def flac_header_bytes(part):
    """Returns the number of bytes of a frame header without its checksum."""
    first = part[4]
    n_number = 1 if first < 0x80 else max(1, len(f"{first:08b}".split("0")[0]))
    n_size = {6: 1, 7: 2}.get(part[2] >> 4, 0)
    n_rate = {12: 1, 13: 2, 14: 2}.get(part[2] & 15, 0)
    return 4 + n_number + n_size + n_rate


def place(rng, parts):
    """Chooses the index of a part. The marker at the start is rarely chosen: without it, the rest of the file is not read."""
    is_marker = len(parts) > 1 and len(parts[0]) <= MARKER_BYTES_MAX
    return rng.randrange(1 if is_marker and rng.random() < 0.95 else 0, len(parts))


def any_part(rng, parts):
    """Chooses a part that is not empty. The first parts, which are headers, are as likely as all others together."""
    at = place(rng, parts[:5] if rng.random() < 0.5 else parts)
    if not parts[at]:
        parts[at] = bytearray(1)
    return parts[at]


def flip(rng, parts, _bases, _base):
    """Flips a few bits."""
    part = any_part(rng, parts)
    for _ in range(rng.choice([1, 1, 2, 8, 40])):
        part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)


def flip_header(rng, parts, _bases, _base):
    """Flips a bit within the first bytes of a part."""
    part = any_part(rng, parts)
    part[rng.randrange(min(len(part), 32))] ^= 1 << rng.randrange(8)


def field(rng, parts, _bases, _base):
    """Sets a number within the first bytes of a part to an extreme value."""
    part = any_part(rng, parts)
    n_bytes = rng.choice([1, 2, 3, 4, 4, 8])
    at = rng.randrange(max(1, min(len(part) - n_bytes + 1, 48)))
    value = rng.choice(EXTREMES) & ((1 << 8 * n_bytes) - 1)
    part[at : at + n_bytes] = value.to_bytes(n_bytes, rng.choice(["little", "big"]))


def scramble(rng, parts, _bases, _base):
    """Overwrites consecutive bytes with noise, zeros or ones."""
    part = any_part(rng, parts)
    at = rng.randrange(len(part))
    n_bytes = min(len(part) - at, rng.choice([1, 4, 16, 64, 512]))
    part[at : at + n_bytes] = rng.choice([rng.randbytes(n_bytes), bytes(n_bytes), b"\xff" * n_bytes])


def drop(rng, parts, _bases, _base):
    """Removes a part."""
    if len(parts) > 1:
        del parts[place(rng, parts)]


def double(rng, parts, _bases, _base):
    """Repeats a part."""
    at = place(rng, parts)
    for _ in range(rng.choice([1, 1, 2, 5])):
        parts.insert(at, bytearray(parts[at]))


def swap(rng, parts, _bases, _base):
    """Swaps two parts."""
    a, b = place(rng, parts), place(rng, parts)
    parts[a], parts[b] = parts[b], parts[a]


def splice(rng, parts, bases, base):
    """Inserts a part of another file, of this format or of another."""
    other = rng.choice([other for other in bases if other.kind == base.kind] if rng.random() < 0.8 else bases)
    parts.insert(place(rng, parts) + rng.randrange(2), bytearray(rng.choice(other.parts)))


def join(rng, parts, bases, base):
    """Appends another file of this format."""
    parts.extend(bytearray(part) for part in rng.choice([other for other in bases if other.kind == base.kind]).parts)


def insert(rng, parts, _bases, _base):
    """Inserts foreign bytes within a part."""
    part = any_part(rng, parts)
    at = rng.randrange(len(part) + 1)
    part[at:at] = rng.choice([rng.randbytes(rng.randrange(1, 600)), bytes(rng.randrange(1, 600)), b"\xff" * 9, b"ID3\4"])


def remove(rng, parts, _bases, _base):
    """Removes bytes within a part."""
    part = any_part(rng, parts)
    at = rng.randrange(len(part))
    del part[at : at + rng.choice([1, 2, 7, 60, 900])]


def cut(rng, parts, _bases, _base):
    """Cuts off the end or the start of the file."""
    at = place(rng, parts)
    keep = rng.randrange(len(parts[at]) + 1)
    if rng.random() < 0.9:
        parts[at:] = [parts[at][:keep]]
    else:
        parts[: at + 1] = [parts[at][keep:]]


WEIGHTED = [
    (5, flip),
    (5, flip_header),
    (6, field),
    (3, scramble),
    (2, drop),
    (2, double),
    (1, swap),
    (2, splice),
    (1, join),
    (2, insert),
    (2, remove),
    (2, cut),
]
MUTATIONS = [mutate for _, mutate in WEIGHTED]
