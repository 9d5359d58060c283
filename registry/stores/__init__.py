"""Engines that hold registrations, one file each; `store.py` is their contract and their shelf."""
