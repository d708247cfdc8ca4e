"""Precision of the convolutions and the meaning of "auto" (config 6)."""

from __future__ import annotations

import pytest

from ptycho_backend.errors import DeviceError
from ptycho_backend.runtime import precision
from ptycho_backend.runtime.precision import cpu_has_bf16, resolve_precision

XEON = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\nbugs\t: none\n"
OLD = "processor\t: 0\nflags\t\t: fpu avx2 avx512f\nbugs\t: avx512_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(("text", "expected"), [(XEON, True), (OLD, False), (ARM, False), ("", False)])
def test_native_bfloat16_is_read_from_cpuinfo(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bf16(tmp_path / "cpuinfo") is expected


def test_an_unknown_processor_gets_float32(tmp_path):
    assert cpu_has_bf16(tmp_path / "missing") is False


@pytest.mark.parametrize(
    ("device", "cpu", "gpu", "expected"),
    [
        ("cpu", True, False, "bf16-mixed"),
        ("cpu", False, True, "32-true"),
        ("cuda:1", False, True, "bf16-mixed"),
        ("cuda:0", True, False, "32-true"),
    ],
)
def test_auto_chooses_the_native_precision_of_the_device(monkeypatch, device, cpu, gpu, expected):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: cpu)
    assert resolve_precision("auto", device, gpu) == expected


@pytest.mark.parametrize("precision_name", ["32-true", "bf16-mixed"])
def test_an_explicit_precision_is_returned(precision_name):
    assert resolve_precision(precision_name, "cpu", False) == precision_name


def test_float16_without_a_gpu_is_an_error_with_an_alternative():
    with pytest.raises(DeviceError, match=r"bf16-mixed|32-true"):
        resolve_precision("16-mixed", "cpu")
    assert resolve_precision("16-mixed", "cuda:0") == "16-mixed"
