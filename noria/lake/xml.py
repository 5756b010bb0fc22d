"""Reader of XML: one row per record, its attributes and nested elements as columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noria.errors import Unavailable
from noria.lake.rows import Fault, Item, Row, Skip

if TYPE_CHECKING:
    from collections.abc import Mapping

DEEPEST = 100
"""Elements may be nested this deeply; a recursive form of data would not be a table."""

_CHUNK = 1 << 16

_Path = tuple[str, ...]
_Value = str | list["_Value"] | dict[str, "_Value"]


def xml_rows(data: bytes, record: str | None = None) -> Iterator[Item]:
    """Rows of an XML file; the offset is that of the first byte of the record's tag.

    A record is an element called `record`, or else the repeated one: the outermost element that stands beside others
    of its name, of several such the one with most in it. Attributes and nested elements become columns with dotted
    names (`price.currency`), those that repeat within a record a JSON array. Namespaces are left out. Entities and
    references to other files are refused: the whole file is one fault.
    """
    survey = _Survey()
    damage = _parse(data, survey)
    where = _Records((record,)) if record else survey.repeated()
    reader = _Reader(where)
    if damage is None or not damage.hostile:
        yield from _read(data, reader)
    elif damage.hostile:
        yield damage.fault
        return
    if reader.outside:
        yield Skip(f"element with text outside of the records '{where.path[-1]}'")


def _read(data: bytes, reader: _Reader) -> Iterator[Item]:
    """Rows as they come, and the fault that ended them."""
    parser = _Expat(reader)
    for start in range(0, len(data) + 1, _CHUNK):
        end = start + _CHUNK
        damage = parser.feed(data[start:end], last=end > len(data))
        yield from reader.taken()
        if damage is not None:
            yield damage.fault
            return
    if not reader.count:
        yield Fault(0, f"there is no element '{reader.records.path[-1]}'")


@dataclass(frozen=True, slots=True)
class _Damage:
    """Why parsing ended; `hostile` for what is refused whatever else is in the file."""

    fault: Fault
    hostile: bool


def _parse(data: bytes, target: _Survey) -> _Damage | None:
    return _Expat(target).feed(data, last=True)


class _Expat:
    """expat with defusedxml's refusals, telling a target of starts, ends and texts, with the byte of each start."""

    def __init__(self, target: _Survey | _Reader) -> None:
        try:
            from defusedxml.ElementTree import DefusedXMLParser
        except ImportError as error:
            raise Unavailable("the reader of XML is not installed", "pip install 'noria[data]'") from error
        self._target = target
        self._parser = DefusedXMLParser(target=self)

    def feed(self, data: bytes, last: bool) -> _Damage | None:
        """Take in the next bytes; returns why it cannot go on."""
        from xml.etree.ElementTree import ParseError

        from defusedxml import DefusedXmlException

        try:
            self._parser.feed(data)
            if last:
                self._parser.close()
        except DefusedXmlException as error:
            entity = getattr(error, "name", None)
            return _Damage(Fault(self._at, f"refused: it declares the entity '{entity}'"), hostile=True)
        except (ParseError, ValueError, LookupError) as error:
            return _Damage(Fault(self._at, f"not valid XML: {error}"), hostile=False)
        return None

    @property
    def _at(self) -> int:
        return max(0, int(self._parser.parser.CurrentByteIndex))

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """A start tag, called by the parser."""
        self._target.start(_local(tag), {_local(name): value for name, value in attributes.items()}, self._at)

    def end(self, tag: str) -> None:
        """An end tag."""
        self._target.end()

    def data(self, text: str) -> None:
        """Text between tags."""
        self._target.data(text)

    def close(self) -> None:
        """The end of the file."""


def _local(name: str) -> str:
    return name.rpartition("}")[2]


@dataclass(frozen=True, slots=True)
class _Records:
    """Where records are: elements with this path from the root, or for a path of one name anywhere."""

    path: _Path
    rooted: bool = False

    def here(self, path: list[str]) -> bool:
        """Whether the element at `path` is a record."""
        return tuple(path) == self.path if self.rooted else path[-1] == self.path[-1]


@dataclass(slots=True)
class _Place:
    """All elements with one path from the root: how many elements and attributes they hold, and what is below."""

    path: _Path
    below: dict[str, _Place] = field(default_factory=dict)
    weight: int = 0
    repeated: bool = False


class _Survey:
    """A first look at a file: which paths repeat below one parent, and how much each holds."""

    def __init__(self) -> None:
        self._top = _Place(())
        self._places = [self._top]
        self._siblings: list[set[str]] = [set()]
        self._weights = [0]

    def start(self, tag: str, attributes: Mapping[str, str], offset: int) -> None:
        """Go into an element."""
        if len(self._places) > DEEPEST:
            raise ValueError(f"elements are nested more than {DEEPEST} deep")
        above = self._places[-1]
        place = above.below.get(tag)
        if place is None:
            place = above.below[tag] = _Place((*above.path, tag))
        if tag in self._siblings[-1]:
            place.repeated = True
        self._siblings[-1].add(tag)
        self._places.append(place)
        self._siblings.append(set())
        self._weights.append(1 + len(attributes))

    def end(self) -> None:
        """Leave an element, whose weight is part of its parent's too."""
        weight = self._weights.pop()
        self._weights[-1] += weight
        self._places.pop().weight += weight
        self._siblings.pop()

    def data(self, text: str) -> None:
        """Text does not matter here."""

    def repeated(self) -> _Records:
        """The outermost repeated path; without any, the only child of the root that has children, or the root."""
        level = list(self._top.below.values())
        while level:
            found = [place for place in level if place.repeated]
            if found:
                return _Records(max(found, key=lambda place: (place.weight, place.path)).path, rooted=True)
            level = [below for place in level for below in place.below.values()]
        root = next(iter(self._top.below.values()), _Place(("",)))
        only = next(iter(root.below.values())) if len(root.below) == 1 else root
        return _Records(only.path if only.below else root.path, rooted=True)


@dataclass(slots=True)
class _Node:
    tag: str
    attributes: dict[str, str]
    parts: list[str | _Node] = field(default_factory=list)

    def text(self) -> str:
        """All text below, with its white space folded."""
        return " ".join("".join(_texts(self)).split())

    @property
    def children(self) -> list[_Node]:
        return [part for part in self.parts if isinstance(part, _Node)]

    @property
    def mixed(self) -> bool:
        """Whether words stand between the nested elements, as in marked-up text."""
        return any(isinstance(part, str) and part.strip() for part in self.parts)


class _Reader:
    """Builds each record and turns it into a row."""

    def __init__(self, records: _Records) -> None:
        self.records = records
        self.outside = False
        self.count = 0
        self._path: list[str] = []
        self._open: list[_Node] = []
        self._offset = 0
        self._done: list[Item] = []

    def taken(self) -> list[Item]:
        """The rows that were finished since the last call."""
        done, self._done = self._done, []
        return done

    def start(self, tag: str, attributes: Mapping[str, str], offset: int) -> None:
        """Open an element of a record, or go past one outside."""
        self._path.append(tag)
        if len(self._path) > DEEPEST:
            raise ValueError(f"elements are nested more than {DEEPEST} deep")
        if self._open or self.records.here(self._path):
            node = _Node(tag, dict(attributes))
            if self._open:
                self._open[-1].parts.append(node)
            else:
                self._offset = offset
            self._open.append(node)

    def end(self) -> None:
        """Close an element; the end of a record makes a row."""
        self._path.pop()
        if not self._open:
            return
        node = self._open.pop()
        if not self._open:
            self.count += 1
            self._done.append(Row(_columns(node), self._offset))

    def data(self, text: str) -> None:
        """Keep the text of a record."""
        if self._open:
            self._open[-1].parts.append(text)
        elif text.strip():
            self.outside = True


def _texts(node: _Node) -> Iterator[str]:
    for part in node.parts:
        if isinstance(part, str):
            yield part
        else:
            yield from _texts(part)


def _columns(record: _Node) -> dict[str, str]:
    columns: dict[str, str] = {}
    _flatten(_tree(record), "", columns)
    return {name or record.tag: value for name, value in columns.items()}


def _tree(node: _Node) -> _Value:
    """An element as text, or as an object of its attributes and children; its own text is under the empty name."""
    children = [] if node.mixed else node.children
    if not children and not node.attributes:
        return node.text()
    tree: dict[str, _Value] = {}
    names = {child.tag for child in children}
    for name, said in node.attributes.items():
        tree[f"@{name}" if name in names else name] = said
    repeats = Counter(child.tag for child in children)
    for child in children:
        value = _tree(child)
        if repeats[child.tag] == 1:
            tree[child.tag] = value
            continue
        values = tree.setdefault(child.tag, [])
        if isinstance(values, list):
            values.append(value)
    if not children and (text := node.text()):
        tree[""] = text
    return tree


def _flatten(tree: _Value, name: str, columns: dict[str, str]) -> None:
    if isinstance(tree, str):
        columns[name] = tree
    elif isinstance(tree, list):
        columns[name] = json.dumps(tree, ensure_ascii=False)
    else:
        for key, value in tree.items():
            _flatten(value, f"{name}.{key}" if name and key else name or key, columns)
