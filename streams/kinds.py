"""All kinds of sources, a line each. To add one: a file with a class, and its line here (see CONTRIBUTING.md).

A class is asked `reads(head, path)` for files and folders, in this order; `schemes` are how addresses of others begin.
Its module is imported only then, and must import drivers and rarely installed libraries later still.
"""

KINDS = (
    "streams.aedat4_source:Aedat4Source",
    "streams.aedat3:Aedat3Source",
    "streams.aedat2:Aedat2Source",
    "streams.prophesee:FaerySource",
    "streams.hdf5:Hdf5Source",
    "streams.image_folder:ImageFolderSource",
    "streams.video_source:VideoSource",
    "streams.dv_camera:DvCameraSource",
    "streams.webcam:WebcamSource",
    "streams.network:TcpSource",
)

#: Of these, what native libraries decode that can hang or crash: they are opened in a process of their own.
APART = frozenset({"streams.prophesee:FaerySource", "streams.hdf5:Hdf5Source"})
