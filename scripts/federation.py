"""A federation on this machine, from kits to results: `make federation`.

A server and two sites, each a process of its own with its own kit, speak mutual TLS over gRPC on
127.0.0.1. A job is submitted twice: by NVFlare's admin console as a person would type it, and by
`mmar submit`. What comes back is compared with `mmar simulate`, to the last bit, and with what each
site computes by itself. At the end, or after Ctrl-C, no process is left.

Everything of a run is in a folder of its own, build/federation/run-001 and so on: kits, data,
results, and what each process has printed. The exit code is 0 if all went as told, 1 if not, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from admin_shell import AdminShell

from fl_admin.at_server.job_results import RESULTS
from fl_admin.demo_data import write_demo_data
from fl_admin.report.summary import format_mean, format_metric
from fl_admin.simulation.local_federation import SERVER, SITES, LocalFederation
from fl_admin.simulation.nvflare_engine import NvflareEngine
from fl_admin.simulation.processes import ProcessTree
from fl_server.record.cross_site import GLOBAL_MODEL, CrossSiteMatrix, read_cross_site_matrix
from fl_server.record.files import read_run_record
from mmar_runtime.cli.common import stop_on_signals
from mmar_runtime.errors import FederationError, MmarError, RunAborted
from mmar_runtime.weights import digest, read_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"
BUILD = REPOSITORY / "build" / "federation"
JOB_ID = re.compile(r"Submitted job: (\S+)")
STATUS = re.compile(r'"status": "(\S+)"')
COMPLETED = "FINISHED:COMPLETED"
THIS_MACHINE = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Addresses that no other machine reaches."""

SECONDS_FOR_A_JOB = 600.0
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_QUESTIONS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path, nargs="?", default=JOB, help="the job (%(default)s)")
    parser.add_argument(
        "-w", "--workspace", type=Path, default=BUILD, help="holds the runs (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        with stop_on_signals():
            folder = NvflareEngine().new_folder(options.workspace)
            rehearse(options.job.resolve(), folder.root)
    except KeyboardInterrupt:
        print("stopped; no process is left", file=sys.stderr)
        return RunAborted.exit_code
    except MmarError as error:
        print(f"the rehearsal failed: {error}", file=sys.stderr)
        return 1
    return 0


def rehearse(job: Path, folder: Path) -> None:
    """The whole story; raises ``MmarError`` at the first thing that is not as it should be."""
    say = Steps()
    say(f"everything of this run is in {folder}")
    federation = LocalFederation.provisioned(folder)
    say(f"provisioned: a kit for {SERVER}, {', '.join(SITES)} and {federation.lead.name}")
    for data in write_demo_data(folder / "data", sites=len(SITES)):
        places = {"DATA_ROOT": str(data.directory), "DATASET_JSON": str(data.datalist)}
        federation.give(data.name, {**places, "NUM_THREADS": 1})
    say("each site has made-up volumes, and its values in local/environment.json")

    with federation:
        federation.start()
        say(f"server and sites run: {len(federation.processes())} processes, both sites connected")
        check_addresses(federation)
        say("they listen on 127.0.0.1 alone, and to nobody without a certificate")

        typed = at_the_admin_console(federation, job, folder)
        say("NVFlare's admin console: submitted, COMPLETED, downloaded")
        run(
            "mmar", "submit", job, "--kit", federation.lead, "--wait", "--out", folder / "results",
            log=folder / "mmar_submit.log",
        )  # fmt: skip
        (sent,) = (folder / "results").iterdir()
        say("mmar submit --wait --out: COMPLETED, results fetched")

        matrix = check_complete(sent / RESULTS)
        check_complete(typed / RESULTS)
        say(f"record and matrix are complete: {len(matrix.models)} models x {len(SITES)} sites")
        for site in SITES:
            check_cell(federation, site, sent, matrix)
        say("each site's number of the global model is what the site computes by itself")
    check_all_ended(federation)
    say("server and sites have stopped; no process is left")

    simulated = simulate(federation, job, folder)
    check_same_bits(typed / RESULTS, sent / RESULTS, simulated)
    say("console, mmar submit and mmar simulate gave the same models, to the last bit")
    summary(sent / RESULTS, matrix, say.seconds)


class Steps:
    """Says what has been done, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __call__(self, text: str) -> None:
        print(f"[{self.seconds:5.1f} s] {text}", flush=True)


def shown(text: str) -> None:
    """What another program printed, set apart."""
    for line in text.splitlines():
        print(f"          | {line}", flush=True)


def run(*words: object, log: Path) -> None:
    """Run a command to its end and show what it prints; raises if it fails."""
    command = [str(word) for word in words]
    shown("$ " + " ".join(command))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        ProcessTree(command, log=log, env={**os.environ, "PATH": path}) as tree,
        log.open(encoding="utf-8") as printed,
    ):
        while (code := tree.look()) is None:
            shown(printed.read())
            time.sleep(SECONDS_BETWEEN_LOOKS)
        shown(printed.read())
    if code != 0:
        raise FederationError(f"{command[0]} {command[1]} ended with {code}; see {log}")


# --- The admin console --------------------------------------------------------------------------


def at_the_admin_console(federation: LocalFederation, job: Path, folder: Path) -> Path:
    """Type what a researcher types; returns the folder of the downloaded job."""
    # It signs a job where it lies, and this is somebody's checkout.
    copy = Path(shutil.copytree(job, folder / "submitted" / job.name))
    with AdminShell(federation.lead) as shell:
        said = ask(shell, "check_status server")
        missing = [site for site in SITES if site not in said]
        if missing:
            raise FederationError(f"the server knows nothing of {missing}:\n{said}")
        found = JOB_ID.search(ask(shell, f"submit_job {copy}"))
        if found is None:
            raise FederationError("the job was not taken")
        job_id = found[1]
        ask(shell, "list_jobs")
        meta = await_end(shell, job_id)
        (folder / "get_job_meta.json").write_text(meta, encoding="utf-8")
        # What a job logs stays where it was logged; the answer says so.
        ask(shell, f"get_job_log {job_id}")
        ask(shell, f"download_job {job_id}")
    target = folder / "downloaded" / job_id
    target.parent.mkdir()
    shutil.move(federation.lead / "transfer" / job_id, target)
    return target


def ask(shell: AdminShell, line: str) -> str:
    shown(f"> {line}")
    answer = shell.ask(line)
    shown(answer.rstrip())
    return answer


def await_end(shell: AdminShell, job_id: str) -> str:
    """Ask until the job is over; returns its meta data."""
    shown(f"> get_job_meta {job_id}")
    deadline, before = time.monotonic() + SECONDS_FOR_A_JOB, ""
    while time.monotonic() < deadline:
        meta = shell.ask(f"get_job_meta {job_id}")
        found = STATUS.search(meta)
        status = "" if found is None else found[1]
        if status != before:
            shown(f'"status": "{status}"')
            before = status
        if status.startswith("FINISHED"):
            if status != COMPLETED:
                raise FederationError(f"the job has ended as {status}:\n{meta}")
            return meta
        time.sleep(SECONDS_BETWEEN_QUESTIONS)
    raise FederationError(f"the job is not over after {SECONDS_FOR_A_JOB:.0f} s: {before}")


# --- What has to be true --------------------------------------------------------------------------


def check_addresses(federation: LocalFederation) -> None:
    """Nothing listens beyond this machine, and the server talks to nobody without a certificate."""
    listening = listening_sockets(federation)
    open_to_others = [address for address in listening if address[0] not in THIS_MACHINE]
    if open_to_others or not listening:
        raise FederationError(f"processes of the federation listen on {listening}")
    known = answers(federation, with_certificate=True)
    if not known or answers(federation, with_certificate=False):
        raise FederationError("the server does not ask for a certificate")


def listening_sockets(federation: LocalFederation) -> list[tuple[str, int]]:
    """Address and port of each socket on which a process of the federation listens."""
    return sorted(
        (connection.laddr.ip, connection.laddr.port)
        for process in federation.processes()
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    )


def connections_of(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections(kind="inet"))
    except psutil.Error:
        return []  # it has ended


def answers(federation: LocalFederation, *, with_certificate: bool) -> bool:
    """Whether the server speaks HTTP/2 to someone who knows its name and its authority."""
    startup = federation.lead / "startup"
    admin = json.loads((startup / "fed_admin.json").read_text("utf-8"))["admin"]
    context = ssl.create_default_context(cafile=startup / "rootCA.pem")
    context.set_alpn_protocols(["h2"])
    if with_certificate:
        context.load_cert_chain(startup / "client.crt", startup / "client.key")
    try:
        with (
            socket.create_connection((admin["host"], admin["port"]), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=SERVER) as connection,
        ):
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def check_complete(results: Path) -> CrossSiteMatrix:
    """Every site contributed to every round, and every model has a number at every site."""
    record = read_run_record(results / "run_record.json")
    if record.status != "complete":
        raise FederationError(f"the run is {record.status}: {record.failure}")
    matrix = read_cross_site_matrix(results / "cross_site.json")
    if not matrix.complete or record.sites != SITES:
        raise FederationError(f"sites {record.sites}; missing in the matrix: {matrix.missing}")
    return matrix


def check_cell(federation: LocalFederation, site: str, job: Path, matrix: CrossSiteMatrix) -> None:
    """The site's number of the global model is the same if the site evaluates it by itself."""
    model = job / RESULTS / "models" / f"{GLOBAL_MODEL}.pt"
    log = federation.kits.parent / f"{site}_validate.log"
    run(
        "mmar", "site", "validate", "--kit", federation.site(site), "--model", model, "--json",
        log=log,
    )  # fmt: skip
    computed = json_in(log.read_text("utf-8"))["metrics"]
    told = matrix.as_dict()["cells"][GLOBAL_MODEL][site]
    if computed != told:
        raise FederationError(f"{site}: the federation says {told}, the site {computed}")


def json_in(printed: str) -> Any:
    """The JSON document at the end of what was printed."""
    return json.loads(printed[printed.index("\n{") if not printed.startswith("{") else 0 :])


def check_all_ended(federation: LocalFederation) -> None:
    left = federation.processes()
    if left:
        raise FederationError(f"processes are left: {left}")


def simulate(federation: LocalFederation, job: Path, folder: Path) -> Path:
    """The same job with the same sites in the simulator; returns its results."""
    sites = {site: json.loads(federation.values(site).read_text("utf-8")) for site in SITES}
    environment = folder / "environment.json"
    environment.write_text(json.dumps({"sites": sites}), encoding="utf-8")
    run(
        "mmar", "simulate", job, "--sites", len(SITES), "-e", environment,
        "--workspace", folder / "simulated",
        log=folder / "mmar_simulate.log",
    )  # fmt: skip
    return folder / "simulated" / "run-001" / "results"


def check_same_bits(*results: Path) -> None:
    """The weights after each round, all models and all numbers of the matrix are equal."""
    first, *others = map(outcome, results)
    for other in others:
        if other != first:
            raise FederationError(f"not the same: {first} and {other}")


def outcome(results: Path) -> dict[str, Any]:
    record = read_run_record(results / "run_record.json")
    return {
        "rounds": [round_record.weights_sha256 for round_record in record.rounds],
        "models": {file.stem: digest(read_checkpoint(file).weights) for file in models_of(results)},
        "cells": read_cross_site_matrix(results / "cross_site.json").as_dict()["cells"],
    }


def models_of(results: Path) -> Iterator[Path]:
    files = sorted((results / "models").glob("*.pt"))
    if len(files) != len(SITES) + 2:
        raise FederationError(f"{results / 'models'} holds {[file.name for file in files]}")
    yield from files


def summary(results: Path, matrix: CrossSiteMatrix, seconds: float) -> None:
    record = read_run_record(results / "run_record.json")
    last = record.scores[-1]
    print(
        f"\n{len(record.rounds)} rounds at {len(record.sites)} sites, twice, and once more "
        f"simulated, in {seconds:.0f} s"
    )
    print(f"global model: mean {record.key_metric} {format_mean(last.mean[record.key_metric])}")
    for site in matrix.sites:
        found = matrix.metric(GLOBAL_MODEL, site, record.key_metric)
        print(f"    {site}: {format_metric(found)}")
    print(f"weights: {record.rounds[-1].weights_sha256}")
    print(f"results: {results}")


if __name__ == "__main__":
    sys.exit(main())
