"""What is measured: each entrant is brought up by `start(network)`, which returns its daemons and the address of b to talk to."""

import dataclasses
import json
import os

from network import ADDRESS, OTHER, OVERLAY, SIDES, Failed, call, succeeds, until

PORT = 4117


class Raw:
    """The veth pair itself: what the machine and the load generators can do."""

    name = "raw"

    def start(self, network):
        return [], ADDRESS["b"]


@dataclasses.dataclass
class Warren:
    """Two daemons that know each other, a dials b over TCP."""

    binary: str
    mtu: int
    agreed: "Agreed"
    name = "warren"

    def start(self, network):
        peers = []
        for side in SIDES:
            os.mkdir(network.path(side))
            self.verb(network, side, "init", "--name", side)
            peers.append({"name": side, "id": self.verb(network, side, "id").strip()})
        peers[1]["addresses"] = [f"/ip4/{ADDRESS['b']}/tcp/{PORT}"]
        for side in SIDES:
            configuration = {
                "name": side, "listen": [f"/ip4/0.0.0.0/tcp/{PORT}"],
                "networks": {"lab": {"interface": "warren0", "mtu": self.mtu, "peers": peers}},
            }
            network.write(f"{side}/warren.yaml", json.dumps(configuration))  # JSON is YAML
        daemons = [network.start(side, *self.words(network, side, "daemon"), environment=self.environment(network, side))
                   for side in SIDES]
        for side in SIDES:
            until(lambda: self.direct_peer(network, side), 20, f"warren on {side} to be connected")
        path = next(iter(self.direct_peer(network, "a").get("paths", [])), {})
        self.agreed.adopt(path)
        return daemons, self.status(network, "b")["networks"][0]["ips"][0]

    def environment(self, network, side):
        """What the daemons' environment has besides."""
        return {}

    def words(self, network, side, *words):
        folder = network.path(side)
        return [self.binary, *words, "--config", f"{folder}/warren.yaml", "--state", f"{folder}/state", "--socket", f"{folder}/socket"]

    def verb(self, network, side, *words):
        return network.on(side, *self.words(network, side, *words))

    def status(self, network, side):
        return json.loads(self.verb(network, side, "status", "--json"))

    def direct_peer(self, network, side):
        """The other side's entry once it is reached directly, else None."""
        try:
            peers = self.status(network, side)["networks"][0]["peers"]
        except (Failed, ValueError, LookupError):
            return None
        return next((peer for peer in peers if peer["name"] == OTHER[side] and peer["state"] == "direct"), None)


@dataclasses.dataclass
class CountedWarren(Warren):
    """Daemons that count what they allocate, each in a file of its own."""

    counter: str

    def environment(self, network, side):
        return {"LD_PRELOAD": self.counter, "ALLOCATIONS": network.path(f"{side}.allocations")}


@dataclasses.dataclass
class Agreed:
    """The cipher and congestion control that warren chose, so that the forwarder uses the same. `cipher` auto asks warren."""

    cipher: str
    congestion: str = "bbr"

    def adopt(self, path):
        self.congestion = path.get("congestion") or self.congestion
        if self.cipher == "auto":
            self.cipher = "aes256gcm" if path.get("security") == "tls" else "chacha20"

    @property
    def forwarder(self):
        """What the forwarder is to use."""
        return {"cipher": "chacha20" if self.cipher == "auto" else self.cipher, "congestion": self.congestion}


@dataclasses.dataclass
class Forwarder:
    """The C reference beside this file: the least work a stream-based overlay can do."""

    binary: str
    mtu: int
    agreed: Agreed
    name = "forwarder"

    def start(self, network):
        daemons = []
        for side, role in (("b", "--listen"), ("a", "--connect")):
            daemons.append(network.start(
                side, self.binary, role, f"{ADDRESS['b']}:{PORT}", "--tun", "forward0",
                *(word for name, value in self.agreed.forwarder.items() for word in (f"--{name}", value))))
            until(lambda: succeeds(*network.inside(side, "ip", "link", "show", "forward0")), 5, "the forwarder's TUN device")
            network.ip(side, "address", "add", f"{OVERLAY[side]}/24", "dev", "forward0")
            network.ip(side, "link", "set", "forward0", "mtu", self.mtu, "up")
        return daemons, OVERLAY["b"]


@dataclasses.dataclass
class WireGuardGo:
    binary: str = "wireguard-go"
    name: str = "wireguard-go"

    def start(self, network):
        private = {side: call("wg", "genkey") for side in SIDES}
        public = {side: call("wg", "pubkey", input=private[side]).strip() for side in SIDES}
        daemons = []
        for side in SIDES:
            device = f"wb{network.tag}{side}"  # of one's own per side: the control sockets lie in one folder
            control = f"/var/run/wireguard/{device}.sock"
            daemons.append(network.start(side, self.binary, "--foreground", device, environment={"LOG_LEVEL": "error"}))
            until(lambda: os.path.exists(control), 5, "wireguard-go's socket")
            network.on(side, "wg", "set", device, "private-key", network.write(f"{side}.key", private[side]),
                       "listen-port", PORT, "peer", public[OTHER[side]], "allowed-ips", "10.202.0.0/24",
                       "endpoint", f"{ADDRESS[OTHER[side]]}:{PORT}")
            network.ip(side, "address", "add", f"{OVERLAY[side]}/24", "dev", device)
            network.ip(side, "link", "set", device, "mtu", 1420, "up")
        return daemons, OVERLAY["b"]


class Nebula:
    """nebula with b as the lighthouse and AES-256-GCM, its default."""

    name = "nebula"

    def start(self, network):
        authority = ["-ca-crt", network.path("ca.crt"), "-ca-key", network.path("ca.key")]
        call("nebula-cert", "ca", "-name", "bench", "-out-crt", network.path("ca.crt"), "-out-key", network.path("ca.key"))
        daemons = []
        for side in reversed(SIDES):
            certificate, key = network.path(f"{side}.crt"), network.path(f"{side}.key")
            call("nebula-cert", "sign", *authority, "-name", side, "-ip", f"{OVERLAY[side]}/24",
                 "-out-crt", certificate, "-out-key", key)
            anyone = [{"port": "any", "proto": "any", "host": "any"}]
            configuration = {
                "pki": {"ca": network.path("ca.crt"), "cert": certificate, "key": key},
                "static_host_map": {OVERLAY["b"]: [f"{ADDRESS['b']}:{PORT}"]},
                "lighthouse": {"am_lighthouse": side == "b", "hosts": [] if side == "b" else [OVERLAY["b"]]},
                "listen": {"host": "0.0.0.0", "port": PORT, "read_buffer": 4000000, "write_buffer": 4000000},
                "cipher": "aes", "tun": {"dev": "nebula0", "mtu": 1420}, "logging": {"level": "error"},
                "firewall": {"outbound": anyone, "inbound": anyone},
            }
            path = network.write(f"{side}.yml", json.dumps(configuration))
            daemons.append(network.start(side, "nebula", "-config", path))
        return daemons, OVERLAY["b"]
