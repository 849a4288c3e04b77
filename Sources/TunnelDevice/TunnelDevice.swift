// TunnelDevice
