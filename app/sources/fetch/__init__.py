"""Downloads pictures from other machines. No URL can make the server connect to inner networks.

address_policy   which IP addresses the server may connect to
transport        connections to those addresses only, with a deadline for every operation
http             one picture, with its redirects and limits; many pictures, a few at a time from each host
object_store     objects of Amazon S3, of stores like it, and of Google Cloud Storage
"""
