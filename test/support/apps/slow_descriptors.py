"""Hands descriptors to a pool whose close(2) waits for as long as we like: SOCKET WHAT. Says "sent", and holds the other ends until its input ends.

queue: sockets with SO_LINGER in packets that the pool never reads
packet: one in a packet that the pool refuses
nested: one in the queue of a UNIX socket in such a packet
starttls, listen: one as the crypt side of a session, handed over or accepted; with the file of the CA
read, urgent, unread: one between the octets that the application writes, which are read, sent out of band, or never read before the session is over
blocks: a listening socket that is made blocking all the time
crypt, plain, listening: such a file in the place of a socket
waits, fails: a file of a file system that never answers FLUSH, or answers it with an error (needs /dev/fuse and root)
"""
import fcntl
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

path, what = sys.argv[1:3]
HOUR = struct.pack("ii", 1, 3600)


def say(what):
    """One write(2): two processes say their lines on one pipe, and print() may write a line's end apart (PYTHONUNBUFFERED)."""
    os.write(1, f"{what}\n".encode())


def connect():
    pool = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pool.connect(path)
    return pool


def lingering():
    """A socket that waits in close(2): its peer, which is to be kept, reads nothing, and more is to be sent than the peer has room for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HOUR)
    return ours, peer


def packets(count):
    ours, peer = lingering()
    pool = connect()
    if what == "nested":
        inner, outer = socket.socketpair()
        socket.send_fds(inner, [b"x"], [ours.fileno()])
        ours.close()
        ours = outer
    with ours:
        for _ in range(count):
            try:
                socket.send_fds(pool, [b"garbage"], [ours.fileno()])
            except BrokenPipeError:
                break
    return pool, peer


def session():
    """Plain text is sent that the peer does not take, and the session is closed."""
    import msgpack

    pool = connect()

    def ask(op, body, fds=()):
        socket.send_fds(pool, [msgpack.packb({"type": "request", "op": op, "id": 1, "body": body}, use_bin_type=True)], fds)

    def answer():
        packet, fds, _, _ = socket.recv_fds(pool, 131072, 32)
        return msgpack.unpackb(packet)["body"], fds

    ask("hello", {"versions": [1], "client": "test"})
    answer()
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with socket.create_server(("127.0.0.1", 0)) as server:
        if what == "listen":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HOUR)
            ask("listen", {}, [server.fileno()])
            answer()
            peer.connect(server.getsockname())
        else:
            peer.connect(server.getsockname())
            with server.accept()[0] as accepted:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HOUR)
                ask("starttls", {"role": "server"}, [accepted.fileno()])
    tls = ssl.create_default_context(cafile=sys.argv[3]).wrap_socket(peer, server_hostname="localhost")
    body, (fd,) = answer()
    plain = socket.socket(fileno=fd)
    plain.setblocking(True)
    if what in ("read", "urgent", "unread"):
        ours, kept = lingering()
        plain.setblocking(False)
        if what == "unread":
            try:
                while True:
                    plain.send(bytes(65536))
            except BlockingIOError:
                pass
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        octets = [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", ours.fileno()))]
        plain.sendmsg(*octets, socket.MSG_OOB if what == "urgent" else 0)
        plain.send(b"y")
        ours.close()
        if what == "unread":
            ask("close", {"ctlkey": body["ctlkey"], "how": "abort"})
            answer()
        return tls, plain, pool, kept
    plain.sendall(bytes(160_000))
    plain.close()
    ask("close", {"ctlkey": body["ctlkey"]})
    answer()
    pool.close()
    return tls


def block():
    """accept(2) of the pool finds the socket blocking, and nobody there: we are quicker."""
    import msgpack

    pool = connect()
    server = socket.create_server(("127.0.0.1", 0))
    for op, body, fds in (("hello", {"versions": [1], "client": "test"}, ()), ("listen", {}, [server.fileno()])):
        socket.send_fds(pool, [msgpack.packb({"type": "request", "op": op, "id": 1, "body": body}, use_bin_type=True)], fds)
        pool.recv(131072)
    flags = fcntl.fcntl(server, fcntl.F_GETFL) & ~os.O_NONBLOCK
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            for _ in range(10000):
                fcntl.fcntl(server, fcntl.F_SETFL, flags)
        os._exit(0)
    if os.fork() == 0:
        while os.getppid() == parent:
            socket.create_connection(server.getsockname()).close()
            time.sleep(0.03)
        os._exit(0)
    say("sent")
    while True:
        message = msgpack.unpackb(pool.recv(131072))
        if message.get("op") == "listenerClosed":
            say("closed")
            return pool, server


def serve_files(device):
    """One file, "file". The child that serves it never answers FLUSH, or answers it with EIO."""
    attributes = lambda node: struct.pack("<QQQQQQ10I", node, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755 if node == 1 else 0o100666, 1, 0, 0, 0, 4096, 0)
    while True:
        _, op, unique, node = struct.unpack_from("<IIQQ", os.read(device, 1 << 17))
        error, out = 0, b""
        if op == 26:  # INIT
            out = struct.pack("<IIIIHHIIHH8I", 7, 31, 65536, 0, 16, 16, 65536, 1, 0, 0, *[0] * 8)
        elif op == 1:  # LOOKUP
            out = struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attributes(2)
        elif op == 3 and what not in ("waits", "fails"):
            continue
        elif op == 3:  # GETATTR
            out = struct.pack("<QII", 0, 0, 0) + attributes(node)
        elif op == 14:  # OPEN
            out = struct.pack("<QII", 1, 0, 0)
        elif op == 25:  # FLUSH
            say("flush")
            if what != "fails":
                continue
            error = -5
        elif op in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET have no answer
            continue
        elif op != 18:  # RELEASE
            error = -38
        os.write(device, struct.pack("<IiQ", 16 + len(out), error, unique) + out)


def file():
    folder = tempfile.mkdtemp()
    device = os.open("/dev/fuse", os.O_RDWR)
    subprocess.run(["mount", "-i", "-t", "fuse", "-o", f"fd={device},rootmode=40000,user_id=0,group_id=0", "test", folder], check=True, pass_fds=[device])
    server = os.fork()
    if server == 0:
        serve_files(device)
    os.close(device)
    pool = connect()
    opened = os.open(f"{folder}/file", os.O_RDWR)
    if what in ("waits", "fails"):
        socket.send_fds(pool, [b"garbage"], [opened])
    else:
        import msgpack

        ours, _ = socket.socketpair()
        fds = {"crypt": [opened], "plain": [ours.fileno(), opened], "listening": [opened]}[what]
        for op, body, passed in (("hello", {"versions": [1], "client": "test"}, []), ("listen" if what == "listening" else "starttls", {} if what == "listening" else {"role": "server"}, fds)):
            socket.send_fds(pool, [msgpack.packb({"type": "request", "op": op, "id": 1, "body": body}, use_bin_type=True)], passed)
            answer = msgpack.unpackb(pool.recv(131072))
        say(answer["body"].get("code"))
    # Not by us: our close() would flush it too. It goes when the file system is gone.
    return folder, server


if what in ("waits", "fails", "crypt", "plain", "listening"):
    folder, server = file()
    say("sent")
    sys.stdin.read()
    os.kill(server, 9)
    subprocess.run(["umount", "-l", folder], check=True)
    os.rmdir(folder)
else:
    if what == "blocks":
        kept = block()
    elif what in ("queue", "packet", "nested"):
        kept = packets(120 if what == "queue" else 1)
    else:
        kept = session()
    say("sent")
    sys.stdin.read()
