from pathlib import Path

import pytest
from worker_projects import make_project


@pytest.fixture
def project_root(tmp_path) -> Path:
    return make_project(tmp_path)
