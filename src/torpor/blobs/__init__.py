"""Blobs: data too large for an event, kept under a name that is made from its content (claim check).

A blob's address, its ``dataref``, is the store's URL with the blob's name, the SHA-256 of its bytes; so
storing the same bytes again changes nothing, and a blob never changes.
"""

from torpor.blobs.base import MAX_BLOB_BYTES, MAX_TYPE_LENGTH, Blobs, Keeper, Kept, OpenBlob, Place, is_name
from torpor.blobs.store import BlobStore

__all__ = [
    "MAX_BLOB_BYTES",
    "MAX_TYPE_LENGTH",
    "BlobStore",
    "Blobs",
    "Keeper",
    "Kept",
    "OpenBlob",
    "Place",
    "is_name",
]
