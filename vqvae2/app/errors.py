"""Errors that a user can cause, as one line on the page."""

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from vqvae2.messages import one_line, printable

USER_ERRORS = (ValueError, OSError, FloatingPointError, MemoryError)


def with_one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, or a generator, whose errors are shown as one line in place of a traceback."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*arguments: Any) -> Iterator[Any]:
            try:
                yield from function(*arguments)
            except USER_ERRORS as error:
                raise shown(error) from error
            except RuntimeError as error:
                raise out_of_memory(error) from error

        return generator

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except USER_ERRORS as error:
            raise shown(error) from error
        except RuntimeError as error:
            raise out_of_memory(error) from error

    return wrapper


def shown(error: Exception) -> gr.Error:
    """What the page shows; names in it may come from data, so it is escaped."""
    text = html.escape(printable(one_line(error)), quote=False)
    return gr.Error(f"{text}.", title="This did not work", print_exception=False)


def out_of_memory(error: RuntimeError) -> Exception:
    """Too little memory as one line; other errors as they are."""
    if type(error).__name__ == "OutOfMemoryError":
        return shown(ValueError("There is not enough memory; draw fewer images at a time"))
    return error
