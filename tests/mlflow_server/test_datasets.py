"""Two runs of an experiment that enter the same dataset at once: MLflow looks for it, and then inserts it."""

from contextlib import closing
from pathlib import Path

import pymysql
from mlflow.entities import Dataset, DatasetInput
from sqlalchemy import make_url

from bdqm_tune.mlflow_server.database import own_database
from bdqm_tune.services.connection import Stores
from bdqm_tune.tracking.client import is_passing, tracking_client
from bdqm_tune.tracking.request_queue import Sender
from tests.servers import Servers
from tests.waiting import eventually


def test_the_later_of_two_is_repeated(servers: Servers, workdir: Path) -> None:
    stores = Stores(workdir / ".bdqm", connection_file=servers.places.connection)
    client, errors = tracking_client(stores), list[Exception]()
    experiment = client.create_experiment("datasets")
    first, second = (client.create_run(experiment).info.run_id for _ in range(2))
    data = [DatasetInput(Dataset("water", "0123456789abcdef", "local", "{}"))]
    client.log_inputs(first, data)
    database = own_database(servers.places, "127.0.0.1", make_url(servers.connection.storage_url).port or 0)
    sender = Sender(lambda: tracking_client(stores), 60)

    def log(client: object) -> None:
        try:
            tracking_client(stores).log_inputs(second, data)
        except Exception as error:
            errors.append(error)
            raise

    def waits(cursor: pymysql.cursors.Cursor) -> bool:
        cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        return bool(cursor.fetchone()[0])

    with closing(database.connect()) as other, other.cursor() as cursor, closing(database.connect()) as looks:
        # As the other run: its dataset is not there before it is committed, and the second's insertion waits for that.
        cursor.execute("SELECT * FROM mlflow.datasets WHERE experiment_id = %s", (experiment,))
        names = [column[0] for column in cursor.description or ()]
        (row,) = cursor.fetchall()
        cursor.execute("DELETE FROM mlflow.datasets WHERE experiment_id = %s", (experiment,))
        other.commit()
        other.begin()
        marks = ", ".join(["%s"] * len(names))
        cursor.execute(
            f"INSERT INTO mlflow.datasets ({', '.join(f'`{name}`' for name in names)}) VALUES ({marks})", row
        )
        sent = sender.send(log)
        with looks.cursor() as look:
            eventually(lambda: waits(look) or sent.done())
        other.commit()
        sent.result(60)
    sender.close()
    assert [is_passing(error) for error in errors] == [True], errors
    assert "Duplicate entry" in str(errors[0])
    inputs = client.get_run(second).inputs
    assert inputs is not None
    assert [one.dataset.name for one in inputs.dataset_inputs] == ["water"]
