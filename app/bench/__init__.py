"""`velora bench`: the speeds that the README claims, on this machine, each beside its reference in the same run.

command     runs the groups, and prints a table, or one JSON object
asked       what is to be measured
book        what was found: rows of figures, and what was left out
timing      works that take turns, so that a busy moment of the machine is fair to all of them
worker      a function in a process of its own, and the most memory that it takes
client      what asks the page for pictures
models      recognisers with random weights, and the released algorithm
fabricated  recordings, samples and clips to measure with
machine     what it was measured on
show, plots for people

A group is a module of its name with `measure(asked, book)`.
"""

from collections.abc import Mapping

#: name of a group, and what it measures
GROUPS: Mapping[str, str] = {
    "push": "a label from a sliding window, its whole window from scratch, and the released algorithm",
    "floor": "a label from a sliding window, and the least that three encodings could take",
    "road": "decoding, synchronising and rendering on one thread, and bare decoding",
    "page": "what a picture of the page costs to encode, and to bring",
    "label": "labelling recordings in batches, and a loop of whole windows",
    "train": "training each adapter, and the released loop",
    "simulate": "simulating events, and writing recordings",
    "cost": "what grows with T, image size, classes, sessions and viewers",
    "modes": "top-1 of each fast mode, and of float32",
}
