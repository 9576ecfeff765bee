"""Real object stores behind a proxy that makes requests go wrong by a plan."""

from contextlib import asynccontextmanager

import pytest
from chaos_proxy import ChaosProxy, evenly


@pytest.fixture
def behind(request, monkeypatch):
    """``async with behind("weed", seed, total) as (proxy, url)``: a server with faults before it; url(prefix) is it."""

    @asynccontextmanager
    async def make(name, seed=0, total=0.0):
        server = request.getfixturevalue(name)
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        profile = "seaweedfs" if name == "weed" else "generic"
        async with ChaosProxy(server.endpoint, seed, evenly(total)) as proxy:
            yield proxy, lambda prefix: server.url(prefix, endpoint=proxy.endpoint, profile=profile)

    return make
