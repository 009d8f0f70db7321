"""The metadata of image files: EXIF with GPS, XMP, TIFF tags, colour profile, resolution and texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from deal.io.raw import RawFormat
from deal.io.tiff_pages import describes_pages

LOSSLESS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma")
# Tags that describe how pixels are stored. The writer of the new file sets them itself.
STORAGE_TAGS = {
    *range(254, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, 290, 291, 292, 293, 301, 317, 318, 319, 320,
    *range(322, 326), 330, 332, 333, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34675,
}  # fmt: skip
EXIF_GROUPS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
DESCRIPTION, XMP, XMP_OF_PNG = 270, 700, "XML:com.adobe.xmp"
JPEG_SIZE = (40962, 40963)  # tags of EXIF that only compressed pictures have
MOST_XMP_OF_JPEG = 65502  # bytes
Tags = TiffImagePlugin.ImageFileDirectory_v2


class Metadata(NamedTuple):
    """The metadata of one image file. Data that a camera stores beside the image, such as raw data, is not included."""

    info: Mapping[Any, Any] = {}  # Pillow's description of the file
    exif: Image.Exif | None = None
    tiff_tags: Tags | None = None  # of a TIFF file
    texts: Mapping[str, str] = {}  # of a PNG file
    xmp: bytes = b""
    white_is_zero: bool = False  # of a TIFF file: small values are shown bright
    raw: RawFormat | None = None  # of a file without a header
    pages: str = ""  # a description, in place of the source's, that tells how many pages the file has
    damage: str = ""  # why there is none


def read_metadata(image: Image.Image) -> Metadata:
    """The metadata of an open image, to be read before its pixels."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    exif = image.getexif()
    for tag in EXIF_GROUPS:
        exif.get_ifd(tag)  # which raises here, and not when they are written
    texts = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return Metadata(image.info, exif, tags, {name: str(text) for name, text in texts.items()}, xmp)


def save_options(metadata: Metadata, kind: str) -> dict[str, Any]:
    """The options of Pillow's `save` that write the metadata to a PNG, TIFF, JPEG or BMP file."""
    info, exif = metadata.info, Image.Exif() if metadata.exif is None else metadata.exif
    options = {name: info[name] for name in ("dpi", "icc_profile") if info.get(name)}
    if kind == "BMP":
        return {name: value for name, value in options.items() if name == "dpi"}
    groups = {tag: dict(exif.get_ifd(tag)) for tag in EXIF_GROUPS if exif.get_ifd(tag)}
    dropped = STORAGE_TAGS
    if metadata.tiff_tags is not None:
        dropped = STORAGE_TAGS | {ExifTags.Base.Orientation}  # Pillow rotates the pixels of a TIFF when it reads them
    if kind == "TIFF":
        if not groups:  # Pillow cannot write EXIF groups and compressed pixels to one file
            compression = info.get("compression")
            options["compression"] = compression if compression in LOSSLESS else "tiff_adobe_deflate"
        source = exif if metadata.tiff_tags is None else metadata.tiff_tags
        return {**options, "tiffinfo": _tags(source, groups, dropped, metadata)}
    for tag in dropped.intersection(exif):
        del exif[tag]
    if len(exif) or groups:
        options["exif"] = exif.tobytes()
    if kind == "PNG":
        xmp = {XMP_OF_PNG: metadata.xmp.decode("utf-8", "replace")} if metadata.xmp else {}
        options["pnginfo"] = _png_texts({**xmp, **metadata.texts})
        return options
    if "comment" in info:
        options["comment"] = info["comment"]
    if len(metadata.xmp) > MOST_XMP_OF_JPEG:
        warnings.warn(f"XMP of {len(metadata.xmp)} bytes is left out: JPEG holds {MOST_XMP_OF_JPEG}", stacklevel=3)
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    return options


def _tags(source: Tags | Image.Exif, groups: dict[int, dict[int, Any]], dropped: set[int], metadata: Metadata) -> Tags:
    kept = Tags()
    for tag in source:
        if tag == DESCRIPTION and describes_pages(str(source[tag])):
            continue  # readers would expect the source's pages of the result
        if tag not in dropped and tag not in TiffTags.TAGS_V2_GROUPS:
            if isinstance(source, Tags):
                kept.tagtype[tag] = source.tagtype[tag]
            kept[tag] = source[tag]
    for tag, group in groups.items():
        kept[tag] = {name: value for name, value in group.items() if name not in JPEG_SIZE}
    if metadata.xmp:
        kept.tagtype[XMP] = TiffTags.BYTE
        kept[XMP] = metadata.xmp
    if metadata.pages:
        kept[DESCRIPTION] = metadata.pages
    return kept


def _png_texts(texts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    kept = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        kept.add_itxt(name, text)
    return kept
