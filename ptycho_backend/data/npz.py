"""Reader and writer of NPZ files, the exchange format of PtychoPINN and ptychodus (spec: data 3.2)."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import (
    Fields,
    good_pixels,
    json_mapping,
    matched_positions,
    numbers,
    pattern_stack,
    refuse_similar_name,
    require_keys,
    single_layer,
    stacked,
    unpaired_patterns,
    wrong_shape,
)
from ptycho_backend.data.npy import DAMAGE, ArrayHeader, mapped, read_header
from ptycho_backend.data.output import atomic_path, json_text
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, OutputError, first_line
from ptycho_backend.runtime.memory_map import BLOCK_BYTES, IN_MEMORY_BYTES, gather_rows, release, scratch_array

logger = logging.getLogger(__name__)

PATTERNS_ALIAS, PROBE = "diffraction", "probeGuess"
OPTIONAL = (
    PROBE,
    "objectGuess",
    "scan_index",
    "bad_pixels",
    "measurement",
    "obj_origin_px",
    "pixel_size_m",
    "metadata",
)
NEVER_READ = ("xcoords_start", "ycoords_start")
MAP_FROM_BYTES = 2**26  # smaller arrays are read, which verifies their checksum
# Most bytes that one byte can stand for: in a stored array, and with the one packing that has a limit.
MAX_RATIO, ZIP_SLACK = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}, 1024


def npz_fields(path: Path) -> Fields:
    """
    Read the fields of a scan from an NPZ file, without pickle.

    Raises
    ------
    DataError
        If the file is damaged, lacks a key, or holds Python objects instead of numbers.
    """
    source = str(path)
    with _opened(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        patterns_key = _patterns_key(keys, source)
        required = ("xcoords", "ycoords", patterns_key)
        require_keys(required, keys, source)
        if PROBE not in keys:
            others = [key for key in keys if key not in (*required, *OPTIONAL, *NEVER_READ)]
            refuse_similar_name(PROBE, {key: len(_member(archive, key, path).shape) for key in others}, source)
        arrays = {key: _read_array(archive, key, path) for key in keys if key in (*required, *OPTIONAL)}
    positions = stacked(arrays["ycoords"], arrays["xcoords"], ("ycoords", "xcoords"), source)
    stack = pattern_stack(arrays[patterns_key], patterns_key, source)
    patterns = _position_first(stack, len(positions), patterns_key, source)
    _warn_about_several_scans(arrays.get("scan_index"), source)
    bad_pixels = arrays.get("bad_pixels")
    obj, probe = arrays.get("objectGuess"), arrays.get(PROBE)
    return {
        "patterns": patterns,
        "positions_px": matched_positions(positions, len(patterns), source),
        "probe": None if probe is None or probe.size == 0 else probe,
        "measurement": _text(arrays, "measurement", source),
        "mask": None if bad_pixels is None else good_pixels(bad_pixels, "bad_pixels", source),
        "obj": None if obj is None else single_layer(obj, "objectGuess", source),
        "obj_origin_px": _pair(arrays, "obj_origin_px", source) or (0.0, 0.0),
        "pixel_size_m": _pair(arrays, "pixel_size_m", source),
        "source": source,
        "attributes": json_mapping(_text(arrays, "metadata", source) or "{}", "metadata", source),
    }


def npz_array(path: Path, key: str) -> NDArray[Any] | None:
    """Read one array of an NPZ file, without pickle; None for a missing name."""
    with _opened(path) as archive:
        return _read_array(archive, key, path) if f"{key}.npy" in archive.namelist() else None


def write_npz(scan: Scan, path: Path | str, overwrite: bool = False) -> Path:
    """
    Write a scan to an NPZ file in the format of PtychoPINN and ptychodus.

    Arrays are stored uncompressed, so that large patterns can be memory-mapped.

    Parameters
    ----------
    scan : Scan
    path : path
        Path; a file with this name is always complete.
    overwrite : bool
        Replace an existing file; otherwise an existing file is an error.

    Raises
    ------
    OutputError
        If the file exists or cannot be written.
    """
    y, x = scan.positions_px.T
    arrays: dict[str, Any] = {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x,
        "ycoords_start": y,
        "diff3d": scan.patterns,
        "probeGuess": scan.probe,
        "scan_index": np.zeros(len(scan), dtype=np.int64),
        "bad_pixels": ~scan.mask,
        "measurement": np.array(scan.measurement),
        "metadata": np.array(json_text(scan.attributes, "attributes", scan.source)),
    }
    if scan.obj is not None:
        arrays |= {"objectGuess": scan.obj, "obj_origin_px": np.asarray(scan.obj_origin_px, dtype=np.float64)}
    if scan.pixel_size_m is not None:
        arrays["pixel_size_m"] = np.asarray(scan.pixel_size_m, dtype=np.float64)
    with atomic_path(path, overwrite) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, **arrays)
    return Path(path)


def npz_members(path: Path) -> dict[str, ArrayHeader]:
    """Return the headers of the arrays of an NPZ file by name; no values are read."""
    with _opened(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        return {name: _member(archive, name, path) for name in names}


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> ArrayHeader:
    try:
        with archive.open(f"{key}.npy") as stream:
            return _header(archive, key, stream)
    except DAMAGE as error:
        raise _damaged(path, error, key) from error


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise _damaged(path, error) from error
    with archive:
        yield archive


def _patterns_key(keys: list[str], source: str) -> str:
    if "diff3d" in keys or PATTERNS_ALIAS not in keys:
        return "diff3d"
    logger.info("'%s' holds no 'diff3d': '%s' is read instead", source, PATTERNS_ALIAS)
    return PATTERNS_ALIAS


def _read_array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """Read one array; a large array is mapped if it is stored uncompressed, else unpacked block by block."""
    try:
        with archive.open(f"{key}.npy") as stream:
            header = _header(archive, key, stream)
            if not header.dtype.hasobject:
                if _stored_large(archive, key):
                    return mapped(path, _data_start(archive, key, path) + header.n_bytes, header)
                if archive.getinfo(f"{key}.npy").file_size >= IN_MEMORY_BYTES:
                    return _unpacked(stream, header)
                stream.seek(0)
                return np.lib.format.read_array(stream, allow_pickle=False)
    except OutputError:  # no disk space for the unpacked values: the file itself is intact
        raise
    except DAMAGE as error:
        raise _damaged(path, error, key) from error
    rule, expected = "A scan file holds plain arrays, never Python objects.", "numbers, or text for 'metadata'"
    fix = "write numbers as a numeric array, and metadata as JSON text: numpy.array(json.dumps(...))"
    raise DataError.in_field(rule, expected, "an object array", fix, key, str(path))


def _header(archive: zipfile.ZipFile, key: str, stream: IO[bytes]) -> ArrayHeader:
    """Return the header of an array whose size in the archive is credible and agrees with the header."""
    member = archive.getinfo(f"{key}.npy")
    limit = MAX_RATIO.get(member.compress_type)
    if limit is not None and member.file_size > limit * member.compress_size + ZIP_SLACK:
        raise ValueError(f"{member.file_size} bytes cannot be packed in {member.compress_size}")
    return read_header(stream, member.file_size)


def _stored_large(archive: zipfile.ZipFile, key: str) -> bool:
    info = archive.getinfo(f"{key}.npy")
    return info.compress_type == zipfile.ZIP_STORED and info.file_size >= MAP_FROM_BYTES


def _unpacked(stream: IO[bytes], header: ArrayHeader) -> NDArray[Any]:
    """Unpack a compressed array, into a temporary file if it is larger than the memory."""
    values = scratch_array(header.shape, header.dtype, order="F" if header.fortran else "C")
    logger.info("a compressed array of %.1f GiB is unpacked into a temporary file", values.nbytes / 2**30)
    raw = values.reshape(-1, order="A").view(np.uint8)  # in the axis order of the file
    for start in range(0, len(raw), BLOCK_BYTES):
        part = stream.read(len(raw[start : start + BLOCK_BYTES]))
        raw[start : start + len(part)] = np.frombuffer(part, dtype=np.uint8)
        if len(part) < len(raw[start : start + BLOCK_BYTES]):
            raise EOFError("the array ends before its last value")
        release(raw)
    if stream.read(1):  # zipfile verifies the checksum at the end
        raise ValueError("the array continues after its last value")
    return values


def _data_start(archive: zipfile.ZipFile, key: str, path: Path) -> int:
    """Return the offset of a stored array in the archive, after its local header of variable length."""
    start = archive.getinfo(f"{key}.npy").header_offset
    with path.open("rb") as stream:
        stream.seek(start)
        header = stream.read(30)
    return start + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _damaged(path: Path, error: Exception, key: str = "") -> DataError:
    reason = getattr(error, "strerror", None) or first_line(error, type(error).__name__)
    return DataError(
        "An NPZ file is a whole zip archive of arrays.",
        expected="a file written by numpy.savez or numpy.savez_compressed",
        received=f"'{path}'" + (f", field '{key}'" if key else "") + f": {reason}",
        fix="copy or export the file again; check that it was written completely",
    )


def _position_first(patterns: NDArray[Any], n: int, key: str, source: str) -> NDArray[Any]:
    """Return patterns as (position, y, x); older files hold (y, x, position), recognised by the number of positions."""
    interrupted = patterns.shape[1] == patterns.shape[2] and len(patterns) < n
    if len(patterns) == n or interrupted:
        return patterns
    if patterns.shape[2] == n:
        logger.info("'%s' of '%s' has shape %s: read as (y, x, position)", key, source, patterns.shape)
        return gather_rows(np.moveaxis(patterns, 2, 0), np.arange(n))
    expected = f"shape (position, y, x) or (y, x, position) with {n} positions, as many as coordinates"
    raise unpaired_patterns(expected, f"shape {patterns.shape}, field '{key}' of '{source}'")


def _warn_about_several_scans(scan_index: NDArray[Any] | None, source: str) -> None:
    count = 1 if scan_index is None else len(np.unique(numbers(scan_index, "scan_index", source)))
    if scan_index is not None and 1 < count < scan_index.size:
        logger.warning("'%s' holds %d scans ('scan_index'): they are treated as one object", source, count)


def _pair(arrays: dict[str, NDArray[Any]], key: str, source: str) -> tuple[float, float] | None:
    if key not in arrays:
        return None
    values = numbers(arrays[key], key, source)
    if values.shape != (2,) or not np.isfinite(values).all():
        rule, fix = "This field is a (y, x) pair.", "write numpy.array([y, x])"
        raise wrong_shape(values, key, source, rule, "two finite numbers", fix)
    return float(values[0]), float(values[1])


def _text(arrays: dict[str, NDArray[Any]], key: str, source: str) -> str | None:
    if key not in arrays:
        return None
    value = arrays[key]
    if value.dtype.kind not in "US" or value.size != 1:
        received, fix = f"dtype {value.dtype}, shape {value.shape}", "write it as numpy.array('...')"
        raise DataError.in_field("This field is text.", "one text value", received, fix, key, source)
    text = value.reshape(())[()]
    return text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
