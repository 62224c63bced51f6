import pytest
from session_helpers import FakeRunner, Recorder, make_project

from napari_emtransfer.session.session import Session


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def session(tmp_path, runner):
    session = Session(runner)
    session.open_project(make_project(tmp_path / "project"))
    yield session
    session.close()


@pytest.fixture
def recorder(session):
    return Recorder(session.signals)
