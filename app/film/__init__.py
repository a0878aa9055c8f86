"""A recording as a video that browsers play: its panes side by side, at a constant rate.

pace        which sample each picture shows
drawing     panes and caption as one picture
encoder     pictures to an MP4
film        what is known of a video: where its pictures are in the recording's time
make        one recording to one video
studio      several of them, those that are there already left as they are
"""
