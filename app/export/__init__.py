"""What `velora export` is made of: from the folder that `velora label` wrote to the formats of annotation tools.

results       what was labelled, and its spans as they are now
places        where recordings are today
items         spans in the time of a video
names         names of files that every tool takes
command       the command
fiftyone, label_studio, elan, table    a format each
"""
