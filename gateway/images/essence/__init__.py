"""The essence of a picture's file: what its first frame's pixels are made of, without everything else.

A file may hold much more than a picture: texts, colour profiles, thumbnails, further frames, each with a parser of its
own in Pillow, and with ways to make that parser take hours or gigabytes. None of it changes the pixels, so that none of
it reaches Pillow; of EXIF, the orientation is read here. What is read here is read in steps that are counted.
"""
