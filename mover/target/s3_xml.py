"""The little XML that S3 answers with, from a peer that need not be friendly.

No document type, so no entities of its own; bounded depth and, by the caller, size. Namespaces are dropped: stores
differ in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.parsers import expat

_DEEPEST = 16


class Element:
    """A name, a text and children."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[Element] = []

    def all(self, name: str) -> Iterator[Element]:
        return (child for child in self.children if child.name == name)

    def text_of(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text for child in self.all(name)), None)


def parse_xml(data: bytes) -> Element:
    """The root. Raises ValueError for what is not well formed, has a document type or is too deep."""
    top = Element("")
    path = [top]

    def start(name: str, _attributes: object) -> None:
        if len(path) > _DEEPEST:
            raise ValueError("XML that is nested too deep")
        element = Element(name.rpartition(":")[2])
        path[-1].children.append(element)
        path.append(element)

    def end(_name: str) -> None:
        path.pop()

    def text(data: str) -> None:
        path[-1].text += data

    def doctype(*_what: object) -> None:
        raise ValueError("XML with a document type")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError("XML that is not well formed") from error
    return top.children[0]
