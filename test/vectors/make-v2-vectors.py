#!/usr/bin/env python3
"""Makes v2.json: frames of the V2 dialect, packed by Python's struct module from the offsets in the C header, and not by our codec.

    python3 test/vectors/make-v2-vectors.py > test/vectors/v2.json
"""
import json
import struct

FRAME = 388
# Offset of each field, counted from the start of the frame, and its struct format. `s` of 1 to 36 or 128 octets with a trailing "z": text that ends at a NUL.
HEAD = {"reqid": (0, "H"), "cbid": (2, "H"), "cmd": (4, "I")}
ARMS = {
    "error": {"tlserrno": (8, "i"), "message": (12, "128z")},
    "ping": {"producer": (8, "136z"), "facilities": (144, "I")},
    "starttls": {
        "flags": (8, "I"), "local": (12, "I"), "ipproto": (16, "1s"), "streamid": (18, "H"), "localid": (20, "128z"), "remoteid": (148, "128z"),
        "ctlkey": (276, "16s"), "service": (292, "16s"), "timeout": (308, "I"),
    },
    "pinentry": {
        "flags": (8, "I"), "attempt": (12, "I"), "timeoutUs": (16, "I"), "pin": (20, "128s"), "prompt": (148, "128z"), "tokenManuf": (276, "36z"),
        "tokenModel": (312, "20z"), "tokenSerial": (332, "20z"), "tokenLabel": (352, "36z"),
    },
    "lidentry": {"flags": (8, "I"), "maxlevels": (12, "H"), "timeout": (14, "I"), "localid": (18, "128z"), "remoteid": (146, "128z")},
    "control": {"flags": (8, "I"), "ctlkey": (12, "16s"), "name": (28, "128z")},
    "prng": {"in1Len": (8, "h"), "in2Len": (10, "h"), "prngLen": (12, "h"), "buffer": (14, "350s")},
    "info": {"ctlkey": (8, "16s"), "kind": (24, "I"), "len": (28, "H"), "buffer": (30, "334s")},
}
KEY = bytes(range(16))

# Arm, header, fields.
MESSAGES = [
    ("ping", (0, 0, 0x10), {"producer": "20151111api@tlspool.arpa2.net", "facilities": 1}),
    ("ping", (65535, 1024, 0x10), {"producer": "x" * 135, "facilities": 0xFFFFFFFF}),
    ("error", (7, 0, 1), {"tlserrno": -1167372288, "message": "TLS Pool ran out of memory"}),
    ("error", (0, 3, 1), {"tlserrno": -1167372259, "message": "y" * 127}),
    ("error", (1, 0, 1), {"tlserrno": 13, "message": ""}),
    ("starttls", (256, 0, 0x24), {
        "flags": 0x12345678, "local": 1, "ipproto": b"\x06", "streamid": 513, "localid": "testsrv@tlspool.arpa2.lab", "remoteid": "testcli@tlspool.arpa2.lab",
        "ctlkey": KEY, "service": b"imap".ljust(16, b"\0"), "timeout": 0xFFFFFFFF}),
    ("starttls", (0, 1024, 0x28), {
        "flags": 0x80000000, "local": 0, "ipproto": b"\x84", "streamid": 0, "localid": "", "remoteid": "ü@例え.example", "ctlkey": bytes(16), "service": bytes(16), "timeout": 300}),
    ("pinentry", (2, 5, 0x29), {
        "flags": 1, "attempt": 3, "timeoutUs": 60000000, "pin": b"1234".ljust(128, b"\0"), "prompt": "Enter PIN: ", "tokenManuf": "m" * 35, "tokenModel": "o" * 19,
        "tokenSerial": "s" * 19, "tokenLabel": "l" * 35}),
    ("lidentry", (3, 0, 0x200), {"flags": 0x1FF, "maxlevels": 8, "timeout": 30, "localid": "alice@example.org", "remoteid": "b" * 127}),
    ("lidentry", (3, 9, 0x201), {"flags": 0x1100, "maxlevels": 65535, "timeout": 1700000000, "localid": "", "remoteid": "www.example.org"}),
    ("control", (4, 0, 0x100), {"flags": 0, "ctlkey": KEY, "name": "session"}),
    ("control", (4, 0, 0x101), {"flags": 4294967295, "ctlkey": KEY[::-1], "name": ""}),
    ("prng", (5, 0, 0x2B), {"in1Len": 16, "in2Len": -1, "prngLen": 350, "buffer": KEY + b"EXPERIMENTAL-one" + bytes(318)}),
    ("prng", (5, 0, 0x2B), {"in1Len": -32768, "in2Len": 32767, "prngLen": 0, "buffer": bytes([255]) * 350}),
    ("info", (6, 0, 0x2C), {"ctlkey": KEY, "kind": 0x52800100, "len": 0xFFFF, "buffer": bytes(334)}),
    ("info", (6, 0, 0x2C), {"ctlkey": KEY, "kind": 0x59290001, "len": 334, "buffer": bytes(range(256)) + bytes(range(78))}),
]


def pack(order, arm, head, fields):
    frame = bytearray(FRAME)
    values = dict(zip(HEAD, head))
    for table, source in ((HEAD, values), (ARMS[arm], fields)):
        assert set(table) == set(source), arm
        for name, (offset, fmt) in table.items():
            value = source[name]
            if fmt.endswith("z"):
                octets = value.encode() + b"\0"
                assert len(octets) <= int(fmt[:-1]), name
                frame[offset:offset + len(octets)] = octets
            else:
                struct.pack_into(order + fmt, frame, offset, value)
    return frame.hex()


def plain(value):
    return {"$bin": value.hex()} if isinstance(value, bytes) else value


vectors = [{
    "arm": arm, "head": dict(zip(HEAD, head)), "fields": {name: plain(value) for name, value in fields.items()},
    "LE": pack("<", arm, head, fields), "BE": pack(">", arm, head, fields),
} for arm, head, fields in MESSAGES]
print("[\n" + ",\n".join("  " + json.dumps(vector) for vector in vectors) + "\n]")
