"""Every public function with some of the bad calls that tests/bad_inputs.py makes: no raw error."""

import bad_inputs
import pytest


def test_every_public_function_has_a_valid_call():
    assert bad_inputs.missing() == []


@pytest.mark.parametrize("name", sorted(bad_inputs.CALLS))
def test_no_raw_error_leaves_the_house(name):
    """A part of the bad calls, another one each day; ``python tests/bad_inputs.py`` tries them all."""
    raw = [str(tried) for tried in bad_inputs.attempts(name, share=bad_inputs.SHARE) if tried.raw]
    assert raw == []
