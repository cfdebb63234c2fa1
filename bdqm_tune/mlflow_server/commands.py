"""The commands `bdqm-tune services …`. Heavy imports happen inside them."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bdqm_tune.errors import BadInput
from bdqm_tune.user import expanded

if TYPE_CHECKING:
    from bdqm_tune.mlflow_server.paths import ServerPaths
    from bdqm_tune.services.connection import Connection

app = typer.Typer(
    help="The platform's two servers, MariaDB or MySQL and MLflow: `up`, and they run unattended.",
    no_args_is_help=True,
)
LOGS = ("services", "database", "mlflow", "schemas")


@app.command(epilog='Example: `bdqm-tune services up`, then `eval "$(bdqm-tune services env)"` and `mlflow run .`')
def up(
    host: Annotated[
        str,
        typer.Option(metavar="NAME", help="Address to listen at; a node's name, or 0.0.0.0, lets other machines in."),
    ] = "127.0.0.1",
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until SIGTERM: for a job script.")] = False,
) -> None:
    """Bring both servers up, or say where they are."""
    from bdqm_tune.mlflow_server import control
    from bdqm_tune.mlflow_server.messages import address

    places = _places()
    connection = control.up(places, host, foreground, _progress)
    if foreground:
        return
    print(address(connection, os.uname().nodename, password=False))
    print('next          eval "$(bdqm-tune services env)"     in each shell that calls `mlflow run`')
    print("              bdqm-tune tune …                     finds the servers by itself")


@app.command(epilog="Example: `bdqm-tune services status --json`")
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False) -> None:
    """Say what runs, where, and how much room it takes. Exit status 1 unless both servers answer here."""
    from dataclasses import asdict

    from bdqm_tune.mlflow_server import control
    from bdqm_tune.mlflow_server.messages import status_lines

    found = control.status(_places())
    print(json.dumps(asdict(found)) if as_json else "\n".join(status_lines(found)))
    raise typer.Exit(0 if found.state == "up" else 1)


@app.command(epilog="Example: `bdqm-tune services down`")
def down() -> None:
    """Shut both servers down cleanly; data stays."""
    from bdqm_tune.mlflow_server import control

    print("down" if control.down(_places()) else "the servers were not up")


@app.command(epilog='Example: `eval "$(bdqm-tune services env)"`')
def env() -> None:
    """Print the variables by which `mlflow` finds the server and logs in, for a shell to evaluate."""
    from bdqm_tune.services.jobspec import exports

    print(exports(_connection(_places()).tracking_environment()), end="")


@app.command(hidden=True, epilog='Example: `eval "$(bdqm-tune services site jobs/site.toml)"`')
def site(file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as jobs/site.toml.")]) -> None:
    """Print what a job's script wants to know of a site, for a shell to evaluate."""
    from bdqm_tune.services.jobspec import exports
    from bdqm_tune.services.site import load_site

    print(exports(load_site(file).variables()), end="")


@app.command(hidden=True, epilog="Example: `bdqm-tune services succeeded 17.server 18.server`")
def succeeded(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Of the job whose time is over.")],
    output: Annotated[
        str, typer.Argument(metavar="TEXT", help="What the command that submitted its successor printed.")
    ],
) -> None:
    """Keep a record of a job's successor, for a job's script."""
    from bdqm_tune.services.connection import home_folder
    from bdqm_tune.services.submission import record_successor

    record_successor(home_folder() / "jobs", job_id, output)


@app.command(epilog="Example: `bdqm-tune services url --show-password`")
def url(
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print the password of MLflow's page.")
    ] = False,
) -> None:
    """Print MLflow's address, and the ssh line that opens its page on a laptop."""
    from bdqm_tune.mlflow_server.messages import address

    print(address(_connection(_places()), os.uname().nodename, show_password))


@app.command(epilog="Example: `bdqm-tune services change-passwords`")
def change_passwords() -> None:
    """Give the servers' accounts new passwords: the database's, and MLflow's `bdqm` and `admin`. Workers follow."""
    _renew("passwords", _places().passwords)
    print('              eval "$(bdqm-tune services env)"     in each shell that called it before')


@app.command(epilog="Example: `bdqm-tune services renew-certificates`")
def renew_certificates() -> None:
    """Give the servers a new certificate, of a new authority. Workers follow; the browser warns once more."""
    _renew("certificates", _places().authority)


@app.command(epilog="Example: `bdqm-tune services logs mlflow --lines 100`")
def logs(
    server: Annotated[str, typer.Argument(help=f"{', '.join(LOGS)}; none: the end of each.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, metavar="N", help="How many lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Show the end of the servers' logs."""
    from bdqm_tune.mlflow_server.processes import tail

    if server and server not in LOGS:
        raise BadInput(f"no log {server!r}; there are: {', '.join(LOGS)}")
    places = _places()
    files = [places.log(name) for name in ([server] if server else LOGS)]
    if follow:
        files = [file for file in files if file.exists()]
        if not files:
            raise BadInput(f"there are no logs in {places.logs} yet")
        os.execvp("tail", ["tail", "-n", str(lines), "-F", *map(str, files)])
    for file in files:
        if len(files) > 1:
            print(f"==> {file}")
        if text := tail(file, lines):
            print(text)


@app.command(epilog="Example: `bdqm-tune services backup --out ~/oc20.tar.gz`")
def backup(
    out: Annotated[str, typer.Option(metavar="FILE", help="Default: backups/backup-DATE.tar.gz in the folder.")] = "",
) -> None:
    """Write one file with all studies, runs, accounts and artifacts, while workers go on."""
    from sqlalchemy import make_url

    from bdqm_tune.mlflow_server.backup import backup_name, make_backup
    from bdqm_tune.mlflow_server.data_lock import refuse_during_restore
    from bdqm_tune.mlflow_server.settings import load_settings
    from bdqm_tune.mlflow_server.supervisor import running_database
    from bdqm_tune.units import bytes_text

    places = _places()
    refuse_during_restore(places)
    connection = _connection(places)
    file = expanded(out).absolute() if out else places.backups / backup_name()
    database = running_database(places, make_url(connection.storage_url))
    contents = make_backup(places, database, file, load_settings(places.settings).versions)
    print(f"{file}: {bytes_text(file.stat().st_size)}; all schemas and {contents.artifacts} artifacts")
    command = f"bdqm-tune services restore {shlex.quote(str(file))}"
    print(f"next          BDQM_SERVICES=EMPTY_FOLDER {command}     brings them back")


@app.command(epilog="Example: `BDQM_SERVICES=~/restored bdqm-tune services restore oc20.tar.gz`")
def restore(
    file: Annotated[str, typer.Argument(help="A file that `backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put aside what is there.")] = False,
) -> None:
    """Bring back what is in a backup, into an empty place; the servers must be down."""
    from bdqm_tune.mlflow_server.restore import restore as bring_back
    from bdqm_tune.units import bytes_text

    places = _places()
    found = bring_back(places, expanded(file).absolute(), replace, _progress)
    print(
        f"{places.folder}: as of {found.made}; all schemas and {found.artifacts} artifacts ({bytes_text(found.bytes)})"
    )
    print("next          bdqm-tune services up")


def _renew(what: str, file: Path) -> None:
    from bdqm_tune.mlflow_server import control

    if (found := control.renew(_places(), file, _progress)) is None:
        print(f"{what}: the servers are down, and get new ones when they start\nnext          bdqm-tune services up")
    else:
        print(f"{what}: new ones; the servers are up at {found.tracking_uri}")


def _places() -> "ServerPaths":
    from bdqm_tune.mlflow_server.paths import ServerPaths
    from bdqm_tune.services.connection import services_folder

    return ServerPaths(services_folder())


def _connection(places: "ServerPaths") -> "Connection":
    from bdqm_tune.services.connection import read_connection

    return read_connection(places.connection)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
