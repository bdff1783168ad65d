"""A tool that writes any number of files of any size."""

import os


def create(artifact, *, count=1, size=0, upload=None):
    """Write `count` files of `size` bytes. Each MiB of random bytes repeats."""
    block = os.urandom(min(size, 1 << 20))
    for index in range(count):
        with artifact.path(f"{index // 1000:03d}/{index:06d}.bin").open("wb") as file:
            left = size
            while left > 0:
                left -= file.write(block[:left])
