#!/usr/bin/python3
"""Prints protocol.json: one message of every type and op of the pool protocol, with the octets that carry it.

The octets come from python3-msgpack, not from the encoder under test, so that the two check each other.
Binary values are written as {"$bin": "hex"}. Run: /usr/bin/python3 test/vectors/make-vectors.py > test/vectors/protocol.json
"""
import json
import msgpack

KEY = bytes(range(16))
REMOTE = {"family": "IPv4", "address": "192.0.2.7", "port": 40000}
LOCAL = {"family": "IPv6", "address": "2001:db8::1", "port": 443}
MS = 1_700_000_000_000
INFO_SERVER = {
    "role": "server", "protocol": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "cipherName": "TLS_AES_128_GCM_SHA256",
    "group": "X25519MLKEM768", "alpn": "http/1.1", "servername": "www.example.org", "localid": "www", "revision": 3, "resumed": False,
    "authorized": True, "peerCertificates": [b"\x30\x03\x02\x01\x01"], "localCertificate": b"\x30\x03\x02\x01\x02", "remote": REMOTE, "local": LOCAL,
}
INFO_CLIENT = {
    "role": "client", "protocol": "TLSv1.2", "cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "cipherName": "ECDHE-RSA-AES128-GCM-SHA256",
    "resumed": False, "authorized": False, "authorizationError": "CERT_HAS_EXPIRED", "peerCertificates": [],
}
STATUS = {
    "pool": "tlspool/0.1.0", "pid": 4242, "uptimeMs": 5_000_000_000, "node": "v20.20.2", "openssl": "3.0.17", "workers": 2, "state": "running",
    "socket": "/run/tlspool/pool.sock", "config": "/etc/tlspool/tlspoold.yaml", "clients": 2, "listeners": 1, "sessions": 70_000, "handshakes": 0,
    "identities": 3, "handshakesDone": 4_294_967_295, "handshakesFailed": 0, "handshakesResumed": 255, "octetsReceived": 4_294_967_296,
    "octetsSent": 9_007_199_254_740_991, "reloadedAtMs": MS,
}
SESSION = {
    "session": 65_536, "role": "server", "protocol": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "servername": "www.example.org", "localid": "www",
    "revision": 3, "resumed": True, "authorized": True, "subject": "CN=Zoë", "remote": REMOTE, "ownerPid": 77, "ownerUid": 1000, "startedAtMs": MS,
}
IDENTITY = {
    "localid": "www", "names": ["www.example.org", "*.example.org"], "revision": 3, "source": "/etc/tlspool/identities/www", "policy": "modern",
    "clientAuth": "request", "isDefault": True,
    "certificates": [{
        "subject": "CN=www.example.org", "issuer": "CN=Example CA", "serial": "01ab", "keyType": "EC P-256", "fingerprint": "ab" * 32,
        "notBeforeMs": MS, "notAfterMs": MS + 86_400_000,
    }],
    "trustRoots": 2,
}
BODIES = [
    ("request", "hello", {"versions": [1], "client": "example/1"}, []),
    ("reply", "hello", {"version": 1, "pool": "tlspool/0.1.0", "maxMessageOctets": 65_536}, []),
    ("request", "ping", {"payload": b"\x00\xff"}, []),
    ("reply", "ping", {"payload": b"\x00\xff", "pool": "tlspool/0.1.0", "pid": 4242, "uptimeMs": 127}, []),
    ("request", "listen", {"localid": "www", "alpn": ["h2", "http/1.1"], "clientAuth": "require", "rejectUnauthorized": True, "askServername": False,
                           "onTheFly": True, "share": "web"}, ["listenfd"]),
    ("reply", "listen", {"listener": 1, "local": LOCAL}, []),
    ("request", "join", {"share": "web"}, []),
    ("reply", "join", {"listener": 128, "local": {"family": "unix", "address": "/run/web.sock", "port": 0}}, []),
    ("request", "unlisten", {"listener": 1}, []),
    ("reply", "unlisten", {}, []),
    ("request", "starttls", {"role": "client", "remoteid": "mail.example.org", "servername": "", "handshakeMs": 3_600_000, "fork": True,
                             "backend": {"host": "::1", "port": 8080}}, ["cryptfd"]),
    ("request", "starttls", {"role": "server", "askServername": True, "askPlainside": True}, ["cryptfd"]),
    ("reply", "starttls", {"ctlkey": KEY, "info": INFO_CLIENT}, ["plainfd"]),
    ("request", "prng", {"ctlkey": KEY, "label": "EXPORTER-example", "context": b"", "length": 32}, []),
    ("reply", "prng", {"octets": b"\xa5" * 32}, []),
    ("request", "info", {"ctlkey": KEY}, []),
    ("reply", "info", {"info": INFO_SERVER, "peerNames": {"subject": "CN=Alice", "issuer": "CN=Example CA", "subjectAltNames": ["email:alice@example.org"]}, "tlsServerEndPoint": b"\x11" * 32, "tlsExporter": b"\x22" * 32}, []),
    ("request", "detach", {"ctlkey": KEY}, []),
    ("reply", "detach", {}, []),
    ("request", "reattach", {"ctlkey": KEY}, []),
    ("reply", "reattach", {"info": INFO_SERVER}, []),
    ("request", "close", {"ctlkey": KEY, "abort": True}, []),
    ("reply", "close", {}, []),
    ("request", "taken", {"ctlkey": KEY}, []),
    ("reply", "taken", {}, []),
    ("request", "taken", {}, []),
    ("reply", "taken", {"relay": True}, []),
    ("request", "reauthenticate", {"ctlkey": KEY, "require": True, "localid": "admin", "timeoutMs": 30_000}, []),
    ("reply", "reauthenticate", {"outcome": "authenticated", "info": INFO_SERVER}, []),
    ("reply", "reauthenticate", {"outcome": "refused", "info": INFO_SERVER}, []),
    ("request", "register", {"service": "chooser", "timeoutMs": 60_000}, []),
    ("reply", "register", {}, []),
    ("request", "unregister", {"service": "pin"}, []),
    ("reply", "unregister", {}, []),
    ("request", "forget", {"remoteid": "www.example.org"}, []),
    ("reply", "forget", {"forgotten": 1}, []),
    ("request", "status", {}, []),
    ("reply", "status", STATUS, []),
    ("request", "sessions", {"after": 65_535, "limit": 500}, []),
    ("reply", "sessions", {"sessions": [SESSION], "next": 65_536}, []),
    ("request", "identities", {}, []),
    ("reply", "identities", {"identities": [IDENTITY]}, []),
    ("reply", "identities", {"identities": [{**IDENTITY, "locked": True}]}, []),
    ("request", "reload", {}, []),
    ("reply", "reload", {"changed": ["www"], "unchanged": 2}, []),
    ("callback", "servername", {"listener": 1, "servername": "www.example.org", "alpn": ["h2"], "remote": REMOTE}, []),
    ("callback", "servername", {"request": 4_294_967_295, "alpn": []}, []),
    ("answer", "servername", {"localid": "www"}, ["plainfd"]),
    ("answer", "servername", {"alpn": ["imap"]}, []),
    ("callback", "plainside", {"request": 7, "ctlkey": KEY, "info": INFO_CLIENT}, []),
    ("callback", "plainside", {"listener": 1, "ctlkey": KEY, "info": INFO_SERVER}, []),
    ("answer", "plainside", {}, ["plainfd"]),
    ("answer", "plainside", {"refuse": True}, []),
    ("callback", "identity", {"remoteid": "www.example.org", "candidates": [{"localid": "alice", "subject": "CN=Alice", "notAfterMs": MS}, {"localid": "bob"}], "pid": 77}, []),
    ("answer", "identity", {"localid": "alice", "rememberS": 31_536_000}, []),
    ("answer", "identity", {"refuse": True}, []),
    ("callback", "pin", {"localid": "www", "source": "/etc/tlspool/identities/www", "attempt": 1}, []),
    ("answer", "pin", {"pin": b"1234"}, []),
    ("event", "connection", {"listener": 1, "ctlkey": KEY, "info": INFO_SERVER}, ["plainfd"]),
    ("event", "connection", {"listener": 0, "ctlkey": KEY, "info": INFO_SERVER, "preamble": {"protocol": "imap", "state": b"\x00A1", "tls": True}}, ["plainfd"]),
    ("event", "plainConnection", {"preamble": {"protocol": "smtp", "tls": False}, "remote": REMOTE, "local": LOCAL}, ["plainfd"]),
    ("event", "closed", {"ctlkey": KEY, "how": "truncated", "detail": "end of stream without close_notify", "octetsReceived": 4_294_967_296,
                         "octetsSent": 0}, []),
    ("event", "listenerClosed", {"listener": 1, "code": "SYSTEM", "text": "accept: EMFILE"}, []),
    ("event", "drain", {"deadlineMs": 30_000}, []),
    ("error", "starttls", {"code": "IDENTITY_UNKNOWN", "text": "there is no such identity, or this client may not use it", "field": "body.localid"}, []),
    ("error", "no-such-op", {"code": "UNKNOWN_OP", "text": "there is no such operation"}, []),
]


def plain(value):
    """The value as JSON has it."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


vectors = []
for number, (kind, op, body, fds) in enumerate(BODIES):
    message = {"type": kind, "op": op} if kind == "event" else {"type": kind, "op": op, "id": number}
    message["body"] = body
    vectors.append({"message": plain(message), "fds": fds, "hex": msgpack.packb(message, use_bin_type=True).hex()})
print("[\n" + ",\n".join("  " + json.dumps(vector) for vector in vectors) + "\n]")
