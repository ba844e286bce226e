"""One file per paper that repairs what compression left undone."""
