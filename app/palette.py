"""Colours for events beside those that models are trained on, as filters of SVG: the browser changes them.

A picture of events is a mixture of white, the colour of ON and that of OFF; an affine map of colours takes these to
others. Pairs are of Okabe and Ito, "Color Universal Design", 2008, which colour-blind people tell apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.render import OFF, ON, WHITE

Color = tuple[int, int, int]
#: name: what stands for nothing, ON and OFF.
PALETTES: dict[str, tuple[Color, Color, Color]] = {
    "safe": ((255, 255, 255), (213, 94, 0), (0, 114, 178)),
    "dark": ((0, 0, 0), (230, 159, 0), (86, 180, 233)),
    "grey": ((128, 128, 128), (255, 255, 255), (0, 0, 0)),
}


def matrix(palette: tuple[Color, Color, Color]) -> NDArray[np.float64]:
    """Float64 [3, 4]: a colour (r, g, b, 1) of the training palette, 0 to 1, to one of this palette.

    Black, which only compression makes, goes between ON and OFF.
    """
    source = np.array([(*color, 255) for color in (WHITE, ON, OFF, (0, 0, 0))]) / 255
    between = np.mean(palette[1:], axis=0)
    target = np.array([*palette, between]) / 255
    return np.asarray(np.linalg.solve(source, target).T)


def _filter(name: str) -> str:
    rows = [" ".join(f"{value:.4f}" for value in (*row[:3], 0, row[3])) for row in matrix(PALETTES[name])]
    values = " ".join([*rows, "0 0 0 1 0"])
    return (
        f'<filter id="palette-{name}" color-interpolation-filters="sRGB">'
        f'<feColorMatrix type="matrix" values="{values}"/></filter>'
    )


FILTERS = f'<svg width="0" height="0" aria-hidden="true"><defs>{"".join(map(_filter, PALETTES))}</defs></svg>'
