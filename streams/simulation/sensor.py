"""What an event sensor is like: parameters with units, after ESIM and v2e, and those of the cameras we have data of."""

from __future__ import annotations

from dataclasses import dataclass

#: No pixel's own threshold is smaller than this, however unlike its neighbours it is.
SMALLEST_THRESHOLD = 0.01


@dataclass(frozen=True, slots=True)
class Sensor:
    """The pixels of an event camera. Raises ValueError that names a value which no sensor has.

    Thresholds and refractory period as in ESIM (Rebecq et al., CoRL 2018); threshold mismatch, bandwidth, leak and
    noise as in v2e (Hu et al., CVPRW 2021).
    """

    threshold_on: float = 0.3  # step of natural log intensity: 0.3 is a change by 35 %
    threshold_off: float = 0.3
    threshold_sigma: float = 0.0  # standard deviation of both thresholds from pixel to pixel
    refractory_us: int = 0  # a pixel is silent so long after each of its events; what it would have reported is lost
    cutoff_hz: float = 0.0  # bandwidth of the photoreceptor in light of 1.0; it falls with the light; 0: not limited
    leak_hz: float = 0.0  # ON events a second that every pixel fires by itself, because its reference leaks away
    noise_hz: float = 0.0  # events a second of both polarities in the dark; a quarter of it in light of 1.0
    noise_decades: float = 0.0  # standard deviation of leak and noise from pixel to pixel, in powers of ten

    def __post_init__(self) -> None:
        if min(self.threshold_on, self.threshold_off) < SMALLEST_THRESHOLD:
            found = f"{self.threshold_on}, {self.threshold_off}"
            raise ValueError(f"thresholds must be at least {SMALLEST_THRESHOLD}, got {found}")
        for name in ("threshold_sigma", "refractory_us", "cutoff_hz", "leak_hz", "noise_hz", "noise_decades"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must not be negative, got {value}")


#: By name. Those of the DAVIS346 make real frames give the events that the camera gave (docs/sensor.md).
SENSORS = {
    "ideal": Sensor(),
    "davis346": Sensor(
        threshold_on=0.3,
        threshold_off=0.3,
        threshold_sigma=0.03,
        refractory_us=800,
        cutoff_hz=2000.0,
        leak_hz=0.0213,  # of the median pixel; 0.027 of the mean one
        noise_decades=0.3,
    ),
}
