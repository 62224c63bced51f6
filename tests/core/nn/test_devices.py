import pytest
import torch

from napari_emtransfer.core.errors import DeviceError
from napari_emtransfer.core.nn import devices


def test_auto_takes_the_best_that_exists():
    assert str(devices.resolve_device("auto")) == devices.available_devices()[0]
    assert devices.resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda:7", "tpu", "gpu"])
def test_an_absent_device_names_those_that_exist(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match=f"'{name}' does not exist") as caught:
        devices.resolve_device(name)
    assert "cuda:0" in caught.value.hint
    assert "cpu" in caught.value.hint


def test_precision_follows_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: False)
    assert devices.resolve_precision("auto", cpu) == "32-true"
    assert devices.resolve_precision("bf16", cpu) == "bf16-mixed"
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: True)
    assert devices.resolve_precision("auto", cpu) == "bf16-mixed"
    assert devices.resolve_precision("fp32", cpu) == "32-true"


def test_lack_of_memory_is_told_from_other_faults():
    assert devices.is_out_of_memory(torch.OutOfMemoryError("x"))
    assert devices.is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert not devices.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not devices.is_out_of_memory(ValueError("out of memory"))


def test_threads_and_description():
    devices.set_threads(1)
    assert torch.get_num_threads() == 1
    assert devices.describe(torch.device("cpu")) == "cpu (1 thread)"
    assert devices.free_memory_gb(torch.device("cpu")) is None


def test_resident_memory_of_the_process_grows_with_what_it_holds():
    cpu = torch.device("cpu")
    before = devices.process_memory_gb(cpu)
    held = torch.ones(64, 2**20)  # 256 MiB, every page written
    after = devices.process_memory_gb(cpu)
    assert before is not None
    assert after is not None
    assert 0.01 < before < 100
    assert after - before == pytest.approx(held.nbytes / 2**30, rel=0.2)


def test_memory_that_the_system_does_not_tell_is_none(monkeypatch):
    def refuse() -> None:
        raise devices.psutil.AccessDenied

    monkeypatch.setattr(devices.psutil, "Process", refuse)
    assert devices.process_memory_gb(torch.device("cpu")) is None
