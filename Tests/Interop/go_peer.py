#!/usr/bin/python3
"""Drives go-libp2p's daemon p2pd through its control socket.

Requests and answers there are protobuf messages behind their length. The connection on which a stream is opened becomes
that stream; for a stream that the remote opens p2pd connects to a socket of ours. The two ends of such a pipe live and die
together: a half-close cannot be expressed. A reset can: a socket that is closed with unread input fails p2pd's next read,
and p2pd resets.
"""
import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import driver
from driver import ECHO, RESET
from identity import parse_identify, private_key, seed_bytes
from wire import (b58decode, b58encode, decode, encode, multiaddr_to_bytes, multiaddr_to_text, read_uvarint, split_peer,
                  with_length)

IDENTIFY, CONNECT, STREAM_OPEN, STREAM_HANDLER, LIST_PEERS, DISCONNECT = 0, 1, 2, 3, 5, 7
PING_PROTOCOL, IDENTIFY_PROTOCOL = "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"
SECONDS = 15


class Pipe:
    """A control connection, or the stream that it has become."""

    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(60)

    @classmethod
    def to(cls, path):
        connecting = socket.socket(socket.AF_UNIX)
        connecting.connect(path)
        return cls(connecting)

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError(f"ended after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)

    def read_to_end(self):
        data = b""
        while piece := self.socket.recv(1 << 16):
            data += piece
        return data

    def read_message(self):
        size = b""
        while not size or size[-1] & 0x80:
            size += self.read(1)
        return decode(self.read(read_uvarint(size)[0]))

    def request(self, kind, *fields):
        self.socket.sendall(with_length(encode([(1, kind), *fields])))
        answer = self.read_message()
        if answer[1][0] == 1:
            raise RuntimeError(decode(answer[2][0])[1][0].decode(errors="replace"))
        return answer

    def reset(self):
        """Once there is something to read, leaves it and goes."""
        if not self.socket.recv(1, socket.MSG_PEEK):
            raise EOFError("ended before it could be reset")
        self.socket.close()


class Daemon:
    def __init__(self, executable, folder, seed, listen):
        self.folder = folder
        self.control = os.path.join(folder, "control")
        key = os.path.join(folder, "key")
        with open(key, "wb") as file:
            file.write(private_key(seed_bytes(seed)))
        self.process = subprocess.Popen(
            [executable, "-listen", "/unix" + self.control, "-id", key, "-tls=false", "-hostAddrs", ",".join(listen)],
            stdin=subprocess.DEVNULL, stdout=2, env=dict(os.environ, GOLOG_LOG_LEVEL="error"))
        end = time.monotonic() + SECONDS
        while True:
            try:
                Pipe.to(self.control).socket.close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"p2pd ended with {self.process.returncode}") from None
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, kind, *fields):
        pipe = Pipe.to(self.control)
        try:
            return pipe.request(kind, *fields)
        finally:
            pipe.socket.close()

    def open_stream(self, peer, protocol):
        pipe = Pipe.to(self.control)
        try:
            pipe.request(STREAM_OPEN, (3, encode([(1, b58decode(peer)), (2, protocol), (3, SECONDS)])))
        except Exception:
            pipe.socket.close()
            raise
        return pipe

    def serve(self, protocol, handler):
        """Runs `handler` on a thread for each stream of `protocol`."""
        path = os.path.join(self.folder, protocol.strip("/").replace("/", "-"))
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        self.call(STREAM_HANDLER, (4, encode([(1, multiaddr_to_bytes("/unix" + path)), (2, protocol), (3, 0)])))

        def run(pipe):
            pipe.read_message()  # who opened it
            try:
                handler(pipe)
            except OSError:
                pass  # the remote has reset the stream
            finally:
                pipe.socket.close()

        def accept():
            while True:
                pipe = Pipe(server.accept()[0])
                threading.Thread(target=run, args=(pipe,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()


def echo(pipe):
    while data := pipe.socket.recv(1 << 16):
        pipe.socket.sendall(data)


class Commands:
    def __init__(self, daemon):
        self.daemon = daemon

    def identity(self):
        answer = decode(self.daemon.call(IDENTIFY)[4][0])
        return b58encode(answer[1][0]), [multiaddr_to_text(address) for address in answer.get(2, [])]

    def dial(self, addr):
        place, peer = split_peer(addr)
        body = encode([(1, b58decode(peer)), (2, multiaddr_to_bytes(place)), (3, SECONDS)])
        self.daemon.call(CONNECT, (2, body))

    def peers(self):
        """The remote addresses of the connections to each peer."""
        peers = {}
        for entry in map(decode, self.daemon.call(LIST_PEERS).get(6, [])):
            peers.setdefault(b58encode(entry[1][0]), []).extend(map(multiaddr_to_text, entry.get(2, [])))
        return peers

    def disconnect(self, peer):
        self.daemon.call(DISCONNECT, (7, encode([(1, b58decode(peer))])))

    def ping(self, peer, count):
        pipe = self.daemon.open_stream(peer, PING_PROTOCOL)
        for _ in range(count):
            payload = os.urandom(32)
            pipe.socket.sendall(payload)
            if pipe.read(32) != payload:
                raise ValueError("another payload came back")
        pipe.socket.close()

    def identify(self, peer):
        pipe = self.daemon.open_stream(peer, IDENTIFY_PROTOCOL)
        answer = pipe.read_to_end()
        pipe.socket.close()
        return parse_identify(answer)

    def echo(self, peer, size):
        pipe = self.daemon.open_stream(peer, ECHO)
        data = os.urandom(size)
        writer = threading.Thread(target=pipe.socket.sendall, args=(data,), daemon=True)
        start = time.monotonic()
        writer.start()
        back = pipe.read(size)
        seconds = time.monotonic() - start
        writer.join()
        pipe.socket.close()
        if back != data:
            raise ValueError("other bytes came back")
        return {"seconds": seconds}

    def reset(self, peer):
        """Resets an echo in the middle: one part has come back and been read, another one has not."""
        pipe = self.daemon.open_stream(peer, ECHO)
        pipe.socket.sendall(bytes(1000))
        pipe.read(1000)
        pipe.socket.sendall(bytes(1000))
        pipe.reset()

    def expect_reset(self, peer):
        """The remote resets the stream: it ends without an answer."""
        pipe = self.daemon.open_stream(peer, RESET)
        pipe.socket.sendall(bytes(1000))
        answer = pipe.read_to_end()
        pipe.socket.close()
        if answer:
            raise ValueError(f"{len(answer)} bytes came")

    def open(self, peer, proto):
        self.daemon.open_stream(peer, proto).socket.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p2pd", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listen", action="append", required=True)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="p2pd-")
    daemon = None
    try:
        daemon = Daemon(options.p2pd, folder, options.seed, options.listen)
        daemon.serve(ECHO, echo)
        daemon.serve(RESET, Pipe.reset)
        commands = Commands(daemon)
        driver.announce(*commands.identity())
        driver.obey(commands)
    finally:
        if daemon:
            daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
