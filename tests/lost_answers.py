"""Requests to MLflow that are carried out, and whose answers do not come back."""

from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient


def lose_answer(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Let the next call of a method of the client be carried out, and raise as where the connection broke."""
    call = getattr(MlflowClient, method)

    def answer_gets_lost(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(MlflowClient, method, call)
        call(*arguments, **options)
        raise MlflowException("API request failed with exception Connection aborted")

    monkeypatch.setattr(MlflowClient, method, answer_gets_lost)
