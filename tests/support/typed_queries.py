"""Typed queries and their meaning, for the server and for the page: (typed, words, words to turn away from)."""

TYPED: list[tuple[str, str, list[str]]] = [
    ("beach -people", "beach", ["people"]),
    ('a car -"red car" -night at sea', "a car at sea", ["red car", "night"]),
    ("t-shirt", "t-shirt", []),
    ("海滩 -人 －车", "海滩", ["人", "车"]),
    ("-red", "", ["red"]),
    ("beach -", "beach", []),  # still being typed
    ('beach -"red c', "beach", ["red c"]),
    ("a -b -b", "a", ["b"]),
    ("beach -- sea", "beach sea", []),
    (' -"" ', "", []),
    ("a" + "".join(f" -w{n}" for n in range(30)), "a", [f"w{n}" for n in range(8)]),
]
