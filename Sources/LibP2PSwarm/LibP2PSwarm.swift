// LibP2PSwarm
