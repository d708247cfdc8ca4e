"""Limits of the numbers in a description: a value beyond them has the wrong unit (spec: data 12)."""

from __future__ import annotations

from ptycho_backend.errors import ConfigError
from ptycho_backend.importing.description import ImportConfig

# Least and largest magnitude; 0 is allowed where it is the default.
LIMITS = {
    "geometry": {
        **{"energy_kev": (1e-7, 1e5), "energy_ev": (1e-4, 1e8), "wavelength_m": (1e-14, 1e-2)},
        **{"voltage_kv": (1e-2, 1e5), "distance_m": (1e-6, 1e4), "object_pixel_m": (1e-14, 1.0)},
        **dict.fromkeys(("detector_pixel_m", "detector_pixel_x_m"), (1e-9, 0.1)),
        **{"reciprocal_step_per_angstrom": (1e-12, 1e3), "convergence_mrad": (1e-5, 1571.0)},
        **{"bright_field_radius_px": (1e-2, 1e5)},
    },
    "probe": {
        **dict.fromkeys(("diameter_m", "outermost_zone_m", "central_stop_m"), (1e-12, 10.0)),
        **dict.fromkeys(("defocus_m", "cs_m", "astigmatism_m"), (1e-15, 1e3)),
        **{"aperture_mrad": (1e-5, 1571.0), "astigmatism_deg": (1e-9, 1e6)},
    },
    "positions": {"step_y": (1e-13, 1e12), "step_x": (1e-13, 1e12), "rotation_deg": (1e-9, 1e6)},
    "detector": {"gain": (1e-12, 1e12)},
}


def require_plausible(config: ImportConfig) -> None:
    """
    Raise an error for a number that no instrument has.

    Raises
    ------
    ConfigError
        The message names the option and its limits.
    """
    for section, limits in LIMITS.items():
        part = getattr(config, section)
        default = type(part)()
        for name, (least, largest) in limits.items():
            value = getattr(part, name, None)
            if value is None or value == getattr(default, name) or least <= abs(value) <= largest:
                continue
            raise ConfigError(
                "The numbers of a description are those of an instrument.",
                expected=f"--{section}.{name} from {least:g} to {largest:g}",
                received=f"{value:g}",
                fix=f"correct the unit or the value of --{section}.{name}",
            )
