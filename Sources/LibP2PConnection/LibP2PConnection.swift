// LibP2PConnection
