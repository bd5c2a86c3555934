package overlaynet

// Bridge is the name of a network's bridge, whether it exists or not.
func (m *Manager) Bridge(networkID string) string { return bridgeName(m.prefix, networkID) }
