"""Running many items: the same results in the same order, however many processes."""

from __future__ import annotations

import os
import signal

import pytest

from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.execution import map_items


def square(value: int) -> int:
    return value * value


def refuse_three(value: int) -> int:
    if value == 3:
        raise InputError("three is not allowed")
    return value


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_order_does_not_depend_on_the_number_of_processes(jobs: int) -> None:
    assert list(map_items(square, range(50), jobs=jobs)) == [value * value for value in range(50)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_items_error_reaches_the_caller(jobs: int) -> None:
    with pytest.raises(InputError, match="three"):
        list(map_items(refuse_three, range(10), jobs=jobs))


def test_a_killed_worker_is_one_clear_message() -> None:
    with pytest.raises(ClinicalSymileError, match="worker process died"):
        list(map_items(die, range(4), jobs=2))
