import pytest
import torch
from nn_helpers import config, make_trainer


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A ResNet-18 U-Net trained for a moment: its norms hold real statistics, its filters are no longer noise."""
    trainer = make_trainer(
        tmp_path_factory.mktemp("trained"), config(iterations=40, batch_size=4, validate_every=40, learning_rate=2e-3)
    )
    trainer.fit(lambda event: None)
    trainer.model.load_state_dict(trainer.averaged_weights)
    return trainer.model.eval()
