"""Errors of the command line itself, such as an unknown option, as field, value and fix."""

import re
from typing import Any

import typer
from pydantic import ValidationError

from segue.errors import Refused
from segue.spec import refused

_CHOICES = re.compile(r"is not one of (?P<choices>.+?)\.?")


def is_help(error: typer.TyperException) -> bool:
    """Whether this is the help of a command without arguments, which typer has printed."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_error(error: typer.TyperException) -> Refused:
    """Return what typer refuses as every other refusal of Segue reads."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "the command"
    see = f"run `{path} -h` to see what it takes" if context else "run the command with -h to see what it takes"
    option = str(getattr(error, "option_name", ""))
    if isinstance(error, typer.BadParameter) and error.param is not None:
        return _wrong_value(error, see)
    if option and error.message.startswith("No such option"):
        near: list[str] = sorted(getattr(error, "possibilities", None) or ())
        fix = f"perhaps you mean {' or '.join(near)}; {see}" if near else see
        return Refused(f"is not an option of `{path}`", field=option, fix=fix)
    why = _sentence(error.format_message())
    return Refused(why.removeprefix(f"option {option!r} "), field=option or path, fix=see)


def _wrong_value(error: typer.BadParameter, see: str) -> Refused:
    field, cause = _name(error.param), error.__cause__
    if isinstance(cause, ValidationError):
        first = refused(cause.errors(include_url=False)[0])
        choices = _CHOICES.fullmatch(first.why)
        why, fix = ("is not one of the choices", f"write {choices['choices']}") if choices else (first.why, first.fix)
        return Refused(why, field=field, value=first.value, fix=fix or see)
    if not error.message:
        return Refused("is missing", field=field, fix=see)
    return Refused(_sentence(error.message), field=field, fix=see)


def _name(param: Any) -> str:
    """Return how the help names an option or an argument."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name).strip("[]{}").upper()


def _sentence(text: str) -> str:
    """Return typer's sentence as a part of one."""
    return text[:1].lower() + text[1:].removesuffix(".")
