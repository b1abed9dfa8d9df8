"""URLs as they may be shown: never with a password, whatever else is wrong with them.

What was meant as a URL may be none: without a scheme, with a blank or an ``@`` or a ``/`` in its password, or with
the password in its query. So nothing is taken for harmless but what has the form of a host, a port, a path or an
option that is known; all else is hidden.
"""

import re
from typing import Final

#: What stands for what is hidden.
HIDDEN: Final = "***"

#: Schemes whose URL is a path of this host, where an ``@`` means nothing.
_OF_FILES: Final = {"sqlite", "beanstalk+unix"}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_HOST: Final = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_HOSTS: Final = re.compile(rf":?[0-9]{{0,5}}|{_HOST}(?:,{_HOST})*")
_AFTER_HOSTS: Final = re.compile(r"[/?#]")
#: An option's name that is one, and no password behind a question mark.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,40}", re.ASCII)
_VALUE: Final = re.compile(r"[A-Za-z0-9_.,+-]{0,60}", re.ASCII)
#: Options whose values are no secrets.
_HARMLESS: Final = re.compile(
    "timeout|connect_timeout|synchronous|busy_timeout|mode|w|journal|replicaset|authsource|authmechanism"
    "|directconnection|ssl|tls|retrywrites|retryreads|readpreference|readconcernlevel|appname|wtimeoutms"
    "|connecttimeoutms|sockettimeoutms|serverselectiontimeoutms|maxpoolsize|minpoolsize",
    re.IGNORECASE,
)
#: A URL in a text, up to a blank or a quote. Its password may hold either: then it goes on to the last ``@``.
_IN_TEXT: Final = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://(?:.*@)?[^\s'"]*""", re.ASCII)
#: The same of a path, whose ``@`` is none of a password.
_FILE_IN_TEXT: Final = re.compile(rf"""(?:{"|".join(map(re.escape, _OF_FILES))}):///[^\s'"]*""", re.IGNORECASE)
#: What has no scheme, and a user and a password.
_LOGIN_IN_TEXT: Final = re.compile(r"""[^\s'"]*:\S*@""")
#: What says of itself that it is a secret.
_NAMED_IN_TEXT: Final = re.compile(r"""((?:passw|pwd|secret|token)\w*=)[^\s&'"]+""", re.IGNORECASE)


def showable(url: str) -> str:
    """``url``, or what was meant as one, with ``***`` for each password and for whatever may be one."""
    scheme, mark, rest = url.partition("://")
    if not mark or _SCHEME.fullmatch(scheme) is None:
        start, rest = "", url
    else:
        start = f"{scheme}://"
        if scheme.lower() in _OF_FILES and rest.startswith("/"):
            path, question, query = rest.partition("?")
            return f"{start}{path}{question}{_query(query)}"
    if url == "memory:":
        return url
    login, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        start += f"{user}:{HIDDEN}@" if mark and colon and _USER.fullmatch(user) else f"{HIDDEN}@"
    return start + _place(place)


def without_passwords(text: str) -> str:
    """One line that may hold URLs, each as :func:`showable` has it. Rather too much is hidden than too little."""
    text = _NAMED_IN_TEXT.sub(rf"\1{HIDDEN}", text)
    if "@" not in text and "://" not in text:
        return text
    shown, end = [], 0
    for match in _FILE_IN_TEXT.finditer(text):
        shown += [_hidden_in(text[end : match.start()]), showable(match[0])]
        end = match.end()
    return "".join([*shown, _hidden_in(text[end:])])


def _hidden_in(text: str) -> str:
    shown, end = [], 0
    for match in _IN_TEXT.finditer(text):
        # A colon or a full stop is the message's own.
        url = match[0].rstrip(":;,.)")
        shown += [_LOGIN_IN_TEXT.sub(f"{HIDDEN}@", text[end : match.start()]), showable(url)]
        end = match.start() + len(url)
    return "".join([*shown, _LOGIN_IN_TEXT.sub(f"{HIDDEN}@", text[end:])])


def _place(place: str) -> str:
    """Hosts, a path and a query; hidden from where it has the form of none."""
    end = _AFTER_HOSTS.search(place)
    hosts, rest = (place, "") if end is None else (place[: end.start()], place[end.start() :])
    if _HOSTS.fullmatch(hosts) is None:
        return HIDDEN
    before, hash_mark, fragment = rest.partition("#")
    path, question, query = before.partition("?")
    return f"{hosts}{path}{question}{_query(query)}{hash_mark}{HIDDEN if fragment else ''}"


def _query(query: str) -> str:
    return "&".join(_option(one) for one in query.split("&"))


def _option(option: str) -> str:
    name, equals, value = option.partition("=")
    if not option:
        return ""
    if not equals or _NAME.fullmatch(name) is None:
        return HIDDEN
    is_shown = _HARMLESS.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None
    return f"{name}={value if is_shown else HIDDEN}"
