"""A small study, and a client of its web application."""

import pytest
from fastapi.testclient import TestClient

from moslora.tasks.subject.rating.serve import make_app
from moslora.tasks.subject.rating.store import Store

from .studies import make_study


@pytest.fixture
def folder(tmp_path):
    """A study of 4 prompts, 2 seeds and 4 attention checks."""
    return make_study(tmp_path, prompts=4, size=64)


@pytest.fixture
def store(folder):
    """Its database."""
    store = Store(folder)
    yield store
    store.close()


@pytest.fixture
def client(store):
    """Its web application, without a network."""
    with TestClient(make_app(store), follow_redirects=True) as client:
        yield client
