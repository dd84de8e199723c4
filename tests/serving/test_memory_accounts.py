"""The memory that peers may use, and the errors when there is none left."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from client_lib.wire.errors import Overloaded, ReplyError, TooLarge
from client_lib.wire.messages import Cancel, Embed, Hello, Metrics, Ping, Request, Rerank, Status
from client_lib.wire.protocol import Limits
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.admission.memory_budget import MemoryBudget, Quota
from sidecar.serving.admission.memory_estimator import (
    CONNECTION_BYTES,
    AvailableMemory,
    MemoryEstimator,
)
from sidecar.serving.admission.peer import Peer
from sidecar.serving.memory_accounts import MemoryAccounts
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings

ESTIMATOR = MemoryEstimator(dimensions=384, max_tokens=256)
SETTINGS = ServeSettings(
    socket=Path("unused"),
    threads=1,
    limits=Limits(max_frame_bytes=2**20, max_inputs=64),
    cache_bytes=30 * 2**20,
    memory_bytes=300 * 2**20,
    bounds=QueueLimits(bytes=17 * 2**20, peer_share=0.4),
    access=AccessPolicy(stall_seconds=5.0),
)
TAKEN = 70 * 2**20
SOMEBODY, OTHER = Peer(pid=10, uid=1000, gid=1), Peer(pid=11, uid=1001, gid=1)
EMBED = Embed(id=1, input=("a" * 1_000,))


@pytest.fixture
def accounts() -> MemoryAccounts:
    return MemoryAccounts(SETTINGS, ESTIMATOR, TAKEN)


def refusal_of(accounts: MemoryAccounts, request: Request, peer: Peer = SOMEBODY) -> ReplyError:
    with pytest.raises(ReplyError) as refused:
        accounts.reserve_request(peer, request)
    return refused.value


def held(accounts: MemoryAccounts) -> tuple[int, int, int]:
    budgets = accounts.requests, accounts.decoding, accounts.control
    requests, decoding, control = (budget.to_map()["held_bytes"] for budget in budgets)
    return requests, decoding, control


def test_budgets_are_of_what_models_and_results_leave(accounts: MemoryAccounts) -> None:
    """Budgets are what models and cache leave, for requests at most twice a lane's bytes."""
    for settings in (SETTINGS, replace(SETTINGS, memory_bytes=2**40, cache_bytes=0)):
        memory = AvailableMemory(
            ceiling=settings.memory_bytes,
            taken=TAKEN + settings.cache_bytes,
            most=2 * 17 * 2**20,
            peer_share=0.4,
        )
        budgets = memory.budgets(ESTIMATOR.needs(settings.limits))
        made = MemoryAccounts(settings, ESTIMATOR, TAKEN)
        assert made.requests.quota == budgets.requests
        assert made.decoding.quota == budgets.decoding
        assert made.control.quota == budgets.control


def test_a_reload_changes_all_budgets(accounts: MemoryAccounts) -> None:
    """A reload applies its settings and models to all budgets; reservations remain."""
    accounts.reserve_request(SOMEBODY, EMBED)
    settings = replace(SETTINGS, limits=Limits(max_frame_bytes=2**21), memory_bytes=2**29)
    estimator = MemoryEstimator(dimensions=1_024, max_tokens=512)
    accounts.update(settings, estimator)
    fresh = MemoryAccounts(settings, estimator, TAKEN)
    assert accounts.requests.quota == fresh.requests.quota
    assert accounts.decoding.quota == fresh.decoding.quota
    assert accounts.control.quota == fresh.control.quota
    assert held(accounts)[0] == ESTIMATOR.of_request(EMBED)
    accounts.reserve_request(OTHER, EMBED)
    assert held(accounts)[0] == ESTIMATOR.of_request(EMBED) + estimator.of_request(EMBED)


def test_every_request_is_held_in_its_account(accounts: MemoryAccounts) -> None:
    """Each request reserves memory in the budget for its kind, and releases it in full.

    Work uses `requests`, queries about the daemon `control`; requests that are answered at once
    use neither.
    """
    rerank = Rerank(id=1, query="q", documents=("a", "b"))
    of_status, of_embed, of_rerank = map(ESTIMATOR.of_request, (Status(id=1), EMBED, rerank))
    cases: list[tuple[Request, tuple[int, int, int]]] = [
        (EMBED, (of_embed, 0, 0)),
        (rerank, (of_rerank, 0, 0)),
        (Status(id=1), (0, 0, of_status)),
        (Metrics(id=1), (0, 0, of_status)),
        (Hello(id=1, version=1), (0, 0, 0)),
        (Ping(id=1), (0, 0, 0)),
        (Cancel(id=1, target=2), (0, 0, 0)),
    ]
    for request, expected in cases:
        reservation = accounts.reserve_request(SOMEBODY, request)
        assert held(accounts) == expected, request
        reservation.release()
        assert held(accounts) == (0, 0, 0), request
    reservation = accounts.reserve_connection(SOMEBODY)
    assert held(accounts) == (0, 0, CONNECTION_BYTES)
    reservation.release()


def test_only_what_may_ever_fit_is_worth_coming_back_with(accounts: MemoryAccounts) -> None:
    """A request larger than a process's quota is `TooLarge`; a smaller one may be retried."""
    most = ESTIMATOR.of_request(Embed(id=1, input=("a",) * 10))
    accounts.requests.quota = Quota(total=10 * most, part=0.01, least=most)
    accounts.requests.try_reserve(OTHER, 10 * most, always=True)
    for texts, kind in ((9, Overloaded), (10, Overloaded), (11, TooLarge), (40, TooLarge)):
        request = Embed(id=1, input=("a",) * texts)
        refused = refusal_of(accounts, request)
        assert type(refused) is kind, texts
        assert (refused.retry_after_ms is None) == (kind is TooLarge)
        assert (f"the {most} that a process may use" in refused.message) == (kind is TooLarge)


@pytest.mark.parametrize(
    ("seconds", "wait_ms"), [(0.0, 10), (0.004, 10), (2.0, 2_000), (60, 5_000)]
)
def test_who_comes_back_is_told_when(
    accounts: MemoryAccounts, seconds: float, wait_ms: int
) -> None:
    """`retry_after_ms` is how long requests have recently held memory, within bounds.

    It is never zero, and never longer than a peer may stall.
    """
    now = [0.0]
    accounts.requests = MemoryBudget(Quota(total=2**20), lambda: now[0])
    accounts.control = MemoryBudget(Quota(total=2**20), lambda: now[0])
    for _ in range(300):
        reservation = accounts.reserve_request(SOMEBODY, EMBED)
        now[0] += seconds
        reservation.release()
    accounts.requests.try_reserve(OTHER, 2**20, always=True)
    refused = refusal_of(accounts, EMBED)
    assert refused.retry_after_ms == wait_ms
    assert f"retry in {wait_ms} ms" in refused.message


def test_connections_say_nothing_of_how_long_to_wait(accounts: MemoryAccounts) -> None:
    """Connections, which may last for days, do not affect the estimated wait."""
    now = [0.0]
    accounts.control = MemoryBudget(Quota(total=2**20), lambda: now[0])
    reservation = accounts.reserve_connection(SOMEBODY)
    now[0] += 86_400.0
    reservation.release()
    assert accounts.control.seconds_until_room == 0


def test_an_operator_is_told_how_things_are_whatever_others_hold(accounts: MemoryAccounts) -> None:
    """Operators can query a full daemon; their embeds are rejected like anyone's."""
    full = accounts.control.quota.total
    accounts.control.try_reserve(OTHER, full, always=True)
    for uid in (0, os.geteuid()):
        operator = Peer(pid=1, uid=uid, gid=uid)
        for request in (Status(id=1), Metrics(id=1)):
            accounts.reserve_request(operator, request).release()
        accounts.reserve_connection(operator).release()
    assert type(refusal_of(accounts, Status(id=1))) is Overloaded
    with pytest.raises(Overloaded):
        accounts.reserve_connection(SOMEBODY)
    accounts.requests.try_reserve(OTHER, accounts.requests.quota.total, always=True)
    assert type(refusal_of(accounts, EMBED, Peer(pid=1, uid=0, gid=0))) is Overloaded
    assert held(accounts)[2] == full


@pytest.mark.parametrize("account", ["decoding", "requests"])
async def test_room_is_waited_for_in_its_own_account(
    accounts: MemoryAccounts, account: str
) -> None:
    """Memory for decoding and for arriving frames comes from separate budgets."""
    room = {"decoding": accounts.reserve_decoding, "requests": accounts.reserve_arrival}[account]
    for budget in (accounts.decoding, accounts.requests, accounts.control):
        if budget is not getattr(accounts, account):
            budget.try_reserve(OTHER, budget.quota.total, always=True)
    assert (await room(SOMEBODY, 1_000)).size == 1_000
    assert getattr(accounts, account).to_map()["held_by_peer"] == {str(SOMEBODY): 1_000}


async def test_who_waits_for_room_waits_as_long_as_a_peer_may_stall() -> None:
    """Waiting for memory times out after `stall_seconds`, as set by the last reload."""
    patient = replace(SETTINGS, access=AccessPolicy(stall_seconds=86_400.0))
    accounts = MemoryAccounts(patient, ESTIMATOR, TAKEN)
    budget = accounts.decoding
    budget.try_reserve(OTHER, budget.quota.total, always=True)
    accounts.update(replace(SETTINGS, access=AccessPolicy(stall_seconds=0.01)), ESTIMATOR)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(accounts.reserve_decoding(SOMEBODY, 1_000), 20)
    refused = refusal_of_room(accounts)
    assert refused.retry_after_ms == 10
    assert not budget._waiting


def refusal_of_room(accounts: MemoryAccounts) -> ReplyError:
    accounts.requests.try_reserve(OTHER, accounts.requests.quota.total, always=True)
    return refusal_of(accounts, EMBED)


def test_a_status_tells_of_all_three(accounts: MemoryAccounts) -> None:
    """`status` reports all three budgets, that of requests at the top level."""
    accounts.reserve_request(SOMEBODY, EMBED)
    accounts.reserve_request(OTHER, Status(id=1))
    status: dict[str, Any] = accounts.to_map()
    assert status["budget_bytes"] == accounts.requests.quota.total
    assert status["budget_of_a_peer_bytes"] == accounts.requests.quota.of_a_process
    assert status["held_by_peer"] == {str(SOMEBODY): ESTIMATOR.of_request(EMBED)}
    assert status["decoding"]["budget_bytes"] == accounts.decoding.quota.total
    assert status["decoding"]["held_by_user"] == {}
    assert status["control"]["budget_bytes"] == accounts.control.quota.total
    assert status["control"]["held_by_user"] == {"1001": ESTIMATOR.of_request(Status(id=1))}


@pytest.mark.parametrize("more", [-1, 0])
def test_scarce_memory_is_said_when_there_is_less_than_is_needed(more: int) -> None:
    """`memory.scarce` is logged if and only if less memory is left than is needed."""
    needs = ESTIMATOR.needs(SETTINGS.limits).all
    ceiling = TAKEN + SETTINGS.cache_bytes + -(-4 * (needs + more) // 3)
    with capture_logs() as events:
        MemoryAccounts(replace(SETTINGS, memory_bytes=ceiling), ESTIMATOR, TAKEN)
    logged = [
        (event["left_bytes"], event["budget_bytes"], event["taken_bytes"], event["ceiling_bytes"])
        for event in events
    ]
    expected = (needs - 1, needs, TAKEN + SETTINGS.cache_bytes, ceiling)
    assert logged == ([expected] if more else [])
