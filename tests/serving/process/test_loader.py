"""Loading the models of a setup, and extending the service manager's timeout meanwhile."""

import asyncio
from pathlib import Path
from unittest.mock import Mock, call

import pytest

from sidecar.serving.process import loader
from sidecar.serving.process.loader import extend_startup_timeout, load
from sidecar.serving.settings import ServeSettings, Setup


def test_what_is_loaded_has_computed_its_first_rows(tiny):
    """Loading computes each model's first rows and returns its costs by name."""
    models = [tiny(name="a"), tiny(name="b", task="rerank", max_tokens=10_000)]
    settings = ServeSettings(socket=Path("unused"), threads=1)
    setup = Setup(load=lambda: models, settings=settings)
    loaded = load(lambda: setup)
    assert (loaded.setup, loaded.models) == (setup, models)
    assert list(loaded.costs) == ["a", "b"]
    assert [len(model.order) for model in models] == [8, 8]


async def test_the_manager_is_asked_for_time_for_as_long_as_it_takes(monkeypatch):
    """The manager's timeout is extended by 30 s at once, and again well before it expires."""
    assert loader._PULSE_SECONDS <= 10
    monkeypatch.setattr(loader, "_PULSE_SECONDS", 0)
    manager, enough = Mock(), asyncio.Event()
    manager.notify.side_effect = lambda **_: enough.set() if manager.notify.call_count > 4 else None
    async with extend_startup_timeout(manager, "Loading models"):
        manager.notify.assert_called_once_with(
            STATUS="Loading models", EXTEND_TIMEOUT_USEC=30_000_000
        )
        await asyncio.wait_for(enough.wait(), 20)
    calls = manager.notify.call_args_list
    assert calls[1:] == [call(EXTEND_TIMEOUT_USEC=30_000_000)] * (len(calls) - 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert manager.notify.call_args_list == calls


async def test_a_failure_to_load_asks_for_no_more_time(monkeypatch):
    """After a failure to load, the manager's timeout is not extended any more."""
    monkeypatch.setattr(loader, "_PULSE_SECONDS", 0)
    manager = Mock()
    with pytest.raises(ZeroDivisionError):
        async with extend_startup_timeout(manager, "Loading models"):
            raise ZeroDivisionError
    await asyncio.sleep(0)
    calls = manager.notify.call_count
    for _ in range(5):
        await asyncio.sleep(0)
    assert manager.notify.call_count == calls
