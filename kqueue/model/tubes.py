"""The names of tubes: pure.

A tube is named by what the user wants (a prefix, at most 10 characters, empty by default), by the random id of its
store, and by the type of its jobs::

    shop.kq0f3a91b2c4.resize

So no two stores ever share a tube, whatever prefix they were given. A name of beanstalkd has letters, digits and
``-+/;.$_()``, and no ``-`` at its beginning. A type may have other characters: each of their bytes in UTF-8 stands
there, and in the body of an entry, as ``+`` and two hexadecimal digits: ``slideshow pdf`` as ``slideshow+20pdf``. A
name has 200 bytes at most: where it would be longer, the end of the type gives way to a digest of it all, behind a
``$``, which no other name has. So no two types share a tube.
"""

import hashlib
import os
import re
from typing import Final

#: Bytes of a tube's name at most, by beanstalkd's protocol.
MAX_NAME: Final = 200
#: Hexadecimal digits of a store's id: two of a million stores share one with a probability of 1 in 2 million.
ID_DIGITS: Final = 10
#: Of a digest.
_DIGEST_DIGITS: Final = 20

#: What stands for itself in a type, but for a ``-`` at its beginning.
_PLAIN: Final = re.compile(r"(?!-)[A-Za-z0-9_.\-/]+", re.ASCII)
_NOT_PLAIN: Final = re.compile(r"\A-|[^A-Za-z0-9_.\-/]", re.ASCII)
_ESCAPED: Final = re.compile(r"(?:\+[0-9A-F]{2})+", re.ASCII)

#: What older versions gave to a store that had no prefix: its own random one.
OLD_RANDOM_PREFIX: Final = re.compile(r"kq[0-9a-f]{6}\.")
_BEGINNING: Final = re.compile(rf".{{0,10}}?kq[0-9a-f]{{{ID_DIGITS}}}\.")


def new_id() -> str:
    """A store's id: random, :data:`ID_DIGITS` hexadecimal digits."""
    return os.urandom(ID_DIGITS // 2).hex()


def beginning(prefix: str, store_id: str) -> str:
    """What the names of a store's tubes begin with."""
    return f"{prefix}kq{store_id}."


def escaped(type: str) -> str:
    """A type in the characters of a tube's name: one to one."""
    if _PLAIN.fullmatch(type):
        return type
    return _NOT_PLAIN.sub(lambda found: "".join(f"+{byte:02X}" for byte in found[0].encode()), type)


def unescaped(text: str) -> str:
    """The type that :func:`escaped` gives this of. Raises ``ValueError`` if there is none."""
    if "+" not in text:
        return text
    type = _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("+", "")).decode(), text)
    if escaped(type) != text:
        raise ValueError(f"type: {text!r:.80} is not how one is written in a tube")
    return type


def name(beginning: str, type: str) -> str:
    """The tube of a type: one to one."""
    whole = beginning + escaped(type)
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(type.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{whole[: MAX_NAME - _DIGEST_DIGITS - 1]}${digest}"


def beginning_of(tube: str, type: str) -> str | None:
    """The beginning of a tube in which pointers to jobs of ``type`` were found; None if that is no name of ours."""
    if tube.endswith(escaped(type)):
        return tube.removesuffix(escaped(type))
    match = _BEGINNING.match(tube)
    return match[0] if match is not None and name(match[0], type) == tube else None
