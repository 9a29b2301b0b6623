"""`multipart/form-data` (RFC 7578), held in memory: python-multipart parses, this collects the parts of one name."""

from __future__ import annotations

from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import BadRequest, TooManyImages

HOW = "Send the picture as curl -F image=@picture.jpg."
_MAX_PARTS = 1000
"""Of any name: each costs time, which a body of empty parts could take a lot of."""


class _Collector:
    """Takes the parser's callbacks and keeps the files among the parts named `name`."""

    def __init__(self, name: str, max_files: int) -> None:
        self._name = name
        self._max_files = max_files
        self._header = self._value = self._disposition = b""
        self._file: bytearray | None = None
        self._parts = 0
        self.files: list[bytes] = []
        self.ended = False

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise _too_many_parts()
        self._disposition = b""
        self._file = None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest(f"A part of the multipart body has no name. {HOW}")
        if options[b"name"] != self._name.encode():
            return
        if b"filename" not in options:
            raise BadRequest(f"A part named '{self._name}' is text, not a file. {HOW}")
        if len(self.files) == self._max_files:
            raise TooManyImages(f"More than {self._max_files} images in one request. Send several requests.")
        self._file = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file += data[start:end]

    def on_part_end(self) -> None:
        if self._file is not None:
            self.files.append(bytes(self._file))

    def on_end(self) -> None:
        self.ended = True


def _too_many_parts() -> BadRequest:
    return BadRequest(f"The form has more than {_MAX_PARTS} parts. Send fewer.")


def files_named(name: str, content_type: str, body: bytes, *, max_files: int) -> list[bytes]:
    """The content of each file named `name`, in order. Raises BadRequest, TooManyImages."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("The Content-Type multipart/form-data names no boundary. Let the HTTP client set this header.")
    # The parser stops at each, also where it then is none: millions of them would keep the event loop for seconds.
    if body.count(b"\r\n--" + boundary) > _MAX_PARTS:
        raise _too_many_parts()
    parts = _Collector(name, max_files)
    try:
        parser = MultipartParser(  # which refuses a boundary that is too long
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_headers_finished": parts.on_headers_finished,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_end": parts.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except ValueError as error:  # the base of python-multipart's errors
        raise BadRequest("The multipart body is malformed. Let the HTTP client make it.") from error
    if not parts.ended:
        raise BadRequest("The multipart body is cut off before its closing boundary. Send all of it.")
    if not parts.files:
        raise BadRequest(f"The form has no part named '{name}'. {HOW}")
    return parts.files
