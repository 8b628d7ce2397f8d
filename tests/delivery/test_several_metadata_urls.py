"""Several URLs in --metadata-url: each try takes the next one.

A name that has several addresses is in test_names_with_several_addresses.py.
"""
import pytest

import userstate
from support.peers import Peer, answer, document, reset_at_once


@pytest.mark.parametrize("script", [
    answer(500), answer(404), answer(403), reset_at_once, document(user_state_url=None),
    answer(302, b"", "Location: /x")], ids=[
        "500", "404", "403", "reset", "no key", "redirect"])
def test_the_second_one_takes_over_from_a_first_one_that_answers(script, said):
    with Peer(script) as first, Peer(document(user_state_url="http://h/")) as second:
        url = f"{first.url} {second.url}"
        assert userstate.user_state_url(metadata_url=url, **said.options) == "http://h/"
    assert len(said.time.pauses) == 1
    assert first.url in said.lines[0]


def test_they_are_tried_in_turn(said):
    with Peer(answer(404)) as first, Peer(answer(404)) as second:
        with pytest.raises(userstate.RefusedError):
            userstate.fetch_metadata(metadata_url=f"{first.url} {second.url}", **said.options)
        assert len(first.requests) == 2
        assert len(second.requests) == 2
