"""Files of a generator: read with care where their origin is unknown, named by digests.

`generators.load_generator` opens one, whatever folder it lies in.
"""
