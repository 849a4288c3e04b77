// LibP2P
