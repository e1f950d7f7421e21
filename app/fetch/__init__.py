"""Pictures from elsewhere by URL, without lending anybody our place in the network.

addresses   which IP addresses may be spoken to
network     connections to these alone, each with a deadline for everything that it does
fetcher     one picture, its redirects and limits; many of them, a few at a time for each host
"""
