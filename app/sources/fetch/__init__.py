"""Pictures from elsewhere by URL. No request can use the server to reach inner networks.

address_policy   which IP addresses may be connected to
transport        connections to these alone, with a deadline for every operation
http             one picture, its redirects and limits; many of them, a few at a time for each host
object_store     objects of S3, of stores like it, and of Google Cloud Storage
"""
