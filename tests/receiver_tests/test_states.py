"""What state a machine is in: a table of what it tells, for the functions that decide it."""
import datetime

import pytest

from receiver import events
from support.stories import BEGIN, run_of, steps_of

# Of each story: the state, the message of the row, the steps, the first event of the run.
ENDS_OF_ALL = {
    "the old script begins": ("r1000", "running", "r1000", "1000r", 1),
    "the old script": ("r1000 s1001", "succeeded", "s1001", "1000s", 1),
    "the old script fails": ("r1000 f1001", "failed", "f1001", "1000f", 1),
    "an end of all closes every step": (
        "r1000 r1010 r1011 s1099", "succeeded", "s1099", "1000s 1010s 1011s", 1),
    "an end of all mends what has failed": (
        "r1000 r1010 f1010 s1099", "succeeded", "s1099", "1000s 1010f", 1),
    "an end of all that has failed, then succeeds": (
        "r1000 f1099 s1099", "succeeded", "s1099", "1000f", 1),
    "an end of all, and nothing more": ("s1099", "succeeded", "s1099", "", 1),
    "a failure, and nothing more": ("f1020", "failed", "f1020", "", 1),
    "a step after the end of all": ("r1000 s1099 r1010", "running", "r1010", "1000s 1010r", 1),
    "several ends of all": ("f1020 s1099", "succeeded", "s1099", "", 1),
}
NESTED = {
    "user-data, in a step": ("r1000 r1010", "running", "r1010", "1000r 1010r", 1),
    "user-data, between two steps": ("r1000 r1010 s1010", "running", "s1010", "1000r 1010s", 1),
    "user-data, in the second step": (
        "r1000 r1010 s1010 r1020", "running", "r1020", "1000r 1010s 1020r", 1),
    "user-data": ("r1000 r1010 s1010 r1020 s1020 s1000", "succeeded", "s1000",
                  "1000s 1010s 1020s", 1),
    "nested twice": ("r1000 r1010 r1011 s1011 s1010", "running", "s1010",
                     "1000r 1010s 1011s", 1),
    "the outer one ends first": ("r1000 r1010 s1000", "running", "s1000", "1000s 1010r", 1),
    "kickstart": ("r1000 s1000 r1010 s1010 r1020 s1020", "succeeded", "s1020",
                  "1000s 1010s 1020s", 1),
    "kickstart, in its second step": ("r1000 s1000 r1010", "running", "r1010",
                                      "1000s 1010r", 1),
    "heartbeats": ("r1000 r1000 +3000 r1000 +3000 r1000", "running", "r1000", "1000r", 1),
    "heartbeats, then the end": ("r1000 +3000 r1000 s1000", "succeeded", "s1000", "1000s", 1),
    "heartbeats of the outer step": ("r1000 r1010 r1000", "running", "r1000",
                                     "1000r 1010r", 1),
}
FAILED = {
    "an inner step has failed": ("r1000 r1010 f1010", "failed", "f1010", "1000r 1010f", 1),
    "the cause is told, not what it led to": (
        "r1000 r1010 r1011 f1011 f1010 f1000", "failed", "f1011", "1000f 1010f 1011f", 1),
    "the cause is told, not the end of all": (
        "r1000 r1010 f1010 f1001", "failed", "f1010", "1000f 1010f", 1),
    "another step succeeds": ("r1000 r1010 f1010 r1020 s1020", "failed", "f1010",
                              "1000r 1010f 1020s", 1),
    "another step begins": ("r1000 r1010 f1010 r1020", "failed", "f1010",
                            "1000r 1010f 1020r", 1),
    "a step is tried again": ("r1000 r1010 f1010 r1010", "failed", "f1010",
                              "1000r 1010f 1010r", 1),
    "a step is tried again, well": ("r1000 r1010 f1010 r1010 s1010", "running", "s1010",
                                    "1000r 1010f 1010s", 1),
    "a step is tried again, in vain": ("r1000 r1010 f1010 r1010 f1010", "failed", "f1010",
                                       "1000r 1010f 1010f", 1),
    "the second cause stays when the first is mended": (
        "r1000 r1010 f1010 r1020 f1020 r1010 s1010", "failed", "f1020",
        "1000r 1010f 1020f 1010s", 1),
    "the first step succeeds": ("r1000 r1010 f1010 s1000", "succeeded", "s1000",
                                "1000s 1010f", 1),
    "the first step succeeds though two have failed": (
        "r1000 r1010 f1010 r1020 f1020 s1000", "succeeded", "s1000", "1000s 1010f 1020f", 1),
    "a heartbeat of the first step": ("r1000 r1010 f1010 r1000", "failed", "f1010",
                                      "1000r 1010f", 1),
}
RUNS = {
    "opened again after its end": ("r1000 s1000 r1000", "running", "r1000", "1000r", 3),
    "opened again after it has failed": ("r1000 f1000 r1000", "running", "r1000", "1000r", 3),
    "opened again after the end of all": ("r1000 s1001 r1000", "running", "r1000", "1000r", 3),
    "opened again after the end of all, with steps": (
        "r1000 r1010 f1010 f1001 r1000 r1010", "running", "r1010", "1000r 1010r", 5),
    "the whole of it again": ("r1000 r1010 f1010 f1000 r1000 r1010 s1010 s1000", "succeeded",
                              "s1000", "1000s 1010s", 5),
    "after a gap": ("r1000 r1010 +3601 r1010", "running", "r1010", "1010r", 3),
    "after a gap, when it had failed": ("r1000 f1000 +3601 r1010", "running", "r1010",
                                        "1010r", 3),
    "no gap yet": ("r1000 +3598 r1010", "running", "r1010", "1000r 1010r", 1),
    "a step that took longer than the gap": ("r1000 r1010 +9000 s1010", "running", "s1010",
                                             "1000r 1010s", 1),
    "a run that took longer than the gap": ("r1000 r1010 +9000 s1000", "running", "s1000",
                                            "1000s 1010r", 1),
    "an end of what is closed after a gap": ("r1000 s1000 +9000 f1000", "failed", "f1000",
                                             "", 3),
    "an end of all after a gap": ("r1000 +9000 s1001", "succeeded", "s1001", "", 2),
    "the outer end after a gap in which a step began": (
        "r1000 +9000 r1010 s1010 s1000", "succeeded", "s1000", "1010s", 2),
    "phoned home after a gap": ("r1000 s1000 +9000 home", "succeeded", "s1000", "1000s", 1),
    "phoned home after a gap, in a step": ("r1000 +9000 home s1000", "succeeded", "s1000",
                                           "1000s", 1),
    "phoned home before": ("home +9000 r1000", "running", "r1000", "1000r", 2),
}
ODD = {
    "the end comes twice": ("r1000 r1010 s1010 s1010", "running", "s1010", "1000r 1010s", 1),
    "the last end comes twice": ("r1000 s1000 s1000", "succeeded", "s1000", "1000s", 1),
    "the end of all comes twice": ("r1000 f1001 f1001", "failed", "f1001", "1000f", 1),
    "a beginning comes late": ("r1000 s1010 r1010", "running", "r1010", "1000s 1010r", 1),
    "an end comes after the end of all": ("r1000 r1010 s1001 s1010", "succeeded", "s1010",
                                          "1000s 1010s", 1),
    "a failure comes after the end of all": ("r1000 r1010 s1001 f1010", "failed", "f1010",
                                             "1000s 1010f", 1),
    "failed and succeeded by turns": ("r1000 f1000 s1000 f1000", "failed", "f1000",
                                      "1000f", 1),
    "a state of its own": ("d1000", "dancing", "d1000", "", 1),
    "a state of its own, while it runs": ("r1000 d1000", "running", "r1000", "1000r", 1),
    "a state of its own at the end": ("r1000 s1000 d1000", "succeeded", "s1000", "1000s", 1),
    "a state of its own at the beginning": ("d1000 r1000 s1000", "succeeded", "s1000",
                                            "1000s", 1),
    "no state": ("n0", "", "n0", "", 1),
    "no state, then one of its own": ("n0 d1 n2", "dancing", "d1", "", 1),
    "no state, while it runs": ("r1000 n1000", "running", "r1000", "1000r", 1),
    "phoned home": ("home", "", "home", "", 1),
    "phoned home, then runs": ("home r1000", "running", "r1000", "1000r", 1),
    "phoned home when it has failed": ("r1000 f1000 home", "failed", "f1000", "1000f", 1),
    "the clock is set back": ("r1000 r1010 -9000 s1010", "running", "s1010",
                              "1000r 1010s", 1),
    "the clock is set back and forth": ("r1000 -1800 r1010 +1800 s1010 s1000", "succeeded",
                                        "s1000", "1000s 1010s", 1),
}
STORIES = {**ENDS_OF_ALL, **NESTED, **FAILED, **RUNS, **ODD}


@pytest.mark.parametrize("story, state, message, steps, number", STORIES.values(),
                         ids=STORIES.keys())
def test_the_state_of_a_machine_is(story, state, message, steps, number):
    run = run_of(story)
    assert (run.state, events.telling_event(run).message) == (state, message)
    assert (steps_of(run), run.number) == (steps, number)


def test_no_two_stories_are_the_same():
    assert len({story for story, *_ in STORIES.values()}) == len(STORIES)
    assert len(STORIES) == sum(map(len, (ENDS_OF_ALL, NESTED, FAILED, RUNS, ODD)))


@pytest.mark.parametrize("story, failed", [
    ("r1000 r1010 s1010 s1000", 0), ("r1000 r1010 f1010 s1000", 1),
    ("r1000 r1010 f1010 r1010 f1010 r1010 s1010 s1000", 1),
    ("r1000 r1010 f1010 r1020 f1020 s1000", 2), ("r1000 f1000 r1000 s1000", 0)])
def test_tells_how_many_steps_have_failed_on_the_way(story, failed):
    assert events.failed_steps(run_of(story)) == failed


@pytest.mark.parametrize("story, seconds", [
    ("r1000 r1010 s1010", 1), ("r1000 +60 f1010", 62), ("r1000 r1010 f1010 +60 f1000", 3),
    ("r1000 +60 r1010 +60 s1010 s1000", 124), ("r1000 s1000 r1000 +60 r1000", 3),
    ("r1000 r1010 f1010 +60 r1010 +60 s1010", 125), ("d1000 +60 d1001", 1)])
def test_tells_since_when_it_is_in_its_state(story, seconds):
    since = BEGIN + datetime.timedelta(seconds=seconds)
    assert run_of(story).state_at == events.time_text(since)


@pytest.mark.parametrize("story, number", [
    ("r1000 r1010 s1010", None), ("r1000 r1010 s1010 s1000", 4), ("r1000 r1010 f1010", 3),
    ("r1000 r1010 f1010 r1020 s1020", 5), ("r1000 s1000 home n0", 2),
    ("r1000 s1000 r1000", None), ("r1000 s1001 s1001", 3)])
def test_tells_the_number_of_the_end_that_left_it_so(story, number):
    assert run_of(story).ended == number


def test_a_step_has_the_times_and_messages_of_its_beginning_and_its_end():
    step, = run_of("r1000 +60 r1000 +60 s1000 +60 s1000").steps
    assert step == events.Step(1, 1000, "r1000", events.time_text(BEGIN.replace(second=1)),
                               "succeeded", events.time_text(BEGIN.replace(minute=2, second=3)),
                               "s1000")


def test_the_opening_step_is_remembered_however_many_there_are(settings):
    settings(STEPS_MOST=5)
    story = "r1000 " + " ".join(f"r{code} s{code}" for code in range(1, 20))
    run = run_of(story)
    assert steps_of(run) == "1000r 16s 17s 18s 19s"
    assert run_of(story + " s1000").state == "succeeded"
    assert run_of(story + " s1000 r1000").number == len(story.split()) + 2


def test_the_opening_step_is_remembered_though_it_has_ended(settings):
    settings(STEPS_MOST=5)
    story = "r1000 s1000 " + " ".join(f"r{code} s{code}" for code in range(1, 20))
    assert steps_of(run_of(story)) == "1000s 16s 17s 18s 19s"
    assert steps_of(run_of(story + " r1000")) == "1000r"


def test_steps_that_never_end_are_forgotten_too(settings):
    settings(STEPS_MOST=5)
    run = run_of(" ".join(f"r{code}" for code in range(20)))
    assert steps_of(run) == "0r 16r 17r 18r 19r"


@pytest.mark.parametrize("story, codes", [
    (" ".join(f"f{code}" for code in range(20)), [0, 1, 2]),
    ("r0 " + " ".join(f"r{code} f{code}" for code in range(1, 20)), [1, 2, 3]),
    ("r0 " + "f1001 " * 20, [1001])], ids=["ends of all", "steps", "repetitions"])
def test_the_first_failures_are_remembered_however_many_there_are(settings, story, codes):
    settings(FAILURES_MOST=3)
    run = run_of(story)
    assert [failure.code for failure in run.failures] == codes
    assert run.state == "failed"


@pytest.mark.parametrize("story, failed", [
    ("r1000 r1010 f1010 s1010 s1000", 1), ("r1000 r1010 f1010 r1010 s1010 s1000", 1),
    ("r1000 r1010 f1010 f1010 r1010 f1010 s1000", 1), ("r1000 f1010 s1000", 1),
    ("r1000 r1010 r1020 f1010 f1020 s1001", 2), ("r1000 f1001 s1001", 1),
    ("r1000 r1010 s1010 s1000", 0)])
def test_what_has_failed_on_the_way_is_counted_by_code(story, failed):
    assert events.failed_steps(run_of(story)) == failed
