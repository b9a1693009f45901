"""The examples of the API's docstrings run as they stand, one after the other."""

import doctest

import dr_core.api.deep_retrieval as module

EXAMPLES = ("DeepRetrieval", "fit", "items", "recommend", "recommend_all", "width", "explain", "save", "load")


def test_every_example_runs() -> None:
    """Later examples go on with the model of the class's own, which comes first."""
    found = {test.name.rsplit(".", 1)[-1]: test for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(found) == set(EXAMPLES)
    runner, names = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), {}
    for name in EXAMPLES:
        test = found[name]
        test.globs = names
        result = runner.run(test, clear_globs=False)
        assert result.attempted > 0
        assert result.failed == 0, f"the example of {name} gives something else: see the output above"
