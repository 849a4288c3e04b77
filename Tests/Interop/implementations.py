"""What is known of the other implementations: how each is started, what it says of itself, what it cannot do."""
import os
from dataclasses import dataclass, replace

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Implementation:
    name: str
    #: The program that runs its driver, and the driver's own arguments; {peers} is the folder of `install-peers`.
    program: tuple[str, ...]
    #: What identify says.
    agent_version: str
    protocol_version: str
    protocols: frozenset[str]
    #: An address in its signed record, from {place} and {peer}; empty: it sends no record.
    record_address: str
    #: Whether its Noise handshake settles the muxer.
    negotiates_muxer_early: bool
    #: What both sides speak.
    muxer: str = "yamux"
    #: Why it opens and serves no streams of our choice.
    lacks_streams: str = ""
    #: What identify says only later, perhaps.
    late_protocols: frozenset[str] = frozenset()
    #: What it says when a protocol is refused.
    refusal: str = "protocols not supported"
    #: How many of its own streams it keeps open: rust pings on one.
    lasting_streams: int = 0
    #: Why its own streams cannot be half-closed.
    lacks_half_close: str = ""
    #: Why it cannot read a stream of its own while it writes to it.
    lacks_duplex: str = ""
    #: Whether its driver can tell a reset from an end.
    counts_resets: bool = False
    #: Why it cannot be dialled or disconnected by command; it dials at its start and leaves at its end.
    lacks_dialling: str = ""

    def command(self, peers):
        program, script, *arguments = (part.format(peers=peers) for part in self.program)
        return [program, os.path.join(HERE, script), *arguments]


COMMON = frozenset({"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"})

GO = Implementation(
    name="go",
    program=("/usr/bin/python3", "go_peer.py", "--p2pd", "{peers}/bin/p2pd"),
    agent_version="p2pd/0.1",
    protocol_version="",
    protocols=COMMON | {
        "/echo/1", "/reset/1", "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop"},
    record_address="{place}",
    negotiates_muxer_early=True,
    lacks_half_close="p2pd's pipes end in both directions at once",
)

RUST = Implementation(
    name="rust",
    program=("{peers}/venv/bin/python", "rust_peer.py", "--protocol", "/ipfs/kad/1.0.0"),
    agent_version="rust-libp2p/0.45.0",
    protocol_version="/ipfs/kad/1.0.0",
    protocols=COMMON | {"/ipfs/kad/1.0.0", "/ipfs/bitswap/1.2.0", "/rpc/req-resp/1.0.0", "/rpc/stream/1.0.0"},
    late_protocols=frozenset({"/meshsub/1.0.0", "/meshsub/1.1.0"}),
    record_address="",
    negotiates_muxer_early=False,
    lacks_streams="lattica has no streams of our choice",
    lacks_half_close="lattica has no streams of our choice",
    refusal="UnsupportedProtocols",
    lasting_streams=1,
    lacks_dialling="lattica dials and leaves only when it starts and ends",
)

PYTHON = Implementation(
    name="python",
    program=("{peers}/venv/bin/python", "py_peer.py"),
    agent_version="py-libp2p/0.8.1",
    protocol_version="ipfs/0.1.0",
    protocols=COMMON | {"/echo/1", "/after-end/1", "/reset/1"},
    record_address="{place}/p2p/{peer}",
    negotiates_muxer_early=False,
    counts_resets=True,
)

PYTHON_MPLEX = replace(
    PYTHON,
    name="python-mplex",
    program=("{peers}/venv/bin/python", "py_peer.py", "--muxer", "mplex"),
    muxer="mplex",
    lacks_duplex="py-libp2p locks an mplex stream for a read until something comes",
)

IMPLEMENTATIONS = {each.name: each for each in (GO, RUST, PYTHON, PYTHON_MPLEX)}
#: What is run when nothing is named: those of which every cell is ok.
SETTLED = (GO.name, RUST.name, PYTHON.name)
