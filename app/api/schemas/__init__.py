"""The JSON bodies of requests and answers; docs/reference/http.md describes them."""
