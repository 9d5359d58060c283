"""Mirrors the house, folder by folder; cluster/ runs real processes on loopback."""
