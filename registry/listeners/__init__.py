"""The registry's faces, one file each: bytes -> codec -> catalog -> codec -> bytes."""
