"""The matrix: each implementation, dialled by us and dialling us, through each step.

Called by `run`, which makes the namespaces.
"""
import argparse
import os
import subprocess
import sys
import time

from implementations import IMPLEMENTATIONS, SETTLED
from process import Broken, Process, until

BULK = 10_000_000
HALF = 1_000_000  # more than a window
ECHO, AFTER_END, RESET, PING = "/echo/1", "/after-end/1", "/reset/1", "/ipfs/ping/1.0.0"
MUXERS = {"yamux": "/yamux/1.0.0", "mplex": "/mplex/6.7.0"}
UNKNOWN = "/nobody/speaks/this/1.0.0"

# lattica leaves peers whose protocol version is not its own. The others do not care.
PROTOCOL_VERSION = "/ipfs/kad/1.0.0"
PROTOCOLS = {AFTER_END, ECHO, RESET, PING, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/perf/1.0.0"}


class Wrong(Exception):
    """A step came to another result than it should."""


class NotApplicable(Exception):
    """The other implementation cannot do this; why."""


def equal(what, found, expected):
    if found != expected:
        raise Wrong(f"{what} is {found!r}, not {expected!r}")


def needs(lack):
    if lack:
        raise NotApplicable(lack)


class Pair:
    """The node and one peer. `steps` go in order, each on what the earlier ones have left."""

    def __init__(self, options, implementation, is_dialled_by_us):
        self.options = options
        self.implementation = implementation
        self.is_dialled_by_us = is_dialled_by_us
        self.node = self.peer = None
        self.connection = None

    def log(self, name):
        side = "dialled" if self.is_dialled_by_us else "dialling"
        return os.path.join(self.options.logs, f"{self.implementation.name}-{side}-{name}.log")

    def start(self):
        own, others = self.options.namespaces
        ours, theirs = (f"/ip4/{ip}/tcp/0" for ip in self.options.addresses)
        self.node = Process(
            "the node", own,
            [self.options.node, "--seed", "1", "--listen", ours, "--protocol-version", PROTOCOL_VERSION,
             "--muxer", self.implementation.muxer], self.log("node"))
        command = [*self.implementation.command(self.options.peers), "--seed", "2", "--listen", theirs]
        if self.implementation.lacks_dialling and not self.is_dialled_by_us:
            command += ["--dial", f"{self.node.address}/p2p/{self.node.peer}"]
        self.peer = Process(self.implementation.name, others, command, self.log("peer"))

    def stop(self):
        for process in (self.peer, self.node):
            if process:
                process.stop()

    # --- Asking both sides

    def ask(self, command, seconds=20, **arguments):
        """Has the node do something with the peer."""
        return self.node(command, seconds, peer=self.peer.peer, **arguments)

    def have(self, command, seconds=20, **arguments):
        """Has the peer do something with the node."""
        return self.peer(command, seconds, peer=self.node.peer, **arguments)

    def connections(self):
        """The node's connections to the peer."""
        return self.node("peers").get(self.peer.peer, [])

    def sockets(self, namespace):
        """The kernel's view: local and remote address of each TCP connection that somebody in the namespace holds."""
        listing = subprocess.run(
            ["ip", "netns", "exec", namespace, "ss", "-Htn", "state", "established", "state", "close-wait"],
            check=True, capture_output=True, text=True, timeout=5).stdout
        return [tuple(map(multiaddr, line.split()[-2:])) for line in listing.splitlines()]

    def still_alive(self):
        """One ping each way, on the connection of the beginning."""
        self.ask("ping", count=1)
        if not self.implementation.lacks_streams:
            self.have("ping", count=1)
        equal("the connection", [each["id"] for each in self.connections()], [self.connection["id"]])

    # --- The steps

    def connect(self):
        """One connection, Noise and the muxer in question, between the addresses that the kernel shows."""
        if self.is_dialled_by_us:
            self.node("dial", addr=f"{self.peer.address}/p2p/{self.peer.peer}")
        elif not self.implementation.lacks_dialling:
            self.peer("dial", addr=f"{self.node.address}/p2p/{self.node.peer}")
        connections = until("the node has a connection", self.connections)
        until("the peer has a connection", lambda: self.peer("peers").get(self.node.peer))
        equal("the number of connections", len(connections), 1)
        self.connection = connections[0]
        equal("security", self.connection["security"], "/noise")
        equal("muxer", self.connection["muxer"], MUXERS[self.implementation.muxer])
        sockets = self.sockets(self.options.namespaces[0])
        equal("the kernel's connections", sockets, [(self.connection["local"], self.connection["remote"])])

    def port_reuse(self):
        """Both ends are listening addresses: we dial from the port that we listen on."""
        if not self.is_dialled_by_us:
            raise NotApplicable("the dialler's port is its own affair")
        equal("our end", self.connection["local"], self.node.address)
        equal("the peer's end", self.connection["remote"], self.peer.address)

    def early_muxer(self):
        """The Noise handshake settles the muxer where the peer can do that; else multistream-select does."""
        equal("early", self.connection["early_muxer"], self.implementation.negotiates_muxer_early)

    def identify_peer(self):
        """Every field of what the peer says."""
        found = self.ask("identify")
        found["protocols"] = [name for name in found["protocols"] if name not in self.implementation.late_protocols]
        expected = {
            "agent_version": self.implementation.agent_version,
            "protocol_version": self.implementation.protocol_version,
            "protocols": sorted(self.implementation.protocols),
            "listen_addrs": [self.peer.address],
            "observed_addr": self.connection["local"],
            "public_key": self.peer.peer,
            "signed_peer_record": bool(self.implementation.record_address),
        }
        if self.implementation.record_address:
            address = self.implementation.record_address.format(place=self.peer.address, peer=self.peer.peer)
            expected |= {"record_peer": self.peer.peer, "record_addrs": [address]}
            if found.pop("record_sequence", 0) <= 0:
                raise Wrong("the record has no sequence number")
        compare(found, expected)

    def identify_us(self):
        """Every field of what we say, read by the peer."""
        found = until("the peer has identified the node", lambda: self.have("identify"))
        expected = {
            "agent_version": "warren-interop",
            "protocol_version": PROTOCOL_VERSION,
            "protocols": sorted(PROTOCOLS),
            "listen_addrs": [self.node.address],
        }
        if not self.implementation.lacks_streams:
            expected |= {
                "observed_addr": self.connection["remote"], "public_key": self.node.peer, "signed_peer_record": True,
                "record_peer": self.node.peer, "record_addrs": [self.node.address],
            }
            age = time.time_ns() - found.pop("record_sequence", 0)
            if not 0 <= age < 600e9:
                raise Wrong(f"the record's sequence number is not the time of its making but {age} ns off")
        compare(found, expected)

    def ping_peer(self):
        self.ask("ping", count=3)

    def ping_us(self):
        if self.implementation.lacks_streams:
            until("the peer's own ping is answered", lambda: self.have("round_trip") is not None, 20)
        else:
            self.have("ping", count=3)

    def echo_by_peer(self):
        needs(self.implementation.lacks_streams)
        self.ask("echo", 60, proto=ECHO, size=BULK)

    def echo_by_us(self):
        needs(self.implementation.lacks_streams)
        needs(self.implementation.lacks_duplex)
        self.have("echo", 60, size=BULK)

    def we_reset_our_stream(self):
        if self.implementation.lacks_streams:
            self.ask("reset", proto=PING, size=32)
        else:
            self.ask("reset", proto=ECHO, size=1000)
        if self.implementation.counts_resets:
            until("the peer sees the reset", lambda: self.peer("served_resets") == 1)
        self.still_alive()

    def we_reset_its_stream(self):
        needs(self.implementation.lacks_streams)
        self.have("expect_reset")
        self.still_alive()

    def it_resets_its_stream(self):
        needs(self.implementation.lacks_streams)
        before = self.node("served")[ECHO]["reset"]
        self.have("reset")
        until("the node sees the reset", lambda: self.node("served")[ECHO]["reset"] == before + 1)
        self.still_alive()

    def it_resets_our_stream(self):
        needs(self.implementation.lacks_streams)
        self.ask("expect_reset", proto=RESET)
        self.still_alive()

    def we_end_our_direction(self):
        """What the peer answers after our end still arrives, and then its own end."""
        if self.implementation.lacks_half_close:
            self.ask("half_close", proto=PING, size=32)
        else:
            self.ask("half_close", proto=AFTER_END, size=HALF)

    def it_ends_its_direction(self):
        needs(self.implementation.lacks_half_close)
        self.have("half_close", size=HALF)

    def it_refuses_a_protocol(self):
        self.ask("unknown_protocol", proto=UNKNOWN)
        self.still_alive()

    def we_refuse_a_protocol(self):
        try:
            self.have("open", proto=UNKNOWN)
        except Broken as error:
            if self.implementation.refusal not in str(error):
                raise
        else:
            raise Wrong("the stream was opened")
        self.still_alive()

    def no_stream_is_left(self):
        """But for those that last. lattica opens and gives up bitswap streams for its first 5 s, however often it is refused."""
        expected = [self.implementation.lasting_streams]
        try:
            until("no stream is left", lambda: [each["streams"] for each in self.connections()] == expected)
        except Broken as error:
            raise Wrong(f"{error}: {[each['streams'] for each in self.connections()]}") from error

    def disconnect(self):
        """Whoever dialled leaves; the other side notices, and ours ends in an orderly way."""
        if self.is_dialled_by_us:
            self.ask("disconnect")
            until("the peer closes its socket", lambda: not self.sockets(self.options.namespaces[1]))
            if not self.implementation.lacks_dialling:  # lattica lists peers that are gone
                until("the peer sees the end", lambda: not self.peer("peers").get(self.node.peer))
        elif self.implementation.lacks_dialling:
            self.peer.stop()
        else:
            self.have("disconnect")
        until("the node sees the end", lambda: not self.connections())
        equal("the node's exit status", self.node.stop(), 0)

    steps = [
        ("connect", connect),
        ("port reuse", port_reuse),
        ("early muxer, or not", early_muxer),
        ("identify of the peer", identify_peer),
        ("identify of us", identify_us),
        ("3 pings to the peer", ping_peer),
        ("3 pings to us", ping_us),
        ("10 MB echo, we open", echo_by_peer),
        ("10 MB echo, it opens", echo_by_us),
        ("we reset our stream", we_reset_our_stream),
        ("we reset its stream", we_reset_its_stream),
        ("it resets its stream", it_resets_its_stream),
        ("it resets our stream", it_resets_our_stream),
        ("half-close by us", we_end_our_direction),
        ("half-close by it", it_ends_its_direction),
        ("it refuses a protocol", it_refuses_a_protocol),
        ("we refuse a protocol", we_refuse_a_protocol),
        ("no stream is left", no_stream_is_left),
        ("disconnect", disconnect),
    ]

    def run(self):
        """The outcome of each step, by name."""
        outcomes = {}
        try:
            try:
                self.start()
            except Broken as error:
                return {name: f"FAILED {error}" for name, _ in self.steps}
            for name, step in self.steps:
                start = time.monotonic()
                outcomes[name] = outcome = self.outcome(step)
                self.say(f"{name}: {outcome} ({time.monotonic() - start:.2f} s)")
        finally:
            self.stop()
        if any(outcome.startswith("FAILED") for outcome in outcomes.values()):
            self.show_logs()
        return outcomes

    def outcome(self, step):
        if self.connection is None and step is not Pair.connect:
            return "FAILED not connected"
        try:
            step(self)
            return "ok"
        except NotApplicable as reason:
            return f"n/a {reason}"
        except (Broken, Wrong, subprocess.SubprocessError, LookupError, TypeError) as error:
            return f"FAILED {error}" if isinstance(error, (Broken, Wrong)) else f"FAILED {error!r}"

    def title(self):
        return f"we dial {self.implementation.name}" if self.is_dialled_by_us else f"{self.implementation.name} dials us"

    def say(self, text):
        print(f"{self.title()}: {text}", file=sys.stderr, flush=True)

    def show_logs(self):
        for name in ("node", "peer"):
            with open(self.log(name), errors="replace") as file:
                for line in file.readlines()[-20:]:
                    self.say(f"{name}'s log: {line.rstrip()}")


def multiaddr(socket_address):
    ip, _, port = socket_address.rpartition(":")
    return f"/ip4/{ip}/tcp/{port}"


def compare(found, expected):
    """Field by field; the order of the protocols does not matter."""
    found["protocols"] = sorted(found["protocols"])
    for name in sorted(found.keys() | expected.keys()):
        equal(name, found.get(name), expected.get(name))


def print_table(columns):
    """Columns of outcomes by step, under their titles. Reasons are numbered and follow."""
    reasons = []
    cells = [["", *columns]]
    for name, _ in Pair.steps:
        row = [name]
        for outcomes in columns.values():
            verdict, _, reason = outcomes[name].partition(" ")
            if reason and reason not in reasons:
                reasons.append(reason)
            row.append(f"{verdict} [{reasons.index(reason) + 1}]" if reason else verdict)
        cells.append(row)
    widths = [max(map(len, column)) for column in zip(*cells)]
    print()
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for number, reason in enumerate(reasons, 1):
        print(f"[{number}] {' '.join(reason.split())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--namespaces", nargs=2, required=True)
    parser.add_argument("--addresses", nargs=2, required=True)
    parser.add_argument("--logs", required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMPLEMENTATIONS)}; default: {', '.join(SETTLED)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(IMPLEMENTATIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    columns = {}
    for name in options.names or SETTLED:
        for is_dialled_by_us in (True, False):
            pair = Pair(options, IMPLEMENTATIONS[name], is_dialled_by_us)
            columns[pair.title()] = pair.run()
    print_table(columns)
    outcomes = [outcome for column in columns.values() for outcome in column.values()]
    passed = outcomes.count("ok")
    failed = sum(outcome.startswith("FAILED") for outcome in outcomes)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
