"""Protocols a worker speaks, one file each, both directions, no socket: the client imports the same files."""
