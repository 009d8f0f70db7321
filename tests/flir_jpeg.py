"""A radiometric JPEG file as FLIR cameras write it: a picture with EXIF, GPS and XMP, and counts with their constants.

The structure of the data of the camera, FFF, is that of ExifTool's documentation of FLIR tags.
"""

import io
import struct

import numpy
from PIL import ExifTags, Image

PLANCK = {"r1": 17096.453, "b": 1428.0, "f": 1.0, "r2": 0.05, "o": -342}
RAW_DATA, CAMERA_INFO = 1, 32  # types of records
ENTRIES = 14  # of the directory, most of them empty
CHUNK = 5000  # bytes of a segment; cameras fill them up to 65 kB
PLACE = {1: "N", 2: (52.0, 30.0, 15.0)}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><Camera:BandName>LWIR</Camera:BandName></x:xmpmeta>'


def counts_of(kelvin):
    """The counts of a black body right in front of the camera: Planck's law with the camera's constants."""
    p = PLANCK
    return (p["r1"] / (p["r2"] * (numpy.exp(p["b"] / kelvin) - p["f"])) - p["o"]).round().astype("<u2")


def fff(kelvin):
    height, width = kelvin.shape
    raw = struct.pack("<HHH", 2, width, height).ljust(32, b"\0") + counts_of(kelvin).tobytes()
    info = bytearray(900)
    emissivity, distance, surroundings, window = 1.0, 0.0, 293.15, 1.0
    struct.pack_into("<6f", info, 32, emissivity, distance, surroundings, surroundings, surroundings, window)
    struct.pack_into("<f", info, 60, 0.5)  # humidity
    struct.pack_into("<3f", info, 88, PLANCK["r1"], PLANCK["b"], PLANCK["f"])
    struct.pack_into("<5f", info, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)  # of the atmosphere
    struct.pack_into("<if", info, 776, PLANCK["o"], PLANCK["r2"])
    start = 64 + 32 * ENTRIES
    directory = [
        struct.pack(">HHIIII", kind, 1, 100, 1, place, size).ljust(32, b"\0")
        for kind, place, size in ((RAW_DATA, start, len(raw)), (CAMERA_INFO, start + len(raw), len(info)))
    ]
    head = b"FFF\0" + b"MTX IR".ljust(16, b"\0") + struct.pack(">III", 100, 64, ENTRIES)
    return head.ljust(64, b"\0") + b"".join(directory).ljust(32 * ENTRIES, b"\0") + raw + bytes(info)


def radiometric_jpeg(kelvin):
    """The file of a frame [H, W] in kelvin. Its picture has twice the size, as in many cameras."""
    picture = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.ImageDescription] = "camera", "roof"
    exif.get_ifd(ExifTags.IFD.Exif)[40962] = 2 * kelvin.shape[1]
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(PLACE)
    shown = numpy.zeros((2 * kelvin.shape[0], 2 * kelvin.shape[1], 3), numpy.uint8)
    Image.fromarray(shown).save(picture, "JPEG", exif=exif, xmp=XMP)
    data = fff(kelvin)
    chunks = [data[k : k + CHUNK] for k in range(0, len(data), CHUNK)]
    segments = [
        b"\xff\xe1" + struct.pack(">H", 10 + len(chunk)) + b"FLIR\0\1" + bytes([k, len(chunks) - 1]) + chunk
        for k, chunk in enumerate(chunks)
    ]
    content = picture.getvalue()
    place = content.index(b"\xff\xdb")  # the tables of JPEG, after its metadata
    return content[:place] + b"".join(segments) + content[place:]
