"""Files of a simulated scan in the layouts of other programs, as each program documents its convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_backend import Scan, simulate_scan, write_npz

H_C_J_M = 6.62607015e-34 * 299792458.0
J_PER_EV = 1.602176634e-19
ENERGY_EV = 8000.0
WAVELENGTH_M = H_C_J_M / (ENERGY_EV * J_PER_EV)
DISTANCE_M = 2.0
DETECTOR_PIXEL_M = 75e-6
N, N_PATTERNS = 32, 30
OBJECT_PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * DETECTOR_PIXEL_M)


@dataclass(frozen=True)
class Truth:
    """Scan, and its positions (y, x) in metres: y down along the rows, x to the right along the columns."""

    scan: Scan

    @property
    def patterns(self) -> NDArray[Any]:
        return self.scan.patterns

    @property
    def positions_m(self) -> NDArray[np.float64]:
        return self.scan.positions_px * OBJECT_PIXEL_M


def truth(n_positions: int = N_PATTERNS, scan_name: str = "spiral") -> Truth:
    """Return a scan with photon noise, a bad pixel, and a mean pattern with its maximum at the zero frequency."""
    options = {"N": N, "n_positions": n_positions, "scan_name": scan_name, "photons_per_pattern": 1e5, "seed": 3}
    return Truth(simulate_scan(step_px=2.7, **options))


def cxi(folder: Path, true: Truth, basis: NDArray[np.float64] | None = None) -> list[Path]:
    """Write a CXI file: the sample moves by t = (x, y, z), x to the left, y up, so the beam moves by −t over it."""
    rows, columns = (np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0])) if basis is None else basis
    beam = true.positions_m[:, :1] * rows + true.positions_m[:, 1:] * columns
    path = folder / "scan.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/instrument_1/detector_1/data"] = true.patterns
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/sample_1/geometry_1/translation"] = -beam
        file["entry_1/instrument_1/source_1/energy"] = ENERGY_EV * J_PER_EV
        detector = file["entry_1/instrument_1/detector_1"]
        detector["distance"], detector["mask"] = DISTANCE_M, np.eye(N, dtype=np.uint32)
        if basis is None:
            detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL_M
        else:
            detector["basis_vectors"] = DETECTOR_PIXEL_M * np.stack([rows, columns]).T
    return [path]


def nxcxi_ptycho(folder: Path, true: Truth, motors: bool = False) -> list[Path]:
    """Write an NXcxi_ptycho file, in the units that a beamline uses; the energy of the source is that of the ring."""
    path = folder / "scan.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry["definition"] = "NXcxi_ptycho"
        entry["instrument_1/source_1/energy"] = 3e9 * J_PER_EV
        with_unit(entry, "instrument_1/beam_1/incident_beam_energy", ENERGY_EV / 1e3, "keV")
        detector = entry.create_group("instrument_1/detector_1")
        detector["data"] = true.patterns
        entry["data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        with_unit(detector, "x_pixel_size", DETECTOR_PIXEL_M * 1e6, "um")
        with_unit(detector, "y_pixel_size", DETECTOR_PIXEL_M * 1e6, "um")
        with_unit(detector, "distance", DISTANCE_M * 1e3, "mm")
        with_unit(detector, "beam_center_x", (N // 2) * DETECTOR_PIXEL_M, "m")
        with_unit(detector, "beam_center_y", N // 2, "pixels")
        y, x = true.positions_m.T
        if motors:
            with_unit(entry, "sample_1/transformations/y", y * 1e3, "mm")
            with_unit(entry, "sample_1/transformations/x", x * 1e3, "mm")
        else:
            with_unit(entry, "data_1/translation", np.stack([x, y, 0 * x], axis=1) * 1e6, "um")
    return [path]


def nxptycho(folder: Path, true: Truth, sign: int = 1) -> list[Path]:
    """Write an NXptycho file: groups without numbers, lengths in any unit, and named motors with a vector."""
    path = folder / "scan.nxs"
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry["definition"] = "NXptycho"
        with_unit(entry, "instrument/beam/energy", ENERGY_EV, "eV")
        with_unit(entry, "instrument/detector/data", true.patterns, "counts")
        for name, value, unit in (
            *(("distance", DISTANCE_M * 1e2, "cm"), ("x_pixel_size", DETECTOR_PIXEL_M * 1e6, "µm")),
            *(("y_pixel_size", DETECTOR_PIXEL_M * 1e6, "µm"), ("beam_center_x", N // 2, "pixel")),
            ("beam_center_y", (N // 2) * DETECTOR_PIXEL_M * 1e3, "mm"),
        ):
            with_unit(entry, f"instrument/detector/{name}", value, unit)
        entry.create_group("data").attrs["signal"] = "data"
        for number, (name, axis) in enumerate((("vertical", "y"), ("horizontal", "x")), 1):
            entry[f"sample/positioner_{number}/name"] = name
            values = sign * true.positions_m[:, number - 1]
            with_unit(entry, f"sample/positioner_{number}/raw_value", values, "m")
            entry[f"sample/transformations/{axis}"] = entry[f"sample/positioner_{number}/raw_value"]
            entry[f"sample/transformations/{axis}"].attrs["vector"] = sign * np.roll([1.0, 0.0, 0.0], 2 - number)
    return [path]


def eiger(folder: Path, true: Truth) -> list[Path]:
    """Write a master file with two linked data files, compressed as the detector does."""
    import hdf5plugin

    half = len(true.patterns) // 2
    with h5py.File(folder / "scan_master.h5", "w") as master:
        for number, patterns in enumerate((true.patterns[:half], true.patterns[half:]), 1):
            with h5py.File(folder / f"scan_data_{number:06d}.h5", "w") as file:
                file.create_dataset("entry/data/data", data=patterns, **hdf5plugin.Bitshuffle(cname="lz4"))
            link = h5py.ExternalLink(f"scan_data_{number:06d}.h5", "/entry/data/data")
            master.require_group("entry/data")[f"data_{number:06d}"] = link
        detector = master.create_group("entry/instrument/detector")
        with_unit(master, "entry/instrument/beam/incident_wavelength", WAVELENGTH_M * 1e10, "angstrom")
        detector["detectorSpecific/photon_energy"] = 0.0  # unset
        with_unit(detector, "detector_distance", DISTANCE_M, "m")
        with_unit(detector, "x_pixel_size", DETECTOR_PIXEL_M, "m")
        with_unit(detector, "y_pixel_size", DETECTOR_PIXEL_M, "m")
        detector["beam_center_x"], detector["beam_center_y"] = float(N // 2), float(N // 2)
        detector["detectorSpecific/pixel_mask"] = np.eye(N, dtype=np.uint32)
        detector["detectorSpecific/countrate_correction_count_cutoff"] = 60000
    return [folder / "scan_master.h5"]


def ptychoshelves(folder: Path, true: Truth) -> list[Path]:
    """Write both files of PtychoShelves: Matlab's (y, x, n) is (n, x, y) in HDF5, and ppX, ppY move the sample."""
    patterns, positions = folder / "data_roi0_dp.hdf5", folder / "data_roi0_para.hdf5"
    with h5py.File(patterns, "w") as file:
        file["dp"] = np.swapaxes(true.patterns, 1, 2).astype(np.float32)
    with h5py.File(positions, "w") as file:
        file["ppY"], file["ppX"] = -true.positions_m[:, :1].T, -true.positions_m[:, 1:].T
        file["lambda"], file["dx"] = np.array([[WAVELENGTH_M]]), np.array([[OBJECT_PIXEL_M]])
    return [patterns, positions]


def ptylab(folder: Path, true: Truth) -> list[Path]:
    """Write a PtyLab file: the encoder holds (y, x) of the beam, metres."""
    path = folder / "scan.hdf5"
    with h5py.File(path, "w") as file:
        file["ptychogram"], file["encoder"] = true.patterns, true.positions_m
        file["zo"], file["dxd"], file["wavelength"] = DISTANCE_M, DETECTOR_PIXEL_M, np.array([[WAVELENGTH_M]])
        file["entrancePupilDiameter"], file["binningFactor"], file["orientation"] = 1e-6, 2, 0
    return [path]


def ptychi(folder: Path, true: Truth) -> list[Path]:
    """Write the stack of pty-chi, and the product of ptychodus with positions and the pixel of the object."""
    paths = [folder / "ptychodus_dp.hdf5", folder / "ptychodus_para.hdf5"]
    with h5py.File(paths[0], "w") as file:
        file["dp"] = true.patterns.astype(np.float32)
    with h5py.File(paths[1], "w") as file:
        file["probe_position_y_m"], file["probe_position_x_m"] = true.positions_m.T
        file["probe"], file["object"] = true.scan.probe[None], np.ones((1, 4, 4), np.complex64)
        file["object"].attrs.update(pixel_height_m=OBJECT_PIXEL_M, pixel_width_m=OBJECT_PIXEL_M)
        file.attrs["photon_energy_eV"] = ENERGY_EV
    return paths


def ptyd_of_today(folder: Path, true: Truth, chunks: int, bad: NDArray[np.bool_]) -> list[Path]:
    """Write a ptyd file as ptypy 0.9 does: chunks behind links, masks of all patterns, uncropped values in `info`."""
    path = folder / "scan.ptyd"
    with h5py.File(path, "w") as file:
        for number, rows in enumerate(np.array_split(np.arange(len(true.patterns)), chunks)):
            with h5py.File(folder / f"scan.ptyd.part{number:03d}", "w") as chunk:
                chunk["data"], chunk["positions"], chunk["indices"] = true.patterns[rows], true.positions_m[rows], rows
                chunk["weights"] = 1.0 - bad[rows]
            file[f"chunks/{number}"] = h5py.ExternalLink(f"scan.ptyd.part{number:03d}", "/")
        file["info/positions_scan"], file["info/positions_theory"] = true.positions_m, [0.0]
        file["info/energy"], file["info/distance"] = ENERGY_EV / 1e3, DISTANCE_M
        file["info/psize"], file["info/weight2d"] = DETECTOR_PIXEL_M / 2, np.ones((2 * N + 4, 2 * N))
        file["info/orientation"], file["info/rebin"] = [0.0], 2
        file["meta/energy"], file["meta/distance"] = ENERGY_EV / 1e3, DISTANCE_M
        file["meta/psize"], file["meta/center"] = [DETECTOR_PIXEL_M] * 2, [N / 2, N / 2]
    return [path]


def ptyd(folder: Path, true: Truth, chunks: int = 1) -> list[Path]:
    """Write the prepared data of ptypy: positions (y, x) of the beam, metres, and energy in keV."""
    path = folder / "scan.ptyd"
    with h5py.File(path, "w") as file:
        for number, rows in enumerate(np.array_split(np.arange(len(true.patterns)), chunks)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["positions"], chunk["indices"] = true.patterns[rows], true.positions_m[rows], rows
            chunk["weights"] = np.zeros(0)
        if chunks > 1:
            file["info/positions_scan"] = true.positions_m
        file["meta/energy"], file["meta/distance"] = ENERGY_EV / 1e3, DISTANCE_M
        file["meta/psize"], file["meta/center"] = [DETECTOR_PIXEL_M] * 2, [N / 2, N / 2]
        file["meta/weight2d"], file["meta/propagation"] = 1.0 - np.eye(N), "farfield"
    return [path]


def raster_cube(true: Truth, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the patterns of a raster as (scan row, scan column, y, x)."""
    return true.patterns.reshape(*shape, *true.patterns.shape[1:])


def py4dstem(folder: Path, cube: NDArray[Any], version: int = 14, q_units: str = "A^-1") -> list[Path]:
    """Write a data cube with its calibration, as py4DSTEM 0.12 to 0.14 do."""
    path = folder / "scan.h5"
    place, calibration = {
        12: ("4DSTEM_experiment/data/datacubes/datacube_0", "4DSTEM_experiment/metadata/metadata_0/calibration"),
        13: ("datacube/datacube", "datacube/calibration"),
        14: ("datacube_root/datacube", "datacube_root/metadatabundle/calibration"),
    }[version]
    values = {"R_pixel_size": 4.1, "R_pixel_units": "A", "Q_pixel_size": 0.02, "Q_pixel_units": q_units}
    with h5py.File(path, "w") as file:
        group = file.create_group(place)
        group["data"] = cube
        group.attrs["emd_group_type"] = 1 if version < 14 else "array"
        group.attrs[{12: "name", 13: "py4dstem_class", 14: "python_class"}[version]] = "DataCube"
        store = file.create_group(calibration)
        for name, value in values.items():
            if version == 12:
                store.attrs[name.replace("Q_", "K_")] = value
            else:
                store[name] = value
        if version == 14:
            store["QR_rotation"], store["QR_flip"] = 0.0, False
    return [path]


def ptyrad(folder: Path, cube: NDArray[Any]) -> list[Path]:
    """Write a stack with four axes."""
    path = folder / "scan.hdf5"
    with h5py.File(path, "w") as file:
        file["dp"] = cube.astype(np.float32)
    return [path]


def npz(folder: Path, true: Truth) -> list[Path]:
    """Write the NPZ of this package."""
    write_npz(true.scan, folder / "scan.npz")
    return [folder / "scan.npz"]


def ptychodus(folder: Path, true: Truth) -> list[Path]:
    """Write a training file of ptychodus: a position is the middle of its window."""
    path = folder / "scan.h5"
    y, x = (true.scan.positions_px - 0.5).T
    with h5py.File(path, "w") as file:
        file["patterns"], file["probe_position_y_px"], file["probe_position_x_px"] = true.patterns, y, x
    return [path]


def ptychodus_product(folder: Path, true: Truth) -> list[Path]:
    """Write a product of ptychodus and the file of its patterns."""
    paths = [folder / "product.h5", folder / "diffraction.h5"]
    with h5py.File(paths[0], "w") as file:
        file["probe_position_y_m"], file["probe_position_x_m"] = true.positions_m.T
        file["probe_position_indexes"] = np.arange(len(true.patterns))
    with h5py.File(paths[1], "w") as file:
        file["patterns"] = true.patterns
    return paths


def with_unit(group: Any, name: str, value: Any, unit: str) -> None:
    """Write a dataset with the attribute ``units``."""
    group[name] = value
    group[name].attrs["units"] = unit


LAYOUTS: dict[str, Callable[[Path, Truth], list[Path]]] = {
    **{"cxi": cxi, "nxcxi_ptycho": nxcxi_ptycho, "eiger": eiger, "ptychoshelves": ptychoshelves},
    **{"ptylab": ptylab, "ptychi": ptychi, "ptyd": ptyd, "npz": npz, "ptychodus": ptychodus},
}
