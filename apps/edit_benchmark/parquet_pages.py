"""Pictures of a parquet column whose pages are too large to be held: they are read as streams.

Libraries decompress a page as a whole, and its dictionary, too. Who writes a table in one row group
gets pages of a thousand rows, which with pictures is a gigabyte. Here a page is decompressed as it
is read, and one picture at a time is in memory. What this does not know (lists, other encodings
and codecs, texts that compress well) is left to pyarrow.

The format: https://parquet.apache.org/docs/file-format, headers in Thrift's compact protocol.
"""

import mmap
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE = 8 << 20  # bytes of a column in a row group from which on its pages are read as streams
_PART = 4 << 20  # bytes that are decompressed at once
_BLOCK = 1 << 16  # bytes: nothing in a Snappy stream points back over a border of these
_STREAMED = ("GZIP", "ZSTD", "BROTLI")  # codecs that pyarrow decompresses as a stream
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # types of pages
_PLAIN, _BY_DICTIONARY = 0, (2, 8)  # encodings


class NotStreamed(Exception):
    """A column in a form that is not read here."""


def streamed_values(file: Path, column: str, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """The bytes of some rows of a column, as far as its row groups are large, in any order.

    Args:
        column: of pictures, as bytes or as a struct of `bytes` and `path`.
        rows: from 0. Those without bytes, and those of small row groups, do not come.

    Raises:
        NotStreamed: the rest has to be read in another way.
    """
    try:
        yield from _streamed(file, column, rows)
    except (LookupError, ValueError, TypeError) as error:  # no page, by its header
        raise NotStreamed(str(error)) from None


def _streamed(file: Path, column: str, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table, file.open("rb") as stream:
        leaf = _leaf(table.schema, column)
        first = 0
        whole = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            wanted = {row - first for row in rows if first <= row < first + group.num_rows}
            chunk = group.column(leaf)
            if wanted and chunk.total_uncompressed_size >= LARGE:
                depth = table.schema.column(leaf).max_definition_level
                for row, value in _Chunk(whole, chunk, depth).values(wanted):
                    yield first + row, value
            first += group.num_rows


def _leaf(schema: Any, column: str) -> int:
    """The number of the column of bytes, among those that the file has."""
    for number in range(len(schema)):
        found = schema.column(number)
        if found.path in (column, f"{column}.bytes") and found.physical_type == "BYTE_ARRAY":
            if found.max_repetition_level:
                raise NotStreamed("a list")
            return number
    raise NotStreamed(column)


@dataclass(frozen=True)
class _Page:
    """A page: its header's fields by their numbers, and its compressed content."""

    header: dict[int, Any]
    content: memoryview

    @property
    def kind(self) -> int:
        return int(self.header[1])


class _Chunk:
    """A column of bytes in one row group.

    Args:
        depth: the definition level of rows that have a value.
    """

    def __init__(self, whole: memoryview, chunk: Any, depth: int) -> None:
        self._codec, self._depth, self._rows = str(chunk.compression), depth, chunk.num_values
        size, full = chunk.total_compressed_size, chunk.total_uncompressed_size
        if self._codec == "SNAPPY" and 2 * size < full:
            raise NotStreamed("many small copies")  # each takes a step of this program
        start = chunk.data_page_offset
        if chunk.has_dictionary_page:
            start = min(start, chunk.dictionary_page_offset)
        self._pages = list(_pages(whole[start : start + size]))

    def values(self, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """The values of some rows: first those that stand in pages, then the dictionary's."""
        by_entry: dict[int, list[int]] = defaultdict(list)
        first = 0
        for page in self._pages:
            if page.kind not in (_DATA, _DATA_2):
                continue
            content, count, encoding, levels = self._opened(page)
            places = [first + i for i, level in enumerate(levels) if level == self._depth]
            if encoding == _PLAIN:
                for row in places:
                    value = content.value(row in rows)
                    if value is not None:
                        yield row, value
            elif encoding in _BY_DICTIONARY:
                entries = _runs(content.rest(), count=len(places))
                for row, entry in zip(places, entries, strict=True):
                    if row in rows:
                        by_entry[entry].append(row)
            else:
                raise NotStreamed(f"encoding {encoding}")
            first += count
        if by_entry:
            yield from self._of_dictionary(by_entry)

    def _of_dictionary(self, rows: dict[int, list[int]]) -> Iterator[tuple[int, bytes]]:
        page = next((page for page in self._pages if page.kind == _DICTIONARY), None)
        if page is None or page.header[7][2] not in (_PLAIN, *_BY_DICTIONARY):
            raise NotStreamed("no plain dictionary")
        content = _Content(self._parts(page.content, page.header[2]))
        for entry in range(page.header[7][1]):
            value = content.value(entry in rows)
            for row in rows.get(entry, ()) if value is not None else ():
                yield row, value  # type: ignore[misc]

    def _opened(self, page: _Page) -> tuple["_Content", int, int, list[int]]:
        """A page's values, how many rows it has, its encoding, and the level of each row."""
        width = self._depth.bit_length()
        if page.kind == _DATA:
            said = page.header[5]
            content = _Content(self._parts(page.content, page.header[2]))
            levels = content.read(int.from_bytes(content.read(4), "little")) if width else b""
        else:
            said = page.header[8]
            before = said[5] + said[6]
            levels, packed = bytes(page.content[said[6] : before]), said.get(7, True)
            parts = self._parts(page.content[before:], page.header[2] - before, packed)
            content = _Content(parts)
        count = said[1]
        if count > self._rows:
            raise NotStreamed("more rows than there are")
        encoding = said[2] if page.kind == _DATA else said[4]
        known = _runs(levels, count, width) if width else [0] * count
        return content, count, encoding, known

    def _parts(self, content: memoryview, size: int, packed: bool = True) -> Iterator[Any]:
        """The content of a page, decompressed piece by piece."""
        if self._codec == "UNCOMPRESSED" or not packed:
            return iter([content])
        if self._codec == "SNAPPY":
            return _snappy(content, size)
        if self._codec in _STREAMED:
            return _stream(content, self._codec.lower())
        raise NotStreamed(self._codec)


class _Content:
    """What comes in parts, read value by value."""

    def __init__(self, parts: Iterator[Any]) -> None:
        self._parts = parts
        self._part: Any = memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next so many bytes."""
        return b"".join(self._pieces(size))

    def value(self, wanted: bool) -> bytes | None:
        """The next value; None, and no copy of it, where it is not wanted."""
        size = int.from_bytes(self.read(4), "little")
        if wanted:
            return self.read(size)
        for _ in self._pieces(size):
            pass
        return None

    def rest(self) -> bytes:
        """All that is left."""
        return b"".join([bytes(self._part), *map(bytes, self._parts)])

    def _pieces(self, size: int) -> Iterator[Any]:
        while size > len(self._part):
            yield self._part
            size -= len(self._part)
            part = next(self._parts, None)
            if part is None:
                raise NotStreamed("a page that ends too early")
            self._part = memoryview(part)
        yield self._part[:size]
        self._part = self._part[size:]


def _pages(content: memoryview) -> Iterator[_Page]:
    at = 0
    while at < len(content):
        reader = _Thrift(content, at)
        header = reader.struct()
        start, at = reader.at, reader.at + header[3]
        if at < start:
            raise NotStreamed("a size below 0")
        yield _Page(header, content[start:at])


def _runs(data: bytes, count: int, width: int | None = None) -> list[int]:
    """Numbers in runs and in packs of eight, as levels and places in a dictionary are written.

    Args:
        width: bits of a number; None where the first byte says it.
    """
    at = 0
    if width is None:
        width, at = (data[0], 1) if data else (0, 0)
    reader, mask, found = _Thrift(memoryview(data), at), (1 << width) - 1, list[int]()
    while len(found) < count:
        head = reader.varint()
        if head & 1:
            for _ in range(head >> 1):
                pack = int.from_bytes(reader.take(width), "little")
                found += [pack >> (i * width) & mask for i in range(8)]
        else:
            number = int.from_bytes(reader.take((width + 7) // 8), "little")
            found += [number] * min(head >> 1, count - len(found))
    return found[:count]


class _Thrift:
    """Reads Thrift's compact protocol; what it does not know is no header of a page."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self.at = data, at

    def take(self, size: int) -> memoryview:
        found = self._data[self.at : self.at + size]
        if len(found) < size:
            raise NotStreamed("an end within a header")
        self.at += size
        return found

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self.take(1)[0]:
            step = head >> 4
            number = number + step if step else self._signed()
            fields[number] = self._value(head & 15)
        return fields

    def _signed(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.take(1)[0]
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self.take(8)
            case 8:
                return self.take(self.varint())
            case 12:
                return self.struct()
        raise NotStreamed(f"a field of kind {kind}")


def _snappy(data: memoryview, size: int) -> Iterator[bytes]:
    """A Snappy stream, cut where nothing behind points to anything before."""
    import pyarrow

    codec = pyarrow.Codec("snappy")
    reader = _Thrift(data, 0)
    if reader.varint() != size:
        raise NotStreamed("another length")
    begin, made, here = reader.at, 0, reader.at
    while here < len(data):
        tag = data[here]
        long = tag >> 2
        match tag & 3:
            case 0 if long < 60:
                length, here = long + 1, here + 2 + long
            case 0:
                behind = here + long - 58
                length = int.from_bytes(data[here + 1 : behind], "little") + 1
                here = behind + length
            case 1:
                length, here = (long & 7) + 4, here + 2
            case 2:
                length, here = long + 1, here + 3
            case _:
                length, here = long + 1, here + 5
        made += length
        if (made >= _PART and made % _BLOCK == 0) or here >= len(data):
            part = _varint(made) + bytes(data[begin:here])
            try:
                yield codec.decompress(part, made, asbytes=True)
            except (OSError, pyarrow.ArrowException):
                raise NotStreamed("a stream without borders") from None
            begin, made = here, 0


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _stream(data: memoryview, codec: str) -> Iterator[bytes]:
    import pyarrow

    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), codec) as stream:
            while part := stream.read(_PART):
                yield part
    except (OSError, pyarrow.ArrowException) as error:
        raise NotStreamed(str(error)) from None
