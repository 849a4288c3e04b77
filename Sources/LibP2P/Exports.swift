// Who imports LibP2P gets the whole library.

@_exported public import LibP2PConnection
@_exported public import LibP2PCore
@_exported public import LibP2PProtocols
@_exported public import LibP2PQUIC
@_exported public import LibP2PSwarm
@_exported public import Multiformats
@_exported public import PeerIdentity
