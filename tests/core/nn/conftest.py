import pytest
import torch
from nn_helpers import config, make_trainer
from safetensors.torch import save_file

from napari_emtransfer.core.nn.trainer import initial_model


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """The path of weights for the encoder "test_resnet": its norms hold statistics of no micrograph."""
    encoder = initial_model(config(), 2).encoder
    generator = torch.Generator().manual_seed(0)
    state = encoder.state_dict()
    for name in (k for k in state if "running" in k):
        noise = torch.rand(state[name].shape, generator=generator) - 0.5
        state[name] = 0.2 * noise if "mean" in name else 1 + noise
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_file({f"encoder.{k}": v.contiguous() for k, v in state.items()}, path)
    return str(path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A ResNet-18 U-Net trained for a moment: its norms hold real statistics, its filters are no longer noise."""
    trainer = make_trainer(
        tmp_path_factory.mktemp("trained"), config(iterations=40, batch_size=4, validate_every=40, learning_rate=2e-3)
    )
    trainer.fit(lambda event: None)
    trainer.model.load_state_dict(trainer.averaged_weights)
    return trainer.model.eval()
