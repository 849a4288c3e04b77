// LibP2PProtocols
