"""Where a blob lies: originals are named by the sha256 of their bytes."""


def blob_path(sha256: str, ext: str) -> str:
    """Returns the path of a blob under the home, such as `blobs/ab/cd/abcd….png`."""
    return f"blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}.{ext}"
