"""Commands whose help shows no type beside a flag, as typer does (`<bool>`): a flag takes no value."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> Any:
        return _without_type(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> Any:
        return _without_type(super().get_params(ctx))


def show_plainly(*apps: typer.Typer) -> None:
    """Let all commands of these show their flags so."""
    for app in apps:
        app.info.cls = Group
        for command in app.registered_commands:
            command.cls = Command


def _without_type(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
