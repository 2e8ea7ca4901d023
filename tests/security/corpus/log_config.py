"""``log.config``: the format whose fields Python's own reader evaluates and imports."""

from __future__ import annotations

from tests.security.case import LOG, Case

RULES = ("log-config", "path")

SOUND = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=line
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
level=INFO
formatter=line
args=(sys.stdout,)
[formatter_line]
format=%(message)s
"""


def _with(old: str, new: str) -> str:
    if old not in SOUND:
        raise ValueError(f"{old!r} is not in the sound log.config")
    return SOUND.replace(old, new)


TEXTS: dict[str, tuple[str, str | bytes]] = {
    "args-eval": ("arguments that are evaluated",
                  _with("(sys.stdout,)", "(open('MARKER', 'w'),)")),
    "args-import": ("an import among them",
                    _with("(sys.stdout,)", "(__import__('os').system('touch MARKER'),)")),
    "args-walk": ("a walk from the stream", _with("(sys.stdout,)", "(sys.modules['os'],)")),
    "args-newline": ("arguments on a second line",
                     _with("(sys.stdout,)", "(sys.stdout,)\n  .__class__")),
    "args-list": ("arguments in another bracket", _with("(sys.stdout,)", "[sys.stdout]")),
    "args-unicode": ("letters that look alike", _with("sys.stdout", "sys.std\u043eut")),
    "kwargs": ("named arguments", _with("args=", "kwargs={'stream': open('MARKER','w')}\nargs=")),
    "class-path": ("a class by its path", _with("class=StreamHandler", "class=subprocess.Popen")),
    "class-alias": ("a module behind logging",
                    _with("class=StreamHandler", "class=logging.os.system")),
    "class-file": ("a file", _with("class=StreamHandler\n", "class=FileHandler\n")
                   .replace("(sys.stdout,)", "('MARKER', 'w')")),
    "class-socket": ("another machine",
                     _with("class=StreamHandler", "class=handlers.SocketHandler")),
    "class-http": ("another machine", _with("class=StreamHandler", "class=handlers.HTTPHandler")),
    "class-smtp": ("a mail", _with("class=StreamHandler", "class=handlers.SMTPHandler")),
    "class-syslog": ("the machine's log",
                     _with("class=StreamHandler", "class=handlers.SysLogHandler")),
    "class-config": ("a listener", _with("class=StreamHandler", "class=config.listen")),
    "class-blank": ("no class", _with("class=StreamHandler", "class=")),
    "class-case": ("another spelling", _with("class=StreamHandler", "class=streamhandler")),
    "formatter-class": ("a formatter by its path",
                        _with("format=%(message)s", "class=os.system\nformat=%(message)s")),
    "formatter-style": ("a walk inside format",
                        _with("format=%(message)s", "style={\nformat={msg.__class__}")),
    "formatter-dollar": ("another style", _with("format=%(message)s", "style=$\nformat=$message")),
    "formatter-unknown": ("an option that is passed over",
                          _with("format=%(message)s", "()=os.system\nformat=%(message)s")),
    "formatter-defaults": ("defaults of a formatter",
                           _with("format=%(message)s", "defaults={'a': 1}\nformat=%(message)s")),
    "width": ("a width bomb", _with("%(message)s", "%(message)999999999s")),
    "precision": ("a precision bomb", _with("%(message)s", "%(created).999999999f")),
    "width-star": ("a width from a value", _with("%(message)s", "%(message)*s")),
    "width-many": ("many wide fields", _with("%(message)s", "%(message)999s" * 4000)),
    "unknown-field": ("a field that is none", _with("%(message)s", "%(password)s")),
    "character-field": ("a number as a character", _with("%(message)s", "%(thread)c")),
    "process-character": ("a number as a character", _with("%(message)s", "%(created)c")),
    "half-format": ("half a field", _with("%(message)s", "%(message")),
    "regex-bomb": ("a format that takes long to judge", _with("%(message)s", "%(" * 30_000)),
    "digits-bomb": ("a format that takes long to judge",
                    _with("%(message)s", "%(a)" + "1 " * 30_000)),
    "dates": ("a width bomb of dates",
              _with("format=%(message)s", "format=%(asctime)s\ndatefmt=" + "%999999999Y" * 50)),
    "interpolation": ("a value of another section",
                      _with("level=INFO\nhandlers", "level=%(home)s\nhandlers")),
    "default-section": ("a section that counts everywhere",
                        "[DEFAULT]\nclass=os.system\n" + SOUND),
    "level-walk": ("a level that is a walk", _with("level=INFO\nhandlers", "level=os\nhandlers")),
    "handler-missing": ("a handler that is not there", _with("handlers=console", "handlers=x")),
    "section-missing": ("a section that is not there", _with("keys=console", "keys=console,x")),
    "section-twice": ("a section twice", SOUND + "[handler_console]\nclass=os.system\n"),
    "option-twice": ("an option twice", _with("level=INFO\nform", "level=INFO\nlevel=INFO\nform")),
    "no-section": ("text before all sections", "import os\n" + SOUND),
    "json": ("another format", '{"version": 1, "handlers": {"a": {"()": "os.system"}}}'),
    "not-utf-8": ("bytes that are no text", SOUND.encode() + b"\xff\xfe"),
    "utf-16": ("another encoding", SOUND.encode("utf-16")),
    "large": ("100 kB", SOUND + "# x\n" * 30_000),
    "nul": ("a NUL", _with("args=(sys.stdout,)", "args=(sys.stdout,)\0")),
    "qualname": ("a handler of another logger",
                 _with("keys=root", "keys=root,x") + "[logger_x]\nhandlers=y\nqualname=nvflare\n"),
    "propagate": ("a propagation that is none", _with("level=INFO\nhandlers",
                                                      "propagate=os\nlevel=INFO\nhandlers")),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = tuple(
    Case(id=id_, family="log config", tries=tries, rules=RULES, files={LOG: content})
    for id_, (tries, content) in TEXTS.items()
)
