"""Model file: round trip, damage, attacks, weights that do not fit."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.errors import ModelFileError, OutputError
from ptycho_backend.model_file.bundle import FILE_NAME, FORMAT_VERSION, MEMBERS, Bundle, read_bundle, write_bundle
from ptycho_backend.network.weights import check_weights
from ptycho_backend.physics.calibration import Calibration

NAMES = ("manifest.json", *MEMBERS)


def make_bundle(seed=0):
    rng = np.random.default_rng(seed)
    probe = (rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))).astype(np.complex64)
    return Bundle(
        training=TrainingConfig(model=ModelConfig(N=32, gridsize=2), nepochs=7, nphotons=1e6, backend="pytorch"),
        calibration=Calibration(
            0.1 + 1e-17, probe, photon_scale=1 / 3, photons_per_pattern=1e9, probe_guess_sha256="ab"
        ),
        weights={
            "step1/encoder0/conv0/kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "step1/encoder0/conv0/bias": np.array([0.0, -0.0, np.finfo(np.float32).tiny, 1e38], np.float32),
            "log_scale": np.float32(0.25).reshape(()),
            "probe": rng.normal(size=(2, 32, 32, 2)).astype(np.float32),
        },
        history=[{"epoch": 1.0, "lr": 1e-3, "poisson_train_loss": 0.1 + 0.2}, {"epoch": 2.0, "lr": 5e-4}],
        provenance={"backend": "pytorch", "versions": {"torch": "2.4"}, "seed": 3},
    )


def assert_equal(actual, expected):
    """Fail unless two bundles agree to the last bit."""
    assert actual.training == expected.training
    assert actual.history == expected.history
    assert actual.provenance == expected.provenance
    for field in dataclasses.fields(Calibration):
        np.testing.assert_array_equal(
            getattr(actual.calibration, field.name), getattr(expected.calibration, field.name)
        )
    assert set(actual.weights) == set(expected.weights)
    for name, value in expected.weights.items():
        assert actual.weights[name].tobytes() == value.tobytes()
        assert (actual.weights[name].shape, actual.weights[name].dtype) == (value.shape, np.float32)


@pytest.fixture
def written(tmp_path):
    """Return a model file in a new folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    return write_bundle(folder, make_bundle())


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Return the bytes of a model file."""
    return write_bundle(tmp_path_factory.mktemp("content") / "a.zip", make_bundle()).read_bytes()


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, changes=None, extra=(), checksums=True):
    """Rewrite a model file with changed members (None removes one) and new checksums."""
    members = {**members_of(path), **(changes or {})}
    if checksums and members["manifest.json"] is not None:
        manifest = json.loads(members["manifest.json"])
        if isinstance(manifest, dict) and isinstance(manifest.get("sha256"), dict):
            fits = {name: hashlib.sha256(members[name]).hexdigest() for name in MEMBERS if members[name] is not None}
            manifest["sha256"] |= fits
            members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in [*members.items(), *extra]:
            if value is not None:
                archive.writestr(name, value)
    return path


def with_hdf5(path, change):
    """Change the ``weights.h5`` of a model file by a function of the open file; rewrite the checksums."""
    buffer = io.BytesIO(members_of(path)["weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return rewritten(path, {"weights.h5": buffer.getvalue()})


def with_manifest(path, **values):
    manifest = json.loads(members_of(path)["manifest.json"])
    return rewritten(path, {"manifest.json": json.dumps({**manifest, **values}).encode()})


def refused(path, *words):
    with pytest.raises(ModelFileError) as caught:
        read_bundle(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


# --- round trips ---------------------------------------------------------------------------------------------------


def test_a_model_file_round_trips_exactly(written):
    assert_equal(read_bundle(written), make_bundle())


def test_zip_run_folder_and_unpacked_folder_are_read(written, tmp_path):
    assert written.name == FILE_NAME == "wts.h5.zip"
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(written) as archive:
        archive.extractall(unpacked)
    renamed = shutil.copy(written, tmp_path / "my model.zip")
    for place in (written, str(written), written.parent, unpacked, renamed):
        assert_equal(read_bundle(place), make_bundle())


def test_members_are_those_of_the_specification_without_pickle(written):
    members = members_of(written)
    assert set(members) == {"manifest.json", "config.json", "weights.h5", "history.json"}
    manifest = json.loads(members["manifest.json"])
    assert (manifest["format"], manifest["format_version"]) == ("ptychopinn-model", 2)
    assert set(manifest["sha256"]) == set(MEMBERS)
    with h5py.File(io.BytesIO(members["weights.h5"])) as file:
        assert file["weights/step1/encoder0/conv0/kernel"].shape == (3, 3, 2, 4)
        assert file["calibration/probe"].dtype == np.complex64


def test_equal_models_make_equal_bytes(tmp_path):
    one, other = (write_bundle(tmp_path / name, make_bundle()).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == other
    assert write_bundle(tmp_path / "c.zip", make_bundle(seed=1)).read_bytes() != one


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-300, 0.1])
def test_history_round_trips_every_number(value, tmp_path):
    bundle = dataclasses.replace(make_bundle(), history=[{"poisson_train_loss": value}])
    (row,) = read_bundle(write_bundle(tmp_path / "a.zip", bundle)).history
    np.testing.assert_equal(row["poisson_train_loss"], value)


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_file(written, monkeypatch):
    before = written.read_bytes()

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(written, make_bundle(seed=1))
    assert written.read_bytes() == before
    assert [item.name for item in written.parent.iterdir()] == [FILE_NAME]


def test_an_unwritable_value_leaves_the_old_file(written):
    before = written.read_bytes()
    with pytest.raises(TypeError):
        write_bundle(written, dataclasses.replace(make_bundle(), provenance={"object": object()}))
    assert written.read_bytes() == before
    assert [item.name for item in written.parent.iterdir()] == [FILE_NAME]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        write_bundle(tmp_path / "nowhere" / "a.zip", make_bundle())


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.zip", "no such file")
    refused(tmp_path, "no wts.h5.zip and no manifest.json")


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(content, tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "a.zip"
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


@given(data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(content, tmp_path_factory, data):
    """A flipped bit in a date or an unused attribute has no effect; a model never changes."""
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    assert_refused_or_unchanged(damaged, tmp_path_factory.mktemp("flip"))


@given(data=st.data())
def test_a_wrong_byte_in_the_directory_of_the_zip_is_refused_or_changes_nothing(content, tmp_path_factory, data):
    """Names, sizes and offsets stand at the end of a zip, where random bits are rare."""
    start = content.rindex(b"PK\x01\x02", 0, content.index(b"PK\x01\x02") + 4)
    place, value = data.draw(st.integers(start, len(content) - 1)), data.draw(st.integers(0, 255))
    damaged = bytearray(content)
    damaged[place] = value
    assert_refused_or_unchanged(damaged, tmp_path_factory.mktemp("list"))


def assert_refused_or_unchanged(damaged, folder):
    path = folder / "a.zip"
    path.write_bytes(damaged)
    try:
        bundle = read_bundle(path)
    except ModelFileError:
        return refused(path)
    assert_equal(bundle, make_bundle())


@pytest.mark.parametrize("name", MEMBERS)
def test_a_changed_member_does_not_match_its_checksum(name, written, tmp_path):
    changed = members_of(written)[name] + b" "
    rewritten(written, {name: changed}, checksums=False)
    refused(written, name, "checksum")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(written) as archive:
        archive.extractall(folder)
    refused(folder, name, "checksum")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_member_is_named(name, written, tmp_path):
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(written) as archive:
        archive.extractall(folder)
    (folder / name).unlink()
    refused(folder, name)
    rewritten(written, {name: None}, checksums=False)
    refused(written, name)


def test_a_zip_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.jpg", b"meow")
    refused(path, "manifest.json", "cat.jpg")


@pytest.mark.parametrize("text", [b"", b"no zip at all", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_of_another_kind_is_refused(text, tmp_path):
    (tmp_path / "a.zip").write_bytes(text)
    refused(tmp_path / "a.zip")


def test_an_encrypted_zip_is_refused(content, tmp_path):
    damaged = bytearray(content)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := damaged.find(mark, place + 1)) >= 0:
            damaged[place + flags] |= 1
    (tmp_path / "a.zip").write_bytes(damaged)
    refused(tmp_path / "a.zip")


@pytest.mark.parametrize("manifest", [b"[]", b"5", b"null", b'{"format": "other"}', b"{", b"\xff\xfe"])
def test_a_manifest_of_another_format_is_refused(manifest, written):
    refused(rewritten(written, {"manifest.json": manifest}, checksums=False))


@pytest.mark.parametrize("version", [0, 1, 999, "1", None])
def test_another_version_is_refused_with_both_numbers(version, written):
    with_manifest(written, format_version=version, package_version="7.8")
    refused(written, f"format version {FORMAT_VERSION}", repr(version), "7.8")


@pytest.mark.parametrize("checksums", [None, [], "abc", {}, {"config.json": 5}])
def test_a_manifest_without_checksums_is_refused(checksums, written):
    members = members_of(written)
    manifest = {**json.loads(members["manifest.json"]), "sha256": checksums}
    refused(rewritten(written, {"manifest.json": json.dumps(manifest).encode()}, checksums=False), "checksum")


@pytest.mark.parametrize("value", [5, [1, 2], "text", None])
def test_a_manifest_with_invalid_provenance_is_refused(value, written):
    refused(with_manifest(written, provenance=value))


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[" * 100_000], ids=["cut", "empty", "bytes", "deep"])
def test_invalid_json_is_refused(text, written):
    refused(rewritten(written, {"history.json": text}), "history.json")


@pytest.mark.parametrize("values", [{"model": {"N": 33}}, {"nepochs": "3"}, {"epochs": 3}, [1]], ids=str)
def test_a_config_that_breaks_the_schema_is_refused(values, written):
    refused(rewritten(written, {"config.json": json.dumps(values).encode()}), "config.json")


@pytest.mark.parametrize(
    "content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(600)], ids=["empty", "text", "header"]
)
def test_weights_without_hdf5_format_are_refused(content, written):
    refused(rewritten(written, {"weights.h5": content}), "weights.h5")


@pytest.mark.parametrize("missing", ["weights", "calibration", "calibration/probe"])
def test_a_missing_group_is_refused(missing, written):
    def delete(file):
        del file[missing]

    refused(with_hdf5(written, delete), "weights.h5")


@pytest.mark.parametrize("name", ["rms_input_scale", "photon_scale", "photons_per_pattern", "probe_guess_sha256"])
def test_a_missing_number_of_the_calibration_is_refused(name, written):
    def delete(file):
        del file["calibration"].attrs[name]

    refused(with_hdf5(written, delete), name)


@pytest.mark.parametrize("name", ["rms_input_scale", "photon_scale"])
@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0])
def test_an_impossible_number_of_the_calibration_is_refused(name, value, written):
    def change(file):
        file["calibration"].attrs[name] = value

    refused(with_hdf5(written, change), name)


# --- attacks -------------------------------------------------------------------------------------------------------


def test_names_that_leave_the_folder_are_ignored_and_nothing_is_written(written):
    before = snapshot(written.parent.parent)
    names = ("../outside.txt", "/tmp/absolute.txt", "..\\windows.txt", "a/../../b.txt", "weights.h5/../../c")
    rewritten(written, extra=[(name, b"attack") for name in names], checksums=False)
    assert_equal(read_bundle(written), make_bundle())
    assert set(snapshot(written.parent.parent)) == set(before)


def snapshot(folder):
    return sorted(path for path in folder.rglob("*"))


def test_a_member_that_claims_to_be_huge_is_refused(written, monkeypatch):
    monkeypatch.setattr("ptycho_backend.model_file.bundle.MAX_MEMBER_BYTES", 1000)
    refused(written, "weights.h5", "bytes")


LINKS = {
    "soft": h5py.SoftLink("/calibration/probe"),
    "dangling": h5py.SoftLink("/nowhere"),
    "external": h5py.ExternalLink("other.h5", "/secret"),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["weights/stray", "weights/step1/stray"])
def test_links_among_the_weights_are_refused(kind, name, written):
    def add(file):
        file[name] = LINKS[kind]

    refused(with_hdf5(written, add), "weights.h5")


@pytest.mark.parametrize("name", ["weights", "calibration", "calibration/probe"])
def test_links_in_place_of_groups_are_refused(name, written, tmp_path):
    with (
        h5py.File(tmp_path / "other.h5", "w") as other,
        h5py.File(io.BytesIO(members_of(written)["weights.h5"])) as own,
    ):
        own.copy(name, other, name="secret")

    def replace(file):
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")

    refused(with_hdf5(written, replace), "weights.h5")


def test_external_storage_is_refused(written, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(16))

    def add(file):
        file.create_dataset("weights/stray", (4,), "f4", external=[(str(secret), 0, 16)])

    refused(with_hdf5(written, add), "stray")


def test_virtual_storage_is_refused(written, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(4, np.float32)

    def add(file):
        layout = h5py.VirtualLayout((4,), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (4,))
        file.create_virtual_dataset("weights/stray", layout)

    refused(with_hdf5(written, add), "stray")


@pytest.mark.parametrize("value", [b"text", [1, 2], [1 + 2j]], ids=["bytes", "integers", "complex"])
def test_weights_that_are_not_real_are_refused(value, written):
    def add(file):
        file["weights/stray"] = value

    refused(with_hdf5(written, add), "stray")


# --- weights that do not fit ---------------------------------------------------------------------------------------


SHAPES = {"kernel": (3, 3, 2, 4), "bias": (4,)}


def fitting():
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def test_fitting_weights_pass():
    check_weights(fitting(), SHAPES)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    weights = fitting()
    weights["bias"][2] = value
    with pytest.raises(ModelFileError, match="'bias'"):
        check_weights(weights, SHAPES)


def test_misshapen_weights_are_refused_with_both_shapes():
    with pytest.raises(ModelFileError) as caught:
        check_weights({**fitting(), "kernel": np.zeros((4, 2, 3, 3), np.float32)}, SHAPES)
    assert "'kernel' of shape (3, 3, 2, 4)" in caught.value.expected
    assert "(4, 2, 3, 3)" in caught.value.received


def test_missing_and_unknown_weights_are_named_with_a_hint():
    weights = fitting()
    weights["biass"] = weights.pop("bias")
    with pytest.raises(ModelFileError) as caught:
        check_weights(weights, SHAPES)
    assert "missing: bias" in caught.value.expected
    assert "unknown: biass" in caught.value.received
    assert caught.value.fix == "rename 'biass' to 'bias'"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(written):
    written.chmod(0)
    refused(written, "Permission denied")


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 32, 64)).astype(np.float32)
    bundle = dataclasses.replace(make_bundle(), weights={"step1/kernel": kernel})
    whole, half = (write_bundle(tmp_path / dtype, bundle, weights_dtype=dtype) for dtype in ("float32", "float16"))
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(kernel.nbytes // 2, abs=64)
    read = read_bundle(half).weights["step1/kernel"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, kernel.astype(np.float16))
