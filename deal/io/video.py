"""Clips, frame by frame, by the package av (PyAV).

A clip without loss, or of more than 8 bits, is written by FFV1, Motion JPEG as Motion JPEG with little loss, and every
other clip as H.264 with little loss (crf 16), in AVI as MPEG-4.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy

from deal.io.ahead import one_ahead
from deal.io.atomic import atomic_write
from deal.io.clip_frames import ColourOrGrey, is_grey, to_video
from deal.io.clip_length import container_of, is_cut
from deal.io.values import UnusableImage

if TYPE_CHECKING:
    import av

CONTAINERS = {
    ".mp4": "mp4", ".avi": "avi", ".mkv": "matroska", ".mov": "mov", ".mjpeg": "mjpeg", ".mjpg": "mjpeg",
}  # fmt: skip
SUFFIXES = tuple(CONTAINERS)
LOSSLESS = ("ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "lagarith", "rawvideo", "png", "v210", "v410", "qtrle")
OF_CONTAINERS = ("major_brand", "minor_version", "compatible_brands", "encoder")  # metadata that the writer makes
NO_B_FRAMES = {"bf": "0"}  # frames are stored in the order of their time, which every container holds


class _Codec(NamedTuple):
    name: str
    options: dict[str, str]


FFV1 = _Codec("ffv1", {"level": "3", "slicecrc": "1"})
MOTION_JPEG = _Codec("mjpeg", {"qmin": "2", "qmax": "2"})
H264 = _Codec("libx264", {"crf": "16", "preset": "veryfast", **NO_B_FRAMES})
MPEG4 = _Codec("mpeg4", {"qmin": "2", "qmax": "2", **NO_B_FRAMES})


def is_clip(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in SUFFIXES


def rewrite(
    clip: Clip, target: str | os.PathLike[str], change: Callable[[numpy.ndarray], numpy.ndarray]
) -> int:  # fmt: skip
    """Writes a clip with changed frames. Time stamps, metadata and other streams, such as sound, stay as they are.

    One frame is read and one is written in other threads while a third is changed, so memory does not depend on the
    length of the clip.

    Args:
        clip: the clip, which was just opened.
        target: the file, which is written atomically.
        change: gives the frame to write for each frame: uint8 [H, W], or [H, W, 3] for colours, or uint16 [H, W] for
            grey of more than 8 bits. All results have one size.

    Returns:
        The number of frames.

    Raises:
        UnusableImage: if the clip is broken, after the frames before that place are written.
    """
    ending = Path(target).suffix.lower()
    if ending not in CONTAINERS:
        raise UnusableImage(f"{target} cannot hold a clip: the ending must be one of {', '.join(SUFFIXES)}")
    with (
        atomic_write(target) as file,
        contextlib.closing(_Writer(file, target, clip)) as writer,
        ThreadPoolExecutor(1) as encoding,
    ):
        written: Future[None] | None = None
        for item in one_ahead(clip.items()):
            if isinstance(item, Decoded):
                step = functools.partial(writer.write_frame, item, change(item.pixels))
            else:
                step = functools.partial(writer.write_packet, item)
            if written is not None:
                written.result()
            written = encoding.submit(step)
        if written is not None:
            written.result()
        writer.finish()
    if clip.fault:
        raise UnusableImage(f"{clip.path} is broken after {clip.count} frames, which are in {target}: {clip.fault}")
    return clip.count


def library() -> ModuleType:
    """The package av."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("clips are read by the package av: pip install 'deal-kernels[video]'") from error
    return av


class Decoded(NamedTuple):
    """A frame of a clip."""

    pixels: numpy.ndarray  # uint8 [H, W] or [H, W, 3], or uint16 [H, W]
    frame: av.VideoFrame  # as it was stored


class Clip:
    """A clip that is open for reading, and the place where it is broken.

    Raises:
        UnusableImage: if the file is no clip.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.count, self.fault = path, 0, ""
        av = library()
        kind = container_of(path)
        if kind is None:
            raise UnusableImage(f"{path} cannot be read as a clip: it is no MP4, MOV, AVI, Matroska or Motion JPEG")
        self._file = open(path, "rb")  # noqa: SIM115 (closed by __exit__)
        try:
            # The format is given because FFmpeg also finds playlists, which would make it read other files.
            self.container = av.open(self._file, format=kind, metadata_errors="replace")
        except av.error.FFmpegError as error:
            self._file.close()
            raise UnusableImage(f"{path} cannot be read as a clip: {_reason(error)}") from error
        if not self.container.streams.video:
            self.__exit__()
            raise UnusableImage(f"{path} has no video")
        self.stream = self.container.streams.video[0]
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()
        self._file.close()

    @property
    def expected(self) -> int | None:
        """The number of frames as the headers have it, which may be wrong."""
        rate, length = self.stream.average_rate, self.container.duration
        return self.stream.frames or (round(rate * length / 1_000_000) if rate and length else None)

    @property
    def rate(self) -> Fraction:
        """Frames a second, as a mean."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    def items(self) -> Iterator[Decoded | av.Packet]:
        """Frames, and the packets of other streams, in the order of the file, up to the first fault."""
        av = library()
        seen = ColourOrGrey(str(self.path))
        try:
            for packet in self.container.demux():
                if packet.stream is not self.stream:
                    if packet.dts is not None:
                        yield packet
                elif packet.is_corrupt:
                    self.fault = "a damaged packet"
                    break
                else:
                    yield from self._decoded(packet, seen)
                    if self.fault:
                        return
        except (av.error.FFmpegError, ValueError) as error:
            self.fault = _reason(error)
        if self.fault:
            yield from self._rest(seen)
        elif is_cut(self.path):
            self.fault = "its end is missing"

    def _decoded(self, packet: av.Packet | None, seen: ColourOrGrey) -> Iterator[Decoded]:
        for frame in self.stream.decode(packet):
            size = frame.width, frame.height
            if frame.is_corrupt or size != (self._size or size):
                self.fault = "a damaged frame" if frame.is_corrupt else "a frame of another size"
                return
            self._size = size
            self.count += 1
            yield Decoded(seen.pixels(frame), frame)

    def _rest(self, seen: ColourOrGrey) -> Iterator[Decoded]:
        """The frames that the decoder holds back where the clip breaks."""
        try:
            yield from self._decoded(None, seen)
        except library().error.FFmpegError:
            return


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)


class _Writer:
    """The clip that is written. Its size, pixel format and time base are known with its first frame."""

    def __init__(self, file: BinaryIO, target: str | os.PathLike[str], clip: Clip) -> None:
        self.clip, self.target = clip, target
        self._format = CONTAINERS[Path(target).suffix.lower()]
        self.container = self._opened(file)
        self.stream: Any = None
        self._last: int | None = None
        self._copies: dict[int, Any] = {}
        self._waiting: list[av.Packet] = []  # packets of other streams that come before the first frame

    def _begin(self, first: Decoded, pixels: numpy.ndarray) -> None:
        codec, self.pixel_format = self._codec(first, pixels)
        self.stream = self._add_video(self.container, codec, first.frame, pixels)
        for stream in self.clip.container.streams:
            if stream is not self.clip.stream and self._fits(stream, codec, first.frame, pixels):
                copy = self.container.add_stream_from_template(stream)
                copy.metadata.update(stream.metadata)
                self._copies[stream.index] = copy
        self.container.start_encoding()
        for packet in self._waiting:
            self.write_packet(packet)

    def _opened(self, file: Any) -> Any:
        metadata = {
            name: value for name, value in self.clip.container.metadata.items() if name.lower() not in OF_CONTAINERS
        }
        # Names such as com.apple.quicktime.location.ISO6709 are not written without.
        of_apple = self._format in ("mp4", "mov") and any(name.startswith("com.") for name in metadata)
        options = {"movflags": "use_metadata_tags"} if of_apple else {}
        container = library().open(file, "w", format=self._format, options=options)
        container.metadata.update(metadata)
        return container

    def _codec(self, first: Decoded, pixels: numpy.ndarray) -> tuple[_Codec, str]:
        """The first codec that the container and this build of av have, with a pixel format for it."""
        av = library()
        name, deep = self.clip.stream.codec_context.name, pixels.dtype != numpy.uint8
        if name in LOSSLESS:
            wanted = [FFV1] if deep else [FFV1, H264, MPEG4]
        elif deep:
            wanted = [H264, FFV1]
        else:
            wanted = [MOTION_JPEG] if name == "mjpeg" or self._format == "mjpeg" else [H264, MPEG4]
        if self._format == "avi":  # in which frames of H.264 have no time stamps
            wanted = [MPEG4 if codec is H264 else codec for codec in wanted]
        for codec in wanted:
            if codec.name in self.container.supported_codecs and codec.name in av.codecs_available:
                formats = [each.name for each in av.codec.Codec(codec.name, "w").video_formats or ()]
                stored = _pixel_format(first.frame.format.name, formats, pixels)
                if stored:
                    return codec, stored
        bits = "more than 8 bits" if deep else "these frames"
        raise UnusableImage(f"{self.target} cannot hold {bits}; .mkv can")

    def _add_video(self, container: Any, codec: _Codec, frame: av.VideoFrame, pixels: numpy.ndarray) -> Any:
        source = self.clip.stream
        stream = container.add_stream(codec.name, rate=self.clip.rate, options=dict(codec.options))
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = self.pixel_format
        base = source.time_base or 1 / self.clip.rate
        regular = self._format == "avi" and self.clip.container.format.name != "avi"  # AVI fills gaps with empty frames
        if regular or (codec is MPEG4 and base.denominator >= 1 << 16):
            base = 1 / self.clip.rate
        stream.codec_context.time_base = stream.time_base = base
        if source.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = source.sample_aspect_ratio
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            if self.pixel_format == frame.format.name:
                setattr(stream.codec_context, name, getattr(source.codec_context, name))
        if getattr(frame, "rotation", 0) and hasattr(stream, "set_display_rotation"):
            stream.set_display_rotation(frame.rotation)
        stream.metadata.update({name: text for name, text in source.metadata.items() if name != "encoder"})
        return stream

    def _fits(self, stream: Any, codec: _Codec, frame: av.VideoFrame, pixels: numpy.ndarray) -> bool:
        """Whether the container takes a stream, which it says when it writes its header."""
        trial = self._opened(io.BytesIO())
        try:
            self._add_video(trial, codec, frame, pixels)
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        except Exception as error:  # of several types
            warnings.warn(
                f"{self.target} is without stream {stream.index} of its source ({stream.type}): {_reason(error)}",
                stacklevel=2,
            )
            return False
        finally:
            trial.close()
        return True

    def write_frame(self, item: Decoded, pixels: numpy.ndarray) -> None:
        if self.stream is None:
            self._begin(item, pixels)
        frame = to_video(pixels, item.frame, self.pixel_format)
        frame.time_base, frame.pts = item.frame.time_base, self._time(item.frame)
        frame.duration = item.frame.duration
        self.container.mux(self.stream.encode(frame))

    def _time(self, frame: av.VideoFrame) -> int:
        """The time stamp of a frame, later than that of the frame before it."""
        step = max(1, round(1 / (self.clip.rate * (frame.time_base or 1))))
        following = 0 if self._last is None else self._last + step
        time = following if frame.pts is None else frame.pts
        if self._last is not None and time <= self._last:
            time = self._last + 1
        self._last = time
        return time

    def write_packet(self, packet: av.Packet) -> None:
        if self.stream is None:
            self._waiting.append(packet)
            return
        copy = self._copies.get(packet.stream.index)
        if copy is not None:
            packet.stream = copy
            self.container.mux(packet)

    def finish(self) -> None:
        """Writes what the encoder holds back, and the end of the file."""
        if self.stream is None:
            fault = self.clip.fault
            raise UnusableImage(f"{self.clip.path} has no frame that can be read{fault and ': '}{fault}")
        self.container.mux(self.stream.encode(None))
        self.container.close()

    def close(self) -> None:
        self.container.close()


def _pixel_format(source: str, formats: list[str], pixels: numpy.ndarray) -> str | None:
    """The format of the source if the codec has it, else one that holds all its frames."""
    if pixels.dtype != numpy.uint8:
        little = source.replace("be", "le")
        return little if little in formats else None
    even = not (pixels.shape[0] % 2 or pixels.shape[1] % 2)
    whole = ["bgr0", "yuv444p", "yuvj444p"]
    wanted = [source, "yuv420p", "yuvj420p", *whole] if even else [*whole]
    if is_grey(source):
        wanted = ["gray", *wanted]
    elif "bgr0" in formats:  # the codec has no loss
        wanted = [source, *whole]
    return next((each for each in wanted if each in formats), None)
