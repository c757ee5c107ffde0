"""The tests of lattq: they mirror the package, with a kit of strategies, contracts and oracles beside them."""
