"""What the configuration of a codec in a container says: profile, level, chroma and bits.

`avcC` and `hvcC` as of ISO/IEC 14496-15 (2017), what `avcC` holds as of ITU-T H.264 (2019), `av1C`
and `vpcC` as of the AOM's and the WebM project's bindings to ISO media.
"""

CONFIGURATIONS = ("avcC", "hvcC", "av1C", "vpcC")
_CHROMA = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")
_SEPARATE = 3  # 4:4:4, whose planes may be coded apart: one bit more
_ALWAYS_420 = (66, 77, 88)  # Baseline, Main and Extended profile of H.264


def read_configuration(name: str, data: bytes) -> tuple[str, str]:
    """Return profile with level, and pixel format, `("100 level 40", "4:2:0 8 bit")`.

    Args:
        name: of `CONFIGURATIONS`.
        data: the content of that box.

    Raises:
        IndexError: it is cut off.
    """
    return {"avcC": _avc, "hvcC": _hevc, "av1C": _av1, "vpcC": _vp9}[name](data)


def _avc(data: bytes) -> tuple[str, str]:
    profile, level = data[1], data[3]
    said = f"{profile} level {level}"
    if profile in _ALWAYS_420:
        return said, _format(1, 8)
    length = int.from_bytes(data[6:8], "big") if data[5] & 31 else 0
    return said, _of_parameters(data[8 : 8 + length])


def _of_parameters(data: bytes) -> str:
    """Return the pixel format of an H.264 sequence parameter set (7.3.2.1.1); "" where cut off."""
    bits = "".join(f"{byte:08b}" for byte in data[4:24])  # after type, profile, flags and level
    _, place = _golomb(bits, 0)  # its number
    chroma, place = _golomb(bits, place)
    depth, place = _golomb(bits, place + (chroma == _SEPARATE))
    return _format(chroma, depth + 8) if place <= len(bits) else ""


def _golomb(bits: str, place: int) -> tuple[int, int]:
    """Return an unsigned Exp-Golomb number (9.1) and the place after it."""
    zeros = bits.find("1", place) - place
    if zeros < 0:
        return 0, len(bits) + 1
    end = place + 2 * zeros + 1
    return int(bits[place + zeros : end], 2) - 1, end


def _hevc(data: bytes) -> tuple[str, str]:
    return f"{data[1] & 31} level {data[12]}", _format(data[16] & 3, (data[17] & 7) + 8)


def _av1(data: bytes) -> tuple[str, str]:
    flags = data[2]
    bits = 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    grey, half_wide, half_high = flags & 0x10, flags & 8, flags & 4
    chroma = 0 if grey else 1 if half_high else 2 if half_wide else 3
    return f"{data[1] >> 5} level {data[1] & 31}", _format(chroma, bits)


def _vp9(data: bytes) -> tuple[str, str]:
    chroma = (data[6] >> 1) & 7  # 0 and 1 are both 4:2:0, they differ in where its samples lie
    return f"{data[4]} level {data[5]}", _format(max(1, chroma), data[6] >> 4)


def _format(chroma: int, bits: int) -> str:
    known = _CHROMA[chroma] if chroma < len(_CHROMA) else f"chroma {chroma}"
    return f"{known} {bits} bit"
