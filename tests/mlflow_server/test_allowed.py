"""Whose requests reach MLflow, for every route that it has; and what these may not do: run commands, record passwords,
put artifacts where they like. Against the servers themselves.
"""

import base64
import http.client
import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities import Dataset, DatasetInput, LoggedModelOutput, Metric, Param
from playwright.sync_api import expect
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.allowed import whose
from bdqm_tune.mlflow_server.database import own_database
from bdqm_tune.mlflow_server.passwords import load_passwords
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import tracking_client
from scripts.mlflow_page import opened_page
from tests.mlflow_server.routes import METHODS, NOBODY, example, lines, routes, table
from tests.servers import Servers

NO_SUCH_PAGE = "not found: this server has no such page"
SECRET = "mysql://me:t0ps3cret@host/optuna"
API = "/api/2.0/mlflow"

Ask = Callable[..., requests.Response]


@pytest.fixture
def ask(servers: Servers) -> Ask:
    """`ask(method, path, who, **options)`: what the server answers a plain account, the administrator, or nobody."""
    connection, passwords = servers.connection, load_passwords(servers.places.passwords)
    accounts = {
        "plain": (connection.tracking_username, connection.tracking_password),
        "admin": ("admin", passwords.tracking_admin),
        "": None,
    }
    session = requests.Session()
    session.trust_env = False

    def go(method: str, path: str, who: str = "plain", **options: Any) -> requests.Response:
        options = {"auth": accounts[who], "verify": connection.tracking_ca or True, "timeout": 60} | options
        return session.request(method, connection.tracking_uri + path, **options)

    return go


def test_somebody_decided_for_every_route_of_this_mlflow_who_may_use_it() -> None:
    decided = {f"{who:8}{method:7}{path}" for who, method, path in table()}
    found = set(lines(routes()))
    assert found - decided == set(), "decide in bdqm_tune/mlflow_server/allowed.py, then write routes.txt anew"
    assert decided - found == set(), "are gone; write routes.txt anew"
    assert len(found) > 400


def test_every_route_answers_those_alone_whom_it_is_for(ask: Ask) -> None:
    for who, method, path in table():
        where = example(path)
        answers = {asking: ask(method, where, asking, json={}) for asking in ("", "plain")}
        codes = {asking: answer.status_code for asking, answer in answers.items()}
        missing = {asking: NO_SUCH_PAGE in answer.text for asking, answer in answers.items()}
        if who == NOBODY:
            assert codes == {"": 404, "plain": 404}, (method, path)
            assert missing == {"": True, "plain": True}, (method, path)
        else:
            assert codes[""] == (200 if who == "anyone" else 401), (method, path)
            assert (codes["plain"] == 403) if who == "admin" else (codes["plain"] != 401), (method, path)
            assert missing == {"": False, "plain": False}, (method, path)
    assert [path for who, _, path in table() if who == "anyone"] == ["/health"]


def test_whatever_else_is_asked_is_not_there() -> None:
    for _, method, path in table():
        where = example(path)
        for other in {"HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", method.lower(), "QUERY"}:
            assert whose(other, where) is None, (other, path)
        if "path" in path or "key" in path:  # names of files and of tags may be nearly anything
            continue
        for changed in (f"/{where}", where.replace("/", "//"), f"{where};x", f"{where}\n", f"{where}\x00", f"x{where}"):
            assert whose(method, changed) is None, changed
        if where != "/":
            assert whose(method, where.upper()) is None, path
            assert whose(method, f"{where}/") is None, path
    for method in METHODS:
        for name in ("..", ".", "1/..", "1/../2", "../1", "1//2", "", "/1", "1/", "1\\2", "1/./2", "a\x00", "a\nb"):
            if (method, name) != ("DELETE", "1/"):  # as clients ask for a folder
                assert whose(method, f"/api/2.0/mlflow-artifacts/artifacts/{name}") is None, name
            assert whose(method, f"/static-files/{name}") is None, name
    assert whose("GET", "/api/2.0/mlflow-artifacts/artifacts/1/a run's…/..model.v2/x y%41.bin") is not None


def raw(servers: Servers, method: str, target: str, **headers: str) -> int:
    """Status of a request whose target is sent as it stands, with the plain account's password."""
    connection = servers.connection
    url = make_url(connection.tracking_uri)
    where, context = (str(url.host), url.port or 0), None
    if url.drivername == "https":
        context = ssl.create_default_context(cafile=connection.tracking_ca)
    client = http.client.HTTPSConnection(*where, context=context) if context else http.client.HTTPConnection(*where)
    given = base64.b64encode(f"{connection.tracking_username}:{connection.tracking_password}".encode()).decode()
    client.putrequest(method, target, skip_accept_encoding=True)
    for name, value in ({"Authorization": f"Basic {given}", "Content-Length": "0"} | headers).items():
        client.putheader(name, value)
    client.endheaders()
    with client.getresponse() as answer:
        return answer.status


def test_no_spelling_of_a_path_leads_around_the_list(servers: Servers) -> None:
    config = "/ajax-api/3.0/mlflow/assistant/config"
    for target in (
        config,
        f"/{config}",
        "/health/.." + config,
        "/static-files/../.." + config,
        "/health/%2e%2e" + config,
        config.replace("assistant", "%61ssistant"),
        config.replace("/", "%2f"),
        config.replace("/config", "%2Fconfig"),
        config.replace("assistant", "ASSISTANT"),
        config + "/",
        config + "?x=/health",
        config + "%3fx",
        config + "#/health",
        config + ";/health",
        config + "%00",
        "/health" + config,
        "/api/2.0/mlflow/runs/get/../../../../../" + config,
        servers.connection.tracking_uri + config,
        "http://localhost/health/../" + config,
    ):
        for method in ("GET", "PUT", "POST"):
            assert raw(servers, method, target) == 404, (method, target)
    for name in ("X-Forwarded-Prefix", "X-Script-Name", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"):
        assert raw(servers, "GET", config, **{name: "/health"}) == 404
        assert raw(servers, "GET", "/health", **{name: config}) == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert raw(servers, "GET", config, **upgrade, **key) in (403, 404)
    assert raw(servers, "GET", "/health", **{"Authorization": "Bearer x"}) == 200
    for wrong in ("", "Basic", "Basic x", "Bearer x", "Basic Og==", "Digest username=admin"):
        assert raw(servers, "GET", f"{API}/users/current", Authorization=wrong) == 401, wrong


def test_a_second_password_in_one_request_is_none(servers: Servers, ask: Ask) -> None:
    """Of two the part that looks might take the one, and the part that acts the other."""
    host = make_url(servers.connection.tracking_uri)
    with socket.create_connection((str(host.host), host.port or 0), timeout=30) as plain:
        connection: Any = plain
        if host.drivername == "https":
            context = ssl.create_default_context(cafile=servers.connection.tracking_ca)
            connection = context.wrap_socket(plain, server_hostname=str(host.host))
        header = ask("GET", f"{API}/users/current").request.headers["Authorization"]
        lines = [f"GET {API}/users/current HTTP/1.1", "Host: localhost", f"Authorization: {header}"]
        connection.sendall("\r\n".join([*lines, "Authorization: Basic eDp5", "Connection: close", "", ""]).encode())
        assert connection.recv(100).split()[1] == b"401"


def test_no_account_gets_a_shell_from_the_assistant(ask: Ask) -> None:
    """Found by an attack: an account names a model of its own and full access; what that model says is then run."""
    config = {"providers": {"openai": {"base_url": "http://127.0.0.1:9", "selected": True, "full_access": True}}}
    for who in ("plain", "admin"):
        for method in ("GET", "PUT"):
            assert ask(method, "/ajax-api/3.0/mlflow/assistant/config", who, json=config).status_code == 404
        message = {"message": "run: id", "session_id": None, "context": {}}
        assert ask("POST", "/ajax-api/3.0/mlflow/assistant/message", who, json=message).status_code == 404
    for method, path in (
        ("POST", "/api/2.0/mlflow/webhooks"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("POST", "/gateway/mlflow/v1/chat/completions"),
        ("POST", "/ajax-api/3.0/jobs/"),
        ("POST", "/api/3.0/mlflow/scorers/register"),
        ("POST", "/api/3.0/mlflow/mcp-servers"),
        ("POST", "/v1/traces"),
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
        ("PATCH", "/api/2.0/mlflow/traces/tr-1/tags"),
        ("POST", "/api/3.0/mlflow/datasets/create"),
    ):
        assert ask(method, path, json={}).status_code == 404, path


def test_nothing_that_writes_takes_a_url_with_a_password(ask: Ask) -> None:
    """However it is written. The administrator asks, so that no other refusal comes first."""
    body = json.dumps({"some": [{"thing": SECRET}]})
    spellings = {
        "plain": body.encode(),
        "escaped": body.replace("@", r"\u0040").replace("/", r"\/").encode(),
        "all escaped": ('{"k":"' + "".join(rf"\u{ord(one):04x}" for one in SECRET) + '"}').encode(),
        "twice": json.dumps(body.replace("@", r"\u0040")).encode(),
        "UTF-16": body.encode("utf-16"),
        "as a key": json.dumps({SECRET: 1}).encode(),
        "in a query": json.dumps({"k": "mysql://host/optuna?user=me&password=t0ps3cret"}).encode(),
        "in another JSON": json.dumps({"k": body.replace("@", r"\u0040").replace("/", r"\u002f")}).encode(),
        "no JSON": SECRET.encode(),
    }
    asked = 0
    for who, method, path in table():
        if who in (NOBODY, "anyone") or method == "GET" or (method == "PUT" and "artifacts/" in path):
            continue
        for spelling, data in spellings.items():
            if spelling != "plain" and "/runs/" not in path:
                continue
            answer = ask(method, example(path), "admin", data=data, headers={"Content-Type": "application/json"})
            assert answer.status_code == 400, (method, path, spelling)
            assert "holds a URL with a password" in answer.json()["message"], (method, path, spelling)
            assert "t0ps3cret" not in answer.text
            asked += 1
    assert asked > 150
    for name in (SECRET, "mysql:%2F%2Fme:t0ps3cret@host"):
        answer = ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{name}", "admin", data=b"x")
        assert answer.status_code in (404, 400), name


def test_nobody_changes_what_is_anothers_by_arguments_that_can_be_read_in_two_ways(ask: Ask) -> None:
    """Found by an attack: who may do it was asked of one run or model, and done to another."""
    experiment, theirs, own = (f"two ways {secrets.token_hex(4)}" for _ in range(3))
    made = {}
    for who, name in ("admin", theirs), ("plain", own):
        where = ask("POST", f"{API}/experiments/create", who, json={"name": f"{experiment} {who}"}).json()
        made[name] = ask("POST", f"{API}/runs/create", who, json=where).json()["run"]["info"]["run_id"]
        assert ask("POST", f"{API}/registered-models/create", who, json={"name": name}).ok
        version = {"name": name, "source": f"runs:/{made[name]}/model", "run_id": made[name]}
        made_version = ask("POST", f"{API}/model-versions/create", who, json=version)
        assert made_version.ok, made_version.text
        champion = {"name": name, "alias": "champion", "version": "1"}
        assert ask("POST", f"{API}/registered-models/alias", who, json=champion).ok
        assert ask("POST", f"{API}/registered-models/set-tag", who, json={"name": name, "key": "k", "value": "v"}).ok

    def state(name: str) -> tuple[Any, Any]:
        run = ask("GET", f"{API}/runs/get?run_id={made[name]}", "admin").json()["run"]
        return run, ask("GET", f"{API}/registered-models/get?name={name}", "admin").json()

    before = state(theirs)
    of_runs: dict[str, dict[str, object]] = {
        "set-tag": {"key": "k", "value": "v"},
        "delete-tag": {"key": "mlflow.user"},
        "log-metric": {"key": "k", "value": 1.0, "timestamp": 0, "step": 0},
        "log-parameter": {"key": "k", "value": "v"},
        "log-batch": {"tags": [{"key": "k", "value": "v"}]},
        "log-model": {"model_json": '{"artifact_path": "../../x", "run_id": "x", "utc_time_created": "x"}'},
        "log-inputs": {"datasets": []},
        "outputs": {"models": []},
        "update": {"status": "FAILED"},
        "delete": {},
        "restore": {},
    }
    both = [{"run_uuid": made[own], "runId": made[theirs]}, {"run_id": made[own], "runUuid": made[theirs]}]
    both += [{"run_id": made[own], "runId": made[theirs]}, {"runId": made[theirs]}]
    for route, arguments in of_runs.items():
        for which in both:
            answer = ask("POST", f"{API}/runs/{route}", json=arguments | which)
            assert answer.status_code in (400, 403), (route, which, answer.text)
        repeated = json.dumps(arguments | {"run_id": made[own]})[:-1] + f', "run_id": "{made[theirs]}"}}'
        for text in (repeated, json.dumps(json.dumps(arguments | both[0]))):
            answer = ask("POST", f"{API}/runs/{route}", data=text, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 403), (route, text)
    of_models = {
        "registered-models/delete": {},
        "registered-models/delete-tag": {"key": "k"},
        "registered-models/alias": {"alias": "champion"},
        "model-versions/delete": {"version": "1"},
        "model-versions/delete-tag": {"version": "1", "key": "k"},
    }
    for route, arguments in of_models.items():
        body = json.dumps(arguments | {"name": theirs})
        for kind in ("text/plain", "", "application/xjson", "application/x-www-form-urlencoded", "application/json"):
            headers = {"Content-Type": kind}
            answer = ask("DELETE", f"{API}/{route}", params=arguments | {"name": own}, data=body, headers=headers)
            assert answer.status_code in (400, 403), (route, kind, answer.text)
    body = json.dumps({"run_id": made[theirs]})
    assert ask("GET", f"{API}/runs/get", data=body).status_code == 400
    assert state(theirs) == before


def test_artifacts_lie_where_the_server_puts_them_and_nowhere_else(ask: Ask, servers: Servers, tmp_path: Path) -> None:
    """Found by an attack: with an experiment at file:///etc the server wrote there, as its owner."""
    places = [f"file://{tmp_path}", str(tmp_path), "file:///etc", "s3://bucket", "http://127.0.0.1:9/", "../../x"]
    places += ["mlflow-artifacts:/0", "mlflow-artifacts:/../../..", "mlflow-artifacts://evil.example/0", "dbfs:/x"]
    for number, place in enumerate(places):
        for field in ("artifact_location", "artifactLocation"):
            body = {"name": f"elsewhere {number}", field: place}
            for data in (json.dumps(body), json.dumps(json.dumps(body))):
                for who in ("plain", "admin"):
                    headers = {"Content-Type": "application/json"}
                    answer = ask("POST", f"{API}/experiments/create", who, data=data, headers=headers)
                    assert answer.status_code == 400, (place, field)
                    if field == "artifact_location" and data.startswith("{"):
                        assert "all artifacts lie in the server's own folder" in answer.json()["message"]
    made = ask("POST", f"{API}/experiments/create", json={"name": f"at its place {secrets.token_hex(4)}"}).json()[
        "experiment_id"
    ]
    found = ask("GET", f"{API}/experiments/get?experiment_id={made}").json()["experiment"]
    assert found["artifact_location"] == f"mlflow-artifacts:/{made}"
    model = f"of elsewhere {secrets.token_hex(4)}"
    assert ask("POST", f"{API}/registered-models/create", json={"name": model}).ok
    run = ask("POST", f"{API}/runs/create", json={"experiment_id": made}).json()["run"]["info"]
    assert run["artifact_uri"].startswith(f"mlflow-artifacts:/{made}/")
    for source in [*places, "", "runs:/", f"{run['artifact_uri']}/../../..", "models://evil.example/x/1"]:
        for origin in ({}, {"run_id": run["run_id"]}):
            body = {"name": model, "source": source} | origin
            answer = ask("POST", f"{API}/model-versions/create", "admin", json=body)
            assert answer.status_code == 400, (source, origin)
    version = {"name": model, "run_id": run["run_id"], "source": f"{run['artifact_uri']}/model"}
    assert ask("POST", f"{API}/model-versions/create", json=version).ok


def test_no_name_of_an_artifact_leads_out_of_their_folder(ask: Ask, servers: Servers) -> None:
    before = {path for path in servers.folder.rglob("*") if path.is_file()}
    for name in ("../x", "%2e%2e/x", "0/..%2f..%2fx", "%252e%252e%252fx", "0/%5c..%5cx", "%2Ftmp%2Fx", "0/..", "0//x"):
        for verb in ("artifacts", "mpu/create", "presigned"):
            method = {"artifacts": "PUT", "mpu/create": "POST", "presigned": "GET"}[verb]
            target = f"/api/2.0/mlflow-artifacts/{verb}/{name}"
            assert raw(servers, method, target) in (400, 403, 404), (verb, name)
            assert raw(servers, "GET", f"/api/2.0/mlflow-artifacts/artifacts/{name}") in (400, 403, 404), name
    for path in ("../passwords.json", "%2e%2e%2fpasswords.json", "/etc/passwd", "..%252fpasswords.json"):
        answer = ask("GET", f"/api/2.0/mlflow-artifacts/artifacts?path={path}", "admin")
        assert "files" not in answer.json() or answer.json()["files"] == [], path
    assert {path for path in servers.folder.rglob("*") if path.is_file() and "logs" not in path.parts} <= before


def test_mlflows_client_gets_all_that_it_asks_for(servers: Servers, workdir: Path) -> None:
    """What it does of itself, and `mlflow gc`; all of these go through other routes."""
    stores = Stores(workdir / ".bdqm", connection_file=servers.places.connection)
    client, name = tracking_client(stores), f"client-{secrets.token_hex(4)}"
    experiment = client.create_experiment(name, tags={"a": "b"})
    client.set_experiment_tag(experiment, "c", "d")
    run = client.create_run(experiment, tags={"e": "f"}).info.run_id
    client.log_metric(run, "val", 1.0, step=1)
    client.log_param(run, "nodes", 4)
    client.set_tag(run, "g", "h")
    client.delete_tag(run, "g")
    client.log_inputs(run, [DatasetInput(Dataset("data", "digest", "local", "{}"))])
    client.update_run(run, "FINISHED", name)
    assert len(client.get_metric_history(run, "val")) == 1
    (workdir / "big").write_bytes(bytes(10_000_000))
    names = ["a b.txt", "ü.txt", "100%.txt", "x&y=z.txt", "[1].txt", "sub folder/é…/notes.txt"]
    for path in names:
        client.log_text(run, "text", path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
        patched.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "5242880")
        patched.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "5242880")
        client.log_artifact(run, str(workdir / "big"))
    assert len(client.list_artifacts(run)) == len(names) + 1
    assert all(Path(client.download_artifacts(run, path, str(workdir))).read_text() == "text" for path in names)
    assert Path(client.download_artifacts(run, "big", str(workdir))).stat().st_size == 10_000_000

    logged = client.create_logged_model(experiment, name, run, {"i": "j"}, {"k": "l"})
    (workdir / "model").mkdir()
    (workdir / "model" / "MLmodel").write_text("flavors: {}\n")
    client.log_model_artifacts(logged.model_id, str(workdir / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    client.set_logged_model_tags(logged.model_id, {"m": "n"})
    client.delete_logged_model_tag(logged.model_id, "m")
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, 1)])
    assert (
        len(client.search_logged_models([experiment])) == len(client.list_logged_model_artifacts(logged.model_id)) == 1
    )
    client.create_registered_model(name, {"o": "p"}, "described")
    version = client.create_model_version(name, f"models:/{logged.model_id}", run, model_id=logged.model_id).version
    client.set_registered_model_alias(name, "best", version)
    client.set_registered_model_tag(name, "q", "r")
    client.set_model_version_tag(name, version, "s", "t")
    client.update_model_version(name, version, "described")
    client.update_registered_model(name, "described anew")
    assert client.get_model_version_by_alias(name, "best").version == version
    assert client.get_model_version_download_uri(name, version)
    assert len(client.search_model_versions(f"name = '{name}'")) == len(
        client.search_registered_models(f"name = '{name}'")
    )
    client.delete_registered_model_alias(name, "best")
    client.delete_model_version_tag(name, version, "s")
    client.delete_registered_model_tag(name, "q")
    client.delete_model_version(name, version)
    client.rename_registered_model(name, f"{name} renamed")
    client.delete_registered_model(f"{name} renamed")
    client.delete_logged_model(logged.model_id)

    client.delete_run(run)
    client.restore_run(run)
    client.delete_experiment(experiment)
    client.restore_experiment(experiment)
    client.rename_experiment(experiment, f"{name} renamed")
    client.delete_run(run)
    database = own_database(servers.places, "127.0.0.1", 0)
    schema = database.admin.set(database="mlflow").render_as_string(hide_password=False)
    uri, environ = servers.connection.tracking_uri, servers.environ | servers.connection.tracking_environment()
    options = ["--tracking-uri", uri, "--backend-store-uri", schema, "--run-ids", run]
    command = [sys.executable, "-m", "mlflow", "gc", *options]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(servers.places.artifacts.glob(f"{experiment}/{run}/artifacts/*"))


@pytest.mark.endurance
def test_mlflows_page_finds_all_that_it_shows_of_training(
    servers: Servers, require: Callable[[str], None], workdir: Path
) -> None:
    """What else it asks for, it does without, unseen."""
    require("chromium")
    stores = Stores(workdir / ".bdqm", connection_file=servers.places.connection)
    client, name = tracking_client(stores), f"page-{secrets.token_hex(4)}"
    experiment = client.create_experiment(name)
    runs = [client.create_run(experiment, run_name=f"{name}-{number}").info.run_id for number in range(3)]
    for run in runs:
        client.log_batch(run, [Metric("val", 1 / (step + 1), 0, step) for step in range(5)], [Param("nodes", "4")])
        client.log_text(run, "words of a file", "notes.txt")
        client.set_terminated(run)
    client.log_text(runs[0], "flavors: {}\nrun_id: x\n", "model/MLmodel")
    client.create_registered_model(name)
    place = f"{client.get_run(runs[0]).info.artifact_uri}/model"
    version = client.create_model_version(name, place, runs[0]).version
    compared = f"runs={json.dumps(runs)}&experiments={json.dumps([experiment])}".replace('"', "%22")
    metric = f"{compared}&metric=%22val%22&plot_metric_keys=[%22val%22]"
    pages = {
        "": "Welcome to MLflow",
        "experiments": name,
        f"experiments/{experiment}/runs?workflowType=machine_learning": f"{name}-1",
        f"experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning": "val",
        f"experiments/{experiment}/models": "Models",
        f"experiments/{experiment}/runs/{runs[0]}": "nodes",
        f"experiments/{experiment}/runs/{runs[0]}/model-metrics": "val",
        f"experiments/{experiment}/runs/{runs[0]}/artifacts/notes.txt": "words of a file",
        f"compare-runs?{compared}": "Comparing 3 Runs",
        f"metric?{metric}": f"{name}-2",
        "models": name,
        f"models/{name}": f"Version {version}",
        f"models/{name}/versions/{version}": "Registered At",
        "account": "Change password",
    }
    failed: list[tuple[str, int, str]] = []
    with opened_page(servers.connection) as page:
        page.add_init_script("localStorage.setItem('_mlflow_model_registry_new_ui_onboarding_v1', 'true')")
        for place, text in pages.items():
            asked: list[tuple[int, str]] = []
            page.on("response", lambda answer, asked=asked: asked.append((answer.status, answer.url)))
            page.goto("about:blank")
            page.goto(f"{servers.connection.tracking_uri}/#/{place}")
            expect(page.get_by_text(text).first).to_be_visible()
            page.wait_for_timeout(1500)  # for what it asks later
            failed += [(place, status, url) for status, url in asked if status >= 400 and "/assistant/" not in url]
            assert len([url for _, url in asked if "api/" in url or "graphql" in url]) > 2, place
            assert page.get_by_role("alert").filter(has_text=re.compile("not found|error|failed", re.I)).count() == 0, (
                place
            )
            assert page.get_by_text(NO_SUCH_PAGE).count() == 0, place
    assert failed == []
