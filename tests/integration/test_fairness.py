"""What the settings say for both runtimes is what the real workers have."""

from __future__ import annotations

import psutil
import pytest

from gateway.settings import Settings, TorchSettings
from modelkit import batching
from modelkit.batching import Batching
from tandem.fairness import differences, registered
from tests.support.stack import Stack
from torch_worker.tuning import available_cpus


@pytest.fixture
def settings(stack: Stack) -> Settings:
    port = int(stack.environment["TANDEM_TORCH__HTTP_MANAGEMENT_PORT"])
    return Settings(
        var=stack.var,
        torch=TorchSettings(address=stack.environment["TANDEM_TORCH__ADDRESS"], http_management_port=port),
    )


def test_a_running_stack_has_no_difference(settings: Settings) -> None:
    served = registered(settings)
    assert ("digits", "1") in {(model.modelName, model.modelVersion) for model in served}
    assert list(differences(settings, served)) == []


def test_both_workers_have_the_threads_and_the_view_of_one_stack(stack: Stack, settings: Settings) -> None:
    cpus = str(available_cpus())
    tf = psutil.Process(stack.pid("tf")).cmdline()
    for pool in ("intra", "inter"):
        assert tf[tf.index(f"--tensorflow_{pool}_op_parallelism") + 1] == cpus
    assert tf[tf.index("--batching_parameters_file") + 1] == str(batching.path(settings.serving))
    assert Batching.read(settings.serving) == Batching.of(settings)
    (model,) = [model for model in registered(settings) if model.modelName == "digits"]
    environment = psutil.Process(stack.pid("torch")).environ()
    assert int(environment["OMP_NUM_THREADS"]) * model.minWorkers == int(cpus)
