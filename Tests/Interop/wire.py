"""What the drivers need of libp2p's encodings: varints, protobuf, base58, and the multiaddrs that the tests use."""
import ipaddress
import struct


def uvarint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_uvarint(data, position=0):
    """The number at `position`, and where it ends."""
    shift = value = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def take(data, position):
    """The bytes behind the length at `position`, and where they end."""
    size, position = read_uvarint(data, position)
    if position + size > len(data):
        raise ValueError(f"{size} bytes announced, {len(data) - position} there")
    return data[position:position + size], position + size


def with_length(data):
    return uvarint(len(data)) + data


# --- Protobuf


def encode(fields):
    """A message out of pairs of field number and int, bytes or str."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += uvarint(number << 3) + uvarint(value)
        else:
            out += uvarint(number << 3 | 2) + with_length(value.encode() if isinstance(value, str) else value)
    return out


def decode(data):
    """A message as a dictionary of field numbers to the values that came with them."""
    fields, position = {}, 0
    while position < len(data):
        tag, position = read_uvarint(data, position)
        if tag & 7 == 0:
            value, position = read_uvarint(data, position)
        elif tag & 7 == 2:
            value, position = take(data, position)
        else:
            raise ValueError(f"wire type {tag & 7}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


# --- Base58

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def b58encode(data):
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def b58decode(text):
    number = 0
    for character in text:
        number = number * 58 + ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


# --- Multiaddr

CODES = {"ip4": 4, "tcp": 6, "ip6": 41, "unix": 400, "p2p": 421}
NAMES = {code: name for name, code in CODES.items()}


def multiaddr_to_bytes(text):
    """A multiaddr; everything behind /unix is a path."""
    out, parts = b"", text.split("/")[1:]
    while parts:
        name = parts.pop(0)
        out += uvarint(CODES[name])
        if name in ("ip4", "ip6"):
            out += ipaddress.ip_address(parts.pop(0)).packed
        elif name == "tcp":
            out += struct.pack(">H", int(parts.pop(0)))
        elif name == "p2p":
            out += with_length(b58decode(parts.pop(0)))
        else:
            out += with_length(("/" + "/".join(parts)).encode())
            parts = []
    return out


def multiaddr_to_text(data):
    out, position = "", 0
    while position < len(data):
        code, position = read_uvarint(data, position)
        name = NAMES[code]
        if name in ("ip4", "ip6"):
            size = 4 if name == "ip4" else 16
            value = str(ipaddress.ip_address(data[position:position + size]))
            position += size
        elif name == "tcp":
            value = str(struct.unpack_from(">H", data, position)[0])
            position += 2
        else:
            value, position = take(data, position)
            value = b58encode(value) if name == "p2p" else value.decode().lstrip("/")
        out += f"/{name}/{value}"
    return out


def split_peer(address):
    """The place and the peer ID of an address that ends in /p2p/…."""
    place, _, peer = address.rpartition("/p2p/")
    return place, peer
