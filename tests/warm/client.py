"""Python, as far as a caller sees: a module is run by a process of the fork server ``server.py``.

The tests start a copy of this file, named ``python3``, with the line of the interpreter on top. It
hands over its open files, waits, passes signals on, and ends as the process ends. What is neither
``python -m MODULE`` nor ``python -c CODE`` is run by the real Python, and so is a Python with other
options: ``python -I`` judges a job within limits on its memory, which torch would exceed.
"""

import array
import contextlib
import json
import os
import resource
import signal
import socket
import sys

PYTHON = "@PYTHON@"
SOCKET = "@SOCKET@"
FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
HIGHEST_FILE = 64


def main() -> None:
    words = sys.argv[1:]
    options = []
    while words and words[0] in ("-u", "-P"):
        options.append(words.pop(0))
    if len(words) < 2 or words[0] not in ("-m", "-c"):
        os.execv(PYTHON, [PYTHON, *sys.argv[1:]])
    path = [os.getcwd() if words[0] == "-m" else ""]
    if "-P" in options or os.environ.get("PYTHONSAFEPATH"):
        path = []
    path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    files = [number for number in range(HIGHEST_FILE) if is_inherited(number)]
    os.umask(umask := os.umask(0))
    request = {
        "python": sys.argv[0],
        "words": sys.argv[1:],
        "kind": words[0],
        "what": words[1],
        "arguments": words[2:],
        "path": path,
        "folder": os.getcwd(),
        "umask": umask,
        "environment": dict(os.environ),
        "unbuffered": "-u" in options or "PYTHONUNBUFFERED" in os.environ,
        "files": files,
    }
    server = socket.socket(socket.AF_UNIX)
    server.connect(SOCKET)
    text = json.dumps(request).encode()
    numbers = array.array("i", files)
    sent = server.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
    server.sendall(text[sent:])
    answers = server.makefile("r")
    pid = int(answers.readline())
    for name in FORWARDED:
        signal.signal(getattr(signal, name), lambda number, _: pass_on(pid, number))
    code = int(answers.readline() or 1)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def is_inherited(number: int) -> bool:
    with contextlib.suppress(OSError):
        return os.get_inheritable(number)
    return False


def pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
