"""Who is told that a machine has failed, is quiet, or has succeeded."""
import html
import queue
import threading
import time

import userstate
from receiver.events import telling_event, utc_now

STATES = ("failed", "quiet", "succeeded")  # that somebody can be told of
QUEUED_MOST = 1000  # messages that wait to be sent; each takes about 1 kB
TRY_FOR = 3600  # seconds after which a message that cannot be sent is dropped
LOOK_EVERY = 10  # seconds between two looks for machines that have become quiet


def check(url):
    """Raise ValueError, as one line, unless url is an address that can be posted to."""
    try:
        userstate.user_state_url(url=url)
    except userstate.EventError as error:
        raise ValueError(f"--notify: {error}") from None


class Notifier:
    """Posts a line of JSON to url when a machine comes into one of states.

    store: a Store; machines: a Machines; own_url: of the receiver, for links; warn: a
    function of a line. One thread sends, nothing waits for it.
    """

    def __init__(self, url, states, store, machines, own_url, warn):
        self.url, self.states, self.own_url = url, states, own_url
        self.store, self.machines, self.warn = store, machines, warn
        self.queue = queue.Queue(QUEUED_MOST)  # (message, since when it is to be sent)
        self.look_for_quiet()  # the first time ever, it is only noted from when on
        threading.Thread(target=self.work, daemon=True).start()

    def note_change(self, change):
        """Note a store.Change, if it is one of state."""
        run, before = change.run, change.run_before
        if before is None or (run.number, run.state) != (before.number, before.state):
            why = telling_event(run)
            self.note(change.machine, run.state, why.code, why.message)

    def note(self, machine, state, code, message):
        if state in self.states:
            try:
                self.queue.put_nowait((self.message(machine, state, code, message),
                                       time.monotonic()))
            except queue.Full:
                self.warn(f"--notify: {QUEUED_MOST} messages wait; more are dropped")

    def work(self):
        """Send what is noted, and look for quiet machines, for ever."""
        while True:
            try:
                message, noted_at = self.queue.get(timeout=LOOK_EVERY)
            except queue.Empty:
                self.look_for_quiet()
                continue
            try:
                self.send(message, noted_at)
            except Exception as error:  # whatever it is, the next one is sent
                self.warn(f"--notify: {type(error).__name__}: {error!s:.200}")
            self.queue.task_done()
            self.look_for_quiet()

    def look_for_quiet(self):
        try:
            quiet = self.store.became_quiet(utc_now(), QUEUED_MOST - self.queue.qsize())
        except OSError as error:
            self.warn(f"--notify: {error}")
            return
        for row in quiet:
            self.note(row["machine"], "quiet", row["code"], row["message"])

    def send(self, message, noted_at):
        seconds_left = noted_at + TRY_FOR - time.monotonic()
        try:
            if seconds_left <= 0:
                raise userstate.DeadlineError("too many others wait as well")
            userstate.post_event(message, self.url, deadline=round(seconds_left, 3),
                                 timeout=10, say=lambda line: None, sleep=self.pause)
        except userstate.UserStateError as error:
            self.warn("--notify: a message was dropped", f": {error}")

    def pause(self, seconds):
        """Wait for the next try, and look for quiet machines meanwhile."""
        time.sleep(seconds)
        self.look_for_quiet()

    def message(self, machine, state, code, message):
        """Return what is sent of machine, which came into state by this event."""
        name = self.machines.name(machine)
        link = self.own_url + self.machines.path(machine)
        text = f"{name or machine}: {state}: {message} {link}"
        return {"text": html.escape(text, quote=False),  # as Slack has it: <!channel>
                "device": machine, "name": name or None, "state": state, "code": code,
                "message": message, "url": link}

    def say_unsent(self):
        """Say how many messages are lost now that the receiver ends."""
        count = self.queue.unfinished_tasks
        if count:
            self.warn(f"--notify: messages that are not sent: {count}")
