"""XML of maps, which nobody vouches for: no entities, sizes checked before memory is taken, and errors of one line."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError

import defusedxml
from defusedxml.ElementTree import fromstring

# A file that would take more than 1 GB of memory or 10 s is refused before it does.
MAX_FILE_BYTES = 64_000_000
MAX_ELEMENTS = 1_500_000
MAX_ATTRIBUTES = 5_000_000
MAX_DEPTH = 32


class MapError(ValueError):
    """A map file that cannot be used: the message says which file, what is wrong and what to do."""


def parse_map_xml(data: bytes, title: str, advice: str) -> Element:
    """The root of an XML document, entities refused and its size checked before memory is taken for its elements.

    Raises MapError.
    """
    if data.count(b"<") > MAX_ELEMENTS or data.count(b"=") > MAX_ATTRIBUTES:
        raise MapError(f"{title}: more than {MAX_ELEMENTS:,} elements; cut out a smaller region")
    try:
        root: Element = fromstring(data)
    except ParseError as error:
        raise MapError(f"{title}: not well-formed XML: {error}; {advice}") from error
    except defusedxml.DefusedXmlException as error:
        raise MapError(f"{title}: declares XML entities, which are refused; remove the <!DOCTYPE ...> part") from error
    except (ValueError, LookupError) as error:
        raise MapError(f"{title}: no readable XML text: {error}; {advice}") from error
    waiting = [(root, 1)]
    while waiting:
        element, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise MapError(f"{title}: elements inside each other more than {MAX_DEPTH} deep; {advice}")
        waiting.extend((child, depth + 1) for child in element)
    return root
