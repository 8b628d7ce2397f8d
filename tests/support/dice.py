"""Answers and faults of a service by dice."""
import random

from support.peers import document, reset_at_once

STATUSES = [200, 201, 204, 299, 301, 302, 303, 307, 400, 401, 404, 408, 413, 425, 429, 500,
            501, 502, 503, 505, 600, 999, 99, 1000]
ACCEPTING = STATUSES[:4]
HEADERS = ["Content-Length: 0", "Content-Length: 5", "Content-Length: 5\r\nContent-Length: 7",
           "Content-Length: -1", "Content-Length: x", "Content-Length: 99999999999999999999",
           "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive",
           "Location: /\x1b[31m", "Retry-After: 0", "Retry-After: soon", "X: " + "y" * 70000,
           "\r\n".join(["X: y"] * 200), "no colon", ": empty", "X: \xff\x00\x1b[31m"]
SECRET = b'{"id": "x", "message": "s3cret"}'
ODD_BODIES = [b"", b"hello", b"{", b'{"error": "\\u001b[31mno\\nno\\u2028"}',
          b'{"message": "%s"}' % (b"long " * 9999), b'{"errors": ["a", 5, null]}',
          b"5\r\nhello\r\n0\r\n\r\n", b"-1\r\nhello", b"zz\r\n", b" " * 100000,
          b"[" * 60000, SECRET, SECRET[:-1]]
RAW = [b"", b"\r\n", b"\n\n", b"SSH-2.0-x\r\n", b"hello, this is HTTP/0.9", b"HTTP/1.1",
       b"HTTP/1.1 \r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 2e2 OK\r\n\r\n",
       b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\x15\x03\x01\x00\x02\x02\x28",
       b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", b"\0" * 70000, b"HTTP/1.1 " + b"2" * 70000]
INTERIM_ANSWERS = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
           b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]


def answer_by(dice):
    """Return some bytes of an answer, and whether it begins with a 2xx."""
    if dice.random() < 0.2:
        return dice.choice(RAW), False
    status = dice.choice(STATUSES if dice.random() < 0.7 else ACCEPTING)
    reason = dice.choice(["OK", "", "\x1b[31m"])
    head = f"HTTP/1.{dice.choice('01')} {status} {reason}\r\n"
    for _ in range(dice.choice([0, 0, 1, 2, 4])):
        head += dice.choice(HEADERS) + "\r\n"
    answer = head.encode("latin-1") + b"\r\n" + dice.choice(ODD_BODIES)
    before = b"".join(dice.choice(INTERIM_ANSWERS) for _ in range(dice.choice([0, 0, 0, 1, 3])))
    answer = before + answer
    accepted = status in ACCEPTING
    if dice.random() < 0.2:  # cut
        end = dice.randrange(len(answer))
        accepted = accepted and end >= len(before) + len(head) + len("\r\n")
        answer = answer[:end]
    return answer, accepted


def send(connection, peer, answer):
    connection.sendall(answer)


def reset(connection, peer, answer):
    reset_at_once(connection, peer)


def be_deaf(connection, peer, answer):
    peer.over.wait(30)


def hang(connection, peer, answer):
    peer.wait_closed(connection)


def send_late(connection, peer, answer):
    peer.over.wait(0.05)
    connection.sendall(answer)


def drip(connection, peer, answer):
    for position in range(min(len(answer), 200)):
        connection.sendall(answer[position:position + 1])
        if peer.over.wait(0.005):
            return
    connection.sendall(answer[200:])


def send_chunks(connection, peer, answer):
    for begin in range(0, len(answer), 37):
        connection.sendall(answer[begin:begin + 37])


# What a service does, whether it reads the request first, whether it answers.
KINDS = {"whole": (send, True, True), "reset first": (reset, False, False),
         "reset": (reset, True, False), "deaf": (be_deaf, False, False),
         "hang": (hang, True, False), "late": (send_late, True, True),
         "drip": (drip, True, True), "chunks": (send_chunks, True, True)}
RUDE = (send, False, True)


class Faults:
    """Endless scripts of a Peer, by dice, and what happened to each connection in turn."""

    def __init__(self, seed, rude=True):
        self.dice, self.accepted, self.requests = random.Random(seed), [], {}
        self.kinds = [*KINDS.values(), *[KINDS["whole"]] * 5]
        if rude:
            self.kinds.append(RUDE)

    def __len__(self):
        return 2  # a Peer takes the next one while there are more than one

    def pop(self, _):
        number = len(self.accepted)
        act, reads, answers = self.dice.choice(self.kinds)
        answer, accepted = answer_by(self.dice)
        self.accepted.append(accepted and answers)

        def script(connection, peer):
            if reads:
                self.requests[number] = peer.read(connection)
            act(connection, peer, answer)
        return script

    def got(self):
        """Return the requests in the order of their connections."""
        return [request for _, request in sorted(self.requests.items())]


class Knowing(Faults):
    """Every other answer or so is a document with the address."""

    def __init__(self, seed, url):
        super().__init__(seed)
        self.url = url

    def pop(self, _):
        if self.dice.random() < 0.5:
            return document(user_state_url=self.url)
        return super().pop(_)
