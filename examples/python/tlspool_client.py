#!/usr/bin/python3
"""A web server with TLS and without any TLS: a client of the pool in plain Python 3 (needs python3-msgpack).

    /usr/bin/python3 examples/python/tlspool_client.py --port 8443 --localid localhost
    curl --cacert CA.crt https://localhost:8443/

The protocol is specified in docs/protocol.md.
"""
import argparse
import os
import socket
import threading
import msgpack

MAX_OCTETS = 131_072  # no pool sends more in one packet
MAX_FDS = 32


class PoolError(Exception):
    """The pool has answered with an error; `code` is one of the table in docs/protocol.md."""

    def __init__(self, body):
        super().__init__(f"{body['code']}: {body['text']}")
        self.code = body["code"]


def connect(path=None):
    """The pool's socket: the path that was named, and only that; else the system's pool, else the user's."""
    named = path or os.environ.get("TLSPOOL_SOCKET")
    paths = [named] if named else ["/run/tlspool/pool.sock"]
    if not named and os.environ.get("XDG_RUNTIME_DIR"):
        paths.append(os.environ["XDG_RUNTIME_DIR"] + "/tlspool/pool.sock")
    for candidate in paths:
        pool = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pool.connect(candidate)
            return pool
        except OSError as error:
            pool.close()
            last = error
    raise ConnectionError(f"no pool answers; tried {', '.join(paths)}: {last}")


class Pool:
    """One connection to the pool. Replies are waited for; what arrives meanwhile is kept in order."""

    def __init__(self, path=None):
        self.socket = connect(path)
        self.last_id = 0
        self.waiting = []  # what came and was not asked for yet
        self.request("hello", {"versions": [1], "client": "python-example/1"})

    def _receive(self):
        """The messages of one packet, each with its descriptors, which are the caller's to close."""
        packet, fds, flags, _ = socket.recv_fds(self.socket, MAX_OCTETS, MAX_FDS)
        for fd in fds:
            os.set_inheritable(fd, False)
        if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for fd in fds:
                os.close(fd)
            raise ConnectionError("the connection to the pool is gone")
        unpacker = msgpack.Unpacker(max_buffer_size=MAX_OCTETS)
        unpacker.feed(packet)
        messages = list(unpacker)
        if len(messages) == 1:
            return [(messages[0], fds)]
        # `connection` and `closed` events may share a packet: the descriptors are those of the connections, in order.
        return [(message, [fds.pop(0)] if message["op"] == "connection" else []) for message in messages]

    def request(self, op, body, fds=()):
        """Sends a request and returns the body of its reply and the descriptors that came with it. `fds` stay the caller's."""
        self.last_id += 1
        packet = msgpack.packb({"type": "request", "op": op, "id": self.last_id, "body": body}, use_bin_type=True)
        socket.send_fds(self.socket, [packet], fds)
        while True:
            messages = self._receive()
            message, received = messages[0]
            if message["type"] in ("reply", "error") and message["id"] == self.last_id:
                if message["type"] == "error":
                    raise PoolError(message["body"])
                return message["body"], received
            self.waiting += messages

    def next(self):
        """The next event or callback, with its descriptors."""
        if not self.waiting:
            self.waiting = self._receive()
        return self.waiting.pop(0)


def serve(plain, info):
    """One HTTP request and its answer over the plaintext socket; then our half of the TLS stream ends with close_notify."""
    with plain:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 16_384:
            octets = plain.recv(4096)
            if not octets:
                return  # the client left before its request was whole: nothing to answer, complete or not
            head += octets
        body = f"Hello from Python over {info['protocol']} with {info['cipher']}\n".encode()
        plain.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(4096):
            pass


def main():
    parser = argparse.ArgumentParser(description="a web server behind the TLS pool")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--localid", help="identity to serve; without it the pool chooses by SNI")
    parser.add_argument("--socket", help="path of the pool's socket")
    args = parser.parse_args()
    pool = Pool(args.socket)
    with socket.create_server((args.host, args.port)) as listening:
        body = {"alpn": ["http/1.1"], **({"localid": args.localid} if args.localid else {})}
        listener, _ = pool.request("listen", body, [listening.fileno()])
    # The pool has its own copy now; ours is closed, and the port is open for as long as we are connected to the pool.
    print(f"listening on port {listener['local']['port']}", flush=True)
    while True:
        message, fds = pool.next()
        if message["op"] == "connection":
            plain = socket.socket(fileno=fds.pop())
            plain.setblocking(True)  # descriptors come non-blocking
            threading.Thread(target=serve, args=(plain, message["body"]["info"]), daemon=True).start()
        elif message["op"] == "closed":
            print(f"closed: {message['body']['how']}", flush=True)
        elif message["op"] in ("listenerClosed", "drain"):
            print(f"the pool says {message['op']}", flush=True)
        for fd in fds:  # of messages that we do not know
            os.close(fd)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
