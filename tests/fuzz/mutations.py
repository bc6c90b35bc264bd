"""Ways to change a good file into a bad one, each drawn by a random.Random.

Changes of single bytes rarely get past a checksum. Archives, PNGs and JSON are therefore
also taken apart, changed inside, and put together again with the right checksums.
"""

import functools
import io
import json
import struct
import warnings
import zipfile
import zlib

EXTREMES = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\1\0",
    b"\1\0\0\0",
]
NASTY_TEXT = [
    "",
    "x",
    "\x1b[2J\x1b]0;title\x07",
    "a\nnumpyvit: error: b",
    "\u202eabc",
    "\x9b1m",
    "\ud800",
    "../../x",
    "/etc/passwd",
    "a" * 100_000,
    "\x00",
    "%s{}",
    "\u2028",
    "é漢",
]
BOMBS = (100, 600)  # megabytes that a member of an archive unpacks to
DEEP = 100_000  # levels of nesting
NASTY_VALUES = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "9223372036854775808",
    "2147483647",
    "2147483648",
    "-1",
    "0",
    "0.5",
    "1e-320",
    "1e308",
    "true",
    "null",
    "[]",
    "{}",
    "[null]",
    '{"a": 1}',
    "65536",
    "1000000",
    "10000000",
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "[1,2,3]",
]
DESCRS = [
    "'|V0'",
    "'<U0'",
    "'|O'",
    "'<f4'",
    "'<f8'",
    "'>f4'",
    "'<f2'",
    "'<f16'",
    "'<c16'",
    "'<U1'",
    "'<U900'",
    "'|S4'",
    "'<M8[s]'",
    "[('a', '<f4')]",
    "'<f3'",
    "'|b1'",
    "'|u1'",
    "'<i8'",
    "'|V1000000000'",
    "'<U999999999'",
    "'" + "a" * 3000 + "'",
    "()",
    "1",
    "'f4,f4'",
    "'<u2'",
]
SHAPES = [
    "(1000000000000,)",
    "(-1,)",
    "(9223372036854775808,)",
    "(0, 1000000000000)",
    "(0,)",
    "()",
    "(" + "1, " * 70 + ")",
    "(1e5,)",
    "(" * 300 + ")" * 300,
    "(2, 2)",
    "(1,)",
    "(True,)",
    "(" + "9" * 5000 + ",)",
    "(0, " + "9" * 30 + ")",
    "(8, 8, 8)",
    "(16, 8, 8, 1)",
]
HEADERS = [
    "{",
    "}",
    "",
    "{'descr'",
    "{'descr': '<f4', ",
    "'",
    "'''",
    "\\",
    "lambda: 0",
    "{" * 5000,
    "-" * 5000 + "1",
    "(" * 9000,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)" + " " * 9000 + "!",
    "__import__('os')",
    "\x00",
    "0" * 9000,
    "{'descr': '<f4', 'fortran_order': 1, 'shape': [1]}",
]


def change_bytes(data, rng):
    """Change a few bytes anywhere, or in the first 200, where most formats have their sizes."""
    b = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 30])):
        if not b:
            break
        at = rng.randrange(min(len(b), rng.choice([60, 200, 1 << 30])))
        how = rng.randrange(9)
        n = rng.choice([1, 4, 30, 300])
        if how == 0:
            b[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            del b[at:]
        elif how == 2:
            b[at : at + n] = bytes([rng.choice([0, 255, 127, 32])]) * n
        elif how == 3:
            b[at : at + n] = rng.randbytes(n)
        elif how == 4:
            del b[at : at + n]
        elif how == 5:
            other = rng.randrange(len(b))
            b[at:at] = b[other : other + n]
        elif how == 6:
            b += rng.choice([b"\0", b"x" * 1000, bytes(b)])
        elif how == 7:
            b[at : at + 4] = rng.choice(EXTREMES)
        else:
            b[at : at + 2] = rng.choice(EXTREMES)[:2]
    return bytes(b)


def change_json(data, rng):
    """Substitute, remove, add or exchange values of a JSON text, or replace it as a whole."""
    if rng.random() < 0.1:
        whole = [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"\xef\xbb\xbf" + data,
            data.decode("latin1").encode("utf-16"),
            data + data,
            b"[" * DEEP,
            data[: len(data) // 2],
            b"\xff\xfe",
            b"1" * 5000,
            b"NaN",
        ]
        return rng.choice(whole)
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, rng)
    places = list(containers(tree))
    fresh = {}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        box, key = rng.choice(places)
        how = rng.randrange(8)
        if how == 0 and isinstance(box, dict):
            box.pop(key, None)
        elif how == 1 and isinstance(box, dict):
            box[rng.choice(NASTY_TEXT)] = rng.choice([1, None, "x"])
        elif how == 2:
            value = rng.choice(NASTY_TEXT)
            if isinstance(box, dict) or key < len(box):
                box[key] = value
        elif isinstance(box, dict) or key < len(box):
            mark = f"mark{len(fresh)}mark"
            fresh[mark] = rng.choice(NASTY_VALUES)
            box[key] = mark
    text = json.dumps(tree)
    for mark, value in fresh.items():
        text = text.replace(f'"{mark}"', value)
    return text.encode()


def containers(tree):
    """Yield every (dict or list, key) of a JSON value."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in list(items):
        yield tree, key
        yield from containers(value)


def change_lines(data, rng):
    """Change the lines of a JSON-lines file."""
    lines = data.splitlines(keepends=True)
    how = rng.randrange(7)
    if how == 0:
        return change_bytes(data, rng)
    if how == 1:
        return b"".join(lines * rng.choice([0, 2, 1000]))
    if how == 2:
        return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"", b"\n\n", b"\x0b", b"\x1e"]))
    at = rng.randrange(len(lines))
    lines[at] = change_json(lines[at], rng) + rng.choice([b"\n", b"\n", b""])
    return b"".join(lines)


def npy(header, payload, rng=None):
    """Return an .npy file with any text as its header."""
    raw = header.encode("latin1", "replace") + b"\n"
    version, size = b"\1\0", "<H"
    if len(raw) > 65535 or (rng and rng.random() < 0.2):
        version, size = b"\2\0", "<I"
    length = len(raw)
    if rng and rng.random() < 0.1:
        length = rng.choice([0, 1, 65535, max(0, length - 5), length + 5])
    return b"\x93NUMPY" + version + struct.pack(size, length) + raw + payload


def change_array(data, rng):
    """Change the header or the values of an .npy file."""
    end = 10 + int.from_bytes(data[8:10], "little")
    header, payload = data[10:end].decode("latin1"), data[end:]
    if "'descr': " not in header or ", }" not in header:  # it has been changed before
        return change_bytes(data, rng)
    how = rng.randrange(7)
    if how == 0:
        return npy(rng.choice(HEADERS), payload, rng)
    if how <= 2:
        if rng.random() < 0.6:
            start = header.index("'descr': ") + 9
            header = header[:start] + rng.choice(DESCRS) + header[header.index(",", start) :]
        if rng.random() < 0.6:
            start = header.index("'shape': ") + 9
            header = header[:start] + rng.choice(SHAPES) + header[header.rindex(", }") :]
        payload = rng.choice([payload, b"", payload * 2])
        return npy(header, payload, rng)
    if how == 3:
        unit = rng.choice(
            [
                b"\0\0\xc0\x7f",  # as float32: NaN, infinity, the largest, 4e19, the smallest
                b"\0\0\x80\x7f",
                b"\xff\xff\x7f\x7f",
                b"\0\0\0\x60",
                b"\1\0\0\0",
                b"\xff" * 4,
                b"\0" * 4,
                b"\0\0\x11\0",  # as characters: one above the last, and half of a pair
                b"\0\xd8\0\0",
            ]
        )
        return data[:end] + (unit * (len(payload) // 4 + 1))[: len(payload)]
    if how == 4:
        return data[:end] + change_bytes(payload, rng)
    if how == 5:
        return change_bytes(data, rng)
    return data[: rng.randrange(len(data) + 1)]


@functools.cache
def bomb(megabytes):
    """Return a deflated member of zeros: (compressed bytes, checksum)."""
    packer, crc = zlib.compressobj(1, wbits=-15), 0
    packed = b""
    for _ in range(megabytes):
        packed += packer.compress(bytes(1 << 20))
        crc = zlib.crc32(bytes(1 << 20), crc)
    return packed + packer.flush(), crc


def with_bomb(data, name, megabytes):
    """Append a member that unpacks to `megabytes` of zeros, in 1/1000 of that."""
    packed, crc = bomb(megabytes)
    size, name = megabytes << 20, name.encode()
    end = data.rindex(b"PK\5\6")
    count, _, start = struct.unpack("<10xHII", data[end : end + 20])
    fields = (20, 0, 8, 0, 0, crc, len(packed), size, len(name), 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name + packed
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, start) + name
    directory = data[start:end] + entry
    tail = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, count + 1, count + 1, len(directory), start + len(local), 0
    )
    return data[:start] + local + directory + tail


def change_npz(data, rng):
    """Change an archive's bytes, its directory, its members, or its note."""
    if rng.random() < 0.2:
        return change_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    packing = zipfile.ZIP_STORED
    for _ in range(rng.choice([1, 1, 1, 2])):
        if not members:
            break
        at = rng.randrange(len(members))
        name, content = members[at]
        how = rng.randrange(10)
        if how <= 3:
            members[at] = name, change_array(content, rng) if content else b""
        elif how <= 6 and members[0][0] == "note.npy":
            note = change_json(members[0][1][128:], rng)
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(note)},), }}"
            members[0] = "note.npy", npy(header, note)
        elif how == 7:
            del members[at]
        elif how == 8:
            nasty = rng.choice(NASTY_TEXT)[:60000].replace("\ud800", "?")
            members[at] = rng.choice([nasty, nasty + ".npy", name + ".npy", "images.npy"]), content
        else:
            members.insert(rng.randrange(len(members)), (rng.choice(["x.npy", name]), content))
            packing = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    f = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(f, "w", packing) as archive:
        warnings.simplefilter("ignore")  # about names that occur twice
        for name, content in dict(members).items() if rng.random() < 0.9 else members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    changed = f.getvalue()
    how = rng.randrange(12)
    if how == 0:
        wanted = rng.choice(["zeros.npy", "note.npy", "images.npy", "weights.npy", "labels.npy"])
        return with_bomb(changed, wanted, rng.choice(BOMBS))
    if how == 1:
        start = struct.unpack("<I", changed[-6:-2])[0]
        return changed[:start] + change_bytes(changed[start:], rng)
    return changed


def change_png(data, rng):
    """Change, drop, repeat or add chunks of a PNG, with the right checksums."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        chunks.append((name, data[at + 8 : at + 8 + length]))
        at += 12 + length
    i = rng.randrange(len(chunks))
    how = rng.randrange(5)
    if how <= 1:
        chunks[i] = chunks[i][0], change_bytes(chunks[i][1], rng)
    elif how == 2:
        sizes = [0, 1, 3000, 65535, 100_000, 2**31 - 1]
        head = struct.pack(">2I", rng.choice(sizes), rng.choice(sizes))
        depth = bytes([rng.choice([1, 2, 8, 16]), rng.choice([0, 2, 3, 4, 6])])
        chunks[0] = b"IHDR", head + depth + b"\0\0" + bytes([rng.choice([0, 0, 1])])
    elif how == 3:
        packed = bomb(100)[0]
        zeros = b"\x78\x9c" + packed  # without the right Adler-32 checksum at its end
        name, content = rng.choice(
            [
                (b"zTXt", b"k\0\0" + zeros),
                (b"iCCP", b"k\0\0" + zeros),
                (b"iTXt", b"k\0\1\0\0\0" + zeros),
                (b"IDAT", zeros),
                (b"eXIf", rng.randbytes(50)),
                (b"acTL", b"\x7f" + b"\xff" * 7),
                (b"tRNS", rng.randbytes(6)),
                (b"PLTE", rng.randbytes(9)),
            ]
        )
        chunks.insert(rng.randrange(1, len(chunks)), (name, content))
    else:
        chunks.insert(i, chunks.pop(rng.randrange(len(chunks))))
    out = data[:8]
    for name, content in chunks:
        out += struct.pack(">I", len(content)) + name + content
        out += struct.pack(">I", zlib.crc32(name + content))
    return out


def change_tiff(data, rng):
    """Change the tags of a TIFF's first frame."""
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    b = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = start + 2 + 12 * rng.randrange(count)
        how = rng.randrange(4)
        if how == 0:
            b[at : at + 2] = struct.pack(
                "<H",
                rng.choice(
                    [
                        254,
                        256,
                        257,
                        258,
                        259,
                        262,
                        273,
                        277,
                        278,
                        279,
                        317,
                        322,
                        323,
                        330,
                        339,
                        347,
                        34665,
                    ]
                ),
            )
        elif how == 1:
            b[at + 2 : at + 4] = struct.pack("<H", rng.choice([0, 1, 3, 4, 5, 12, 16, 99]))
        elif how == 2:
            b[at + 4 : at + 8] = rng.choice(EXTREMES)
        else:
            b[at + 8 : at + 12] = rng.choice(
                [*EXTREMES, rng.randbytes(4), bytes([rng.randrange(9), 0, 0, 0])]
            )
    return bytes(b)


def change_picture(data, rng):
    """Change an image file by its format's structure, or by its bytes."""
    if data[:4] == b"\x89PNG" and rng.random() < 0.7:
        return change_png(data, rng)
    if data[:4] == b"II*\0" and rng.random() < 0.7:
        return change_tiff(data, rng)
    return change_bytes(data, rng)
