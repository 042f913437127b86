"""Which device is chosen, and that the benchmark of devices runs where little is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from model.config import ModelConfig
from model.engine import device_selection
from model.engine.cpu import Engine
from model.engine.device_selection import Choice, backend, choose, quicker, race
from model.engine.torch_backend import TorchEngine
from model.errors import DeviceError
from tests.support import tidy

SMALL = ModelConfig(hidden=8, heads=2, head_hidden=8, window=4)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")

# Packages that a machine with torch and numba alone lacks.
LACKING = """
import runpy, sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {lacking}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Lacking())
sys.path.insert(0, ".")
sys.argv = ["gpu", "--quick", "--device", "cpu", "--out", {out!r}]
runpy.run_module("tests.bench.gpu", run_name="__main__")
"""
PACKAGES = {
    "streams", "graphstate", "rocksdict", "faust", "mode", "aiokafka", "kafka", "msgspec", "pydantic",
    "pydantic_settings", "safetensors", "lightgbm", "pyarrow", "typer", "structlog", "prometheus_client",
}  # fmt: skip


def test_the_setting_decides() -> None:
    """The CPU needs no asking."""
    assert choose("cpu", SMALL) == Choice("cpu", "as it is set")
    assert backend("cpu") is Engine


@without_gpu
@pytest.mark.parametrize("wanted", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there_is_one_line_that_says_what_to_do(wanted: str) -> None:
    """The setting is named, and what to set instead."""
    with pytest.raises(DeviceError, match=rf"GROUNDSWELL_DEVICE is {wanted}, but .* 0 GPU\(s\); set it to auto or cpu"):
        choose(wanted, SMALL)


@without_gpu
def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a driver; the reason names the case."""
    for there, why in ((True, "PyTorch sees no GPU"), (False, "there is no CUDA driver")):
        monkeypatch.setattr(device_selection, "driver", lambda there=there: there)
        assert choose("auto", SMALL) == Choice("cpu", why)


def test_auto_lives_with_a_gpu_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is full, or too old for this PyTorch, is no reason not to start."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nSee the manual")

    monkeypatch.setattr(device_selection, "driver", lambda: True)
    monkeypatch.setattr(device_selection, "gpus", lambda: 1)
    monkeypatch.setattr(device_selection, "race", full)
    assert choose("auto", SMALL) == Choice("cpu", "the GPU cannot be used: CUDA out of memory.")
    assert choose("cuda", SMALL) == Choice("cuda:0", "as it is set")


def test_without_a_driver_torch_is_not_even_imported() -> None:
    """A worker on the CPU starts without its second and its 200 MB."""
    program = (
        "import sys; from model.engine import device_selection as ds; ds.driver = lambda: False\n"
        "from model.config import ModelConfig; print(ds.choose('auto', ModelConfig()).device)\n"
        "ds.backend('cpu'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tidy.ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("cpu\n", 0), done.stderr


def test_the_quicker_one_is_chosen_by_the_largest_frontier() -> None:
    """The reason lists the times."""
    choice = quicker({"cpu": {100: 0.001, 10_000: 0.1}, "cuda:0": {100: 0.002, 10_000: 0.01}})
    assert choice == Choice(
        "cuda:0",
        "measured: 100 rows cpu 1.00 ms, cuda:0 2.00 ms; 10,000 rows cpu 100.00 ms, cuda:0 10.00 ms",
    )
    assert quicker({"cpu": {100: 0.002, 10_000: 0.01}, "cuda:0": {100: 0.001, 10_000: 0.02}}).device == "cpu"


@pytest.mark.slow
def test_a_race_times_every_backend_at_every_frontier() -> None:
    """Medians in seconds, of each of them."""
    times = race({"compiled": Engine, "torch": partial(TorchEngine, device="cpu")}, SMALL, (10, 3_000))
    assert {name: list(took) for name, took in times.items()} == {"compiled": [10, 3_000], "torch": [10, 3_000]}
    # Which is larger a busy machine may get wrong.
    assert all(0 < seconds < 10 for took in times.values() for seconds in took.values())


@pytest.mark.slow
def test_the_benchmark_runs_with_little_installed(tmp_path: Path) -> None:
    """It is exact, every row keeps its bits, and the file has both backends at all frontiers."""
    out = tmp_path / "bench-gpu.json"
    program = LACKING.format(lacking=PACKAGES, out=str(out))
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=tidy.ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert {(row["backend"], row["frontier"]) for row in result["rows"]} == {
        (name, size) for name in ("one core", "torch on the CPU") for size in (10, 100, 1_000)
    }
    assert max(row["max_abs_error"] for row in result["rows"]) <= 1e-5
    assert max(row["rows_with_other_bits"] for row in result["rows"]) == 0
    assert "faster_from_rows" in result
    assert "over one core" in done.stdout
