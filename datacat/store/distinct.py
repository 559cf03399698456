"""How many different things were seen, in little space: exact up to 128, about 3 % wrong beyond. Pure.

Beyond that it is HyperLogLog with 1024 registers (Flajolet, Fusy, Gandouet, Meunier, 2007; standard error
1.04 / sqrt(1024) = 3.25 %). What was seen is kept as 64-bit hashes or less, never itself; order and repeats do not
matter.
"""

import math
from hashlib import blake2b

EXACT = 128
_REGISTERS = 1024
_BITS = 10
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)


def hash_of(text: str) -> int:
    """Return 64 bits that stand for text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Distinct:
    """A set that knows only its size: its hashes, or (hashes None) registers. One thread at a time."""

    __slots__ = ("hashes", "registers")

    def __init__(self) -> None:
        self.hashes: set[int] | None = set()
        self.registers = bytearray()

    def add(self, hashed: int) -> None:
        """Add what hash_of() gave."""
        if self.hashes is not None:
            self.hashes.add(hashed)
            if len(self.hashes) > EXACT:
                self.registers = bytearray(_REGISTERS)
                for one in self.hashes:
                    self._register(one)
                self.hashes = None
            return
        self._register(hashed)

    def merge(self, more: "Distinct") -> None:
        """Add everything that more has seen."""
        if more.hashes is not None:
            for one in more.hashes:
                self.add(one)
            return
        if self.hashes is not None:
            hashes, self.hashes = self.hashes, None
            self.registers = bytearray(more.registers)
            for one in hashes:
                self._register(one)
            return
        self.registers = bytearray(map(max, self.registers, more.registers))

    def count(self) -> int:
        """Return how many different ones were added."""
        if self.hashes is not None:
            return len(self.hashes)
        estimate = _ALPHA * _REGISTERS**2 / math.fsum(2.0**-rank for rank in self.registers)
        zeros = self.registers.count(0)
        if estimate <= 2.5 * _REGISTERS and zeros:
            estimate = _REGISTERS * math.log(_REGISTERS / zeros)
        return max(EXACT + 1, round(estimate))

    def pack(self) -> bytes:
        """Return all of it: 8 bytes for each hash in ascending order, or 1024 registers of one byte behind a zero."""
        if self.hashes is not None:
            return b"".join(one.to_bytes(8) for one in sorted(self.hashes))
        return b"\0" + bytes(self.registers)

    @classmethod
    def unpack(cls, packed: bytes) -> "Distinct":
        """Return what pack() wrote."""
        made = cls()
        if len(packed) == _REGISTERS + 1:
            made.hashes = None
            made.registers = bytearray(packed[1:])
        else:
            made.hashes = {int.from_bytes(packed[start : start + 8]) for start in range(0, len(packed), 8)}
        return made

    def _register(self, hashed: int) -> None:
        rest = hashed >> _BITS
        rank = 64 - _BITS - rest.bit_length() + 1
        index = hashed & (_REGISTERS - 1)
        self.registers[index] = max(self.registers[index], rank)
