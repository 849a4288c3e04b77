"""Test identities, and what peers say of themselves: Ed25519 keys, peer IDs, signed peer records, identify messages.

Ed25519 is spelled out after RFC 8032, slow and not in constant time, so that the drivers need nothing beyond Python itself and
signatures are checked by code that shares nothing with the one under test.
"""
import hashlib

from wire import b58encode, decode, encode, multiaddr_to_text, take, with_length

# --- Ed25519

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        raise ValueError("not a point of the curve")
    return x if x & 1 == sign else P - x


BASE = (recover_x(BASE_Y, 0), BASE_Y)


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return ((x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P)


def multiply(scalar, point):
    out = (0, 1)
    while scalar:
        if scalar & 1:
            out = add(out, point)
        point, scalar = add(point, point), scalar >> 1
    return out


def compress(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decompress(data):
    number = int.from_bytes(data, "little")
    y = number & (1 << 255) - 1
    return recover_x(y, number >> 255), y


def public_key(seed):
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return compress(multiply(int.from_bytes(digest, "little"), BASE))


def is_signed(public, message, signature):
    if len(signature) != 64:
        return False
    r, s = decompress(signature[:32]), int.from_bytes(signature[32:], "little")
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    return s < ORDER and multiply(s, BASE) == add(r, multiply(challenge, decompress(public)))


# --- Keys and peer IDs

ED25519 = 1


def seed_bytes(number):
    """The seed of a test identity."""
    return hashlib.sha256(b"warren interop %d" % number).digest()


def private_key(seed):
    """libp2p's PrivateKey message."""
    return encode([(1, ED25519), (2, seed + public_key(seed))])


def peer_id(public_key_message):
    """The peer ID of a PublicKey message that is short enough to be its own hash."""
    return b58encode(b"\0" + with_length(public_key_message))


# --- Signed records and identify

RECORD_DOMAIN, RECORD_TYPE = b"libp2p-peer-record", b"\x03\x01"


def open_record(envelope):
    """A peer record out of its signed envelope: peer ID, sequence number, addresses. The signature is verified."""
    fields = decode(envelope)
    signer, kind, payload, signature = (fields[number][0] for number in (1, 2, 3, 5))
    key = decode(signer)
    if key[1][0] != ED25519:
        raise ValueError("the record is not signed with an Ed25519 key")
    if kind != RECORD_TYPE:
        raise ValueError(f"payload type {kind.hex()}")
    message = with_length(RECORD_DOMAIN) + with_length(kind) + with_length(payload)
    if not is_signed(key[2][0], message, signature):
        raise ValueError("the record's signature is wrong")
    record = decode(payload)
    peer = b58encode(record[1][0])
    if peer != peer_id(signer):
        raise ValueError("the record is signed by somebody else")
    return {
        "record_peer": peer, "record_sequence": record[2][0],
        "record_addrs": [multiaddr_to_text(decode(info)[1][0]) for info in record.get(3, [])],
    }


def parse_identify(data):
    """The messages of an identify answer, merged; a field that was not sent is missing."""
    merged, position = b"", 0
    while position < len(data):
        message, position = take(data, position)
        merged += message
    fields = decode(merged)
    out = {
        "protocols": [name.decode() for name in fields.get(3, [])],
        "listen_addrs": [multiaddr_to_text(address) for address in fields.get(2, [])],
        "signed_peer_record": 8 in fields,
    }
    if 1 in fields:
        out["public_key"] = peer_id(fields[1][-1])
    if 4 in fields:
        out["observed_addr"] = multiaddr_to_text(fields[4][-1])
    if 5 in fields:
        out["protocol_version"] = fields[5][-1].decode()
    if 6 in fields:
        out["agent_version"] = fields[6][-1].decode()
    if 8 in fields:
        out.update(open_record(fields[8][-1]))
    return out
