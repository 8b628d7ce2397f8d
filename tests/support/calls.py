"""Calls of the API, with a peer in place of the service."""
import userstate

EVENT = {"state": "running", "code": 1000, "message": "x"}


def post_to(peer, said, **options):
    userstate.post_event(EVENT, peer.url, **dict(said.options, **options))


def fetch_from(peer, said, **options):
    return userstate.fetch_metadata(
        metadata_url=peer.url, **dict(said.options, **options))["id"]
