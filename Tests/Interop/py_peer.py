"""Drives py-libp2p."""
import argparse
import json
import os
import signal
import sys
import time
import traceback

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.host.ping import PingService
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE, Transport as Noise
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID as MPLEX, Mplex
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX, Yamux
from multiaddr import Multiaddr

import driver
from driver import AFTER_END, ECHO, RESET
from identity import parse_identify, seed_bytes
from wire import split_peer

IDENTIFY_PROTOCOL = "/ipfs/id/1.0.0"
SECONDS = 60


async def read(stream, count):
    data = bytearray()
    while len(data) < count:
        data += await stream.read(min(count - len(data), 1 << 16))
    return bytes(data)


async def read_to_end(stream):
    data = bytearray()
    try:
        while True:
            data += await stream.read(1 << 16)
    except StreamEOF:
        return bytes(data)


async def echo(stream):
    try:
        while True:
            await stream.write(await stream.read(1 << 16))
    except StreamEOF:
        await stream.close()


async def answer_after_end(stream):
    await stream.write(await read_to_end(stream))
    await stream.close()


async def reset_at_once(stream):
    await stream.read(1 << 16)
    await stream.reset()


def was_reset(stream):
    """By the remote. A reader that waits at that moment hears of an end like any other; the muxer's mark tells."""
    muxed = stream.muxed_stream
    return muxed.event_reset.is_set() if hasattr(muxed, "event_reset") else muxed.reset_received


class Commands:
    def __init__(self, host):
        self.host = host
        self.resets = 0
        host.set_stream_handler(ECHO, self.serve_echo)
        host.set_stream_handler(AFTER_END, answer_after_end)
        host.set_stream_handler(RESET, reset_at_once)

    async def serve_echo(self, stream):
        try:
            await echo(stream)
        except StreamReset:
            pass
        self.resets += was_reset(stream)

    async def served_resets(self):
        """How many of the echoes served here the remote has reset."""
        return self.resets

    async def dial(self, addr):
        await self.host.connect(info_from_p2p_addr(Multiaddr(addr)))

    async def peers(self):
        """The muxer, security and remote address of the connections to each peer."""
        return {str(peer): [self.describe(connection) for connection in connections]
                for peer, connections in self.host.get_network().connections.items() if connections}

    @staticmethod
    def describe(connection):
        muxer = connection.muxed_conn
        return {"muxer": type(muxer).__name__, "security": type(muxer.secured_conn).__name__,
                "remote": "/ip4/%s/tcp/%s" % muxer.get_remote_address()}

    async def disconnect(self, peer):
        await self.host.disconnect(ID.from_string(peer))

    async def ping(self, peer, count):
        await PingService(self.host).ping(ID.from_string(peer), count)

    async def identify(self, peer):
        stream = await self.open_stream(peer, IDENTIFY_PROTOCOL)
        answer = await read_to_end(stream)
        await stream.close()
        return parse_identify(answer)

    async def echo(self, peer, size):
        stream = await self.open_stream(peer, ECHO)
        data = os.urandom(size)
        start = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, data)
            back = await read(stream, size)
        seconds = time.monotonic() - start
        await stream.close()
        if back != data:
            raise ValueError("other bytes came back")
        return {"seconds": seconds}

    async def half_close(self, peer, size):
        """Ends its direction, and only then is answered."""
        stream = await self.open_stream(peer, AFTER_END)
        data = os.urandom(size)
        await stream.write(data)
        await stream.close_write()
        back = await read_to_end(stream)
        await stream.close()
        if back != data:
            raise ValueError(f"{len(back)} other bytes came back")

    async def reset(self, peer):
        """Resets an echo in the middle."""
        stream = await self.open_stream(peer, ECHO)
        await stream.write(bytes(1000))
        await read(stream, 1000)
        await stream.reset()

    async def expect_reset(self, peer):
        """The remote resets the stream."""
        stream = await self.open_stream(peer, RESET)
        await stream.write(bytes(1000))
        try:
            answer = await stream.read(1000)
        except (StreamEOF, StreamReset):
            if was_reset(stream):
                return
            raise
        raise ValueError(f"{len(answer)} bytes came")

    async def open(self, peer, proto):
        await (await self.open_stream(peer, proto)).close()

    async def open_stream(self, peer, protocol):
        return await self.host.new_stream(ID.from_string(peer), [protocol])


async def obey(commands):
    async for line in trio.wrap_file(sys.stdin):
        request = json.loads(line)
        try:
            with trio.fail_after(SECONDS):
                answer = {"ok": True, "result": await getattr(commands, request.pop("cmd"))(**request)}
        except (Exception, BaseExceptionGroup) as error:
            traceback.print_exc()
            answer = driver.failure(error)
        driver.say(answer)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--muxer", choices=("yamux", "mplex"), default="yamux")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    key = ed25519_key_pair(seed_bytes(options.seed))
    listen = [Multiaddr(address) for address in options.listen]
    host = new_host(
        key_pair=key, sec_opt={NOISE: Noise(key, noise_privkey=x25519_key_pair().private_key)},
        muxer_opt={MPLEX: Mplex} if options.muxer == "mplex" else {YAMUX: Yamux}, listen_addrs=listen)
    async with host.run(listen_addrs=listen):
        commands = Commands(host)
        addresses = [str(address) for address in host.get_addrs()]
        driver.announce(str(host.get_id()), [split_peer(a)[0] if "/p2p/" in a else a for a in addresses])
        await obey(commands)
        os._exit(0)  # the host's tasks would delay the end


if __name__ == "__main__":
    trio.run(main)
