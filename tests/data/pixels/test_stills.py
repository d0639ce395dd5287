"""Any format to upright pixels: turned as the file says, named where it cannot be read."""

import io
import struct
import sys
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from src.data.pixels.decode import decode
from src.data.pixels.formats import file_format, is_clip
from src.data.pixels.images import Canvas, make_canvases
from src.errors import UnreadableImageError

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
# How what is stored becomes what is seen, by the EXIF standard.
UPRIGHT = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
}  # fmt: skip


def smooth(height=60, width=84):
    small = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def noisy():
    noise = np.random.default_rng(1).normal(0, 6, (120, 160, 3))
    return np.clip(smooth(120, 160) + noise, 0, 255).astype(np.uint8)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def pixels(data):
    found = decode(data, [None])
    assert found.problem == ""
    (one,) = found.pixels
    assert one.dtype == np.uint8
    assert one.flags.c_contiguous
    return one


PLAIN = Image.fromarray(smooth())
WAYS = [
    ("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"quality": 95}), ("AVIF", {"quality": 95}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), WAYS)
def test_every_format_is_turned_as_it_says(kind, options):
    for orientation, upright in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(PLAIN, kind, exif=exif, **options)
        found, wanted = pixels(data).astype(int), upright(smooth())
        assert found.shape == wanted.shape, orientation
        assert np.median(np.abs(found - wanted)) <= 2, orientation
        assert np.median(np.abs(found - by_pillow(data))) <= 2
        canvas = make_canvases(data, [Canvas(60, "native", "bicubic")])[0][0]
        top, left = ((side - 60) // 2 for side in wanted.shape[:2])
        assert np.array_equal(canvas, found[top : top + 60, left : left + 60])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_xmp_alone_turns_a_picture(kind):
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP)
        data = encode(PLAIN, kind, pnginfo=texts)
    elif kind == "TIFF":
        data = encode(PLAIN, kind, tiffinfo={700: XMP.encode()})
    else:
        data = encode(PLAIN, kind, xmp=XMP.encode(), quality=95)
    found = pixels(data).astype(int)
    assert found.shape == (84, 60, 3)
    assert np.median(np.abs(found - UPRIGHT[6](smooth()))) <= 2


LOSSLESS = [(k, m, {}) for k in ("PNG", "TIFF") for m in ("L", "1", "P", "RGB")]
LOSSLESS += [("BMP", "RGB", {}), ("PPM", "RGB", {}), ("WEBP", "RGB", {"lossless": True})]
LOSSLESS += [("GIF", "P", {})]
LOSSY = [
    ("JPEG", "L", {}), ("JPEG", "RGB", {"progressive": True, "subsampling": 2}),
    ("JPEG", "CMYK", {"quality": 95}), ("JPEG", "RGB", {"keep_rgb": True}),
    ("WEBP", "RGB", {"quality": 80}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "mode", "options"), LOSSLESS + LOSSY)
def test_every_format_and_mode_equals_pillow(kind, mode, options):
    image = PLAIN.convert(mode)
    data = encode(image, kind, **options)
    found = pixels(data).astype(int)
    assert np.abs(found - by_pillow(data)).max() <= (3 if (kind, mode, options) in LOSSY else 0)
    wanted = np.asarray(image.convert("RGB"))
    assert np.abs(found - wanted).mean() < (8 if (kind, mode, options) in LOSSY else 0.01)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_darkens_nothing(kind, mode):
    image = PLAIN.convert(mode[:-1])
    wanted = np.asarray(image.convert("RGB")).astype(int)
    image.putalpha(Image.fromarray(smooth()[..., 0]))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.abs(pixels(encode(image, kind, **options)) - wanted).max() <= 1


def test_transparent_palettes_keep_their_colours():
    image = PLAIN.quantize(20)
    data = encode(image, "PNG", transparency=bytes(range(0, 200, 10)))
    assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_16_bits_keep_the_high_byte(suffix):
    deep = smooth().astype(np.uint16) * 256 + 77
    grey = pixels(encode(Image.fromarray(deep[..., 0]), {".ppm": "PPM"}.get(suffix, suffix[1:])))
    assert np.array_equal(grey, smooth()[..., :1].repeat(3, 2))
    if suffix != ".ppm":
        data = cv2.imencode(suffix, deep[..., ::-1])[1].tobytes()
        assert np.abs(pixels(data).astype(int) - smooth()).max() <= 1


def test_an_apng_shows_its_default_image_in_training_and_test():
    red, green = (Image.new("RGB", (8, 8), colour) for colour in ("red", "green"))
    data = encode(red, "PNG", save_all=True, append_images=[green, green], default_image=True)
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]
    assert make_canvases(data, [Canvas(8, "squash", "bicubic")])[0][0][0, 0].tolist() == [255, 0, 0]


# --- HEIC ---


def heic(orientation=1):
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = pillow_heif.from_pillow(PLAIN)
    file[0].info["exif"] = exif.tobytes()
    out = io.BytesIO()
    file.save(out, quality=100, chroma=444)
    return out.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_heic_still_is_read_upright_and_is_no_clip(orientation):
    data = heic(orientation)
    assert file_format(data) == "heic"
    assert not is_clip(data[:512])
    found, wanted = pixels(data).astype(int), UPRIGHT[orientation](smooth())
    assert found.shape == wanted.shape
    assert np.median(np.abs(found - wanted)) <= 2


def test_without_its_reader_a_heic_says_what_to_install(monkeypatch):
    data = struct.pack(">I", 24) + b"ftypmif1" + bytes(4) + b"mif1heic" + bytes(90)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImageError, match="HEIC picture: pip install pillow-heif"):
        decode(data, [None])


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        (b"avif\0\0\0\0mif1", "avif"), (b"mif1\0\0\0\0avif", "avif"), (b"heix\0\0\0\0mif1", "heic"),
        (b"msf1\0\0\0\0hevc", "heic"), (b"isom\0\0\0\0avc1", "unknown"),
    ],
)  # fmt: skip
def test_brands_tell_pictures_from_clips(brands, kind):
    head = struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0\0\0\x08mdat"
    assert file_format(head) == kind
    assert is_clip(head) == (kind == "unknown")


# --- what cannot be read ---


def twelve_bits():
    data = encode(PLAIN, "JPEG")
    place = data.index(b"\xff\xc0")
    return data[: place + 1] + b"\xc1" + data[place + 2 : place + 4] + b"\x0c" + data[place + 5 :]


NAMED = {
    "JPEG XL": b"\xff\x0a\xfa\x7f" + bytes(40),
    "JPEG of 12 bits": twelve_bits(),
    "TIFF of floats": encode(Image.fromarray(np.float32(smooth()[..., 0])), "TIFF"),
    "TIFF of 32-bit": encode(Image.fromarray(np.int32(smooth()[..., 0])), "TIFF"),
    "Photoshop": b"8BPS\0\1" + bytes(40),
    "web page": b"\n<!DOCTYPE html><html>404</html>",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "WEBP of which nothing": encode(PLAIN, "WEBP")[:200],
    "^an AVIF of which nothing": encode(PLAIN, "AVIF")[:200],
    "TIFF of which nothing": encode(PLAIN, "TIFF")[:200],
    "PNG of which nothing": b"\x89PNG\r\n\x1a\n",
    "JPEG of which nothing": encode(PLAIN, "JPEG")[:200],
    "GIF of which nothing": b"GIF89a",
    "an XML text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "empty": b"",
    "no known format": b"P5 is a text, not a PGM"[1:],
    "^not an image": bytes(1000),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named(name, capfd):
    with pytest.raises(UnreadableImageError, match=name):
        decode(NAMED[name], [None])
    assert capfd.readouterr() == ("", "")


# --- damage ---


def jpeg(**options):
    return encode(Image.fromarray(noisy()), "JPEG", quality=90, **options)


def zeroed(data, share=1 / 3):
    start = int(len(data) * share)
    return data[:start] + bytes(start) + data[2 * start :]


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def noise_within(data, seed):
    place = len(data) // 2
    return data[:place] + np.random.default_rng(seed).bytes(1500) + data[place + 1500 :]


def headed(data, kind, content):
    """Put a segment of notes first."""
    return data[:2] + struct.pack(">BBH", 0xFF, kind, 2 + len(content)) + content + data[2:]


ODD_HEADERS = {
    "profile": lambda data: headed(data, 0xE2, b"ICC_PROFILE\0\x05\x02ab"),
    "jfif": lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x05", 1),
    "scan": lambda data: data.replace(b"\x11\x03\x11\0\x3f\0", b"\x11\x03\x11\0\x3e\0", 1),
    "adobe": lambda data: headed(data, 0xEE, b"Adobe\0\x64\0\0\0\0\x07"),
}


def tiff_of_jpeg():
    """Return a TIFF of one JPEG with an end marker too early."""
    data = encode(Image.fromarray(noisy()), "TIFF", compression="jpeg", quality=90)
    return data[:5000] + b"\xff\xd9" + data[5002:]


def tiff(compression):  # of several strips
    image = Image.fromarray(cv2.resize(noisy(), (900, 700)))
    return encode(image, "TIFF", compression=compression)


def png_with_wrong_crc():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("note", "hello")
    return encode(PLAIN, "PNG", pnginfo=texts).replace(b"hello", b"jello")


DAMAGED = {
    **{f"jpeg cut {s}": jpeg()[: int(len(jpeg()) * s)] + b"\xff\xd9" for s in (0.2, 0.5, 0.9)},
    "jpeg not ended": jpeg()[: len(jpeg()) // 2],
    "jpeg zeroed": zeroed(jpeg()),
    "jpeg progressive cut": jpeg(progressive=True)[: len(jpeg()) // 2] + b"\xff\xd9",
    "jpeg progressive zeroed": zeroed(jpeg(progressive=True)),
    "cmyk cut": encode(PLAIN.convert("CMYK"), "JPEG", quality=95)[:-300] + b"\xff\xd9",
    **{f"jpeg noise {seed}": noise_within(jpeg(), seed) for seed in range(3)},
    **{f"jpeg {name} cut": odd(jpeg())[:-3000] + b"\xff\xd9" for name, odd in ODD_HEADERS.items()},
    "tiff jpeg": tiff_of_jpeg(),
    "png cut": encode(Image.fromarray(noisy()), "PNG")[:30_000],
    "png flipped": flipped(encode(Image.fromarray(noisy()), "PNG")),
    "png zeroed": zeroed(encode(Image.fromarray(noisy()), "PNG")),
    "png crc": png_with_wrong_crc(),
    "gif cut": encode(Image.fromarray(noisy()), "GIF")[:5000],
    "bmp cut": encode(PLAIN, "BMP")[:9000],
    "tiff deflate": flipped(tiff("tiff_adobe_deflate")),
    "tiff lzw": zeroed(tiff("tiff_lzw")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_picture_is_used_and_said_to_be_one(name, capfd):
    found = decode(DAMAGED[name], [None, 20])
    assert found.problem.startswith("damaged picture")
    assert all(one.std() > 5 for one in found.pixels)
    drawn, problem = make_canvases(DAMAGED[name], [Canvas(16, "squash", "bicubic")])
    assert (drawn[0].shape, problem) == ((16, 16, 3), found.problem)
    assert capfd.readouterr() == ("", "")


def _tried(data):
    with suppress(UnreadableImageError):
        return decode(data, [None])
    return None


@pytest.mark.parametrize("progressive", [False, True])
def test_what_no_decoder_wrote_is_no_stale_memory(progressive):
    for seed in range(12):
        data, found = noise_within(jpeg(progressive=progressive), seed), []
        for level in (7, 200):
            stale = [np.full((120, 160, 3), level, np.uint8) for _ in range(5)]
            del stale
            found.append(_tried(data))
        one, other = found
        assert (one is None) == (other is None)
        if one is not None:
            assert one.problem.startswith("damaged picture")
            assert np.array_equal(one.pixels, other.pixels)


def test_what_moves_no_pixel_is_no_damage():
    whole = pixels(jpeg())
    for data in (jpeg()[:-2], jpeg() + bytes(300), jpeg() + b"junk" * 40):
        assert np.array_equal(pixels(data), whole)
    for name, odd in ODD_HEADERS.items():
        assert odd(jpeg()) != jpeg()
        for data in (odd(jpeg()), odd(jpeg())[:-2]):
            assert np.array_equal(pixels(data), whole), name
    for mode, options in (("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"tile": (64, 64)})):
        made = Image.fromarray(noisy()).convert(mode)
        assert pixels(encode(made, "TIFF", compression="jpeg", **options)).shape == whole.shape
    inks = encode(PLAIN.convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(pixels(inks[:-2]), pixels(inks))
    assert np.array_equal(pixels(encode(PLAIN, "PNG")[:-4]), smooth())
    big = PngImagePlugin.PngInfo()
    big.add_text("workflow", "x" * 3_000_000, zip=True)
    assert np.array_equal(pixels(encode(PLAIN, "PNG", pnginfo=big)), smooth())


def test_a_png_with_no_row_is_unreadable():
    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    with pytest.raises(UnreadableImageError, match="nothing can be decoded"):
        decode(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""), [None])


@pytest.mark.real
def test_no_real_picture_is_called_damaged(shared_data):
    from src.data.items.files import kind_of, read_bytes
    from src.data.items.listing import list_files

    count = 0
    for name in ("cifake", "dfdc_faces", "liveness"):
        entries = [e for e in list_files(shared_data / name).media if kind_of(e.path) == "image"]
        for entry in entries[:: max(1, len(entries) // 80)]:
            assert decode(read_bytes(shared_data / name, entry.path), [None]).problem == ""
            count += 1
    assert count >= 240
