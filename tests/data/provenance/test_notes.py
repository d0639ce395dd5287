"""EXIF, XMP, IPTC records and texts of pictures, written here and found again."""

import json

import pytest
from PIL import ExifTags, Image

from src.data.provenance.source_types import SOURCE_TYPES
from tests.data.provenance.files import TYPES, packet, picture, png, read, said, text, values

BASE, IFD = ExifTags.Base, ExifTags.IFD
LINES = (
    "a cat — 고양이\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, "
    'Size: 512x512, Model hash: abc, Model: foo, Lora hashes: "a: 1, b: 2", Version: v1.6.0'
)
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
    "3": {"class_type": "KSampler", "inputs": {"sampler_name": "euler", "positive": ["2", 0]}},
}


def camera(**more: object) -> Image.Exif:
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Model], exif[BASE.Software] = "Maker", "Model 5", "1.02"
    exif.get_ifd(IFD.Exif).update({BASE.LensModel: "50 mm", BASE.DateTimeOriginal: "2026:01:02"})
    exif.get_ifd(IFD.Exif)[BASE.MakerNote] = b"notes" * 9
    exif.get_ifd(IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 1.0)})
    for name, value in more.items():
        exif.get_ifd(IFD.Exif)[getattr(BASE, name)] = value
    return exif


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff"])
def test_exif_is_found_in_every_kind_of_picture(tmp_path, kind):
    exif = camera()
    if kind == "tiff":  # Pillow writes the directories of a TIFF from its own tags
        exif = Image.Exif()
        exif[BASE.Make], exif[BASE.Model], exif[BASE.Software] = "Maker", "Model 5", "1.02"
    found = read(tmp_path, picture(kind, exif=exif), f"a.{kind}")
    assert {"Maker", "Model 5"} <= set(values(found, source="exif", means="camera"))
    assert values(found, field="Software") == ["1.02"]
    assert found.not_read == {}
    if kind != "tiff":
        assert "50 mm" in values(found, field="LensModel")
        assert values(found, field="MakerNote") == ["45 bytes"]
        places = values(found, means="place")
        assert places == ["a place is given (not shown)"]
        assert "48" not in str(found.record())


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le", "utf-16"])
def test_parameters_are_found_in_a_user_comment(tmp_path, order):
    exif = camera(UserComment=b"UNICODE\0" + LINES.encode(order))
    for kind in ("jpeg", "webp"):
        found = read(tmp_path, picture(kind, exif=exif), f"a.{kind}")
        (prompt,) = said(found, means="prompt")
        assert (prompt.source, prompt.field, prompt.value) == ("exif", "UserComment", LINES)
        (made,) = values(found, means="ai_generated")
        assert made.startswith("Model: foo; Model hash: abc; Sampler: Euler a; Steps: 20")


def test_tags_of_an_odd_kind_break_nothing(tmp_path):
    exif = camera()
    exif[BASE.Make] = 7
    data = exif.tobytes()
    order = "little" if data[6:8] == b"II" else "big"
    tag, rational = (int(number).to_bytes(2, order) for number in (BASE.MakerNote, 5))
    at = data.index(tag)  # then its type, and how many
    data = data[: at + 2] + rational + (1).to_bytes(4, order) + data[at + 8 :]
    found = read(tmp_path, picture(exif=data))
    assert found.not_read == {}
    assert values(found, means="maker_note") == ["of an odd kind"]
    assert values(found, field="Make") == ["7"]


def test_a_graph_is_found_where_comfyui_puts_it_in_webp(tmp_path):
    exif = Image.Exif()
    exif[BASE.Model] = "prompt:" + json.dumps(GRAPH)
    found = read(tmp_path, picture("webp", exif=exif), "a.webp")
    assert values(found, means="ai_generated") == ["models: sd_xl.safetensors; samplers: euler"]
    assert said(found, means="camera") == []


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_texts_of_a_png_are_read_as_utf8_before_its_pixels_and_behind(tmp_path, kind, behind):
    one = text("parameters", LINES, kind)
    found = read(tmp_path, png(behind=one) if behind else png(one), "a.png")
    assert values(found, means="prompt") == [LINES]
    assert said(found, means="prompt")[0].source == "png_text"


def test_a_key_that_stands_twice_is_read_twice(tmp_path):
    found = read(tmp_path, png(text("Comment", "one"), behind=text("Comment", "two")), "a.png")
    assert values(found, field="Comment") == ["one", "two"]


def test_latin_1_stays_latin_1(tmp_path):
    found = read(tmp_path, png(text("Author", b"Ren\xe9")), "a.png")
    assert values(found, field="Author") == ["René"]


def test_a_graph_that_loads_a_picture_has_changed_one(tmp_path):
    loads = GRAPH | {"4": {"class_type": "LoadImage", "inputs": {"image": "me.png"}}}
    for graph, means in ((GRAPH, "ai_generated"), (loads, "ai_edited")):
        found = read(tmp_path, png(text("prompt", json.dumps(graph))), "a.png")
        assert len(said(found, means=means)) == 1
        assert values(found, means="prompt") == ["a cat"]
    only_scaled = {"1": {"class_type": "ImageScale", "inputs": {}}}
    found = read(tmp_path, png(text("prompt", json.dumps(only_scaled))), "a.png")
    assert {one.means for one in found.findings} == {"workflow"}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("invokeai_metadata", {"model": {"name": "m"}, "positive_prompt": "p", "steps": 3}, "m"),
        ("sd-metadata", {"model_weights": "w", "image": {"prompt": "p", "steps": 3}}, "w"),
        ("Comment", {"prompt": "p", "steps": 28, "sampler": "k_euler", "uc": "bad"}, "k_euler"),
        ("parameters", {"sui_image_params": {"prompt": "p", "model": "m", "seed": 1}}, "m"),
        ("parameters", {"base_model": "juggernaut", "prompt": "p", "seed": "1"}, "juggernaut"),
    ],
)
def test_json_of_other_generators(tmp_path, key, value, shown):
    found = read(tmp_path, png(text(key, json.dumps(value))), "a.png")
    (made,) = values(found, means="ai_generated")
    assert shown in made
    (prompt,) = values(found, means="prompt")
    assert "p" in prompt


@pytest.mark.parametrize(
    ("label", "means"), [("1", "ai_generated"), ("2", "ai_suspected"), ("3", "ai_suspected")]
)
def test_the_label_of_gb_45438_is_found_wherever_it_may_stand(tmp_path, label, means):
    told = {"Label": label, "ContentProducer": "someone", "ProduceID": "7"}
    inner, outer = json.dumps(told), json.dumps({"AIGC": told})
    space = 'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'
    quoted = inner.replace('"', "&quot;")
    structure = f'rdf:parseType="Resource"><TC260:Label>{label}</TC260:Label>'
    for data, name in (
        (png(text("AIGC", inner)), "a.png"),
        (picture(exif=camera(UserComment=b"ASCII\0\0\0" + outer.encode())), "a.jpg"),
        (picture(xmp=packet("", f'{space} TC260:AIGC="{quoted}"')), "a.jpg"),
        (picture(xmp=packet(f"<TC260:AIGC {space}>{quoted}</TC260:AIGC>")), "a.jpg"),
        (picture(xmp=packet(f"<TC260:AIGC {space} {structure}</TC260:AIGC>")), "a.jpg"),
    ):
        (found,) = said(read(tmp_path, data, name), means=means)
        assert found.value.startswith(f"Label: {label}")


def test_notes_that_are_no_generators_stay_notes(tmp_path):
    texts = [text("Description", "Steps: see below"), text("Comment", '{"prompt": "press a key"}'),
             text("Software", "GIMP 2.10"), text("Creation Time", "now")]  # fmt: skip
    found = read(tmp_path, png(*texts), "a.png")
    assert [one.means for one in found.findings] == ["editor", "time", "note", "note"]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff"])
def test_xmp_is_found_in_every_kind_of_picture(tmp_path, kind):
    inside = (
        f"<Iptc4xmpExt:DigitalSourceType>{TYPES}trainedAlgorithmicMedia"
        "</Iptc4xmpExt:DigitalSourceType><xmpMM:History><rdf:Seq>"
        '<rdf:li stEvt:action="saved" stEvt:softwareAgent="Adobe Photoshop 25.0"/>'
        "</rdf:Seq></xmpMM:History><dc:description><rdf:Alt>"
        '<rdf:li xml:lang="x-default">a note</rdf:li></rdf:Alt></dc:description>'
    )
    data = packet(inside, 'photoshop:Credit="Made with Google AI" xmp:CreatorTool="Firefly"')
    if kind == "png":
        raw = png(text("XML:com.adobe.xmp", data, b"iTXt"))
    elif kind == "tiff":
        raw = picture(kind, tiffinfo={700: data})
    else:
        raw = picture(kind, xmp=data)
    found = read(tmp_path, raw, f"a.{kind}")
    assert found.not_read == {}
    assert set(values(found, means="ai_generated")) == {
        "trainedAlgorithmicMedia", "Made with Google AI",
    }  # fmt: skip
    assert values(found, field="CreatorTool", means="ai_tool") == ["Firefly"]
    assert values(found, field="softwareAgent", means="editor") == ["Adobe Photoshop 25.0"]
    assert values(found, field="description") == ["a note"]
    assert {one.strength for one in found.findings if one.source in ("xmp", "iptc")} == {"stated"}


@pytest.mark.parametrize("code", SOURCE_TYPES)
def test_every_source_type_is_read_from_any_form(tmp_path, code):
    forms = (
        f"<Iptc4xmpExt:DigitalSourceType>{TYPES}{code}</Iptc4xmpExt:DigitalSourceType>",
        f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{TYPES}{code}"/>',
        f"<Iptc4xmpExt:DigitalSourceType>{code}</Iptc4xmpExt:DigitalSourceType>",
    )
    for form in forms:
        found = read(tmp_path, picture(xmp=packet(form)))
        assert values(found, source="iptc", means=SOURCE_TYPES[code]) == [code]


def test_the_ai_properties_of_iptc_and_what_is_allowed(tmp_path):
    attributes = (
        'Iptc4xmpExt:AISystemUsed="Some Net" Iptc4xmpExt:AIPromptInformation="a cat" '
        'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" exif:GPSLatitude="48,8N" '
        'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING" '
        'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://example.org/m"'
    )
    found = read(tmp_path, picture(xmp=packet("", attributes)))
    assert values(found, means="software") == ["Some Net"]
    assert values(found, means="prompt") == ["a cat"]
    assert values(found, means="mining") == ["DMI-PROHIBITED-AIMLTRAINING"]
    assert values(found, means="remote_manifest") == ["https://example.org/m"]
    assert len(said(found, means="place")) == 1
    assert "48,8N" not in str(found.record())


def test_xmp_in_utf_16_and_in_the_extension_of_a_jpeg(tmp_path):
    tool = "<xmp:CreatorTool>Tool</xmp:CreatorTool>"
    found = read(tmp_path, picture(xmp=packet(tool).decode().encode("utf-16-be")))
    assert values(found, source="xmp") == ["Tool"]
    guid, more = b"0" * 32, packet("<xmp:CreatorTool>Other</xmp:CreatorTool>")
    middle = len(more) // 2
    data, segments = picture(xmp=packet(tool)), b""
    for start, part in ((middle, more[middle:]), (0, more[:middle])):
        places = len(more).to_bytes(4, "big") + start.to_bytes(4, "big")
        body = b"http://ns.adobe.com/xmp/extension/\0" + guid + places + part
        segments += b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    found = read(tmp_path, data[:2] + segments + data[2:])
    assert sorted(values(found, source="xmp")) == ["Other", "Tool"]


def test_iptc_records_are_found_in_a_jpeg(tmp_path):
    records = b"".join(
        b"\x1c\x02" + bytes([number]) + len(value).to_bytes(2, "big") + value
        for number, value in ((110, b"Made with Google AI"), (65, b"Photo Mechanic"), (5, b"name"))
    )
    resources = b"8BIM\x03\xed\0\0" + (2).to_bytes(4, "big") + b"xx"
    resources += b"8BIM\x04\x04\0\0" + len(records).to_bytes(4, "big") + records
    body = b"Photoshop 3.0\0" + resources
    segment = b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body
    data = picture()
    found = read(tmp_path, data[:2] + segment + data[2:])
    assert values(found, source="iptc", means="ai_generated") == ["Made with Google AI"]
    assert values(found, source="iptc", means="editor") == ["Photo Mechanic"]
    assert values(found, field="ObjectName") == ["name"]


def test_what_is_saved_again_says_nothing(tmp_path):
    """Which is why absence proves nothing: only how it was stored is left."""
    exif = camera(UserComment=b"UNICODE\0" + LINES.encode("utf-16-be"))
    first = tmp_path / "a.jpg"
    first.write_bytes(picture(exif=exif, xmp=packet("", 'xmp:CreatorTool="x"')))
    with Image.open(first) as image:
        image.convert("RGB").save(tmp_path / "b.jpg")
    found = read(tmp_path, (tmp_path / "b.jpg").read_bytes())
    assert {one.source for one in found.findings} <= {"jpeg_tables"}
