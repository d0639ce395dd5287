"""Seeds derived from names and numbers, so that no generator's state has to be carried along."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 32-bit seed that depends on all parts (BLAKE2), equal on every machine."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")
