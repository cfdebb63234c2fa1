"""The platform's two servers, MariaDB or MySQL and MLflow, run as an ordinary user.

In: `bdqm-tune services up` and its neighbours (`mlflow_server.commands`). Out: two running servers with accounts and
TLS, run by one process (`supervisor`), and the connection file by which `services` finds them; backups.
Called by: `cli`. Nothing here knows of studies or training.
"""
