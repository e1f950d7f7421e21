.PHONY: demo test test-all check install lock bench prove

demo:  ## install (TORCH=auto: no torch without a GPU), serve the demo gallery, show three searches; ARGS=--once ends
	TORCH=$${TORCH:-auto} scripts/install
	.venv/bin/sightline demo $(ARGS)

test:  ## install what the tests need; check style and types, run the fast tests; ARGS go to pytest
	scripts/test $(ARGS)

test-all:  ## the same, then the slow tests: short proofs, samples of the documentation, models, wheel, image
	scripts/test all

check:  ## style and types
	scripts/check

install:  ## make .venv
	scripts/install

lock:  ## write requirements/ anew
	scripts/lock

bench:  ## print the figures of docs/benchmarks.md
	scripts/bench

prove:  ## try to break every promise, and write docs/reliability.md
	scripts/prove --long --write
