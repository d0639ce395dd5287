import hashlib
import struct

from src.seeds import derive_seed


def test_derive_seed_depends_on_every_part():
    parts = [(1, "a"), (1, "b"), (2, "a"), (1, "a", 0), (12,), (1, 2), ("1/2", 3), (1, "2", "3x")]
    assert len({derive_seed(*part) for part in parts}) == len(parts)
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert all(0 <= derive_seed(seed) < 2**32 for seed in range(100))
    by_hand = hashlib.blake2b(b"42/order/0", digest_size=4).digest()
    assert derive_seed(42, "order", 0) == struct.unpack("<I", by_hand)[0]
