"""Drives rust-libp2p by way of lattica.

lattica has no streams of our choice, dials only what it was started with, and leaves every peer whose identify names
another protocol version than `--protocol`, which is at the same time the name of its DHT.
"""
import argparse
import os
import shutil
import socket
import sys
import tempfile

from lattica import Lattica

import driver
from identity import private_key, seed_bytes


def with_free_port(address):
    """lattica never tells which port it got, so port 0 is replaced beforehand."""
    _, _, ip, _, port = address.split("/")
    if port != "0":
        return address
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return f"/ip4/{ip}/tcp/{probe.getsockname()[1]}"


class Commands:
    def __init__(self, node):
        self.node = node

    def peers(self):
        return {peer: self.node.get_peer_addresses(peer) for peer in self.node.get_all_peers()}

    def identify(self, peer):
        """What the peer has said, as far as lattica shows it; `null` while it has said nothing."""
        info = self.node.get_peer_info(peer)
        return info and {
            "protocol_version": info.protocol_version, "agent_version": info.agent_version,
            "protocols": info.protocols, "listen_addrs": info.listen_addresses,
        }

    def round_trip(self, peer):
        """The last answered ping in milliseconds; `null` before the first. rust pings by itself."""
        info = self.node.get_peer_info(peer)
        return info and info.rtt_ms

    def open(self, peer, proto):
        """Calls a procedure of the peer, which opens a stream of lattica's own protocol, whatever `proto` is."""
        self.node.get_client(peer).call("nobody.answers", b"").result(timeout=15)


def keep_standard_output():
    """lattica logs to standard output, too; that goes to standard error, and the answers keep the original to themselves."""
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w")


def main():
    keep_standard_output()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--dial", action="append", default=[])
    parser.add_argument("--protocol", required=True)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="lattica-")
    try:
        with open(os.path.join(folder, "p2p.key"), "wb") as file:
            file.write(private_key(seed_bytes(options.seed)))
        listen = [with_free_port(address) for address in options.listen]
        # mDNS and UPnP are on by default and look for others beyond this machine.
        builder = (Lattica.builder().with_key_path(folder).with_storage_path(os.path.join(folder, "blocks"))
                   .with_dht_db_path(os.path.join(folder, "dht")).with_mdns(False).with_upnp(False).with_autonat(False)
                   .with_dcutr(False).with_protocol(options.protocol).with_listen_addrs(listen))
        if options.dial:
            builder.with_bootstraps(options.dial)
        node = builder.build()
        driver.announce(node.peer_id(), listen)
        driver.obey(Commands(node))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
        os._exit(0)  # lattica's threads would delay the end


if __name__ == "__main__":
    main()
