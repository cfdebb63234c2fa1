"""The tables of our own in the database of studies, beside Optuna's."""

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

WORKERS = sa.Table(
    "bdqm_workers",
    sa.MetaData(),
    sa.Column("worker", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("since", sa.DateTime, nullable=False),  # these two by the database's clock, to be shown only
    sa.Column("seen", sa.DateTime, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    # An index for a study's running workers, made with the table; without it each heartbeat reads all that ever were.
    sa.UniqueConstraint("study_id", "state", "worker", name="bdqm_running"),
)


def has_tables(engine: sa.Engine) -> bool:
    """Whether they are there."""
    return sa.inspect(engine).has_table(WORKERS.name)


def make_tables(engine: sa.Engine) -> None:
    """Make them unless they are there, which an account without the right to is content with; several may at once."""
    if has_tables(engine):
        return
    try:
        with engine.begin() as connection:
            connection.execute(CreateTable(WORKERS, if_not_exists=True))
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError):
        if not has_tables(engine):  # else another process made them at this moment, which PostgreSQL does not ignore
            raise
