"""Faults at random: each call ends as it is documented, in time, and tells no secret."""
import _thread
import collections
import concurrent.futures
import json
import random
import re
import time

import pytest

import userstate
from support.authority import server_side
from support.dice import Faults, Knowing
from support.fuzzing import FUZZ_SEED, FUZZ_TIMES, seeds_of
from support.leftovers import Threads, can_still_send
from support.peers import Peer

# What was wrong ("" if nothing was), whether it said that the event was accepted, and the
# Idempotency-Keys in the order of the requests.
Call = collections.namedtuple("Call", "wrong succeeded keys")


def post(event, url, seed, **options):
    userstate.post_event(event, url, **options)


def ask_and_post(event, url, seed, **options):
    metadata = Peer()
    metadata.scripts = Knowing(f"{seed} metadata", url)
    with metadata:
        userstate.send_user_state_event(*event.values(), metadata_url=metadata.url, **options)


def step(event, url, seed, **options):
    with userstate.step(event["code"], event["message"], every=0.1, url=url, **options):
        time.sleep(0.15)  # for one repeat


# A way to make a call, how many of them, whether by TLS.
WAYS = {"post": (post, 1500, False), "post by TLS": (post, 200, True),
        "ask and post": (ask_and_post, 300, False), "step": (step, 200, False)}


def one_call(way, seed, wrap, threads):
    """Make one call against faults at random; return what became of it."""
    dice = random.Random(seed)
    deadline, timeout = dice.choice([0.05, 0.15, 0.3]), dice.choice([0.1, 0.1, 10])
    event = {"state": "running", "code": 1000, "message": "x" * dice.choice([1, 1, 200000])}
    looks = dice.random() < 0.25  # at each end it would take too long
    # After a rude answer the kernel may still send the rest of what is answered.
    faults = Faults(f"{seed} answers", rude=not looks)
    peer = Peer(wrap=wrap)
    peer.scripts = faults
    lines, outcome = [], None
    with peer:
        threads.begin(seed)
        begun = time.monotonic()
        try:
            way(event, peer.url, seed, deadline=deadline, timeout=timeout, say=lines.append,
                verbose=dice.random() < 0.5)
        except userstate.UserStateError as error:
            outcome = error
        except Exception as error:
            return Call(f"undocumented: {error!r}", False, [])
        took = time.monotonic() - begun
        later = can_still_send(peer.port) if looks else []
        accepted, requests = list(faults.accepted), faults.got()
    if way is step and lines and re.search("; (gave up|refused) at", lines[-1]):
        outcome = lines[-1]  # of the end, or of a report before an end that was accepted
    keys = [re.search(rb"Idempotency-Key: (.*)\r", request).group(1) for request in requests]
    bodies = [request.partition(b"\r\n\r\n")[2].decode() for request in requests]
    most = 2 * deadline + 0.15 if way is step else deadline
    wrong = [*wrong_end(outcome, accepted), *wrong_bodies(way, event, keys, bodies),
             *wrong_texts([*lines, outcome])]
    if took > most + 0.5:
        wrong.append(f"took {took:.2f} s of {deadline}")
    if later:
        wrong.append(f"{later} may still arrive")
    if threads.are_left(seed):
        wrong.append("a thread is left")
    return Call("; ".join(wrong), outcome is None, keys)


def wrong_end(outcome, accepted):
    """Yield what is wrong with an error or None after answers that were accepted, or not."""
    if outcome is None and accepted[-1:] != [True]:
        yield f"success, but {accepted}"
    if isinstance(outcome, userstate.EventError):
        yield f"{outcome!r}"


def wrong_bodies(way, event, keys, bodies):
    """Each event has a key of its own, and its bodies are equal and in order."""
    events = [event]
    if way is step:
        ends = {": running for 0 s": "running", ": done after 0 s": "succeeded"}
        events += [dict(event, state=state, message=event["message"] + text)
                   for text, state in ends.items()]
        bodies = [re.sub(r"\d+ s\"", '0 s"', body) for body in bodies]
    expected = [json.dumps(event) for event in events]
    if not set(bodies) <= set(expected) or bodies != sorted(bodies, key=expected.index):
        yield f"bodies {[body[-80:] for body in bodies]}"
    pairs = set(zip(keys, bodies))
    once = [body for _, body in pairs if ": running for" not in body]  # others are repeats
    if len(pairs) != len(set(keys)) or len(once) != len(set(once)):
        yield f"{len(set(keys))} keys of {len(set(bodies))} bodies"


def wrong_texts(texts):
    """Each is one line that can be printed, is not too long and tells no secret."""
    for text in map(str, texts):
        if not re.fullmatch("[ -~]*", text) or len(text) > 1500:
            yield f"text {text[:200]!a}"
        if "s3cret" in text or "bug: " in text:
            yield f"text {text!a}"


def end_at_once(*words):
    raise SystemExit("this call did not end")


def result(running):
    """Return the Call of a future, or what happened instead."""
    if running.cancelled():
        return Call("not begun", False, [])
    error = running.exception()
    return Call(repr(error), False, []) if error else running.result()


@pytest.mark.parametrize("name", WAYS)
def test_any_peer_gets_a_documented_end_in_time(name, request, monkeypatch):
    way, number, by_tls = WAYS[name]
    threads, wrap = Threads(), None
    monkeypatch.setattr(_thread, "start_new_thread", threads)
    monkeypatch.setattr(userstate, "PAUSES", (0.001, 0.002, 0.004))  # for many tries
    if by_tls:
        authority = request.getfixturevalue("authority")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        wrap = server_side(authority, "good")
    seeds = seeds_of(number)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        running = [pool.submit(one_call, way, seed, wrap, threads) for seed in seeds]
        _, late = concurrent.futures.wait(running, 100 * FUZZ_TIMES)
        if late:  # one tries for ever: cancel what has not begun, and end what has
            for call in late:
                call.cancel()
            monkeypatch.setattr(userstate, "_request", end_at_once)
    calls = [result(call) for call in running]
    wrong = [(seed, call.wrong) for seed, call in zip(seeds, calls) if call.wrong]
    assert not wrong, f"FUZZ_SEED={FUZZ_SEED}: {wrong[:5]}"
    keys = [key for call in calls for key in set(call.keys)]
    assert len(keys) == len(set(keys))  # no two events share one
    assert sum(call.succeeded for call in calls) > len(seeds) / 10
    assert max(len(call.keys) for call in calls) >= 4  # so many tries
